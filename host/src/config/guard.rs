//! How much of a type is journaled before somebody has looked, as operators write it.

use std::num::NonZeroU64;

use serde::Deserialize;
use tidewaiter_core::guard::{Guard, Most};

/// The table `guard` of a type. No deletions at all is a bound, too; no changes at all is a type that isn't there.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GuardTable {
    max_changes: Option<NonZeroU64>,
    max_deletes: Option<u64>,
    max_changes_per_hour: Option<NonZeroU64>,
    max_deletes_per_hour: Option<u64>,
}

impl GuardTable {
    pub(super) fn guard(&self) -> Guard {
        let most = |changes: Option<NonZeroU64>, deletes| Most { changes: changes.map(NonZeroU64::get), deletes };
        Guard {
            run: most(self.max_changes, self.max_deletes),
            hour: most(self.max_changes_per_hour, self.max_deletes_per_hour),
        }
    }
}
