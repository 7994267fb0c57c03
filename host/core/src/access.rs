//! Who may do what over HTTP: the roles of access tokens. Knows no token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody with an access token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at everything that isn't sensitive.
    Read,
    /// That, and act: run, set tokens, reconcile, retry.
    Operate,
    /// Look, and decide what connectors may be and ask for; see what is sensitive.
    Security,
    /// All of it, and say which connections there are, who else has access, and what is erased.
    Admin,
}

/// A text that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; there are read, operate, security and admin")]
pub struct BadRole(String);

impl Role {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Read, Self::Operate, Self::Security, Self::Admin];

    /// Whether it is enough for what another one may do.
    pub fn allows(self, needed: Self) -> bool {
        self == needed || self == Self::Admin || needed == Self::Read
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Security => "security",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = BadRole;
    fn from_str(text: &str) -> Result<Self, BadRole> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| BadRole(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_operates_decides_nothing_of_connectors_and_the_other_way_round() {
        let allows = |role: Role| Role::ALL.map(|needed| role.allows(needed));
        assert_eq!(allows(Role::Read), [true, false, false, false]);
        assert_eq!(allows(Role::Operate), [true, true, false, false]);
        assert_eq!(allows(Role::Security), [true, false, true, false]);
        assert_eq!(allows(Role::Admin), [true; 4]);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
