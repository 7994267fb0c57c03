//! All objects as they are now, for passes over everything. Owns what of several rows of one uid is the object, and that nothing is
//! left out: what isn't handed over looks like a deletion.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use tidewaiter_connector::{Error, Object, Objects};

use crate::deliver::object;
use crate::files::CsvFile;
use crate::rows::Row;
use crate::scan::{Bad, each_row, position, shape, text};
use crate::settings::{BadRows, Config};

/// Hands over every object of the files. A row that can't be read is an error, whatever the settings say of changes.
pub(crate) fn read(files: &[CsvFile], config: &Config, objects: &mut Objects) -> Result<(), Error> {
    let mut strict = config.clone();
    strict.settings.bad_rows = BadRows::Reject;
    if strict.settings.updated_at.is_some() { newest(files, &strict, objects) } else { only(files, &strict, objects) }
}

/// Of rows with times, the newest of each uid is the object, unless it says that the object is gone.
fn newest(files: &[CsvFile], config: &Config, objects: &mut Objects) -> Result<(), Error> {
    let mut newest: HashMap<u128, (i64, u64, usize, u64)> = HashMap::new();
    let mut scratch = Vec::new();
    for (number, file) in files.iter().enumerate() {
        rows(file, config, |row, offset| {
            let at = position(row, &file.columns, config)?;
            let place = (at, row.digest(&mut scratch), number, offset);
            let known = newest.entry(hash(text(row, file.columns.uid)?)).or_insert(place);
            *known = (*known).max(place);
            Ok(None)
        })?;
    }
    for (number, file) in files.iter().enumerate() {
        hand_over(file, config, objects, |row, offset| {
            let uid = hash(text(row, file.columns.uid)?);
            Ok(newest.get(&uid).is_some_and(|known| (known.2, known.3) == (number, offset)))
        })?;
    }
    Ok(())
}

/// Of rows without times, each is an object, and a uid is there once.
fn only(files: &[CsvFile], config: &Config, objects: &mut Objects) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for file in files {
        hand_over(file, config, objects, |row, _| {
            let uid = text(row, file.columns.uid)?;
            let twice = || Bad::new(Some(file.columns.uid), format!("{uid:?} is there twice"));
            if seen.insert(hash(uid)) { Ok(true) } else { Err(twice()) }
        })?;
    }
    Ok(())
}

fn hand_over(
    file: &CsvFile,
    config: &Config,
    objects: &mut Objects,
    mut is_object: impl FnMut(&Row, u64) -> Result<bool, Bad>,
) -> Result<(), Error> {
    let mut handed = Ok(());
    let mut push = |object: Object| {
        handed = objects.push(object);
        handed.is_ok()
    };
    rows(file, config, |row, offset| {
        shape(row, &file.columns)?;
        let is_gone = match file.columns.deleted_at {
            Some(column) => !text(row, column)?.is_empty(),
            None => false,
        };
        if !is_object(row, offset)? || is_gone {
            return Ok(None);
        }
        let goes_on = push(object(row, file, config)?);
        Ok((!goes_on).then_some(()))
    })?;
    handed?;
    file.unchanged(config)
}

/// Visits the rows of a file, until something is answered.
fn rows(
    file: &CsvFile,
    config: &Config,
    mut visit: impl FnMut(&Row, u64) -> Result<Option<()>, Bad>,
) -> Result<(), Error> {
    each_row(file, config, true, |row, place| match visit(row, place.offset) {
        Ok(None) => Ok(ControlFlow::Continue(())),
        Ok(Some(())) => Ok(ControlFlow::Break(())),
        Err(bad) => bad.handle(file, place.line, config).map(|()| ControlFlow::Continue(())),
    })
}

fn hash(uid: &str) -> u128 {
    let hash = blake3::hash(uid.as_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk::<16>().expect("a hash has 32 bytes");
    u128::from_le_bytes(*first)
}
