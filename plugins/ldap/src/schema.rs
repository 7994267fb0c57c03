//! What a server says of its attributes and object classes: the descriptions of RFC 4512, as far as types follow from them.

use std::collections::{HashMap, HashSet};

use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::{Context, Error};

use crate::client::Client;
use crate::server::Server;

/// A chain of types, each made from the one before, is no longer.
const CHAIN_MAX: usize = 20;

/// Attributes that a server makes up from where an entry is, or from other entries.
const COMPUTED: [&str; 8] = [
    "entryDN",
    "parentid",
    "hasSubordinates",
    "numSubordinates",
    "memberOf",
    "isMemberOf",
    "nsRole",
    "structuralObjectClass",
];

/// An attribute's description.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttributeType {
    pub(crate) name: String,
    above: Option<String>,
    syntax: Option<String>,
    equality: Option<String>,
    pub(crate) is_single: bool,
}

/// An object class's description.
#[derive(Debug, Clone, Default)]
struct ObjectClass {
    above: Vec<String>,
    attributes: Vec<String>,
}

/// A server's descriptions, by each of their names in small letters.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    attributes: HashMap<String, AttributeType>,
    classes: HashMap<String, ObjectClass>,
}

impl Schema {
    pub(crate) fn of(client: &mut Client, server: &Server) -> Result<Self, Error> {
        let no_schema = || Error::configuration("the server shows no schema to this login (`subschemaSubentry`)");
        let dn = server.says("subschemaSubentry").ok_or_else(no_schema)?;
        let entry = client.entry(dn, &["attributeTypes", "objectClasses"]).context("reading the schema")?;
        let entry = entry.ok_or_else(no_schema)?;
        let mut this = Self::default();
        let texts = |name| entry.values(name).iter().filter_map(|value| std::str::from_utf8(value).ok());
        texts("attributeTypes").for_each(|text| this.learn_attribute(text));
        texts("objectClasses").for_each(|text| this.learn_class(text));
        Ok(this)
    }

    /// An attribute by any of its names.
    pub(crate) fn attribute(&self, name: &str) -> Option<&AttributeType> {
        self.attributes.get(&name.to_ascii_lowercase())
    }

    /// What entries of an object class may have, and must; none if there is no such class.
    pub(crate) fn attributes_of(&self, class: &str) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        let mut classes = vec![class.to_ascii_lowercase()];
        let mut seen = HashSet::new();
        while let Some(name) = classes.pop() {
            let Some(class) = self.classes.get(&name) else { continue };
            if seen.insert(name) {
                names.extend(class.attributes.iter().map(String::as_str));
                classes.extend(class.above.iter().map(|name| name.to_ascii_lowercase()));
            }
        }
        (!seen.is_empty()).then_some(names)
    }

    /// All that an attribute and those that are made from it are called, in small letters. None: the server doesn't know it, or makes its
    /// values up, so that nothing says when they change.
    pub(crate) fn names_of(&self, name: &str) -> Option<Vec<&str>> {
        let named = self.attribute(name)?;
        if COMPUTED.iter().any(|computed| computed.eq_ignore_ascii_case(&named.name)) {
            return None;
        }
        let is_it = |one: &AttributeType| self.chain(one).any(|above| above.name == named.name);
        Some(self.attributes.iter().filter(|(_, one)| is_it(one)).map(|(name, _)| name.as_str()).collect())
    }

    /// What an attribute's values are.
    pub(crate) fn cell_type(&self, attribute: &AttributeType) -> CellType {
        let names = self.chain(attribute).map(|one| one.name.as_str());
        if names.into_iter().any(|name| name.eq_ignore_ascii_case("userPassword")) {
            return CellType::Secret;
        }
        let syntax = self.chain(attribute).find_map(|one| one.syntax.as_deref()).unwrap_or_default();
        match syntax.strip_prefix("1.3.6.1.4.1.1466.115.121.1.") {
            Some("7") => CellType::Boolean,
            Some("27") => CellType::Integer,
            Some("24") => CellType::Timestamp,
            // Sound, anything, certificates and lists of them, fax, JPEG, octets, algorithms.
            Some("4" | "5" | "8" | "9" | "10" | "23" | "28" | "40" | "49") => CellType::Binary,
            _ => CellType::Text,
        }
    }

    /// Whether values that differ only in case are the same.
    pub(crate) fn is_case_ignored(&self, attribute: &AttributeType) -> bool {
        let rule = self.chain(attribute).find_map(|one| one.equality.as_deref());
        rule.is_some_and(|rule| rule.to_ascii_lowercase().starts_with("caseignore"))
    }

    /// An attribute, and those that it is made from.
    fn chain<'a>(&'a self, attribute: &'a AttributeType) -> impl Iterator<Item = &'a AttributeType> {
        let above = |one: &&'a AttributeType| one.above.as_ref().and_then(|name| self.attribute(name));
        std::iter::successors(Some(attribute), above).take(CHAIN_MAX)
    }

    fn learn_attribute(&mut self, description: &str) {
        let words = words(description);
        let names = names(&words);
        let Some(first) = names.first() else { return };
        let one = |keyword| after(&words, keyword).into_iter().next().map(str::to_owned);
        let attribute = AttributeType {
            name: (*first).to_owned(),
            above: one("SUP"),
            // Without how long values are.
            syntax: one("SYNTAX").map(|syntax| syntax.split('{').next().unwrap_or_default().to_owned()),
            equality: one("EQUALITY"),
            is_single: words.contains(&Word::Bare("SINGLE-VALUE")),
        };
        for name in names {
            self.attributes.insert(name.to_ascii_lowercase(), attribute.clone());
        }
    }

    fn learn_class(&mut self, description: &str) {
        let words = words(description);
        let all = |keyword| after(&words, keyword).into_iter().map(str::to_owned);
        let class = ObjectClass { above: all("SUP").collect(), attributes: all("MUST").chain(all("MAY")).collect() };
        for name in names(&words) {
            self.classes.insert(name.to_ascii_lowercase(), class.clone());
        }
    }
}

