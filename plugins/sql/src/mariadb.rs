//! MariaDB, 10.6 or later, with InnoDB: its words for time, and how changes are exact. What it tells of transactions is in `writers`.
//!
//! **By a time.** A statement's time is taken before its transaction begins. So nothing is still to come from before the beginning
//! of the oldest transaction that may write, less the lag; and where none goes on, from before the time at which the list was
//! asked for, less the lag.
//!
//! **By a number, and by a log.** Numbers are handed out in their order, and before they are committed. Let M be the largest one that
//! is committed. Whoever holds a smaller one took it before M's owner did, so before M was read. A log's number is taken in a
//! trigger, by a transaction that has written to the watched table by then, and so is in the list; another number's transaction
//! begins to write within the lag after it. Once all that are in a list from after M have ended, a snapshot has every number up to M
//! that will ever be there.

mod cells;
mod session;
mod writers;

use std::time::Duration;

use tidewaiter_connector::{Context, Error, warn};

use crate::database::{Column, Database, EachRow, Failure, Log, Place, one};
use crate::settings::{Settings, Source};
use crate::token::Entry;
use cells::{Field, Kind, utc};
use session::Session;
use writers::{Writer, tell_of};

/// The zone of a session, where times have none.
const UTC: &str = "+00:00";
/// How the server says yes.
const TRUE: &str = "1";
/// A table with more columns is none.
const COLUMNS_MAX: usize = 4096;
/// The one engine whose transactions are known.
const ENGINE: &str = "InnoDB";

/// A connection that is logged in.
pub(crate) struct MariaDb {
    session: Session,
    zone: String,
    /// Tells our transactions apart in the list of all.
    mark: bool,
}

