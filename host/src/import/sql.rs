//! OpenICF's connectors to databases, as settings of the connector `sql`.

use super::draft::{Draft, Reasons};
use super::json::{Fields, Node, Said};
use super::page::{Table, inline};
use super::{ImportError, quoted};

/// What its URLs begin with.
const JDBC: &str = "jdbc:";

const WRITES: &str = "nothing is written into the source";
const POOL: &str = "a run has one connection to the server, and ends it";
const EXACT: &str = "values are told exactly, by the types that the database has for them";
const REASONS: Reasons = &[
    (&["enableEmptyString"], WRITES),
    (&["createScriptFileName", "updateScriptFileName", "deleteScriptFileName"], WRITES),
    (&["nativeTimestamps", "allNative"], EXACT),
    (&["rethrowAllSQLExceptions"], "every error of the server ends the run"),
    (&["validConnectionQuery", "validationQuery", "datasource", "jndiProperties", "autoCommit"], POOL),
    (&["suppressPassword", "supressPassword"], "what is of the type secret is never kept in clear"),
    (&["jdbcDriver", "driverClassName"], "the connector speaks to the server by itself"),
    (
        &["syncScriptFileName", "searchScriptFileName"],
        "no scripts are run: what it reads is a `table` or a `query` of a class",
    ),
    (&["testScriptFileName", "schemaScriptFileName", "authenticateScriptFileName"], "no scripts are run"),
    (&["changeLogColumn", "keyColumn", "table", "passwordColumn"], "there is no type whose rows it could be about"),
];

/// What the connector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    PostgreSql,
    MariaDb,
}

/// What a JDBC URL says; `%h`, `%p` and `%d` in it say nothing.
#[derive(Debug, Default, PartialEq)]
struct Url<'a> {
    dialect: Option<Dialect>,
    host: Option<&'a str>,
    port: Option<&'a str>,
    database: Option<&'a str>,
    parameters: Option<&'a str>,
}

/// `org.identityconnectors.databasetable.DatabaseTableConnector`.
pub(super) fn table(draft: &mut Draft, fields: &mut Fields) -> Result<(), ImportError> {
    let dialect = server(draft, fields)?;
    // The connector knows one class, and a name without quotes is in small letters to PostgreSQL.
    let quotes = fields.take("quoting");
    let quotes =
        quotes.map(|quotes| quotes.text()).transpose()?.is_some_and(|quotes| !quotes.eq_ignore_ascii_case("none"));
    let folds = dialect == Some(Dialect::PostgreSql) && !quotes;
    let mut classes = draft.classes().into_iter();
    if let Some(class) = classes.next() {
        self::class(draft, fields, &class, folds)?;
    }
    for class in classes {
        if let Some(node) = draft.types.iter().find(|object_type| object_type.class == class).map(|it| it.node.clone())
        {
            draft
                .asks(&node, "the table's rows are of one class")
                .then("add the class to the settings, or take the type out");
        }
    }
    draft.rest(fields, REASONS, "the connector has no such setting");
    Ok(())
}

/// A connector that runs scripts of its operator's.
pub(super) fn scripted(draft: &mut Draft, fields: &mut Fields) -> Result<(), ImportError> {
    server(draft, fields)?;
    for class in draft.classes() {
        let mut table = Table::new(&["settings", "classes", &class]);
        table.remark("What OpenIDM's scripts read: a table or view, or a SELECT as `query`; and how changes are found");
        table.left_out("table", "…");
        table.left_out("uid", "…");
        table.left_out("changes", inline([("by", "timestamp".into()), ("column", "…".into())]));
        draft.tables.push(table);
    }
    let at = fields.at("syncScriptFileName");
    draft
        .asks(&at, "what scripts read isn't known here")
        .then("say `table` or `query`, `uid` and `changes` of each class");
    draft.rest(fields, REASONS, "the connector has no such setting");
    Ok(())
}

