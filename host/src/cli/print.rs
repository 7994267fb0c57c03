//! How answers look to people. Guests' and sources' words are made fit for one line.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde_json::Value as Json;
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::object::encoded;
use tidewaiter_core::run::{Outcome, RunReport};
use tidewaiter_core::schema::ConnectorInfo;
use tidewaiter_core::shadow::Counts;
use tidewaiter_core::text::shown;
use tidewaiter_core::token::{Shown, SyncToken};

use super::fail::{Exit, Fail};
use crate::access::AccessView;
use crate::config::Differences;
use crate::db::{Checked, Revision, TokenChange};
use crate::host::view::{Asked, ConnectionView, ConsumerView, Limit, RevisionView, TokenView, TypeView};
use crate::host::{BroughtUp, Finding, LetterView, Reconciled, Reloaded, RevisionRow, Settled, SinkView};
use crate::trust::Lock;

/// More of one text isn't shown; `--json` has all of it.
const TEXT_BYTES_MAX: usize = 1000;
/// Lines of its log that are shown with a run that failed.
const LOG_LINES_SHOWN: usize = 5;

/// Prints an answer as text or as JSON.
pub(super) fn out<T: Serialize + ?Sized>(json: bool, answer: &T, text: impl FnOnce(&T) -> String) -> Result<(), Fail> {
    let mut line = match json {
        true => serde_json::to_string_pretty(answer).map_err(|error| Fail::new(Exit::Host, error))?,
        false => text(answer),
    };
    if !line.ends_with('\n') {
        line.push('\n');
    }
    write(&line)
}