impl MariaDb {
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        let zone = if settings.zone == "UTC" { UTC.to_owned() } else { settings.zone.clone() };
        let mut this = Self { session: Session::open(settings)?, zone, mark: true };
        // A server may have other ideas of all of these. Whoever takes the changes over may be slow, which is no failure.
        this.session.run("SET NAMES utf8mb4")?;
        this.session.run(
            "SET SESSION sql_mode = '', time_zone = '+00:00', autocommit = 1, sql_select_limit = 18446744073709551615, \
             completion_type = 0, max_sort_length = 4096, net_write_timeout = 31536000, max_statement_time = 0",
        )?;
        this.session.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
        Ok(this)
    }

    fn begin_snapshot(&mut self) -> Result<(), Error> {
        self.session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    }

    /// How a table's name is asked for.
    fn of_table(table: &str) -> (&'static str, Vec<&str>) {
        match table.split_once('.') {
            Some((schema, table)) => ("TABLE_SCHEMA = ? AND TABLE_NAME = ?", vec![schema, table]),
            None => ("TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?", vec![table]),
        }
    }

    /// Whether the transactions that write to a table are known.
    fn check_engine(&mut self, table: &str) -> Result<(), Error> {
        let (is_table, parts) = Self::of_table(table);
        let query = format!("SELECT ENGINE FROM information_schema.TABLES WHERE {is_table}");
        match one(self, &query, &parts)? {
            [Some(engine)] if engine != ENGINE => {
                let problem = format!(
                    "the table {table} is kept by {engine}, whose changes have no order; convert it to {ENGINE}"
                );
                Err(Error::configuration(problem))
            }
            _ => Ok(()),
        }
    }

    /// The texts of a table by which no two rows are equal, and how they are compared.
    fn unique_texts(&mut self, table: &str) -> Result<Vec<(String, String)>, Error> {
        let (is_table, parts) = Self::of_table(table);
        let query = format!(
            "SELECT COLUMN_NAME, COLLATION_NAME FROM information_schema.COLUMNS WHERE {is_table} AND COLLATION_NAME IS NOT NULL \
             AND COLUMN_NAME IN (SELECT MAX(COLUMN_NAME) FROM information_schema.STATISTICS WHERE {is_table} \
             AND NON_UNIQUE = 0 GROUP BY INDEX_NAME HAVING COUNT(*) = 1 AND MAX(SUB_PART) IS NULL)"
        );
        let parameters: Vec<String> = [&parts[..], &parts[..]].concat().into_iter().map(str::to_owned).collect();
        let mut found = Vec::new();
        self.select(&query, &parameters, &mut |row| {
            if found.len() > COLUMNS_MAX {
                return Err(Error::other(format!("the server tells of over {COLUMNS_MAX} columns of {table:?}")));
            }
            found.push((row.cell(0)?.unwrap_or_default().to_owned(), row.cell(1)?.unwrap_or_default().to_owned()));
            Ok(())
        })?;
        Ok(found)
    }

    fn check_zone(&mut self) -> Result<(), Error> {
        let zone = self.zone.clone();
        let [known] = one(self, "SELECT CONVERT_TZ('2026-01-01 00:00:00', ?, '+00:00')", &[&zone])?;
        if known.is_some() {
            return Ok(());
        }
        let problem =
            "the server doesn't know it: load its zones by mariadb-tzinfo-to-sql, or use an offset such as \"+01:00\"";
        Err(Error::configuration(format!("setting `zone`, {zone:?}: {problem}")))
    }

    /// A text as what a column of this kind is compared with.
    fn typed(column: &Column, text: &str) -> String {
        match (Kind::of(column), &column.collation) {
            (Kind::Whole { is_unsigned: false }, _) => format!("CAST({text} AS SIGNED)"),
            (Kind::Whole { is_unsigned: true }, _) => format!("CAST({text} AS UNSIGNED)"),
            (Kind::Decimal(scale), _) => format!("CAST({text} AS DECIMAL(65,{scale}))"),
            (Kind::Real, _) => format!("CAST({text} AS DOUBLE)"),
            (Kind::Binary, _) => format!("UNHEX(SUBSTR({text}, 3))"),
            (Kind::Time(digits), _) => format!("CAST({text} AS DATETIME({digits}))"),
            (Kind::Uuid, _) => format!("CAST({text} AS UUID)"),
            // Of another character set, the index would be of no use.
            (Kind::Text, Some(collation)) => {
                let set = collation.split('_').next().unwrap_or_default();
                format!("CONVERT({text} USING {set}) COLLATE {collation}")
            }
            (Kind::Text, None) => text.to_owned(),
        }
    }

    /// Whether rows are put in order by the bytes of a text: two that the server takes for equal would have none.
    fn is_by_bytes(column: &Column) -> bool {
        Kind::of(column) == Kind::Text && column.collation.is_none()
    }

    fn bytes(text: &str) -> String {
        format!("CAST(CONVERT({text} USING utf8mb4) AS BINARY)")
    }

    /// What the columns of a log's table say, in the state that is read.
    fn log(&mut self, table: &str, settled: Option<Place>) -> Result<Log, Error> {
        let (is_table, parts) = Self::of_table(table);
        let query = format!(
            "SELECT id, uid, trimmed, tidewaiter.triggers(id), (SELECT AUTO_INCREMENT FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = 'tidewaiter' AND TABLE_NAME = 'log') FROM tidewaiter.watched WHERE {is_table}"
        );
        let [Some(id), Some(uid), trimmed, Some(triggers), Some(next)] = one(self, &query, &parts)? else {
            return Err(Error::configuration(format!(
                "the table {table} is not watched: call tidewaiter.watch for it"
            )));
        };
        if triggers != "3" {
            let problem = "is not watched any more, its triggers are gone: call tidewaiter.watch for it";
            return Err(Error::configuration(format!("the table {table} {problem}")));
        }
        let place = |text: String| {
            Ok::<Place, Error>((0, text.parse().map_err(|_| Error::other("the server told no number"))?))
        };
        Ok(Log { id, uid, settled, next: place(next)?, trimmed: trimmed.map(place).transpose()? })
    }
}

impl Database for MariaDb {
    fn columns(&mut self, source: Source<'_>) -> Result<Vec<Column>, Error> {
        let fields = self.session.described(&format!("SELECT t.* FROM {}", self.from(source)))?;
        let mut columns: Vec<Column> = fields.into_iter().map(Field::column).collect();
        if self.zone != UTC && columns.iter().any(|column| column.is_local) {
            self.check_zone()?;
        }
        if let Source::Table(table) = source {
            for (name, collation) in self.unique_texts(table)? {
                let named = columns.iter_mut().find(|column| column.name == name && column.type_name == "text");
                if let Some(column) = named {
                    column.collation = Some(collation);
                }
            }
        }
        Ok(columns)
    }

