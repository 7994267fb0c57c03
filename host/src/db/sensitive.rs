//! Attributes that sources declare sensitive: people see them only if they ask for it. Once declared, always: what was journaled then
//! is there still.

use std::collections::BTreeSet;

/// Which attributes are sensitive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sensitive(BTreeSet<(String, String, String)>);

impl Sensitive {
    pub(super) fn insert(&mut self, connection: &str, class: &str, attribute: &str) {
        self.0.insert((connection.to_lowercase(), class.to_lowercase(), attribute.to_lowercase()));
    }

    /// How many there are of a connection.
    pub(super) fn count(&self, connection: &str) -> usize {
        let connection = connection.to_lowercase();
        self.0.iter().filter(|(of, _, _)| *of == connection).count()
    }

    /// Whether an attribute of a class of a connection is. Names compare case-insensitively.
    pub fn contains(&self, connection: &str, class: &str, attribute: &str) -> bool {
        self.0.contains(&(connection.to_lowercase(), class.to_lowercase(), attribute.to_lowercase()))
    }
}
