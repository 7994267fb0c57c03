//! Looks whether what the tables say fits together. Mends nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use serde::de::DeserializeOwned;
use tidewaiter_core::dead_letter::released;
use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::run::RunReport;

use super::{Fault, dead_letter, read_consumers, read_counters, read_states, read_usage, refused, shadow};
use crate::db::seal::{Keys, Kind};
use crate::db::segment::Unpacked;
use crate::db::shadow::decode;
use crate::db::tables::{
    APPROVED, CONSUMERS, DEAD_LETTERS, FAULTS, INDEX, META, PLACEMENTS, REVISIONS, RUNS, SEGMENTS, SHADOW_ROWS,
    SHADOWS, STAGED, STATES, TOKENS, USAGE, VAULT, parse,
};
use crate::db::{Checked, Faults, Placement, Revision, TokenChange};

pub(super) fn check(db: &impl ReadableDatabase, deep: bool, keys: &Keys) -> Result<Checked, Fault> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let counters = read_counters(&meta)?;
    let (index, segments, staged) = (txn.open_table(INDEX)?, txn.open_table(SEGMENTS)?, txn.open_table(STAGED)?);
    let mut checked = Checked { first: counters.first, last: counters.sequence, ..Checked::default() };
    let mut usage: BTreeMap<String, u64> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut next = counters.first;
    for entry in index.iter()? {
        let (first, segment) = entry?;
        let (first, (number, count, bytes, _, connection)) = (first.value(), segment.value());
        if first != next {
            checked.problems.push(format!("the journal goes on with entry {first} where {next} is next"));
        }
        next = first + u64::from(count);
        known.insert(number);
        checked.segments += 1;
        checked.bytes += bytes;
        *usage.entry(connection.to_owned()).or_default() += bytes;
        let Some(stored) = segments.get(number)? else {
            checked.problems.push(format!("segment {number} with the entries {first} to {} is not there", next - 1));
            continue;
        };
        let stored = stored.value();
        if stored.len() as u64 != bytes {
            checked.problems.push(format!("segment {number} has {} bytes where {bytes} were written", stored.len()));
        }
        if let Some(damage) = deep.then(|| damage(stored, count, connection, keys)).flatten() {
            checked.problems.push(format!("segment {number} with the entries {first} to {}: {damage}", next - 1));
        }
    }
    if next != counters.sequence + 1 {
        checked.problems.push(format!(
            "the journal ends with entry {} where {} is the last",
            next - 1,
            counters.sequence
        ));
    }
    for entry in staged.iter()? {
        let (number, row) = entry?;
        let (bytes, connection) = row.value();
        known.insert(number.value());
        checked.staged_bytes += bytes;
        *usage.entry(connection.to_owned()).or_default() += bytes;
    }
    if segments.len()? != known.len() as u64 {
        let count = segments.len()?;
        checked.problems.push(format!("{count} segments are stored, and {} are known", known.len()));
    }
    let counted = read_usage(&meta, &txn.open_table(USAGE)?)?;
    if counted.connections != usage || counted.total != usage.values().sum::<u64>() {
        checked.problems.push(format!(
            "{} bytes are counted for {} of segments",
            counted.total,
            usage.values().sum::<u64>()
        ));
    }
    shadows(&mut checked, &txn, keys)?;
    dead_letters(&mut checked, &txn, keys)?;
    if let Err(Fault::Read(error)) = refused::read(&txn, None, keys) {
        checked.problems.push(error.to_string());
    }
    checked.types = read_states(&txn.open_table(STATES)?, keys)?.len() as u64;
    read_consumers(&txn.open_table(CONSUMERS)?)?;
    plain::<Approved>(&mut checked, &txn.open_table(APPROVED)?, "what is approved for")?;
    plain::<Faults>(&mut checked, &txn.open_table(FAULTS)?, "what went wrong with")?;
    plain::<Placement>(&mut checked, &txn.open_table(PLACEMENTS)?, "what runs of")?;
    for entry in txn.open_table(REVISIONS)?.iter()? {
        let (key, revision) = entry?;
        let (connector, sha256) = key.value();
        let what = || format!("the file {sha256} of {connector}");
        if let Err(error) = parse::<Revision>(revision.value(), what) {
            checked.problems.push(error.to_string());
        }
    }
    if deep {
        for entry in txn.open_table(RUNS)?.iter()? {
            let (run, report) = entry?;
            unreadable::<RunReport>(&mut checked, (Kind::Run, keys), report.value(), || {
                format!("the report of run {}", run.value())
            });
        }
        for entry in txn.open_table(TOKENS)?.iter()? {
            let (key, change) = entry?;
            let (connection, object_type, _) = key.value();
            let name = || format!("the token history of {connection}/{object_type}");
            unreadable::<TokenChange>(&mut checked, (Kind::Token, keys), change.value(), name);
        }
        for entry in txn.open_table(VAULT)?.iter()? {
            let (credential, kept) = entry?;
            if let Err(error) = keys.open(Kind::Vault, kept.value()) {
                checked.problems.push(format!("the refresh token of {}: {error}", credential.value()));
            }
        }
    }
    Ok(checked)
}

