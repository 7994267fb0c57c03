//! What the settings of connectors to servers have in common.

use std::collections::BTreeMap;

use crate::Error;

/// The host and the port that the setting `server` names, such as `ldap.corp:636` or `[2001:db8::1]:636`.
///
/// # Errors
/// It names none; `example` says what it is to be like.
pub fn server<'a>(text: &'a str, example: &str) -> Result<(&'a str, u16), Error> {
    let parts = text.rsplit_once(':');
    let parsed = parts.and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)));
    parsed.ok_or_else(|| Error::configuration(format!("setting `server`: {text:?} is not like {example:?}")))
}

/// One of the object classes that are configured.
///
/// # Errors
/// It is none of them.
pub fn class<'a, C>(classes: &'a BTreeMap<String, C>, name: &str) -> Result<&'a C, Error> {
    classes.get(name).ok_or_else(|| {
        let known: Vec<&str> = classes.keys().map(String::as_str).collect();
        let problem = format!("no object class {name:?} is configured; there are: {}", known.join(", "));
        Error::unknown_object_class(problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_and_ports() {
        assert_eq!(server("db.corp:5432", ""), Ok(("db.corp", 5432)));
        assert_eq!(server("[2001:db8::1]:389", ""), Ok(("2001:db8::1", 389)));
        for text in ["db.corp", "db.corp:x", "db.corp:70000", ""] {
            let error = server(text, "db.corp:5432").unwrap_err();
            assert!(error.message().contains("is not like \"db.corp:5432\""), "{error}");
        }
    }

    #[test]
    fn a_class_that_is_not_configured_names_those_that_are() {
        let classes = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(class(&classes, "b"), Ok(&2));
        assert!(class(&classes, "c").unwrap_err().message().ends_with("there are: a, b"));
    }
}
