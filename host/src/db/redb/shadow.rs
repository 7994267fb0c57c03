//! The rows of shadows.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use tidewaiter_core::name::{ConnectionName, TypeKey};

use super::write::end;
use super::{Fault, StateKey, of_type, of_types};
use crate::db::seal::{Keys, Kind};
use crate::db::shadow::{Said, Shadow, ShadowChore, StoredRow, decode, encode};
use crate::db::store::ReadError;
use crate::db::tables::{SHADOW_ROWS, SHADOWS, state_key};

/// Rows that are handed over together are about as many bytes.
const RANGE_BYTES: usize = 1024 * 1024;
/// What a row takes in memory besides its uid.
const ROW_BYTES: usize = 96;

pub(super) fn perform(db: &Database, chore: &ShadowChore, keys: &Keys) -> Result<(), Fault> {
    let txn = db.begin_write()?;
    let changed = match chore {
        ShadowChore::Open { key, form } => {
            let known = read_all(&txn.open_table(SHADOWS)?, keys)?;
            let next = known.values().map(|shadow| shadow.id).max().unwrap_or(0) + 1;
            match known.get(key) {
                Some(shadow) if shadow.form == *form => false,
                Some(shadow) => put(&txn, key, &Shadow { form: form.clone(), ..shadow.clone() }, keys)?,
                None => put(&txn, key, &Shadow::new(next, form.clone()), keys)?,
            }
        }
        ShadowChore::Complete { key, generation, at } => {
            let shadow = required(&txn, key, keys)?;
            let complete_generation = generation.or(shadow.complete_generation);
            put(&txn, key, &Shadow { complete_at: Some(*at), complete_generation, ..shadow }, keys)?
        }
        ShadowChore::Apply { key, from, erasures, to, said } => {
            let mut shadow = required(&txn, key, keys)?;
            let is_as_read = (shadow.position, shadow.erasures) == (*from, *erasures);
            if is_as_read {
                apply(&mut txn.open_table(SHADOW_ROWS)?, &mut shadow, said)?;
                shadow.position = *to;
                put(&txn, key, &shadow, keys)?;
            }
            is_as_read
        }
    };
    end(txn, changed)
}

/// Takes a uid out of the shadows of a connection. Answers whether there is one.
pub(super) fn forget(
    txn: &WriteTransaction,
    connection: &ConnectionName,
    uid: &str,
    keys: &Keys,
) -> Result<bool, Fault> {
    let known = read_all(&txn.open_table(SHADOWS)?, keys)?;
    let mut changed = false;
    for (key, mut shadow) in known.into_iter().filter(|(key, _)| key.connection == *connection) {
        let of_uid = (shadow.id, shadow.digester().key(uid));
        if txn.open_table(SHADOW_ROWS)?.remove(of_uid)?.is_some() {
            shadow.rows = shadow.rows.saturating_sub(1);
        }
        shadow.erasures += 1;
        changed = put(txn, &key, &shadow, keys)?;
    }
    Ok(changed)
}

fn apply(
    rows: &mut Table<'_, (u32, u128), &'static [u8]>,
    shadow: &mut Shadow,
    said: &BTreeMap<u128, Said>,
) -> Result<(), Fault> {
    for (key, said) in said {
        let at = (shadow.id, *key);
        match said {
            Said::Gone if rows.remove(at)?.is_some() => shadow.rows = shadow.rows.saturating_sub(1),
            Said::Gone => {}
            Said::Is(hash, uid) => shadow.rows += u64::from(rows.insert(at, encode(*hash, uid).as_slice())?.is_none()),
        }
    }
    Ok(())
}

fn put(txn: &WriteTransaction, key: &TypeKey, shadow: &Shadow, keys: &Keys) -> Result<bool, Fault> {
    txn.open_table(SHADOWS)?.insert(state_key(key), keys.row(Kind::Shadow, shadow)?.as_slice())?;
    Ok(true)
}

fn required(txn: &WriteTransaction, key: &TypeKey, keys: &Keys) -> Result<Shadow, Fault> {
    let missing = || ReadError::Row { row: format!("the shadow of {key}"), problem: "it is not there".into() };
    Ok(read(&txn.open_table(SHADOWS)?, key, keys)?.ok_or_else(missing)?)
}

pub(super) fn read(
    shadows: &impl ReadableTable<StateKey, &'static [u8]>,
    key: &TypeKey,
    keys: &Keys,
) -> Result<Option<Shadow>, Fault> {
    of_type(shadows, key, (Kind::Shadow, keys), "the shadow of")
}

pub(super) fn read_all(
    shadows: &impl ReadableTable<StateKey, &'static [u8]>,
    keys: &Keys,
) -> Result<BTreeMap<TypeKey, Shadow>, Fault> {
    of_types(shadows, (Kind::Shadow, keys), "the shadow of")
}

pub(super) fn range(db: &Database, id: u32, from: u128) -> Result<Vec<StoredRow>, Fault> {
    let rows = db.begin_read()?.open_table(SHADOW_ROWS)?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    for entry in rows.range((id, from)..=(id, u128::MAX))? {
        let (key, stored) = entry?;
        let key = key.value().1;
        let damaged =
            || ReadError::Row { row: format!("row {key:032x} of shadow {id}"), problem: "it is cut off".into() };
        let (hash, uid) = decode(stored.value()).ok_or_else(damaged)?;
        bytes += ROW_BYTES + uid.len();
        found.push((key, hash, uid.to_vec()));
        if bytes >= RANGE_BYTES {
            break;
        }
    }
    Ok(found)
}
