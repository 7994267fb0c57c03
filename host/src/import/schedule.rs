//! A schedule of OpenIDM's, as keys of an object type: when it runs, and in which zone. What a type can't say is written as a remark, or not at all, with
//! its reason.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::json::{Fields, Node};
use super::provisioner::Provisioner;
use super::quartz;
use super::{Fate, Here, ImportError, Notes, quoted};

/// OpenIDM's services have this before their names.
const SERVICE: &str = "org.forgerock.openidm.";
/// The shortest interval of a type, in milliseconds.
const EVERY_MIN_MS: i64 = 100;
/// A longer interval is none that anybody means.
const EVERY_MAX_MS: i64 = 366 * 24 * 3600 * 1000;

/// A schedule of live sync.
#[derive(Debug)]
pub(super) struct Schedule<'a> {
    /// What it is of, as it is written.
    pub(super) source: Node<'a>,
    /// Of which connection, as OpenIDM calls it.
    pub(super) connection: String,
    /// Of which type, as OpenIDM calls it; none: of all.
    pub(super) object_type: Option<String>,
    /// Keys of a type; none where they can't be said.
    pub(super) keys: Keys,
    /// Why it doesn't count; none: it does.
    pub(super) idle: Option<String>,
}

/// Keys of a type, and what they say.
pub(super) type Keys = Vec<(&'static str, String)>;

/// Reads a schedule; none: it is not one of live sync.
pub(super) fn schedule<'a>(
    node: Node<'a>,
    known: &[Provisioner],
    here: &Here,
    notes: &mut Notes,
) -> Result<Option<Schedule<'a>>, ImportError> {
    let mut fields = node.fields()?;
    let service = fields.take("invokeService").unwrap_or_else(|| fields.at("invokeService"));
    let called = service.text()?;
    let mut context = fields.take("invokeContext").map(|context| context.fields()).transpose()?;
    if called.strip_prefix(SERVICE).unwrap_or(called) != "provisioner" {
        notes.none(&service, "it is no live sync").then(instead(called, context.as_mut(), known));
        return Ok(None);
    }
    let Some(mut context) = context else {
        return Err(fields.at("invokeContext").wrong("it doesn't say what is invoked"));
    };
    let action = context.take("action").unwrap_or_else(|| context.at("action"));
    if !matches!(action.text()?, "liveSync" | "activeSync") {
        notes.none(&action, "it is no live sync").then("a timer of the machine's that runs a command of tidewaiter");
        return Ok(None);
    }
    let source = context.take("source").unwrap_or_else(|| context.at("source"));
    let (connection, object_type) = parts(&source)?;
    for (_, node) in context.rest() {
        notes.none(&node, "live sync is asked for nothing else");
    }
    let idle = idle(&mut fields, here, notes)?;
    let (keys, unsaid) = match keys(&mut fields, notes)? {
        Ok(keys) => (keys, None),
        Err(reason) => (Keys::new(), Some(reason)),
    };
    always(&mut fields, notes)?;
    for (_, node) in fields.rest() {
        notes.none(&node, "schedules have nothing like it");
    }
    Ok(Some(Schedule { source, connection, object_type, keys, idle: unsaid.or(idle) }))
}

/// `system/NAME/TYPE`, or `system/NAME`.
fn parts(source: &Node) -> Result<(String, Option<String>), ImportError> {
    let text = source.text()?.trim_matches('/');
    let parts: Vec<&str> = text.strip_prefix("system/").unwrap_or(text).split('/').collect();
    let said = |text: &str| !text.is_empty() && text != "..";
    match *parts.as_slice() {
        [connection] if said(connection) => Ok((connection.to_owned(), None)),
        [connection, "__ALL__"] if said(connection) => Ok((connection.to_owned(), None)),
        [connection, name] if said(connection) && said(name) => Ok((connection.to_owned(), Some(name.to_owned()))),
        _ => Err(source.wrong("it is not of the form system/NAME/TYPE")),
    }
}

