//! Which transactions go on that may write, and waiting for their end.
//!
//! **What InnoDB tells.** `INNODB_TRX` lists the transactions that go on, prepared ones included, to who has the privilege `PROCESS`.
//! The list is a copy that everybody shares, and is made anew only where nobody has read it for a tenth of a second; so one is
//! believed only if it has a transaction of ours that was begun for that (see [`MariaDb::writers`]). A transaction leaves the list
//! after what it did can be seen: one that isn't there either had not begun, or is seen whole by whoever begins to read then.
//!
//! It is whole only while few wait for locks: InnoDB cuts it where it takes over 16 MiB, newest first, and those take most of it. While
//! many wait, nothing is believed.

use std::time::{Duration, Instant};

use tidewaiter_connector::{Error, ErrorKind, warn};

use super::{MariaDb, TRUE};
use crate::database::{Database, Failure};

/// How long a run waits for transactions that were there before it.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// How long it leaves the list of transactions alone at first: as long as that has to be, and a little.
const LIST_EVERY: Duration = Duration::from_millis(110);
/// A longer list is not believed in.
const LISTED_MAX: usize = 4096;
/// A transaction that holds changes back for longer is told of.
const TOLD_AFTER_SECONDS: u64 = 60;

/// A transaction that may write.
pub(super) struct Writer {
    /// 0 as long as it has written nothing.
    pub(super) id: u64,
    /// 0 if it waits for its second phase.
    thread: u64,
    /// In UTC.
    pub(super) begun: String,
    seconds: u64,
}

impl Writer {
    pub(super) fn is_prepared(&self) -> bool {
        self.thread == 0
    }

    /// Whether this is another one, or the same later on: it gets its number when it writes, and loses its thread when it is prepared.
    fn is(&self, other: &Self) -> bool {
        let same = |one: u64, other: u64| one != 0 && one == other;
        same(self.id, other.id) || same(self.thread, other.thread) && self.begun == other.begun
    }
}

impl MariaDb {
    /// What `INNODB_TRX` has now: whether our own transaction with the present mark, and others that may write.
    ///
    /// It tells times in the zone of the server's machine. Of an hour that comes twice there, the earlier one is taken.
    fn listed(&mut self) -> Result<(bool, Vec<Writer>), Failure> {
        let query = "SELECT trx_id, trx_mysql_thread_id, \
                     LEAST(CONVERT_TZ(trx_started, 'SYSTEM', '+00:00'), \
                     CONVERT_TZ(trx_started - INTERVAL 1 HOUR, 'SYSTEM', '+00:00') + INTERVAL 1 HOUR) AS begun, \
                     TIMESTAMPDIFF(SECOND, CONVERT_TZ(trx_started, 'SYSTEM', '+00:00'), NOW()), \
                     trx_mysql_thread_id = CONNECTION_ID(), trx_unique_checks, trx_is_read_only, \
                     (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                     WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS') > 256 \
                     FROM information_schema.INNODB_TRX";
        let (mut is_ours, mut writers) = (false, Vec::new());
        let mark = if self.mark { "1" } else { "0" };
        self.session.select(query, &[], &mut |row| {
            let number =
                |place| Ok::<u64, Error>(row.cell(place)?.and_then(|cell| cell.parse().ok()).unwrap_or_default());
            if row.cell(7)? == Some(TRUE) || writers.len() > LISTED_MAX {
                let problem =
                    "so many transactions wait for locks, or go on, that the server's list of them may lack some";
                return Err(Error::retryable(problem));
            }
            if row.cell(4)? == Some(TRUE) {
                is_ours |= row.cell(5)? == Some(mark) && row.cell(6)? == Some(TRUE);
            } else if row.cell(6)? != Some(TRUE) {
                let begun = row.cell(2)?.unwrap_or_default().to_owned();
                writers.push(Writer { id: number(0)?, thread: number(1)?, begun, seconds: number(3)? });
            }
            Ok(())
        })?;
        Ok((is_ours, writers))
    }

    /// All transactions that may write and had begun when this was called, and perhaps later ones. None: the privilege to see them
    /// is missing. The list is from after that call because it has a transaction that is begun here, with a mark that the one
    /// before it did not have.
    pub(super) fn writers(&mut self) -> Result<Option<Vec<Writer>>, Error> {
        self.mark = !self.mark;
        self.session.run(&format!("SET SESSION unique_checks = {}", u8::from(self.mark)))?;
        self.begin_snapshot()?;
        let mut patience = Patience::new();
        let listed = loop {
            match self.listed() {
                Err(failure) if failure.kind() == ErrorKind::PermissionDenied => break None,
                Err(failure) => return Err(failure.into()),
                Ok((true, writers)) => break Some(writers),
                Ok((false, _)) if patience.wait() => {}
                Ok((false, _)) => {
                    let problem = "others read the list of transactions so often that the server doesn't renew it";
                    return Err(Error::retryable(problem));
                }
            }
        };
        self.end()?;
        Ok(listed)
    }

    /// Waits until these have ended; false if it takes too long.
    pub(super) fn wait_for(&mut self, mut writers: Vec<Writer>) -> Result<bool, Error> {
        let mut patience = Patience::new();
        while !writers.is_empty() {
            if !patience.wait() {
                tell_of(&writers);
                return Ok(false);
            }
            let (_, now) = self.listed()?;
            // One that is prepared may have been any of them.
            writers =
                now.into_iter().filter(|one| one.is_prepared() || writers.iter().any(|other| other.is(one))).collect();
        }
        Ok(true)
    }
}

/// How long is waited, and less and less often: a list that is read all the time is never renewed, by several of us either.
struct Patience {
    begun: Instant,
    next: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { begun: Instant::now(), next: LIST_EVERY }
    }

    /// Waits; false if there is none left.
    fn wait(&mut self) -> bool {
        // What looking at the list takes counts, too.
        if self.begun.elapsed() >= SETTLE_MAX {
            return false;
        }
        std::thread::sleep(self.next);
        self.next = self.next * 5 / 4;
        true
    }
}

/// Warns of the one that holds changes back for longest, if that is long.
pub(super) fn tell_of(writers: &[Writer]) {
    if let Some(writer) =
        writers.iter().max_by_key(|writer| writer.seconds).filter(|one| one.seconds > TOLD_AFTER_SECONDS)
    {
        let Writer { thread, seconds, .. } = writer;
        warn!(
            "the transaction of connection {thread}, which began {seconds} s ago, holds changes back: they wait for its end"
        );
    }
}