    fn begin(&mut self, max: Duration) -> Result<(), Error> {
        self.session
            .run(&format!("SET SESSION max_statement_time = {:.3}", max.as_secs_f64().clamp(0.001, 31_536_000.0)))?;
        self.begin_snapshot()
    }

    fn end(&mut self) -> Result<(), Error> {
        self.session.run("COMMIT")
    }

    fn select(&mut self, query: &str, parameters: &[String], each: EachRow<'_>) -> Result<(), Failure> {
        self.session.select(query, parameters, each)
    }

    fn knows_writers(&mut self, source: Source<'_>) -> Result<(), Error> {
        let query = "SELECT SUM(VARIABLE_NAME = 'WSREP_ON'), SUM(VARIABLE_NAME = 'READ_ONLY'), \
                     EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Slave%') \
                     FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME IN ('READ_ONLY', 'WSREP_ON') \
                     AND VARIABLE_VALUE NOT IN ('OFF', '0')";
        let [cluster, read_only, follows] = one(self, query, &[])?;
        let is = |answer: &Option<String>| answer.as_deref().is_some_and(|answer| answer != "0");
        if is(&cluster) {
            let problem = "the server is one of a Galera cluster, and doesn't know what goes on at the others";
            return Err(Error::configuration(format!("{problem}: have the host compare all objects")));
        }
        if is(&read_only) || is(&follows) {
            let problem = "the server follows another one, and doesn't know what is being written there";
            return Err(Error::configuration(format!(
                "{problem}: read the primary, or have the host compare all objects"
            )));
        }
        match source {
            Source::Table(table) => self.check_engine(table),
            Source::Query(_) => Ok(()),
        }
    }

    fn settled_time(&mut self, lag: Duration) -> Result<Option<String>, Error> {
        // The clock is that of before the look at the transactions, so that one that begins after it is later than both.
        let [Some(now)] = one(self, "SELECT NOW(6)", &[])? else { return Err(Error::other("the server told no time")) };
        let writers = self.writers()?.unwrap_or_default();
        if writers.iter().any(Writer::is_prepared) {
            // When it began isn't known any more after the server began anew.
            warn!("a prepared transaction holds changes back: they wait until it is committed or rolled back");
            return Ok(None);
        }
        tell_of(&writers);
        let oldest = writers.iter().map(|writer| writer.begun.as_str()).min().unwrap_or(&now);
        let query =
            "SELECT CONCAT(LEAST(CAST(? AS DATETIME(6)), CAST(? AS DATETIME(6))) - INTERVAL ? MICROSECOND, '+00:00')";
        let [settled] = one(self, query, &[&now, oldest, &lag.as_micros().to_string()])?;
        Ok(settled)
    }

    fn is_to_come(&mut self, time: &str) -> Result<bool, Error> {
        let bad = || Error::invalid_sync_token(format!("the sync token has the time {time:?}, which is none in UTC"));
        let (query, without_offset) = (
            // Of no time, a comparison says that it isn't later.
            "SELECT IF(CAST(? AS DATETIME(6)) IS NULL, NULL, CAST(? AS DATETIME(6)) > NOW(6) + INTERVAL 1 MINUTE)",
            utc(time).ok_or_else(bad)?,
        );
        let [is_to_come] = one(self, query, &[without_offset; 2])?;
        Ok(is_to_come.ok_or_else(bad)? == TRUE)
    }

    fn settle(&mut self, lag: Duration) -> Result<bool, Error> {
        std::thread::sleep(lag);
        match self.writers()? {
            Some(writers) => self.wait_for(writers),
            // The lag has to do.
            None => Ok(true),
        }
    }

    fn quoted(&self, name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn time_type(&self) -> &'static str {
        "timestamp"
    }