/// What a description is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Word<'a> {
    Open,
    Close,
    Quoted(&'a str),
    Bare(&'a str),
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '$']);
        let Some(first) = rest.chars().next() else { return words };
        let length = match first {
            '(' | ')' => {
                words.push(if first == '(' { Word::Open } else { Word::Close });
                1
            }
            '\'' => {
                let end = rest[1..].find('\'').map_or(rest.len(), |end| end + 1);
                words.push(Word::Quoted(&rest[1..end]));
                (end + 1).min(rest.len())
            }
            _ => {
                let end = rest.find([' ', '(', ')', '$', '\'']).unwrap_or(rest.len());
                words.push(Word::Bare(&rest[..end]));
                end
            }
        };
        rest = &rest[length..];
    }
}

/// What follows a keyword: one word, or those in parentheses.
fn after<'a>(words: &[Word<'a>], keyword: &str) -> Vec<&'a str> {
    let found = words.iter().position(|word| *word == Word::Bare(keyword));
    let mut rest = words[found.map_or(words.len(), |at| at + 1)..].iter();
    let text = |word: &Word<'a>| match word {
        Word::Bare(text) | Word::Quoted(text) => Some(*text),
        Word::Open | Word::Close => None,
    };
    match rest.next() {
        Some(Word::Open) => rest.map_while(text).collect(),
        first => first.and_then(text).into_iter().collect(),
    }
}

/// All that it is called, its number last.
fn names<'a>(words: &[Word<'a>]) -> Vec<&'a str> {
    let mut names = after(words, "NAME");
    names.extend(match words.get(1) {
        Some(Word::Bare(oid)) => Some(*oid),
        _ => None,
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read() {
        let mut schema = Schema::default();
        for text in [
            "( 2.5.4.41 NAME 'name' DESC 'it''s (a) name' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15{32768} )",
            "( 2.5.4.3 NAME ( 'cn' 'commonName' ) DESC 'RFC4519' SUP name )",
            "( 2.5.4.35 NAME 'userPassword' SYNTAX 1.3.6.1.4.1.1466.115.121.1.40{128} )",
            "(1.2.3 NAME 'born' SYNTAX 1.3.6.1.4.1.1466.115.121.1.24 SINGLE-VALUE USAGE userApplications X-ORIGIN ( 'a' 'b' ))",
            "( 1.2.4 NAME 'cyclic' SUP cyclic )",
        ] {
            schema.learn_attribute(text);
        }
        for text in [
            "( 2.5.6.0 NAME 'top' ABSTRACT MUST objectClass )",
            "( 2.5.6.6 NAME 'person' SUP top STRUCTURAL MUST ( sn $ cn ) MAY (userPassword$telephoneNumber) )",
        ] {
            schema.learn_class(text);
        }
        let attribute = |name| schema.attribute(name).unwrap();
        assert_eq!(attribute("COMMONNAME").name, "cn");
        assert_eq!(attribute("2.5.4.3").name, "cn");
        assert!(schema.is_case_ignored(attribute("cn")) && !attribute("cn").is_single);
        assert_eq!(schema.cell_type(attribute("cn")), CellType::Text);
        assert_eq!(schema.cell_type(attribute("userpassword")), CellType::Secret);
        assert_eq!(schema.cell_type(attribute("born")), CellType::Timestamp);
        assert!(attribute("born").is_single);
        assert_eq!(schema.cell_type(attribute("cyclic")), CellType::Text);
        let of = schema.attributes_of("Person").unwrap();
        assert_eq!(of, ["sn", "cn", "userPassword", "telephoneNumber", "objectClass"]);
        assert_eq!(schema.attributes_of("nothing"), None);
        let mut names = schema.names_of("name").unwrap();
        names.sort_unstable();
        assert_eq!(names, ["2.5.4.3", "2.5.4.41", "cn", "commonname", "name"], "what is made from it, too");
        schema.learn_attribute("( 1.2.5 NAME 'memberOf' )");
        assert_eq!((schema.names_of("memberOf"), schema.names_of("nothing")), (None, None));
        // Four ways to itself, and no end by them.
        schema.learn_class("( 1.2.6 NAME 'own' SUP ( own $ own $ own $ own ) MAY cn )");
        assert_eq!(schema.attributes_of("own").unwrap(), ["cn"]);
    }

    #[test]
    fn what_is_no_description_does_no_harm() {
        let mut schema = Schema::default();
        for text in ["", "(", "( NAME", "( 1.2 NAME ( 'a' 'b'", "'", "( 1.2 NAME 'x", ") SUP ( "] {
            schema.learn_attribute(text);
            schema.learn_class(text);
        }
    }
}