fn server(draft: &mut Draft, fields: &mut Fields) -> Result<Option<Dialect>, ImportError> {
    let node = fields.take_any(&["jdbcUrlTemplate", "jdbcUrl", "url"]);
    let driver = fields.take_any(&["jdbcDriver", "driverClassName"]);
    let at = node.clone().or(driver.clone()).unwrap_or_else(|| fields.at("jdbcUrlTemplate"));
    let said = node.as_ref().map(Node::said).transpose()?;
    let url = match said {
        Some(Said::Text(text) | Said::Property(text)) => url(text),
        _ => Url::default(),
    };
    if let Some(Said::Property(_) | Said::Encrypted) = said {
        // A part of it may be a password, so it is not quoted.
        draft.asks(&at, "OpenIDM alone knows all of it").then("look at `dialect`, `server` and `database`");
    }
    let by_driver = driver.as_ref().and_then(|driver| driver.raw().ok()).and_then(dialect);
    // Of what a URL names, its driver says nothing else.
    let is_url = matches!(said, Some(Said::Text(text)) if text.starts_with(JDBC));
    let spoken = if is_url { url.dialect } else { url.dialect.or(by_driver) };
    match spoken {
        Some(Dialect::PostgreSql) => draft.settings.set("dialect", "postgresql"),
        Some(Dialect::MariaDb) => draft.settings.set("dialect", "mariadb"),
        None => {
            let reason = "the connector sql speaks to PostgreSQL and to MariaDB, and this is neither, or isn't said";
            draft.asks(&at, reason).then("set `dialect`, or have a connector for that database");
        }
    }
    place(draft, fields, &at, &url, if spoken == Some(Dialect::MariaDb) { 3306 } else { 5432 })?;
    let user = fields.take_any(&["user", "username"]).map(|node| draft.text(&node)).transpose()?.flatten();
    required(draft, fields, "user", user);
    let password = fields.take("password").unwrap_or_else(|| fields.at("password"));
    draft.password(&password)?;
    Ok(spoken)
}

/// The server and the database on it. What a URL says is what the driver goes by.
fn place(draft: &mut Draft, fields: &mut Fields, at: &Node, url: &Url, usual: u16) -> Result<(), ImportError> {
    let [host, port, database] = ["host", "port", "database"].map(|key| fields.take(key));
    let number = match url.port {
        Some(number) => number.parse().ok().filter(|port| *port > 0),
        None => Some(draft.port(port.as_ref(), usual)?),
    };
    let number = number.ok_or_else(|| at.wrong("its port is none of 1..=65535"))?;
    match url.host {
        Some(name) => in_url(draft, at, name, number)?,
        None => draft.server(host.as_ref().unwrap_or(&fields.at("host")), number, true)?,
    }
    draft.settings.remark(
        "OpenIDM speaks TLS only where its URL says so; \"off\" where the server has none, and then `tls` out of the grants",
    );
    draft.settings.set("tls", "required");
    let named = match (url.database, &database) {
        (Some(named), _) => Some(named.to_owned()),
        (None, node) => node.as_ref().map(|node| draft.text(node)).transpose()?.flatten(),
    };
    required(draft, fields, "database", named);
    for (node, in_url) in [(host, url.host), (port, url.port), (database, url.database)] {
        if let (Some(node), Some(_)) = (node, in_url) {
            draft.notes.none(&node, "the URL says it");
        }
    }
    if let Some(parameters) = url.parameters {
        let reason = format!("of what the URL has after its ?, nothing is taken over: {} bytes", parameters.len());
        draft.notes.none(at, reason).then("`tls`, and `zone` for times without one, are settings");
    }
    Ok(())
}

fn required(draft: &mut Draft, fields: &Fields, setting: &str, value: Option<String>) {
    match value {
        Some(value) => draft.settings.set(setting, value),
        None => {
            draft.asks(&fields.at(setting), "it isn't known here").then(format!("set `{setting}`"));
        }
    }
}

/// A host that stands in a URL.
fn in_url(draft: &mut Draft, at: &Node, host: &str, port: u16) -> Result<(), ImportError> {
    let value = serde_json::Value::String(host.to_owned());
    let mut node = Node::root(at.file, &value);
    node.path.clone_from(&at.path);
    draft.server(&node, port, true)
}