/// Writes to standard output. A reader that has seen enough is no failure: the process ends.
pub(super) fn write(text: &str) -> Result<(), Fail> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Fail::enough()),
        Err(error) => Err(Fail::new(Exit::Host, format!("standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Columns, each as wide as its widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn head<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_uppercase).to_vec()
}

pub(super) fn report(report: &RunReport) -> String {
    let RunReport { key, run, deltas, .. } = report;
    let outcome = if report.outcome == Outcome::More { "ok, more" } else { report.outcome.name() };
    let changes = if *deltas == 1 { "change" } else { "changes" };
    let ms = report.ended.0.saturating_sub(report.started.0);
    let (before, after) = (Shown(report.token_in.as_ref()), Shown(report.token_out.as_ref()));
    let token = match report.token_in == report.token_out {
        true => format!("token {after}"),
        false => format!("token {before} → {after}"),
    };
    let kept = match report.dead_letters {
        0 => String::new(),
        kept => format!(" and {kept} kept out of the journal"),
    };
    format!("{key}: run {run} {outcome}, {deltas} {changes}{kept} in {ms} ms, {token}")
}

/// The whole token on one line, as `token set` takes it unless it has control characters.
fn whole(token: Option<&SyncToken>) -> String {
    match token {
        None => "none".to_owned(),
        Some(SyncToken::Integer(number)) => format!("{number} (integer)"),
        Some(SyncToken::Text(text)) => format!("{} (text)", shown(text, usize::MAX)),
        Some(SyncToken::Binary(bytes)) => format!("{} (binary)", encoded::to_text(bytes)),
    }
}

pub(super) fn token(view: &TokenView) -> String {
    let mut rows = vec![
        vec!["type".to_owned(), format!("{} (OpenIDM: {})", view.key, view.openidm_id)],
        vec!["state".to_owned(), view.state.clone()],
        vec!["token".to_owned(), whole(view.token.as_ref())],
        vec!["why".to_owned(), shown(&view.why, TEXT_BYTES_MAX)],
    ];
    if let Some(lost) = &view.lost {
        rows.push(vec!["refused".to_owned(), shown(lost, TEXT_BYTES_MAX)]);
    }
    if let Some(paused) = &view.paused {
        rows.push(vec!["paused".to_owned(), paused.clone()]);
    }
    if let Some(held) = &view.held {
        rows.push(vec!["held".to_owned(), shown(held, TEXT_BYTES_MAX)]);
    }
    if view.revision > 0 {
        rows.push(vec!["written".to_owned(), format!("{} by {}", view.changed_at, view.changed_by)]);
        let counts =
            format!("{}, generation {}, failed runs in a row {}", view.revision, view.generation, view.failures);
        rows.push(vec!["revision".to_owned(), counts]);
    }
    table(&rows)
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

pub(super) fn reconciled(reconciled: &Reconciled, dry_run: bool) -> String {
    let Reconciled { pages, objects, counts, last } = reconciled;
    let Counts { read, new, changed, gone, left } = counts;
    let done = if dry_run { "would be journaled" } else { "journaled" };
    let found = match read {
        0 => String::new(),
        _ => format!(" of {read} read ({new} new, {changed} changed), and {gone} gone"),
    };
    let left = match left {
        0 => String::new(),
        left => format!(", {} left out", counted(*left, "object")),
    };
    let objects = counted(*objects, "object");
    format!("{}: {objects} {done}{found}{left}, {}; {}", last.key, counted(*pages, "page"), last.outcome.name())
}

pub(super) fn brought_up(types: &[BroughtUp]) -> String {
    let lines = types.iter().map(|one| {
        let established = one.established.as_ref().map(report);
        let reconciled = one.reconciled.as_ref().map(|pass| reconciled(pass, false));
        established.into_iter().chain(reconciled).map(|line| line + "\n").collect::<String>()
    });
    lines.collect()
}

pub(super) fn history(rows: &[TokenChange]) -> String {
    if rows.is_empty() {
        return "nothing happened yet".to_owned();
    }
    let row = |row: &TokenChange| {
        let (token, why) = (Shown(row.token.as_ref()).to_string(), shown(&row.why, TEXT_BYTES_MAX));
        let run = row.run.map_or_else(|| "-".to_owned(), |run| run.to_string());
        vec![row.at.to_string(), row.revision.to_string(), row.state.clone(), run, row.by.to_string(), token, why]
    };
    let names = head(["at", "revision", "state", "run", "by", "token", "why"]);
    table(&std::iter::once(names).chain(rows.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn consumers(consumers: &[ConsumerView]) -> String {
    if consumers.is_empty() {
        return "there is no consumer".to_owned();
    }
    let row = |ConsumerView { name, consumer, behind, problem }: &ConsumerView| {
        let max_lag = consumer.max_lag.map_or_else(|| "none".to_owned(), |max| max.to_string());
        let acknowledged = consumer.acknowledged.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let state = problem.clone().unwrap_or_else(|| "reads".to_owned());
        let behind = behind.map_or_else(|| "-".to_owned(), |behind| behind.to_string());
        vec![name.clone(), consumer.position.to_string(), behind, max_lag, acknowledged, state]
    };
    let names = head(["name", "position", "behind", "max-lag", "acknowledged", "state"]);
    table(&std::iter::once(names).chain(consumers.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn access(tokens: &[AccessView]) -> String {
    let row = |AccessView { name, role, created, expires, expired }: &AccessView| {
        let until = match expires {
            Some(at) if *expired => format!("expired at {at}"),
            Some(at) => at.to_string(),
            None => "never".to_owned(),
        };
        vec![name.to_string(), role.to_string(), created.to_string(), until]
    };
    let names = head(["name", "role", "created", "expires"]);
    match tokens.is_empty() {
        true => "there is no access token; a server with http.listen makes the first one".to_owned(),
        false => table(&std::iter::once(names).chain(tokens.iter().map(row)).collect::<Vec<_>>()),
    }
}

pub(super) fn sinks(sinks: &[SinkView]) -> String {
    if sinks.is_empty() {
        return "no sink is configured".to_owned();
    }
    let row = |view: &SinkView| {
        let SinkView { sink, r#type, position, behind, dead_letters, problem, .. } = view;
        let state = problem.as_ref().map_or_else(|| "-".to_owned(), |problem| shown(problem, TEXT_BYTES_MAX));
        vec![sink.clone(), r#type.clone(), position.to_string(), behind.to_string(), dead_letters.to_string(), state]
    };
    let names = head(["sink", "type", "position", "behind", "dead-letters", "problem"]);
    table(&std::iter::once(names).chain(sinks.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn dead_letters(letters: &[LetterView]) -> String {
    if letters.is_empty() {
        return "there is no dead letter".to_owned();
    }
    let row = |letter: &LetterView| {
        let why = letter.fault.as_ref().map_or_else(|| "waits".to_owned(), |fault| shown(fault, TEXT_BYTES_MAX));
        let (number, at, key) = (letter.number.to_string(), letter.at.to_string(), letter.key.to_string());
        let object = format!("{} {}", shown(&letter.class, TEXT_BYTES_MAX), shown(&letter.uid, TEXT_BYTES_MAX));
        let sink = letter.sink.clone().unwrap_or_else(|| "-".to_owned());
        vec![number, at, key, letter.kind.clone(), object, sink, why]
    };
    let names = head(["number", "at", "type", "change", "object", "sink", "why"]);
    table(&std::iter::once(names).chain(letters.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn dead_letter(letter: &LetterView) -> String {
    let why =
        letter.fault.as_deref().unwrap_or("nothing: it waits for another one of the same object, or for its turn");
    let run = letter.run.map_or_else(|| "none".to_owned(), |run| run.to_string());
    let mut rows = vec![
        vec!["number".to_owned(), letter.number.to_string()],
        vec!["type".to_owned(), letter.key.to_string()],
        vec![
            "object".to_owned(),
            format!("{} {}", shown(&letter.class, TEXT_BYTES_MAX), shown(&letter.uid, TEXT_BYTES_MAX)),
        ],
        vec!["change".to_owned(), letter.kind.clone()],
        vec!["why".to_owned(), shown(why, TEXT_BYTES_MAX)],
        vec!["kept".to_owned(), format!("{} in run {run}", letter.at)],
    ];
    if let Some((sink, sequence)) = letter.sink.as_ref().zip(letter.sequence) {
        rows.insert(2, vec!["sink".to_owned(), format!("{sink}, which hasn't got entry {sequence}")]);
    }
    if let Some(previous) = &letter.previous_uid {
        rows.insert(rows.len() - 3, vec!["uid before".to_owned(), shown(previous, TEXT_BYTES_MAX)]);
    }
    let came = letter
        .delta
        .as_ref()
        .map_or_else(|| "too large to be kept".to_owned(), |delta| shown(&delta.to_string(), TEXT_BYTES_MAX));
    rows.push(vec!["came".to_owned(), came]);
    table(&rows)
}

pub(super) fn erased(entries: u64) -> String {
    let theirs = "what a sink or a consumer was handed is theirs";
    match entries {
        0 => format!("neither the journal nor a dead letter has anything of it; {theirs}"),
        _ => format!(
            "{entries} entries and dead letters say nothing any more; `tidewaiter db compact` takes away the pages that did; {theirs}"
        ),
    }
}

pub(super) fn settled(settled: &Settled) -> String {
    let Settled { settled, released, notes } = settled;
    let numbers = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let done = match (settled.is_empty(), released.is_empty()) {
        (true, _) => "somebody else was done with it before".to_owned(),
        (_, true) => format!("done with: {}", numbers(settled)),
        (_, false) => {
            format!("done with: {}; went on, because they waited: {}", numbers(settled), numbers(released))
        }
    };
    std::iter::once(&done).chain(notes).map(String::as_str).collect::<Vec<_>>().join("\n")
}

pub(super) fn checked(checked: &Checked) -> String {
    let Checked { first, last, segments, bytes, staged_bytes, types, problems } = checked;
    let mut text = String::new();
    // Of a file that is too damaged to be opened nothing is known.
    if *first > 0 {
        let _ = writeln!(
            text,
            "entries {first} to {last} in {segments} segments of {bytes} bytes, states of {types} object types"
        );
    }
    if *staged_bytes > 0 {
        let _ = writeln!(text, "{staged_bytes} bytes are staged by runs under way");
    }
    for problem in problems {
        let _ = writeln!(text, "problem: {}", shown(problem, TEXT_BYTES_MAX));
    }
    if problems.is_empty() {
        text.push_str("everything fits together\n");
    }
    text
}

pub(super) fn change(entry: &Json) -> String {
    let text = |name: &str| shown(entry[name].as_str().unwrap_or_default(), TEXT_BYTES_MAX);
    let mut line = format!("{}  {}  {}/{}  {}", text("id"), text("at"), text("connection"), text("type"), text("kind"));
    match entry["uid"].is_string() {
        false => _ = write!(line, "  by {}", text("by")),
        true => _ = write!(line, "  {} {}", text("class"), text("uid")),
    }
    for name in ["previous-uid", "attributes", "partial"] {
        if !entry[name].is_null() {
            let label = if name == "attributes" { String::new() } else { format!("{name} ") };
            let _ = write!(line, "  {label}{}", shown(&entry[name].to_string(), TEXT_BYTES_MAX));
        }
    }
    line
}

fn last_run(report: Option<&RunReport>) -> String {
    match report {
        None => "none that wrote".to_owned(),
        Some(report) => {
            let code = match &report.outcome {
                Outcome::Failed(failure) => format!(" ({})", failure.code()),
                _ => String::new(),
            };
            format!("{} {}{code}, {} changes", report.ended, report.outcome.name(), report.deltas)
        }
    }
}

pub(super) fn types(types: &[TypeView]) -> String {
    if types.is_empty() {
        return "there is no connection".to_owned();
    }
    let row = |view: &TypeView| {
        let token = Shown(view.token.token.as_ref()).to_string();
        vec![
            view.token.key.to_string(),
            view.connector.to_string(),
            view.schedule.clone().unwrap_or_else(|| "when asked".to_owned()),
            state(view),
            shown(&token, 40),
            last_run(view.last_run.as_ref()),
        ]
    };
    let names = head(["type", "connector", "schedule", "state", "token", "last run that wrote"]);
    let mut text = table(&std::iter::once(names).chain(types.iter().map(row)).collect::<Vec<_>>());
    for (key, problem) in types.iter().filter_map(|view| Some((&view.token.key, view.problem.as_ref()?))) {
        let _ = writeln!(text, "{key} can't run: {}", shown(problem, TEXT_BYTES_MAX));
    }
    for (key, notice) in types.iter().filter_map(|view| Some((&view.token.key, view.notice.as_ref()?))) {
        let _ = writeln!(text, "{key}: {}", shown(notice, TEXT_BYTES_MAX));
    }
    text
}

fn state(view: &TypeView) -> String {
    let state = state_alone(view);
    match view.dead_letters {
        0 => state,
        count => format!("{state}, {}", counted(count, "dead letter")),
    }
}

fn state_alone(view: &TypeView) -> String {
    match view.token.state.as_str() {
        _ if view.problem.is_some() => "can't run".to_owned(),
        state @ ("live" | "origin") if view.reconciled.is_none() => format!("{state}, never reconciled"),
        state => state.to_owned(),
    }
}

/// What a connector asked for, and what was decided.
pub(super) fn asked(view: &ConnectionView) -> String {
    if view.capabilities.is_empty() {
        return "nothing\n".to_owned();
    }
    let row = |asked: &Asked| {
        let optional = if asked.optional { "optional" } else { "needed" };
        let (target, reason) = (shown(&asked.target, TEXT_BYTES_MAX), shown(&asked.reason, TEXT_BYTES_MAX));
        let how = if asked.decision == "awaits-approval" { "now" } else { "by" };
        let by = asked.by.iter().map(|by| shown(by, TEXT_BYTES_MAX)).collect::<Vec<_>>().join(", ");
        let by = if by.is_empty() { String::new() } else { format!("{how} {by}") };
        vec![asked.decision.clone(), format!("{} {target}", asked.kind), optional.to_owned(), by, reason]
    };
    let mut text = table(&view.capabilities.iter().map(row).collect::<Vec<_>>());
    let _ = match &view.ceiling {
        Some(ceiling) => writeln!(text, "the ceiling is {ceiling}"),
        None => writeln!(text, "there is no ceiling"),
    };
    if let Some(id) = &view.awaits_approval {
        let _ = writeln!(
            text,
            "an update asks for what awaits approval; to approve: tidewaiter connections approve {} {id}",
            view.name
        );
    }
    text
}

/// Which file of its connector a connection runs, and what becomes of a newer one.
fn revision(view: &RevisionView) -> String {
    let mut text = format!("file {}\n", view.sha256);
    if let Some(before) = &view.goes_back_to {
        let passed = view.passed.iter().map(|(name, passed)| format!("{name} {passed}")).collect::<Vec<_>>().join(", ");
        let passed = if passed.is_empty() { "none yet".to_owned() } else { passed };
        let _ = writeln!(
            text,
            "it is on trial until each type had {} runs with changes that ended well (so far: {passed}), and goes back to {before} if one fails",
            view.passes_at
        );
    }
    if let Some(refused) = &view.refused {
        let _ = writeln!(text, "a newer file is not run since {}: {}\n  {}", refused.at, refused.sha256, refused.why);
    }
    text
}

pub(super) fn connection(view: &ConnectionView) -> String {
    let mut text = format!("{}: connector {} {}\n", view.name, view.connector, shown(&view.connector_version, 40));
    text += &revision(&view.revision);
    let settings = serde_json::to_string_pretty(&view.settings).unwrap_or_default();
    let _ = write!(text, "\nSettings\n{settings}\n");
    if let Some(version) = view.settings_from {
        let _ = writeln!(text, "the connector made these of those that are written, for version {version} of them");
    }
    let _ = write!(text, "\nAsked for\n{}", asked(view));
    if !view.logins.is_empty() {
        text.push_str("\nLogins, put in by the host\n");
        let rows = view.logins.iter().map(|(name, to)| vec![name.clone(), to.join(", ")]);
        text.push_str(&table(&rows.collect::<Vec<_>>()));
    }
    text.push_str("\nLimits of a run, and the most that one took\n");
    let rows = |limits: &[Limit]| {
        let row = |limit: &Limit| {
            let unit = if limit.name.ends_with("-time") { " ms" } else { "" };
            let highest = limit.highest.map(|highest| format!("{highest}{unit}"));
            vec![limit.name.clone(), format!("{}{unit}", limit.value), highest.unwrap_or_default()]
        };
        table(&limits.iter().map(row).collect::<Vec<_>>())
    };
    text.push_str(&rows(&view.limits));
    let _ = writeln!(text, "host calls abandoned: {}", view.abandoned_calls);
    text.push_str("\nLimits of the sandbox\n");
    text.push_str(&rows(&view.sandbox));
    let _ = write!(text, "\nTypes\n{}", types(&view.types));
    text.push_str("\nLast runs that wrote something\n");
    if view.runs.is_empty() {
        text.push_str("none\n");
    }
    for run in &view.runs {
        let _ = write!(text, "{}  {}", run.ended, report(run));
        match &run.outcome {
            Outcome::Failed(failure) => {
                let _ = write!(text, ", {}: {}", failure.code(), shown(&failure.to_string(), TEXT_BYTES_MAX));
            }
            Outcome::Held(why) | Outcome::Guarded(why) => _ = write!(text, ": {why}"),
            _ => {}
        }
        if run.spent.tcp_connections > 0 {
            let _ =
                write!(text, ", {} TCP connections, TLS over {}", run.spent.tcp_connections, run.spent.tls_connections);
        }
        text.push('\n');
        let said = if matches!(run.outcome, Outcome::Failed(_)) { run.spent.log.as_slice() } else { &[] };
        for line in &said[said.len().saturating_sub(LOG_LINES_SHOWN)..] {
            let _ = writeln!(text, "  | {line}");
        }
    }
    text
}

pub(super) fn info(info: &ConnectorInfo) -> String {
    let words = |text: &str| shown(text, TEXT_BYTES_MAX);
    let operations = serde_json::to_value(&info.operations).unwrap_or_default();
    let names: Vec<&str> = operations.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let mut text = table(&[
        vec!["name".to_owned(), words(&info.name)],
        vec!["version".to_owned(), words(&info.version)],
        vec!["summary".to_owned(), words(&info.summary)],
        vec!["licence".to_owned(), words(&info.licence)],
        vec!["does".to_owned(), names.join(", ")],
        vec!["tokens".to_owned(), words(&info.token_format_written)],
    ]);
    text.push_str("\nAsks for\n");
    if info.capabilities.is_empty() {
        text.push_str("nothing\n");
    }
    for request in &info.capabilities {
        let optional = if request.optional { " (optional)" } else { "" };
        let what = serde_json::to_value(&request.capability).unwrap_or_default();
        for (kind, target) in what.as_object().into_iter().flatten() {
            let target = words(target.as_str().unwrap_or_default());
            let _ = writeln!(text, "{kind} {target}{optional}: {}", words(&request.reason));
        }
    }
    let schema: Json = serde_json::from_str(&info.settings_schema).unwrap_or_default();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    text.push_str("\nSettings\n");
    let rows = schema["properties"].as_object().into_iter().flatten().map(|(name, property)| {
        let needed = if required.contains(&name.as_str()) { "required" } else { "" };
        vec![words(name), needed.to_owned(), words(property["description"].as_str().unwrap_or_default())]
    });
    text.push_str(&table(&rows.collect::<Vec<_>>()));
    text
}

pub(super) fn connectors(rows: &[Json]) -> String {
    if rows.is_empty() {
        return "there is no connector".to_owned();
    }
    let text = |row: &Json, name: &str| shown(row[name].as_str().unwrap_or_default(), TEXT_BYTES_MAX);
    let row = |row: &Json| match row["problem"].is_string() {
        true => vec!["-".to_owned(), "-".to_owned(), text(row, "problem")],
        false => vec![text(row, "name"), text(row, "version"), text(row, "summary")],
    };
    table(&std::iter::once(head(["name", "version", "summary"])).chain(rows.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn revisions(rows: &[RevisionRow]) -> String {
    let names = |names: &[ConnectionName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    for RevisionRow { revision, runs, on_trial, refused, denied } in rows {
        let Revision { sha256, version, bytes, seen, last_seen, trust, token_format } = revision;
        let _ =
            writeln!(text, "{sha256}\n  version {}, {bytes} bytes, met {seen}, last {last_seen}", shown(version, 40));
        if !trust.is_empty() {
            let _ = writeln!(text, "  {trust}");
        }
        if !token_format.is_empty() {
            let _ = writeln!(text, "  writes tokens of the format {}", shown(token_format, 40));
        }
        if let Some(why) = denied {
            let _ = writeln!(text, "  denied: {}", shown(why, TEXT_BYTES_MAX));
        }
        if !runs.is_empty() {
            let _ = writeln!(text, "  runs in {}", names(runs));
        }
        if !on_trial.is_empty() {
            let _ = writeln!(text, "  on trial in {}", names(on_trial));
        }
        for (name, why) in refused {
            let _ = writeln!(text, "  not run in {name}: {}", shown(why, TEXT_BYTES_MAX));
        }
    }
    text
}

/// What is trusted, as the lock has it.
pub(super) fn lock(lock: &Lock) -> String {
    let mut text = String::new();
    for (name, pin) in &lock.connectors {
        let _ = writeln!(text, "{name} {} pinned {}", shown(&pin.version, 40), pin.sha256);
    }
    for (name, pulled) in &lock.pulled {
        let _ = writeln!(text, "{name} pulled from {} {}", shown(&pulled.from, TEXT_BYTES_MAX), pulled.digest);
    }
    for (sha256, why) in &lock.denied {
        let _ = writeln!(text, "denied {sha256}: {}", shown(why, TEXT_BYTES_MAX));
    }
    for (name, why) in &lock.quarantined {
        let _ = writeln!(text, "{name} in quarantine: {}", shown(why, TEXT_BYTES_MAX));
    }
    text
}

/// One line per connection.
pub(super) fn reloaded(reloaded: &Reloaded) -> String {
    let Reloaded { differences: Differences { added, changed, removed, host }, broken, after_restart } = reloaded;
    let mut text = String::new();
    for name in added {
        let problem = broken.get(name).map(|problem| format!(", and can't run: {}", shown(problem, TEXT_BYTES_MAX)));
        let _ = writeln!(text, "{name} is new{}", problem.unwrap_or_default());
    }
    for (name, parts) in changed {
        let problem = broken.get(name).map(|problem| format!("; it can't run: {}", shown(problem, TEXT_BYTES_MAX)));
        let _ = writeln!(text, "{name} changed: {}{}", parts.join(", "), problem.unwrap_or_default());
    }
    for name in removed {
        let _ = writeln!(text, "{name} is gone");
    }
    if !host.is_empty() {
        let _ = writeln!(text, "the host changed: {}", host.join(", "));
    }
    if text.is_empty() {
        text.push_str("nothing differs\n");
    }
    if !after_restart.is_empty() {
        let _ = writeln!(text, "counts after a restart: {}", after_restart.join(", "));
    }
    text
}

pub(super) fn findings(file: &Path, findings: &[Finding]) -> String {
    let mut text = format!("{}: understood\n", file.display());
    for Finding { connection, connector, problems, add } in findings {
        let _ = match problems.is_empty() {
            true => writeln!(text, "connection {connection} ({connector}): can run"),
            false => writeln!(text, "connection {connection} ({connector}):"),
        };
        for problem in problems {
            let _ = writeln!(text, "  {problem}");
        }
        for add in add {
            let needed = if problems.is_empty() { "It can do more with a grant:" } else { "To grant it," };
            let lines = add.lines.replace('\n', "\n    ");
            let _ = writeln!(text, "  {needed} write into {}:\n    {lines}", add.file);
        }
    }
    text
}
