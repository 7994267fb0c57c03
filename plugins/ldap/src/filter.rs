//! Filters: RFC 4515's text from the settings, and what the connector asks for itself. Values are never part of a text that is parsed,
//! so nothing that comes from a directory or a token can change what is asked.

use std::fmt::Write as _;

use lber::structure::PL;

use crate::ber::{Tag, context, octets};

/// Nothing that a person writes is nested deeper.
const DEPTH_MAX: usize = 20;

/// What is asked of an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Equal(String, Vec<u8>),
    AtLeast(String, Vec<u8>),
    AtMost(String, Vec<u8>),
    Approximately(String, Vec<u8>),
    Present(String),
    /// What it begins with, what comes within, what it ends with; each may be empty.
    Like(String, Vec<Vec<u8>>),
    /// By a rule: the rule, the attribute, the value, and whether the parts of the name count.
    ByRule(Option<String>, Option<String>, Vec<u8>, bool),
}

impl Filter {
    /// That an attribute has a value.
    pub(crate) fn is(attribute: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::Equal(attribute.to_owned(), value.into())
    }

    pub(crate) fn at_least(attribute: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::AtLeast(attribute.to_owned(), value.into())
    }

    pub(crate) fn at_most(attribute: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::AtMost(attribute.to_owned(), value.into())
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self::And(vec![self, other])
    }

    pub(crate) fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Out of the text of RFC 4515. The error says what is wrong, and where.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim();
        let filter = filter(&mut rest, 0)?;
        if rest.is_empty() { Ok(filter) } else { Err(format!("nothing belongs after it: {rest:?}")) }
    }

    /// As it is sent.
    pub(crate) fn to_tag(&self) -> Tag {
        let all = |filters: &[Self]| PL::C(filters.iter().map(Self::to_tag).collect());
        let assertion = |attribute: &str, value: &[u8]| PL::C(vec![octets(attribute), octets(value)]);
        match self {
            Self::And(filters) => context(0, all(filters)),
            Self::Or(filters) => context(1, all(filters)),
            Self::Not(filter) => context(2, PL::C(vec![filter.to_tag()])),
            Self::Equal(attribute, value) => context(3, assertion(attribute, value)),
            Self::Like(attribute, parts) => context(4, like(attribute, parts)),
            Self::AtLeast(attribute, value) => context(5, assertion(attribute, value)),
            Self::AtMost(attribute, value) => context(6, assertion(attribute, value)),
            Self::Present(attribute) => context(7, PL::P(attribute.clone().into_bytes())),
            Self::Approximately(attribute, value) => context(8, assertion(attribute, value)),
            Self::ByRule(rule, attribute, value, of_name) => {
                let named =
                    |id, name: &Option<String>| name.as_ref().map(|name| context(id, PL::P(name.clone().into_bytes())));
                let mut parts: Vec<Tag> = [named(1, rule), named(2, attribute)].into_iter().flatten().collect();
                parts.push(context(3, PL::P(value.clone())));
                if *of_name {
                    parts.push(context(4, PL::P(vec![0xff])));
                }
                context(9, PL::C(parts))
            }
        }
    }

    /// Calls this with each attribute that it asks about; with none where it asks about all.
    pub(crate) fn attributes<'a>(&'a self, each: &mut dyn FnMut(Option<&'a str>)) {
        match self {
            Self::And(filters) | Self::Or(filters) => filters.iter().for_each(|filter| filter.attributes(each)),
            Self::Not(filter) => filter.attributes(each),
            Self::Equal(attribute, _)
            | Self::AtLeast(attribute, _)
            | Self::AtMost(attribute, _)
            | Self::Approximately(attribute, _)
            | Self::Present(attribute)
            | Self::Like(attribute, _) => each(Some(attribute)),
            // The parts of a name can be anything.
            Self::ByRule(_, _, _, true) => each(None),
            Self::ByRule(_, attribute, _, false) => each(attribute.as_deref()),
        }
    }

    /// The object classes that an entry has at least one of, as far as it says so.
    pub(crate) fn object_classes(&self) -> Vec<&str> {
        match self {
            Self::And(filters) | Self::Or(filters) => filters.iter().flat_map(Self::object_classes).collect(),
            Self::Equal(attribute, value) if attribute.eq_ignore_ascii_case("objectClass") => {
                std::str::from_utf8(value).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Text of RFC 4515 again, so that a token can name what it is of.
impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = |f: &mut std::fmt::Formatter<'_>, sign: char, filters: &[Self]| {
            write!(f, "({sign}")?;
            filters.iter().try_for_each(|filter| write!(f, "{filter}"))?;
            f.write_char(')')
        };
        match self {
            Self::And(filters) => all(f, '&', filters),
            Self::Or(filters) => all(f, '|', filters),
            Self::Not(filter) => write!(f, "(!{filter})"),
            Self::Equal(attribute, value) => write!(f, "({attribute}={})", escaped(value)),
            Self::AtLeast(attribute, value) => write!(f, "({attribute}>={})", escaped(value)),
            Self::AtMost(attribute, value) => write!(f, "({attribute}<={})", escaped(value)),
            Self::Approximately(attribute, value) => write!(f, "({attribute}~={})", escaped(value)),
            Self::Present(attribute) => write!(f, "({attribute}=*)"),
            Self::Like(attribute, parts) => {
                let parts: Vec<String> = parts.iter().map(|part| escaped(part)).collect();
                write!(f, "({attribute}={})", parts.join("*"))
            }
            Self::ByRule(rule, attribute, value, of_name) => {
                write!(f, "({}", attribute.as_deref().unwrap_or_default())?;
                f.write_str(if *of_name { ":dn" } else { "" })?;
                rule.iter().try_for_each(|rule| write!(f, ":{rule}"))?;
                write!(f, ":={})", escaped(value))
            }
        }
    }
}