/// What to do in the place of a schedule that is no live sync.
fn instead(service: &str, context: Option<&mut Fields>, known: &[Provisioner]) -> String {
    const TIMER: &str = "a timer of the machine's";
    let mapping = context.and_then(|context| context.take("mapping"));
    let mapping = mapping.as_ref().and_then(|mapping| mapping.raw().ok()).unwrap_or_default().to_ascii_lowercase();
    let from = known.iter().flat_map(|provisioner| provisioner.types.iter().map(move |it| (provisioner, it)));
    let begins = |provisioner: &Provisioner, said: &str| {
        mapping.starts_with(&format!("system{}{said}", provisioner.said).to_ascii_lowercase())
    };
    let read =
        from.filter(|(provisioner, it)| begins(provisioner, it.said) || begins(provisioner, &format!("{}s_", it.said)));
    let read = read.max_by_key(|(provisioner, it)| provisioner.said.len() + it.said.len());
    match (service.strip_prefix(SERVICE).unwrap_or(service), read) {
        ("sync", Some((provisioner, it))) => {
            format!("{TIMER} that runs `tidewaiter reconcile {} {}`", provisioner.name, it.name)
        }
        ("sync", None) => format!("{TIMER} that runs `tidewaiter reconcile CONNECTION TYPE`"),
        _ => format!("{TIMER} that runs the script; nothing here runs any"),
    }
}

/// Why the schedule doesn't count.
fn idle(fields: &mut Fields, here: &Here, notes: &mut Notes) -> Result<Option<String>, ImportError> {
    let mut idle = None;
    if let Some(enabled) = fields.take("enabled")
        && !enabled.flag()?
    {
        idle = Some("it is not enabled in OpenIDM".to_owned());
        notes.note(Fate::Changed, &enabled, "a schedule is there or not: it is written as a remark");
    }
    let zone = fields.at("timeZone");
    let zone =
        zone.raw().ok().and_then(|name| TimeZone::get(&self::zone(name)?).ok()).unwrap_or_else(|| here.zone.clone());
    for (key, said) in [("startTime", "it begins"), ("endTime", "it ends")] {
        let Some(node) = fields.take(key) else { continue };
        let text = node.text()?;
        let time = match text.parse::<Timestamp>() {
            Ok(time) => time,
            Err(_) => {
                let time: DateTime =
                    text.parse().map_err(|_| node.wrong("it is not a time like 2026-03-01T08:00:00"))?;
                zone.to_zoned(time).map_err(|error| node.wrong(error))?.timestamp()
            }
        };
        let is_past = time.as_millisecond() <= here.now.0;
        if key == "startTime" && is_past {
            notes.none(&node, "it is past, and says nothing any more");
            continue;
        }
        let why = format!("{said} at {time} in OpenIDM, and a schedule here neither begins nor ends");
        notes
            .note(Fate::ToDo, &node, "a schedule neither begins nor ends: it is written as a remark")
            .then("make it count while it is to");
        idle.get_or_insert(why);
    }
    Ok(idle)
}

/// When it runs, or why that can't be said.
fn keys(fields: &mut Fields, notes: &mut Notes) -> Result<Result<Keys, String>, ImportError> {
    let kind = fields.take("type");
    let mut keys = match kind.as_ref().map(Node::text).transpose()? {
        None | Some("cron") => {
            let node = fields.take("schedule").unwrap_or_else(|| fields.at("schedule"));
            match quartz::translate(node.text()?) {
                Ok(text) => vec![("quartz", text)],
                Err(untranslated) => {
                    notes
                        .none(&node, untranslated.to_string())
                        .then("write `every`, `cron` or `quartz` of the type by hand");
                    misfire(fields)?;
                    fields.take("timeZone");
                    return Ok(Err(untranslated.to_string()));
                }
            }
        }
        Some("simple") => match interval(fields, notes)? {
            Some(every) => vec![("every", every)],
            None => return Ok(Err("OpenIDM runs it once, or so many times".into())),
        },
        Some(other) => {
            let node = kind.unwrap_or_else(|| fields.at("type"));
            return Err(node.wrong(format!("{} is neither cron nor simple", quoted(other))));
        }
    };
    match fields.take("timeZone") {
        Some(node) if keys[0].0 == "quartz" => {
            let Some(zone) = zone(node.text()?) else {
                let reason = format!("{} is no zone of the time zone database", quoted(node.text()?));
                notes.none(&node, reason.clone()).then("write `quartz` and `zone` of the type by hand");
                misfire(fields)?;
                return Ok(Err(reason));
            };
            keys.push(("zone", zone));
        }
        Some(node) => {
            notes.none(&node, "an interval has no zone");
        }
        None => {}
    }
    if misfire(fields)? {
        keys.push(("misfire", "skip".into()));
    }
    Ok(Ok(keys))
}

