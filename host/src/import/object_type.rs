//! The object types of a provisioner: what they are called here, of which class they are, and which attributes they have.

use std::collections::BTreeSet;

use tidewaiter_core::name::{NAME_BYTES_MAX, TypeName, object_class};

use super::json::Node;
use super::{Fate, ImportError, Notes, quoted};

/// ConnId's class of all objects.
const ALL: &str = "__ALL__";
/// Flags of what a source doesn't give unless it is asked for by name.
const NOT_GIVEN: [&str; 2] = ["NOT_READABLE", "NOT_RETURNED_BY_DEFAULT"];
/// What a framework is that nothing here is written in.
const TYPES: &str = "types, flags and descriptions of attributes are what the connector says of them";

/// An object type.
#[derive(Debug)]
pub(super) struct ObjectType<'a> {
    pub(super) node: Node<'a>,
    pub(super) name: TypeName,
    /// As OpenIDM calls it.
    pub(super) said: &'a str,
    pub(super) class: String,
    /// Attributes that OpenIDM reads, by the names that the source has for them; none: all of them.
    pub(super) attributes: Vec<String>,
    /// Those of them that have several values.
    pub(super) lists: Vec<String>,
}

/// A name for something here, and whether it is another one than was written.
pub(super) fn name(node: &Node, said: &str) -> Result<(String, bool), ImportError> {
    if said.chars().any(char::is_control) || said.contains(['/', '\\']) || said.contains("..") {
        return Err(node.wrong("a name has neither control characters nor parts of a path"));
    }
    if said.len() > NAME_BYTES_MAX {
        return Err(node.wrong(format!("a name has at most {NAME_BYTES_MAX} bytes")));
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let replaced: String =
        object_class(said).chars().map(|character| if allowed(character) { character } else { '-' }).collect();
    let made = replaced.trim_matches(['-', '_']).to_owned();
    let kept = if said.starts_with(|first: char| first.is_ascii_alphanumeric()) && replaced == said {
        said.to_owned()
    } else {
        made
    };
    let is_changed = kept != said;
    Ok((kept, is_changed))
}

/// All of a provisioner.
pub(super) fn all<'a>(node: &Node<'a>, notes: &mut Notes) -> Result<Vec<ObjectType<'a>>, ImportError> {
    let mut types: Vec<ObjectType> = Vec::new();
    for (said, node) in node.fields()?.all() {
        if said == ALL {
            notes.none(&node, "a schedule of all types runs each of them");
            continue;
        }
        let read = object_type(said, node, notes)?;
        if let Some(other) = types.iter().find(|other| other.name == read.name) {
            return Err(read.node.wrong(format!("{} would be called {} here, too", other.node.path, other.name)));
        }
        types.push(read);
    }
    Ok(types)
}

fn object_type<'a>(said: &'a str, node: Node<'a>, notes: &mut Notes) -> Result<ObjectType<'a>, ImportError> {
    let (called, is_changed) = name(&node, said)?;
    let name = TypeName::try_from(called).map_err(|error| node.wrong(error))?;
    if is_changed {
        let called = format!("it is called {name} here, and so it is in OpenIDM's calls");
        notes.note(Fate::Changed, &node, called);
    }
    let mut fields = node.fields()?;
    let native = fields.take("nativeType").map(|native| native.text()).transpose()?;
    let class = object_class(native.unwrap_or(said)).to_owned();
    let mut read = ObjectType { node, name, said, class, attributes: Vec::new(), lists: Vec::new() };
    if let Some(properties) = fields.take("properties") {
        notes.none(&properties, TYPES);
        read.properties(&properties, notes)?;
    }
    for key in ["$schema", "id", "type"] {
        // That it is an object, and which.
        fields.take(key);
    }
    for (_, node) in fields.rest() {
        notes.none(&node, "object types have nothing like it");
    }
    Ok(read)
}

impl ObjectType<'_> {
    fn properties(&mut self, node: &Node, notes: &mut Notes) -> Result<(), ImportError> {
        let mut attributes = BTreeSet::new();
        for (said, node) in node.fields()?.all() {
            let mut fields = node.fields()?;
            let native = fields.take("nativeName").map(|native| native.text()).transpose()?.unwrap_or(said);
            if said.chars().any(char::is_control) {
                return Err(node.wrong("it has control characters"));
            }
            let flags = fields.take("flags").map(|flags| flags.all()).transpose()?.unwrap_or_default();
            let flags = flags.iter().map(Node::raw).collect::<Result<Vec<_>, _>>()?;
            if matches!(native, "__NAME__" | "__UID__") {
                continue;
            }
            if native.starts_with("__") && native.ends_with("__") {
                notes.none(&node, "OpenICF makes this attribute out of others");
            } else if flags.iter().any(|flag| NOT_GIVEN.contains(flag)) {
                notes.none(&node, "it is not read by live sync, and left out here").then(LEFT_OUT);
            } else if attributes.insert(native.to_owned()) {
                if native != said {
                    notes.note(
                        Fate::Changed,
                        &node,
                        format!("it is told as {}, as its source calls it", quoted(native)),
                    );
                }
                if fields.take("type").is_some_and(|kind| kind.raw().is_ok_and(|kind| kind == "array")) {
                    self.lists.push(native.to_owned());
                }
            }
        }
        self.attributes = attributes.into_iter().collect();
        Ok(())
    }
}

const LEFT_OUT: &str = "add it to `attributes` if it is wanted";
