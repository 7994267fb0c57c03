//! OpenICF's CSV connectors, as settings of the connector `csv`.

use std::path::Path;

use super::ImportError;
use super::draft::{Draft, Reasons};
use super::json::{Fields, Node};
use super::page::inline;

/// Where the connector looks, until somebody says where the file is.
const OPENIDM: &str = "/PATH/OF/OPENIDM";
/// The class of the rows, unless something else is said.
const ACCOUNT: &str = "account";

const REASONS: Reasons = &[
    (&["newlineString"], "lines end with LF or CRLF"),
    (&["quoteCharacter", "escapeCharacter"], "files are read by RFC 4180, with double quotes"),
    (&["encoding"], "files are UTF-8"),
    (
        &["syncFileRetentionCount", "preserveOldSyncFiles", "preserveLastTokens"],
        "no copies are kept: the host has a hash of each row",
    ),
    (&["spaceReplacementString"], "columns have the names that the file gives them"),
];

pub(super) fn translate(draft: &mut Draft, fields: &mut Fields) -> Result<(), ImportError> {
    let file = fields.take_any(&["csvFile", "filePath"]).unwrap_or_else(|| fields.at("csvFile"));
    place(draft, &file)?;
    let uid = fields.take_any(&["headerUid", "uniqueAttribute"]).unwrap_or_else(|| fields.at("headerUid"));
    let uid = column(draft, &uid, "uid")?;
    if uid.is_none() {
        draft.asks(&fields.at("headerUid"), "it isn't known which column never changes").then("set `uid`");
    }
    let name = fields.take_any(&["headerName", "nameAttribute"]);
    let name = name.filter(|name| !name.raw().is_ok_and(|name| Some(name) == uid.as_deref()));
    let name = name.map(|name| column(draft, &name, "name")).transpose()?.flatten();
    if let Some(delimiter) = fields.take_any(&["fieldDelimiter", "fielddelimiter"]) {
        self::delimiter(draft, &delimiter)?;
    }
    let quote = fields.take("quoteCharacter").or_else(|| fields.take("encloseWith"));
    if let Some(quote) = quote.filter(|quote| !quote.raw().is_ok_and(|quote| quote == "\"")) {
        draft.notes.none(&quote, "files are read by RFC 4180, with double quotes");
    }
    let encoding = fields.take("encoding");
    if let Some(encoding) = encoding.filter(|name| !name.raw().is_ok_and(|name| name.eq_ignore_ascii_case("utf-8"))) {
        draft.notes.none(&encoding, "files are UTF-8").then("write the export in UTF-8");
    }
    lists(draft, fields)?;
    if let Some(password) = fields.take_any(&["headerPassword", "passwordAttribute"])
        && let Some(column) = draft.text(&password)?
    {
        draft.settings.set("types", inline([(column.as_str(), "secret".into())]));
    }
    class(draft);
    // Every other column is an attribute.
    for object_type in draft.types.iter_mut() {
        object_type.attributes.retain(|attribute| Some(attribute) != uid.as_ref() && Some(attribute) != name.as_ref());
    }
    draft.settings.remark("Rows are compared with what they were; `updated_at` names a column with the time of the last change, if there is one");
    draft.rest(fields, REASONS, "the connector has no such setting");
    Ok(())
}

/// The folder and the file in it.
fn place(draft: &mut Draft, node: &Node) -> Result<(), ImportError> {
    let said = if node.is_empty() { None } else { draft.text(node)? };
    let path = Path::new(said.as_deref().unwrap_or_default());
    let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
        draft.asks(node, "it isn't known where the file is").then("set `folder` and `file`, and grant the folder");
        draft.settings.set("folder", OPENIDM);
        draft.grants.read.push(OPENIDM.into());
        return Ok(());
    };
    let is_whole = path.is_absolute() || node.is_resolved_by_openidm();
    if !is_whole {
        draft
            .asks(node, "the path begins at OpenIDM's folder")
            .then("write the whole path into `folder` and the grants");
    }
    let folder =
        if is_whole { folder.to_owned() } else { Path::new(OPENIDM).join(folder.strip_prefix(".").unwrap_or(folder)) };
    let folder = folder.to_string_lossy().into_owned();
    draft.settings.set("folder", folder.as_str());
    draft.settings.set("file", file.to_string_lossy().into_owned());
    draft.grants.read.push(folder.into());
    Ok(())
}

fn column(draft: &mut Draft, node: &Node, setting: &str) -> Result<Option<String>, ImportError> {
    let column = if node.is_empty() { None } else { draft.text(node)? };
    if let Some(column) = &column {
        draft.settings.set(setting, column.as_str());
    }
    Ok(column)
}

fn delimiter(draft: &mut Draft, node: &Node) -> Result<(), ImportError> {
    match node.raw()? {
        text if text.len() == 1 && !text.contains(['"', '\r', '\n']) => draft.settings.set("delimiter", text),
        _ if node.is_resolved_by_openidm() => {
            draft.text(node)?;
        }
        _ => return Err(node.wrong("it is not one ASCII character that can delimit")),
    }
    Ok(())
}

/// Columns with several values.
fn lists(draft: &mut Draft, fields: &mut Fields) -> Result<(), ImportError> {
    let [used, delimiter] = ["usingMultivalue", "multivalueDelimiter"].map(|key| fields.take(key));
    let used = draft.flag(used.as_ref())?;
    let Some(delimiter) = delimiter.filter(|_| used != Some(false)) else { return Ok(()) };
    let by = delimiter.text()?;
    let mut columns: Vec<String> = draft.types.iter().flat_map(|object_type| object_type.lists.clone()).collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        draft.notes.none(&delimiter, "no column is said to have several values").then("name them in `lists`");
        return Ok(());
    }
    let lists = columns.into_iter().map(|column| (column, by.into())).collect();
    draft.settings.set("lists", toml::Value::Table(lists));
    Ok(())
}

/// All rows are of one class.
fn class(draft: &mut Draft) {
    let classes = draft.classes();
    if let [first, ..] = classes.as_slice()
        && first != ACCOUNT
    {
        draft.settings.set("class", first.as_str());
    }
    for class in classes.iter().skip(1) {
        if let Some(node) = draft.types.iter().find(|object_type| object_type.class == *class).map(|it| it.node.clone())
        {
            draft.asks(&node, "all rows of a connection are of one class").then("make another connection for it");
        }
    }
}