    fn value(&self, column: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure> {
        let kind = Kind::of(column);
        if !kind.has(value) {
            let problem = format!("{value:?} is no {}", column.type_name);
            return Err(Failure::refused(Error::other(problem), true));
        }
        let value = if let Kind::Time(_) = kind { utc(value).unwrap_or(value) } else { value };
        parameters.push(value.to_owned());
        Ok(Self::typed(column, "?"))
    }

    fn with_offset(&self, column: &Column) -> String {
        let (raw, zone) = (self.raw(column), &self.zone);
        if zone.starts_with(['+', '-']) {
            return format!("CONCAT({raw}, '{zone}')");
        }
        // What is beyond the server's tables of a zone is told without an offset: a fault, and not a lie.
        let text = format!("CAST({raw} AS CHAR)");
        format!(
            "IF({raw} BETWEEN '1970-01-02' AND '2038-01-18', CONCAT(CONVERT_TZ({raw}, '{zone}', '+00:00'), '+00:00'), {text})"
        )
    }

    fn has(&self, column: &Column) -> String {
        let raw = self.raw(column);
        // A time of zero is none.
        if column.is_time { format!("{raw} > '0000-00-00'") } else { format!("{raw} IS NOT NULL") }
    }

    fn key(&self, column: &Column) -> String {
        let raw = self.raw(column);
        if Self::is_by_bytes(column) { Self::bytes(&raw) } else { raw }
    }

    fn is(&self, column: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure> {
        Ok(format!("{} = {}", self.raw(column), self.value(column, value, parameters)?))
    }

    fn after(&self, column: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure> {
        let value = self.value(column, value, parameters)?;
        let value = if Self::is_by_bytes(column) { Self::bytes(&value) } else { value };
        Ok(format!("{} > {value}", self.key(column)))
    }

    fn after_both(
        &self,
        (first, value): (&Column, &str),
        (second, key): (&Column, &str),
        parameters: &mut Vec<String>,
    ) -> Result<String, Failure> {
        // An index is used for this, and not for a comparison of pairs.
        let after = self.after(first, value, parameters)?;
        let (is, and_after) = (self.is(first, value, parameters)?, self.after(second, key, parameters)?);
        Ok(format!("({after} OR ({is} AND {and_after}))"))
    }

    fn begin_log(&mut self, table: &str, max: Duration) -> Result<Log, Error> {
        self.knows_writers(Source::Table(table))?;
        self.check_engine("tidewaiter.log")?;
        let query = "SELECT GREATEST(COALESCE((SELECT MAX(number) FROM tidewaiter.log), 0), \
                     COALESCE((SELECT MAX(trimmed) FROM tidewaiter.watched), 0))";
        let largest = one(self, query, &[]).map_err(Error::from);
        let [largest] = largest.context("reading the log, which mariadb-log.sql makes")?;
        let largest = largest.and_then(|largest| largest.parse().ok());
        let largest = largest.ok_or_else(|| Error::other("the server told no number"))?;
        let Some(mut writers) = self.writers()? else {
            let problem = "a log is read by who may see which transactions go on: GRANT PROCESS ON *.* TO the user";
            return Err(Error::configuration(problem));
        };
        // Whoever has a number of the log has written.
        writers.retain(|writer| writer.id != 0);
        let is_settled = self.wait_for(writers)?;
        self.begin(max)?;
        self.log(table, is_settled.then_some((0, largest)))
    }

    fn logged(
        &self,
        cells: &str,
        (source, uid): (Source<'_>, &Column),
        (since, settled): (&Entry, Place),
        parameters: &mut Vec<String>,
    ) -> String {
        let (from, key) = (self.from(source), self.raw(uid));
        let noted = "CONVERT(l.uid USING utf8mb4)";
        let mut is_noted = format!("{key} = {}", Self::typed(uid, noted));
        if Kind::of(uid) == Kind::Text {
            let is_exactly = format!("{} = l.uid", Self::bytes(&key));
            is_noted = if Self::is_by_bytes(uid) { is_exactly } else { format!("{is_noted} AND {is_exactly}") };
        }
        parameters.extend([since.log.clone(), since.number.to_string(), settled.1.to_string()]);
        format!(
            "SELECT 0, l.number, {noted}, {cells} FROM tidewaiter.log AS l LEFT JOIN {from} ON {is_noted} \
             WHERE l.watched = ? AND l.number > CAST(? AS SIGNED) AND l.number <= CAST(? AS SIGNED) \
             AND NOT EXISTS (SELECT 1 FROM tidewaiter.log AS n WHERE n.watched = l.watched AND n.uid = l.uid \
             AND n.number > l.number) ORDER BY l.number"
        )
    }
}

impl Drop for MariaDb {
    /// Says goodbye: the server would note a broken connection.
    fn drop(&mut self) {
        self.session.quit();
    }
}
