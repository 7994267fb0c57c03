//! A file of a connection, as it is written: tables with their keys, and remarks where somebody has to look. Escapes whatever isn't ours.

use tidewaiter_core::text::shown;
use toml::Value;

/// More of a remark isn't written.
const REMARK_BYTES_MAX: usize = 600;

/// A table, or the keys above all tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    head: Option<String>,
    lines: Vec<String>,
}

impl Table {
    /// With these keys from the outside in.
    pub(super) fn new(keys: &[&str]) -> Self {
        let head = keys.iter().map(|part| key(part)).collect::<Vec<_>>().join(".");
        Self { head: Some(format!("[{head}]")), lines: Vec::new() }
    }

    pub(super) fn remark(&mut self, text: &str) {
        self.lines.push(format!("# {}", shown(text, REMARK_BYTES_MAX)));
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.lines.push(line(name, value.into()));
    }

    /// The same as a remark: it doesn't count.
    pub(super) fn left_out(&mut self, name: &str, value: impl Into<Value>) {
        self.lines.push(format!("# {}", line(name, value.into())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// All of a file.
pub(super) fn written(tables: &[Table]) -> String {
    let tables = tables.iter().map(|table| {
        let lines: Vec<&str> = table.head.iter().chain(&table.lines).map(String::as_str).collect();
        lines.join("\n")
    });
    let mut text = tables.collect::<Vec<_>>().join("\n\n");
    text.push('\n');
    text
}

/// A table within a line, as `{ by = "log" }`.
pub(super) fn inline<const N: usize>(keys: [(&str, Value); N]) -> Value {
    Value::Table(keys.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A list of texts.
pub(super) fn list(texts: impl IntoIterator<Item = impl Into<String>>) -> Value {
    Value::Array(texts.into_iter().map(|text| Value::String(text.into())).collect())
}

fn line(name: &str, value: Value) -> String {
    format!("{} = {value}", key(name))
}

fn key(text: &str) -> String {
    let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    // JSON's texts are TOML's of one line, which alone can be keys.
    if is_bare { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_is_read_again() {
        let texts = ["a", "é \"quoted\" 'so'", "back\\slash", "", "# no remark", "''' \"\"\" ]", "{ x = 1 }"];
        for text in texts {
            let mut table = Table::new(&["settings", "classes", text]);
            table.remark(&format!("{text}\n[other]\r\u{7f}"));
            table.left_out("x", text);
            table.set("y", text);
            table.set(text, inline([("by", text.into()), ("list", list([text]))]));
            let read: toml::Table = written(&[table]).parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let inner = &read["settings"]["classes"][text];
            assert_eq!((inner["y"].as_str(), read.len()), (Some(text), 1), "{text}");
            assert_eq!(inner[text]["list"][0].as_str(), Some(text));
        }
    }
}