fn escaped(value: &[u8]) -> String {
    value.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'(' | b')' | b'*' | b'\\' | 0..0x20 | 0x7f.. => text.push_str(&format!("\\{byte:02x}")),
            _ => text.push(char::from(*byte)),
        }
        text
    })
}

fn like(attribute: &str, parts: &[Vec<u8>]) -> PL {
    let last = parts.len().saturating_sub(1);
    let part = |(place, part): (usize, &Vec<u8>)| {
        let id = match place {
            0 => 0,
            place if place == last => 2,
            _ => 1,
        };
        (!part.is_empty()).then(|| context(id, PL::P(part.clone())))
    };
    PL::C(vec![octets(attribute), crate::ber::sequence(parts.iter().enumerate().filter_map(part).collect())])
}

fn filter(rest: &mut &str, depth: usize) -> Result<Filter, String> {
    if depth == DEPTH_MAX {
        return Err(format!("it is nested over {DEPTH_MAX} times"));
    }
    expect(rest, '(')?;
    let made = match rest.chars().next() {
        Some('&') => Filter::And(all(rest, depth)?),
        Some('|') => Filter::Or(all(rest, depth)?),
        Some('!') => {
            *rest = &rest[1..];
            filter(rest, depth + 1)?.not()
        }
        _ => {
            let end = rest.find(')').ok_or("a closing parenthesis is missing")?;
            let (item, after) = rest.split_at(end);
            *rest = after;
            simple(item)?
        }
    };
    expect(rest, ')')?;
    Ok(made)
}

fn all(rest: &mut &str, depth: usize) -> Result<Vec<Filter>, String> {
    *rest = rest[1..].trim_start();
    let mut filters = Vec::new();
    while rest.starts_with('(') {
        filters.push(filter(rest, depth + 1)?);
        *rest = rest.trim_start();
    }
    Ok(filters)
}

fn expect(rest: &mut &str, sign: char) -> Result<(), String> {
    *rest = rest.trim_start().strip_prefix(sign).ok_or_else(|| format!("{sign:?} is missing before {rest:?}"))?;
    Ok(())
}

fn simple(item: &str) -> Result<Filter, String> {
    let (left, value) = item.split_once('=').ok_or_else(|| format!("{item:?} has no ="))?;
    let left = left.trim();
    let attribute = |name: &str| match is_name(name) {
        true => Ok(name.to_owned()),
        false => Err(format!("{name:?} is no attribute")),
    };
    match left.char_indices().next_back() {
        Some((end, '>')) => Ok(Filter::AtLeast(attribute(&left[..end])?, unescaped(value)?)),
        Some((end, '<')) => Ok(Filter::AtMost(attribute(&left[..end])?, unescaped(value)?)),
        Some((end, '~')) => Ok(Filter::Approximately(attribute(&left[..end])?, unescaped(value)?)),
        Some((end, ':')) => by_rule(&left[..end], unescaped(value)?),
        _ if value == "*" => Ok(Filter::Present(attribute(left)?)),
        _ if value.contains('*') => {
            let parts = value.split('*').map(unescaped).collect::<Result<Vec<_>, _>>()?;
            Ok(Filter::Like(attribute(left)?, parts))
        }
        _ => Ok(Filter::Equal(attribute(left)?, unescaped(value)?)),
    }
}

