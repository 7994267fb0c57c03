//! OpenICF's LDAP connector, as settings of the connector `ldap`.

use super::ImportError;
use super::draft::{Draft, Reasons};
use super::json::{Fields, Node};
use super::page::{Table, inline, list};

/// Where both follow a log, and where OpenIDM looked for it.
const CHANGE_NUMBER: &str = "changeNumber";
/// Every entry is of it.
const TOP: &str = "top";

const WRITES: &str = "nothing is written into the source";
const PAGES: &str = "the connector reads in pages by itself";
const REASONS: Reasons = &[
    (
        &[
            "passwordAttribute",
            "passwordHashAlgorithm",
            "maintainLdapGroupMembership",
            "maintainPosixGroupMembership",
            "groupMemberAttribute",
            "hashPassword",
            "respectResourcePasswordPolicyChangeAfterReset",
        ],
        WRITES,
    ),
    (
        &[
            "blockSize",
            "useBlocks",
            "usePagedResultControl",
            "vlvSortAttribute",
            "changeLogBlockSize",
            "filterWithOrInsteadOfAnd",
        ],
        PAGES,
    ),
    (&["readSchema"], "the connector always reads the server's schema"),
    (&["failover"], "a connection has one server; a name that leads to several does the same"),
    (
        &["accountUserNameAttributes"],
        "nobody logs in through it; the name of an object is its distinguished name, as in OpenIDM",
    ),
    (&["attributesToSynchronize"], "a change of any attribute counts"),
    (&["modifiersNamesToFilterOut"], "a change by anybody counts: beware of what writes back into the source"),
    (&["removeLogEntryObjectClassFromFilter"], "the connector asks for entries of the log by their numbers alone"),
    (
        &["accountSearchFilter", "groupSearchFilter"],
        "OpenIDM reads everything by it, and here one filter counts for changes, too: add it to `filter` if it is to",
    ),
    (&["objectClassesToSynchronize"], "it bounds only accounts here, if there are any"),
    (
        &["accountObjectClasses", "groupObjectClasses", "accountSynchronizationFilter", "groupSynchronizationFilter"],
        "there is no type of that class",
    ),
    (&["credentials"], "nobody logs in without a principal"),
    (
        &[
            "synchronizePasswords",
            "passwordAttributeToSynchronize",
            "passwordDecryptionKey",
            "passwordDecryptionInitializationVector",
        ],
        "passwords are not followed",
    ),
];

pub(super) fn translate(draft: &mut Draft, fields: &mut Fields) -> Result<(), ImportError> {
    server(draft, fields)?;
    if let Some(principal) = fields.take("principal") {
        if let Some(bind) = draft.text(&principal)? {
            draft.settings.set("bind", bind);
        }
        let credentials = fields.take("credentials").unwrap_or_else(|| fields.at("credentials"));
        draft.password(&credentials)?;
    }
    let uid = fields.take("uidAttribute");
    let uid = uid.map(|node| self::uid(draft, &node)).transpose()?.flatten();
    let changes = changes(draft, fields, uid.as_deref())?;
    let base = base(draft, fields)?;
    for class in draft.classes() {
        let filter = filter(draft, fields, &class)?;
        let mut table = Table::new(&["settings", "classes", &class]);
        if let Some(base) = &base {
            table.set("base", base.as_str());
        }
        table.set("filter", filter);
        if let Some(uid) = &uid {
            table.set("uid", uid.as_str());
        }
        if let Some(attributes) = attributes(draft, &class) {
            table.set("attributes", list(attributes));
        }
        if let Some(by) = changes {
            table.set("changes", inline([("by", by.into())]));
        }
        draft.tables.push(table);
    }
    draft.rest(fields, REASONS, "the connector has no such setting");
    Ok(())
}

fn server(draft: &mut Draft, fields: &mut Fields) -> Result<(), ImportError> {
    let [ssl, start_tls] = ["ssl", "startTLS"].map(|key| fields.take(key));
    let ssl = match (draft.flag(ssl.as_ref())?, &ssl) {
        // It will be known by whoever fills it in; until then nothing goes in clear.
        (None, Some(_)) => true,
        (flag, _) => flag.unwrap_or(false),
    };
    let tls = match ssl {
        true => "required",
        false if draft.flag(start_tls.as_ref())? == Some(true) => "starttls",
        false => "off",
    };
    let port = fields.take("port");
    let port = draft.port(port.as_ref(), if ssl { 636 } else { 389 })?;
    draft.server(&fields.take("host").unwrap_or_else(|| fields.at("host")), port, tls != "off")?;
    if tls == "off" {
        draft.settings.remark("In clear, as OpenIDM does it; \"required\" or \"starttls\" where the server has TLS, and then in the grants, too");
    }
    draft.settings.set("tls", tls);
    Ok(())
}

/// The attribute that objects are known by, unless it is what the connector has by itself.
fn uid(draft: &mut Draft, node: &Node) -> Result<Option<String>, ImportError> {
    let Some(uid) = draft.text(node)? else { return Ok(None) };
    if ["dn", "entryDN", "__NAME__"].iter().any(|name| name.eq_ignore_ascii_case(&uid)) {
        let reason = "an entry is known by its entryUUID here, which stays when it is renamed, and not by its name: consumers get other uids";
        draft.changed(node, reason).then("389 has nsUniqueId in its place: set `uid`");
        return Ok(None);
    }
    Ok(Some(uid))
}