fn class(draft: &mut Draft, fields: &mut Fields, class: &str, folds: bool) -> Result<(), ImportError> {
    let mut table = Table::new(&["settings", "classes", class]);
    let mut named = |draft: &mut Draft, key: &str| -> Result<Option<String>, ImportError> {
        let node = fields.take(key);
        let Some(node) = node else { return Ok(None) };
        let text = draft.text(&node)?;
        let folded =
            text.as_ref().map(|text| text.to_ascii_lowercase()).filter(|folded| folds && Some(folded) != text.as_ref());
        if let Some(folded) = folded {
            draft.changed(&node, &format!("PostgreSQL calls {} so, because OpenIDM writes no quotes", quoted(&folded)));
            return Ok(Some(folded));
        }
        Ok(text)
    };
    let (rows, key) = (named(draft, "table")?, named(draft, "keyColumn")?);
    let (changed, password) = (named(draft, "changeLogColumn")?, named(draft, "passwordColumn")?);
    for (setting, value, from) in [("table", rows, "table"), ("uid", key.clone(), "keyColumn")] {
        match value {
            Some(value) => table.set(setting, value),
            None => {
                draft.asks(&fields.at(from), "it isn't known here").then(format!("set `{setting}` of the class"));
            }
        }
    }
    match changed {
        Some(column) => {
            table.remark("A column with the time of the last change. One with a number from a sequence: { by = \"number\", column = … }");
            table.set("changes", inline([("by", "timestamp".into()), ("column", column.into())]));
        }
        None => table.remark("Rows are compared with what they were; `changes` says how changes are found"),
    }
    if let Some(column) = &password {
        table.set("types", inline([(column.as_str(), "secret".into())]));
    }
    draft.tables.push(table);
    for object_type in draft.types.iter_mut() {
        if folds {
            object_type.attributes.iter_mut().for_each(|name| name.make_ascii_lowercase());
        }
        object_type.attributes.retain(|attribute| Some(attribute) != key.as_ref());
    }
    Ok(())
}

fn dialect(text: &str) -> Option<Dialect> {
    let text = text.to_ascii_lowercase();
    match () {
        () if text.contains("postgresql") => Some(Dialect::PostgreSql),
        () if text.contains("mariadb") || text.contains("mysql") => Some(Dialect::MariaDb),
        () => None,
    }
}

fn url(text: &str) -> Url<'_> {
    let Some((scheme, rest)) = text.strip_prefix(JDBC).and_then(|rest| rest.split_once(':')) else {
        return Url::default();
    };
    let dialect = dialect(scheme);
    let Some(rest) = rest.strip_prefix("//").filter(|_| dialect.is_some()) else {
        return Url { dialect, ..Url::default() };
    };
    let (rest, parameters) = rest.split_once('?').map_or((rest, None), |(rest, after)| (rest, Some(after)));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let said = |text: &str| !text.is_empty() && !text.contains(['%', ',', '@', '&']);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    Url {
        dialect,
        host: Some(host).filter(|host| said(host)),
        port: port.filter(|port| said(port)),
        database: Some(database).filter(|name| said(name)),
        parameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jdbc_urls_say_what_they_say() {
        let all = |dialect, host, port, database, parameters| Url { dialect, host, port, database, parameters };
        let (pg, maria) = (Some(Dialect::PostgreSql), Some(Dialect::MariaDb));
        for (text, expected) in [
            ("jdbc:postgresql://%h:%p/%d", all(pg, None, None, None, None)),
            (
                "jdbc:mysql://db.corp:3307/hr?useSSL=true",
                all(maria, Some("db.corp"), Some("3307"), Some("hr"), Some("useSSL=true")),
            ),
            ("jdbc:mariadb://db.corp/hr", all(maria, Some("db.corp"), None, Some("hr"), None)),
            ("jdbc:postgresql://[2001:db8::1]/hr", all(pg, Some("[2001:db8::1]"), None, Some("hr"), None)),
            ("jdbc:postgresql://&{h}:5432/hr", all(pg, None, Some("5432"), Some("hr"), None)),
            ("jdbc:postgresql://a,b/hr", all(pg, None, None, Some("hr"), None)),
            ("jdbc:oracle:thin:@db:1521:X", Url::default()),
            ("nonsense", Url::default()),
        ] {
            assert_eq!(url(text), expected, "{text}");
        }
    }
}
