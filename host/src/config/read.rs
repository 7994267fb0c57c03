//! Reads a file of the configuration. What is wrong with it is told by its place and its key, and by its value only where that can be no secret.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::ConfigError;
use crate::files;

/// The largest file of a configuration, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn text(path: &Path) -> io::Result<String> {
    files::text(path, FILE_BYTES_MAX)
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &text(path).map_err(|source| ConfigError::Read { path: path.into(), source })?)
}

pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Invalid { path: path.into(), message: told(text, &error) })
}

/// What an error says of the value of a key that there is.
const OF_VALUE: [&str; 3] = ["invalid type", "invalid value", "unknown variant"];
/// What secrets are near to.
const NEAR_SECRETS: [&str; 10] =
    ["credentials", "secret", "password", "token", "key", "encryption", "bearer", "reveal", "url", "@"];

/// An error with its line. Its value is shown where the key is one that there is, and no secret is near.
fn told(text: &str, error: &toml::de::Error) -> String {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return error.message().to_owned() };
    let number = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let table = text.lines().take(number).filter(|line| line.trim_start().starts_with('[')).last().unwrap_or_default();
    let is_secret = NEAR_SECRETS.iter().any(|word| line.contains(word) || table.contains(word));
    let is_of_value = OF_VALUE.iter().any(|kind| error.message().starts_with(kind));
    let message = if is_secret { without_value(error.message()) } else { error.message().to_owned() };
    let told = format!("line {number}, column {column}: {message}");
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let shown = match value.trim() {
        _ if !is_plain(key) => return told,
        "" | "true" | "false" => line.to_owned(),
        value if is_of_value && !is_secret && !value.contains(['{', '[']) => line.to_owned(),
        _ => format!("{key}= …"),
    };
    format!("{told}\n  | {shown}")
}

/// A key or the head of a table, in which no value is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -_.[]".contains(&byte))
}

/// What is said of a value, without it.
fn without_value(message: &str) -> String {
    let kind = OF_VALUE.iter().find(|kind| message.starts_with(*kind));
    match kind.zip(message.rsplit_once(", expected ")) {
        Some((kind, (_, what))) => format!("{kind}, expected {what}"),
        None => message.to_owned(),
    }
}