/// How changes are found.
fn changes(draft: &mut Draft, fields: &mut Fields, uid: Option<&str>) -> Result<Option<&'static str>, ImportError> {
    let by_time = fields.take("useTimestampsForSync");
    let by_time = draft.flag(by_time.as_ref())? == Some(true);
    let offset = fields.take("timestampSyncOffset");
    if let Some(offset) = offset {
        draft
            .notes
            .none(&offset, "the connector waits by itself until a second is over")
            .then("`lag_ms` of `changes` makes it wait longer");
    }
    let number = fields.take("changeNumberAttribute");
    if let Some(number) =
        number.filter(|number| !number.raw().is_ok_and(|name| name.eq_ignore_ascii_case(CHANGE_NUMBER)))
    {
        draft.notes.none(&number, "the numbers of a log are in changeNumber");
    }
    if by_time {
        return Ok(Some("timestamp"));
    }
    if uid.is_some_and(|uid| uid.eq_ignore_ascii_case("objectGUID")) {
        let at = fields.at("uidAttribute");
        let reason =
            "of an Active Directory no numbers of changes are read: without `changes` all objects are compared";
        draft.asks(&at, reason).then("see the README of the connector ldap");
        return Ok(None);
    }
    draft.settings.remark("OpenIDM follows the log cn=changelog. A 389 server has one; slapd has syncrepl and accesslog: see the README of the connector");
    Ok(Some("changelog"))
}

/// Where objects are.
fn base(draft: &mut Draft, fields: &mut Fields) -> Result<Option<String>, ImportError> {
    let [synchronized, all] = ["baseContextsToSynchronize", "baseContexts"].map(|key| fields.take(key));
    if let (Some(_), Some(all)) = (&synchronized, &all) {
        draft.notes.none(
            all,
            "OpenIDM reads everything there, and here one base counts for changes, too: baseContextsToSynchronize",
        );
    }
    let node = synchronized.or(all);
    let at = node.clone().unwrap_or_else(|| fields.at("baseContexts"));
    let bases = draft.texts(node)?;
    match bases.as_slice() {
        [] => {
            draft.asks(&at, "it isn't known where the objects are").then("set `base` of each class");
        }
        [_] => {}
        [_, more @ ..] => {
            let reason = format!("a class has one base, and {} more are left out", more.len());
            draft.asks(&at, &reason).then("add a class and a type for each, or another connection");
        }
    }
    Ok(bases.into_iter().next())
}

/// Which entries are objects of a class.
fn filter(draft: &mut Draft, fields: &mut Fields, class: &str) -> Result<String, ImportError> {
    let (classes, own) = match class {
        "account" => ("accountObjectClasses", "accountSynchronizationFilter"),
        "group" => ("groupObjectClasses", "groupSynchronizationFilter"),
        other => return Ok(is_of(other)),
    };
    let (node, own) = (fields.take(classes), fields.take(own));
    let usual = if class == "account" { "inetOrgPerson" } else { "groupOfUniqueNames" };
    let mut all = draft.texts(node)?;
    all.retain(|name| !name.eq_ignore_ascii_case(TOP));
    if all.is_empty() {
        all.push(usual.to_owned());
    }
    let mut parts: Vec<String> = all.iter().map(|name| is_of(name)).collect();
    if class == "account" {
        let any = fields.take("objectClassesToSynchronize");
        let any: Vec<String> = draft.texts(any)?.iter().map(|name| is_of(name)).collect();
        // What is asked for already says no more a second time.
        match any.as_slice() {
            [] => {}
            any if any.iter().any(|part| parts.contains(part)) => {}
            [one] => parts.push(one.clone()),
            several => parts.push(format!("(|{})", several.concat())),
        }
    }
    if let Some(own) = own.map(|own| draft.text(&own)).transpose()?.flatten() {
        parts.push(if own.trim_start().starts_with('(') { own } else { format!("({own})") });
    }
    Ok(match parts.as_slice() {
        [one] => one.clone(),
        several => format!("(&{})", several.concat()),
    })
}

/// Entries of an object class.
fn is_of(object_class: &str) -> String {
    let escaped = object_class.replace('\\', "\\5c").replace('(', "\\28").replace(')', "\\29").replace('*', "\\2a");
    format!("(objectClass={escaped})")
}

/// What is read of a class: what its types want, if all of them say it.
fn attributes(draft: &mut Draft, class: &str) -> Option<Vec<String>> {
    let of_class: Vec<_> = draft.types.iter_mut().filter(|object_type| object_type.class == class).collect();
    let mut wanted = Vec::new();
    if of_class.iter().any(|object_type| object_type.attributes.is_empty()) {
        return None;
    }
    let is_one = of_class.len() == 1;
    for object_type in of_class {
        wanted.extend(object_type.attributes.clone());
        if is_one {
            object_type.attributes.clear();
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    Some(wanted)
}
