//! What tests of all dialects share: what was told, and who writes meanwhile.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin};

use serde_json::{Value as Json, json};
use sql::Sql;
use tidewaiter_connector::testing::{Connection, Run};
use tidewaiter_connector::{Change, SyncToken, Value};

pub(crate) fn by_time(lag_ms: u64) -> Json {
    json!({ "by": "timestamp", "column": "at", "lag_ms": lag_ms })
}

/// What was handed over, one text a change.
pub(crate) fn told(run: &Run) -> Vec<String> {
    if let Err(error) = &run.outcome {
        panic!("{error}");
    }
    let text = |change: &Change| match change {
        Change::CreateOrUpdate(updated) => match updated.object.get("mail") {
            Some([Value::Text(mail)]) => format!("{} {mail}", updated.object.uid),
            _ => updated.object.uid.clone(),
        },
        Change::Delete(deleted) => format!("-{}", deleted.uid),
        other => format!("{other:?}"),
    };
    run.deltas().into_iter().map(|delta| text(&delta.change)).collect()
}

/// A session in a transaction that has written.
pub(crate) struct Writer(Child);

impl Writer {
    pub(crate) fn begins(session: Child, statements: &str) -> Self {
        let mut this = Self(session);
        this.says(&format!("BEGIN; {statements}; SELECT 'written';\n"));
        let mut said = [0; 8];
        this.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        this
    }

    pub(crate) fn says(&mut self, statements: &str) {
        self.0.stdin.as_mut().unwrap().write_all(statements.as_bytes()).unwrap();
    }

    pub(crate) fn ends(mut self, how: &str) {
        self.says(how);
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Several strategies that read beside writers.
pub(crate) struct Readers(Vec<Reader>);

struct Reader {
    strategy: &'static str,
    connection: Connection<Sql>,
    token: Option<SyncToken>,
    /// How often it told of each row.
    seen: BTreeMap<String, u32>,
}

impl Readers {
    /// From now on.
    pub(crate) fn of(connections: impl IntoIterator<Item = (&'static str, Connection<Sql>)>) -> Self {
        let reader = |(strategy, connection): (_, Connection<Sql>)| {
            let connection = connection.batches_of(3);
            let token = connection.latest_sync_token("account").unwrap();
            Reader { strategy, connection, token, seen: BTreeMap::new() }
        };
        Self(connections.into_iter().map(reader).collect())
    }

    pub(crate) fn read(&mut self) {
        for Reader { connection, token, seen, .. } in &mut self.0 {
            let run = connection.sync("account", token.clone());
            for uid in told(&run) {
                *seen.entry(uid.split(' ').next().unwrap().to_owned()).or_default() += 1;
            }
            *token = run.token();
        }
    }

    /// Reads until the writers have ended. Answers how many rows each had told of before the last of them did.
    pub(crate) fn read_beside(&mut self, mut writers: Vec<(Child, ChildStdin)>) -> Vec<usize> {
        let mut early = Vec::new();
        while !writers.is_empty() {
            self.read();
            early = self.0.iter().map(|reader| reader.seen.len()).collect();
            writers.retain_mut(|(session, input)| {
                // Its input ends once all was taken.
                input.write_all(b"\\q\n").unwrap_or_default();
                session.try_wait().unwrap().is_none()
            });
        }
        early
    }

    /// Each has told of each of these rows, and once.
    pub(crate) fn judge(&self, rows: &[String]) {
        for Reader { strategy, seen, .. } in &self.0 {
            let lost: Vec<_> = rows.iter().filter(|id| !seen.contains_key(*id)).collect();
            let repeated: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
            let is_whole = lost.is_empty() && repeated.is_empty() && seen.len() == rows.len();
            assert!(is_whole, "{strategy}: {lost:?} {repeated:?}");
        }
    }
}