fn by_rule(left: &str, value: Vec<u8>) -> Result<Filter, String> {
    let mut parts = left.split(':');
    let attribute = parts.next().filter(|name| !name.is_empty());
    let mut parts = parts.peekable();
    let of_name = parts.next_if(|part| part.eq_ignore_ascii_case("dn")).is_some();
    let rule = parts.next();
    let is_named = attribute.into_iter().chain(rule).all(is_name);
    if parts.next().is_some() || attribute.is_none() && rule.is_none() || !is_named {
        return Err(format!("{left:?} names no attribute and no rule"));
    }
    Ok(Filter::ByRule(rule.map(str::to_owned), attribute.map(str::to_owned), value, of_name))
}

/// Whether it is an attribute's name or number, maybe with options.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_'))
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'(' {
            return Err(format!("a parenthesis in {text:?} has to be written as \\28 or \\29"));
        }
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(format!("after a backslash come two hexadecimal digits, and not in {text:?}"));
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_they_are_written() {
        let is = |attribute: &str, value: &str| Filter::is(attribute, value);
        for (text, read) in [
            ("(uid=ann)", is("uid", "ann")),
            ("(cn=a\\2ab\\28\\29\\5c)", is("cn", "a*b()\\")),
            ("(objectClass=*)", Filter::Present("objectClass".into())),
            ("(&(a=1)(!(b=2)))", is("a", "1").and(is("b", "2").not())),
            ("(|(a=1)(b=2)(c=3))", Filter::Or(vec![is("a", "1"), is("b", "2"), is("c", "3")])),
            ("(&)", Filter::And(Vec::new())),
            ("(a>=5)", Filter::at_least("a", "5")),
            ("(a<=5)", Filter::at_most("a", "5")),
            ("(a~=x)", Filter::Approximately("a".into(), b"x".to_vec())),
            ("(cn=x*y*)", Filter::Like("cn".into(), vec![b"x".to_vec(), b"y".to_vec(), Vec::new()])),
            ("(cn;lang-de=x)", is("cn;lang-de", "x")),
            ("(member:1.2.3:=x)", Filter::ByRule(Some("1.2.3".into()), Some("member".into()), b"x".to_vec(), false)),
            ("(ou:dn:=x)", Filter::ByRule(None, Some("ou".into()), b"x".to_vec(), true)),
            ("(:dn:1.2:=x)", Filter::ByRule(Some("1.2".into()), None, b"x".to_vec(), true)),
        ] {
            assert_eq!(Filter::parse(text), Ok(read), "{text}");
            assert_eq!(Filter::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Filter::parse(" (& (a=1) (b=2) ) "), Filter::parse("(&(a=1)(b=2))"));
        assert_eq!(Filter::parse("(cn=ü)").unwrap().to_string(), "(cn=\\c3\\bc)");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let deep = format!("{}(a=1){}", "(!".repeat(30), ")".repeat(30));
        for text in
            ["", "uid=ann", "(uid=ann", "(uid)", "(uid=ann))", "(a=1)(b=2)", "(=x)", "(a b=x)", "(a=\\zz)", "(a=\\2)"]
                .into_iter()
                .chain(["(a=(b)", "(:=x)", "(a:b:c:=x)", &deep])
        {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_it_asks_about_is_known() {
        let about = |text: &str| {
            let (filter, mut names) = (Filter::parse(text).unwrap(), Vec::new());
            filter.attributes(&mut |name| names.push(name.map(str::to_owned)));
            names
        };
        assert_eq!(about("(&(a=1)(!(|(b=*)(c>=1))))"), ["a", "b", "c"].map(|name| Some(name.to_owned())));
        assert_eq!(about("(ou:dn:=x)"), [None]);
        let classes = Filter::parse("(&(objectClass=person)(|(OBJECTCLASS=top)(a=1))(!(objectClass=device)))").unwrap();
        assert_eq!(classes.object_classes(), ["person", "top"]);
    }
}
