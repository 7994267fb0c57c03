//! Words of guests and sources, made fit for one line that people read; errors, and bytes.

use std::error::Error;

/// A text as one line that does nothing to a terminal, no longer than that many bytes.
pub fn shown(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for character in text.chars() {
        let before = line.len();
        match character.is_control() || is_steering(character) {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
        if line.len() > bytes_max {
            line.truncate(before);
            line.push('…');
            break;
        }
    }
    line
}

/// Takes what is to be forgotten out of a text, as it is and in the forms in which we write what isn't ours. Answers whether it was in
/// it.
pub fn erase(text: &mut String, what: &str) -> bool {
    let quoted = format!("{what:?}");
    let mut found = false;
    for form in [what, &quoted[1..quoted.len() - 1], &shown(what, usize::MAX)] {
        if !form.is_empty() && text.contains(form) {
            *text = text.replace(form, "[erased]");
            found = true;
        }
    }
    found
}

/// A URL without what may be secret in it: a user, a password, a query.
pub fn without_secrets(url: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?…"));
    let Some((before, rest)) = url.rsplit_once('@') else { return format!("{url}{query}") };
    let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}…@{rest}{query}")
}

/// An error with what caused it, each said once.
pub fn with_causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    said
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// Characters that change the direction or the lines of what follows.
fn is_steering(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_erased_goes_in_every_form() {
        let uid = "CN=O\\, \"x\"\t1";
        let mut text = format!("{uid} and {uid:?} and {}", shown(uid, 99));
        assert!(erase(&mut text, uid));
        assert_eq!(text, "[erased] and \"[erased]\" and [erased]");
        assert!(!erase(&mut text, "other") && !erase(&mut text, ""));
    }

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("https://ann:p@ss/w@a.b:1/x", "https://…@a.b:1/x"),
            ("ann@a.b:636", "…@a.b:636"),
            ("https://a.b/x", "https://a.b/x"),
            ("https://a.b/x?key=k&a=b@c", "https://a.b/x?…"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn hexadecimal_keeps_every_zero() {
        assert_eq!(hex(&[0, 0x0a, 0xff]), "000aff");
    }

    #[test]
    fn leaves_nothing_that_steers_a_terminal_or_a_reader() {
        assert_eq!(shown("a\nb\u{1b}[2Jé\u{202e}", 100), "a\\nb\\u{1b}[2Jé\\u{202e}");
        assert_eq!(shown("aaaa", 3), "aaa…");
        assert_eq!(shown("é\n", 3), "é…");
    }
}