/// Looks whether the rows of shadows are theirs, and as many as they say.
fn shadows(checked: &mut Checked, txn: &ReadTransaction, keys: &Keys) -> Result<(), Fault> {
    let shadows = shadow::read_all(&txn.open_table(SHADOWS)?, keys)?;
    let mut counted: BTreeMap<u32, u64> = BTreeMap::new();
    for entry in txn.open_table(SHADOW_ROWS)?.iter()? {
        let (key, row) = entry?;
        let (id, key) = key.value();
        *counted.entry(id).or_default() += 1;
        if decode(row.value()).is_none() || !shadows.values().any(|shadow| shadow.id == id) {
            checked.problems.push(format!("row {key:032x} of shadow {id} is damaged, or nobody's"));
        }
    }
    for (key, shadow) in &shadows {
        let found = counted.get(&shadow.id).copied().unwrap_or(0);
        if found != shadow.rows {
            checked.problems.push(format!("the shadow of {key} has {found} rows where {} are counted", shadow.rows));
        }
        if shadow.position > checked.last {
            let (position, last) = (shadow.position, checked.last);
            checked.problems.push(format!("the shadow of {key} stands at entry {position} where {last} is the last"));
        }
    }
    Ok(())
}

/// Looks whether dead letters can be read, and whether what waits has something to wait for.
fn dead_letters(checked: &mut Checked, txn: &ReadTransaction, keys: &Keys) -> Result<(), Fault> {
    let letters = match dead_letter::read(&txn.open_table(DEAD_LETTERS)?, None, keys) {
        Err(Fault::Read(error)) => {
            checked.problems.push(error.to_string());
            return Ok(());
        }
        letters => letters?,
    };
    for of_type in letters.chunk_by(|one, next| one.key == next.key) {
        let letters = of_type.iter().map(|stored| (stored.number, &stored.letter));
        for number in released(letters, &HashSet::new()) {
            checked.problems.push(format!("dead letter {number} of {} waits for nothing", of_type[0].key));
        }
    }
    Ok(())
}

/// Notes a row that can't be read.
fn unreadable<T: DeserializeOwned>(
    checked: &mut Checked,
    (kind, keys): (Kind, &Keys),
    bytes: &[u8],
    name: impl FnOnce() -> String,
) {
    if let Err(error) = keys.parse::<T>(kind, bytes, name) {
        checked.problems.push(error.to_string());
    }
}

/// What is wrong with the content of a segment.
fn damage(stored: &[u8], count: u32, connection: &str, keys: &Keys) -> Option<String> {
    let content = match keys.segment(stored) {
        Ok(content) => content,
        Err(damage) => return Some(damage.to_string()),
    };
    let segment = match Unpacked::new(&content) {
        Ok(segment) => segment,
        Err(damage) => return Some(damage.to_string()),
    };
    if segment.count != count || segment.head.key.connection.as_str() != connection {
        return Some("its content is another segment's".into());
    }
    segment.entries(0).find_map(Result::err).map(|damage| damage.to_string())
}

/// Looks whether rows that are never sealed can be read.
fn plain<T: DeserializeOwned>(
    checked: &mut Checked,
    table: &ReadOnlyTable<&'static str, &'static [u8]>,
    what: &str,
) -> Result<(), Fault> {
    for entry in table.iter()? {
        let (name, row) = entry?;
        let problem = parse::<T>(row.value(), || format!("{what} {}", name.value())).err();
        checked.problems.extend(problem.map(|error| error.to_string()));
    }
    Ok(())
}
