//! What tests of all dialects share: what was told, and who writes meanwhile.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::io::{Read, Write};
use std::process::Child;

use serde_json::{Value as Json, json};
use tidewaiter_connector::testing::Run;
use tidewaiter_connector::{Change, Value};

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