/// Whether occurrences that were missed are left out.
fn misfire(fields: &mut Fields) -> Result<bool, ImportError> {
    let Some(node) = fields.take("misfirePolicy") else { return Ok(false) };
    match node.text()? {
        "fireAndProceed" => Ok(false),
        "doNothing" => Ok(true),
        other => Err(node.wrong(format!("{} is neither fireAndProceed nor doNothing", quoted(other)))),
    }
}

/// An interval, if it is one that goes on.
fn interval(fields: &mut Fields, notes: &mut Notes) -> Result<Option<String>, ImportError> {
    let [count, interval] = ["repeatCount", "repeatInterval"].map(|key| fields.take(key));
    let count = count.map(|count| count.number()).transpose()?;
    if let (Some(-1), Some(node)) = (count, &interval) {
        let ms = node.number()?;
        return match (EVERY_MIN_MS..=EVERY_MAX_MS).contains(&ms) {
            true => Ok(Some(format!("{ms}ms"))),
            false => Err(node.wrong(format!("{ms} ms are none of {EVERY_MIN_MS}..={EVERY_MAX_MS}"))),
        };
    }
    let node = fields.at("type");
    notes.none(&node, "it runs once, or so many times").then("`tidewaiter sync CONNECTION TYPE` runs once");
    fields.take("misfirePolicy");
    fields.take("timeZone");
    Ok(None)
}

/// A zone of the time zone database, by the name that Java has for it.
fn zone(name: &str) -> Option<String> {
    // `GMT+2` and `GMT+02:00`: the database has whole hours, with the other sign.
    let offset =
        name.strip_prefix("GMT").and_then(|rest| Some((rest.strip_prefix(['+', '-'])?, rest.starts_with('+'))));
    let hours =
        offset.and_then(|(hours, east)| Some((hours.strip_suffix(":00").unwrap_or(hours).parse::<u8>().ok()?, east)));
    let name = match hours {
        Some((0, _)) => "UTC".to_owned(),
        Some((hours, east)) => format!("Etc/GMT{}{hours}", if east { '-' } else { '+' }),
        None => name.to_owned(),
    };
    TimeZone::get(&name).is_ok().then_some(name)
}

/// What is always so here.
fn always(fields: &mut Fields, notes: &mut Notes) -> Result<(), ImportError> {
    if let Some(node) = fields.take("persisted")
        && !node.flag()?
    {
        notes
            .none(&node, "an occurrence that was missed while the host was down is made up for, once")
            .then("`misfire = \"skip\"` leaves it out");
    }
    if let Some(node) = fields.take("concurrentExecution")
        && node.flag()?
    {
        notes.none(&node, "there is one run of a type at a time");
    }
    if let Some(node) = fields.take("invokeLogLevel") {
        notes.none(&node, "each run is in the log").then("`tidewaiter --log` says how much is logged");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_java_are_found_or_refused() {
        for (java, expected) in [
            ("Europe/Berlin", Some("Europe/Berlin")),
            ("UTC", Some("UTC")),
            ("GMT+02:00", Some("Etc/GMT-2")),
            ("GMT-8", Some("Etc/GMT+8")),
            ("GMT+0", Some("UTC")),
            ("GMT+05:30", None),
            ("GMT+99", None),
            ("Mars/Olympus", None),
            ("../etc/passwd", None),
        ] {
            assert_eq!(zone(java).as_deref(), expected, "{java}");
        }
    }
}
