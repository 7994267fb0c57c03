//! PostgreSQL, 13 or later: its protocol, its words for time, and what it tells of transactions. Over the protocol's crate, because
//! connections are the host's.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorFields, Header, Message};
use postgres_protocol::message::frontend;
use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::net::Connection;
use tidewaiter_connector::{Context, Error, ErrorKind, secrets, warn};

use crate::database::{Column, Database, EachRow, Failure, Log, Place, Row, one};
use crate::settings::{Settings, Source, Tls};
use crate::token::Entry;
use crate::values::members;

/// Read at a time.
const CHUNK: usize = 128 * 1024;
/// A message that says to be longer is no row of a directory.
const MESSAGE_BYTES_MAX: i32 = 64 << 20;
/// The category of types whose cells have several values.
const ARRAY: &str = "A";
/// The type of points in time.
const TIME: &str = "timestamp with time zone";
/// The type of times without an offset.
const LOCAL: &str = "timestamp";
/// How long a run waits for transactions that were there before it.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// How often it looks.
const SETTLE_EVERY: Duration = Duration::from_millis(20);
/// How the server says yes.
const TRUE: &str = "t";
/// The transactions, in `pg_stat_activity`, that may write to this database: not our own, which only read.
const OTHERS: &str = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker' \
                      AND NOT (usename = current_user AND application_name = 'tidewaiter')";
/// Whether there is one that waits for its second phase.
const PREPARED: &str = "EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())";
/// A transaction that holds changes back for longer is told of.
const TOLD_AFTER_SECONDS: u32 = 60;

/// A connection that is logged in.
pub(crate) struct PostgreSql {
    connection: Connection,
    chunk: Vec<u8>,
    received: BytesMut,
    to_send: BytesMut,
    zone: String,
}

impl PostgreSql {
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        let (host, port) = settings.server()?;
        let mut connection = Connection::open(host, port)?;
        if settings.tls == Tls::Required {
            connection = upgraded(connection, host)?;
        }
        let mut this = Self {
            connection,
            chunk: vec![0; CHUNK],
            received: BytesMut::new(),
            to_send: BytesMut::new(),
            zone: settings.zone.clone(),
        };
        this.log_in(settings).with_context(|| format!("logging in to {host}:{port} as {:?}", settings.user))?;
        Ok(this)
    }

    fn log_in(&mut self, settings: &Settings) -> Result<(), Error> {
        let parameters = [
            ("user", settings.user.as_str()),
            ("database", settings.database.as_str()),
            ("application_name", "tidewaiter"),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut self.to_send)?;
        self.send()?;
        let (mut scram, mut has_proved, mut is_in) = (None, false, false);
        // Whoever is in between could be the server, and could read a password.
        let is_open = settings.tls == Tls::Off;
        loop {
            match self.next()? {
                Message::AuthenticationOk if scram.is_some() || is_open && !has_proved => {
                    return Err(Error::permission_denied("the server didn't prove that it knows the password"));
                }
                Message::AuthenticationOk => is_in = true,
                Message::AuthenticationSasl(body) => {
                    if !body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256))? {
                        return Err(Error::unsupported("the server offers no SCRAM-SHA-256"));
                    }
                    let client = ScramSha256::new(&secrets::reveal("password")?, ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, client.message(), &mut self.to_send)?;
                    self.send()?;
                    scram = Some(client);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let Some(client) = &mut scram else { return Err(out_of_turn()) };
                    client.update(body.data())?;
                    frontend::sasl_response(client.message(), &mut self.to_send)?;
                    self.send()?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let Some(mut client) = scram.take() else { return Err(out_of_turn()) };
                    client.finish(body.data())?;
                    has_proved = true;
                }
                Message::AuthenticationCleartextPassword | Message::AuthenticationMd5Password(_) if is_open => {
                    let problem = "the server wants the password in a form that others can read, and TLS is off";
                    return Err(Error::permission_denied(problem));
                }
                Message::AuthenticationCleartextPassword => self.password(&secrets::reveal("password")?)?,
                Message::AuthenticationMd5Password(body) => {
                    let password = secrets::reveal("password")?;
                    let hashed = md5_hash(settings.user.as_bytes(), &password, body.salt());
                    self.password(hashed.as_bytes())?;
                }
                Message::BackendKeyData(_) if is_in => {}
                Message::ReadyForQuery(_) if is_in => return Ok(()),
                Message::ErrorResponse(body) => return Err(refused(body.fields()).into()),
                Message::BackendKeyData(_) | Message::ReadyForQuery(_) => return Err(out_of_turn()),
                _ => return Err(Error::unsupported("the server wants a login of another kind than a password")),
            }
        }
    }

    fn password(&mut self, password: &[u8]) -> Result<(), Error> {
        frontend::password_message(password, &mut self.to_send)?;
        self.send()
    }

    fn send(&mut self) -> Result<(), Error> {
        self.connection.write_all(&self.to_send)?;
        self.to_send.clear();
        Ok(())
    }

    /// The next message that is about what was asked.
    fn next(&mut self) -> Result<Message, Error> {
        loop {
            if Header::parse(&self.received)?.is_some_and(|header| header.len() > MESSAGE_BYTES_MAX) {
                return Err(Error::other(format!("the server sends a message of over {MESSAGE_BYTES_MAX} bytes")));
            }
            match Message::parse(&mut self.received)? {
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_) | Message::NotificationResponse(_)) => {}
                Some(message) => return Ok(message),
                None => self.receive()?,
            }
        }
    }

    fn receive(&mut self) -> Result<(), Error> {
        match self.connection.read(&mut self.chunk)? {
            0 => Err(Error::connection_broken("the server closed the connection")),
            count => {
                self.received.extend_from_slice(&self.chunk[..count]);
                Ok(())
            }
        }
    }

    /// Sends what was asked, and takes each message of the answer.
    fn answer(&mut self, mut take: impl FnMut(Message) -> Result<(), Error>) -> Result<(), Failure> {
        self.send()?;
        loop {
            match self.next()? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(refused(body.fields())),
                message => take(message)?,
            }
        }
    }

    /// Commands without an answer, which hold nothing from outside.
    fn command(&mut self, commands: &str) -> Result<(), Error> {
        frontend::query(commands, &mut self.to_send)?;
        Ok(self.answer(|_| Ok(()))?)
    }

    /// The names and types of what a query gives.
    fn described(&mut self, query: &str) -> Result<Vec<(String, u32)>, Error> {
        frontend::parse("", query, [], &mut self.to_send)?;
        frontend::describe(b'S', "", &mut self.to_send)?;
        frontend::sync(&mut self.to_send);
        let mut columns = Vec::new();
        self.answer(|message| {
            if let Message::RowDescription(body) = message {
                columns = body.fields().map(|field| Ok((field.name().to_owned(), field.type_oid()))).collect()?;
            }
            Ok(())
        })?;
        Ok(columns)
    }
}

impl Database for PostgreSql {
    fn columns(&mut self, source: Source<'_>) -> Result<Vec<Column>, Error> {
        let described = self.described(&format!("SELECT t.* FROM {}", self.from(source)))?;
        let query = "SELECT o.oid, format_type(o.oid, -1), o.typcategory, coalesce(m.typname, o.typname), coalesce(m.typdelim, ',') \
                     FROM pg_type o LEFT JOIN pg_type m ON o.typcategory = 'A' AND m.oid = o.typelem WHERE o.oid = ANY ($1::oid[])";
        let oids: Vec<String> = described.iter().map(|(_, oid)| oid.to_string()).collect();
        let mut types = HashMap::new();
        self.select(query, &[format!("{{{}}}", oids.join(","))], &mut |row| {
            let cell = |place| Ok::<_, Error>(row.cell(place)?.unwrap_or_default().to_owned());
            types.insert(cell(0)?, [cell(1)?, cell(2)?, cell(3)?, cell(4)?]);
            Ok(())
        })?;
        let column = |((name, _), oid): ((String, u32), String)| {
            let [type_name, category, base, delimiter] = types.get(&oid).cloned().unwrap_or_default();
            let is_list = category == ARRAY && delimiter == ",";
            let cell = match category.as_str() {
                // Those of others are told as they are written, and those of times without an offset can be given none.
                ARRAY if !is_list || base == LOCAL => CellType::Text,
                _ => cell_type(&base),
            };
            Column {
                name,
                cell,
                members: is_list.then_some(members),
                is_time: type_name == TIME,
                is_number: category != ARRAY && cell == CellType::Integer,
                is_local: category != ARRAY && base == LOCAL,
                type_name,
                collation: None,
            }
        };
        Ok(described.into_iter().zip(oids).map(column).collect())
    }

    fn begin(&mut self, max: Duration) -> Result<(), Error> {
        let max = max.as_millis().clamp(1, i32::MAX as u128);
        // Rows that the reader may not see make an error, and not a deletion. And an index in the order that is asked for is used, so
        // that the first rows come at once.
        self.command(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {max}; \
             SET LOCAL row_security = off; SET LOCAL enable_sort = off; SET LOCAL TimeZone = 'UTC'; \
             SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'iso_8601'; SET LOCAL bytea_output = 'hex'; \
             SET LOCAL extra_float_digits = 1"
        ))
    }

    fn end(&mut self) -> Result<(), Error> {
        self.command("COMMIT")
    }

    fn select(&mut self, query: &str, parameters: &[String], each: EachRow<'_>) -> Result<(), Failure> {
        let text = |value: &String, into: &mut BytesMut| {
            into.put_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        frontend::parse("", query, [], &mut self.to_send)?;
        let bound = frontend::bind("", "", [], parameters, text, [], &mut self.to_send);
        bound.map_err(|_| Error::internal("a parameter is too long"))?;
        frontend::execute("", 0, &mut self.to_send)?;
        frontend::sync(&mut self.to_send);
        let mut cells = Vec::new();
        self.answer(|message| {
            let Message::DataRow(body) = message else { return Ok(()) };
            cells.clear();
            body.ranges().for_each(|range| {
                cells.push(range);
                Ok(())
            })?;
            each(Row { bytes: body.buffer(), cells: &cells })
        })
    }

    fn knows_writers(&mut self, _: Source<'_>) -> Result<(), Error> {
        let [standby] = one(self, "SELECT pg_is_in_recovery()", &[])?;
        match standby.as_deref() {
            Some(TRUE) => {
                let problem = "changes by a time or a number are read from the primary; by a log, from a standby, too";
                Err(Error::configuration(format!("the server is a standby: {problem}")))
            }
            _ => Ok(()),
        }
    }

    fn settled_time(&mut self, lag: Duration) -> Result<Option<String>, Error> {
        // Whoever may not see the transactions of others sees no beginning of them; then only the lag counts. The clock is that of
        // before the look at them, so that one that begins after it is later than both.
        let query = format!(
            "WITH begun AS (SELECT min(xact_start) AS at FROM pg_stat_activity WHERE {OTHERS}), \
             settled AS (SELECT least(statement_timestamp() - $1::interval, at) AT TIME ZONE 'UTC' AS time, at FROM begun) \
             SELECT to_char(time, 'YYYY-MM-DD HH24:MI:SS.US') || '+00', \
             extract(epoch FROM clock_timestamp() - at)::integer, {PREPARED} FROM settled"
        );
        let [time, age, prepared] = one(self, &query, &[&format!("{} milliseconds", lag.as_millis())])?;
        if prepared.as_deref() == Some(TRUE) {
            // It was seen to begin by nobody.
            warn!("a prepared transaction holds changes back: they wait until it is committed or rolled back");
            return Ok(None);
        }
        if age.and_then(|age| age.parse().ok()).is_some_and(|age: u32| age > TOLD_AFTER_SECONDS) {
            warn!("a transaction that began over {TOLD_AFTER_SECONDS} s ago holds changes back: they wait for its end");
        }
        Ok(time)
    }

    fn is_to_come(&mut self, time: &str) -> Result<bool, Error> {
        let [to_come] = one(self, "SELECT $1::timestamptz > clock_timestamp() + interval '1 minute'", &[time])?;
        Ok(to_come.as_deref() == Some(TRUE))
    }

    fn settle(&mut self, lag: Duration) -> Result<bool, Error> {
        std::thread::sleep(lag);
        let [next, now] = one(self, "SELECT pg_snapshot_xmax(pg_current_snapshot()), clock_timestamp()", &[])?;
        let (Some(next), Some(now)) = (next, now) else { return Err(Error::other("the server told no snapshot")) };
        // A transaction has no number before it writes, and may have taken one of a sequence by then: those that began before count,
        // too, where they are to be seen.
        let query = format!(
            "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::xid8 AND NOT EXISTS \
             (SELECT FROM pg_stat_activity WHERE xact_start <= $2::timestamptz AND {OTHERS})"
        );
        let mut waited = Duration::ZERO;
        while waited < SETTLE_MAX {
            let [settled] = one(self, &query, &[&next, &now])?;
            if settled.as_deref() == Some(TRUE) {
                return Ok(true);
            }
            std::thread::sleep(SETTLE_EVERY);
            waited += SETTLE_EVERY;
        }
        Ok(false)
    }

    fn quoted(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn time_type(&self) -> &'static str {
        TIME
    }

    fn value(&self, _: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure> {
        parameters.push(value.to_owned());
        Ok(format!("${}", parameters.len()))
    }

    fn with_offset(&self, column: &Column) -> String {
        format!("({} AT TIME ZONE '{}')", self.raw(column), self.zone)
    }

    fn is(&self, column: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure> {
        let (raw, value) = (self.raw(column), self.value(column, value, parameters)?);
        Ok(match column.cell {
            // As what it is, so that an index is used; what is no value of its type is an error of that kind.
            CellType::Text | CellType::Integer => format!("{raw} = {value}"),
            _ => format!("{raw}::text = {value}"),
        })
    }

    fn after_both(
        &self,
        (first, value): (&Column, &str),
        (second, key): (&Column, &str),
        parameters: &mut Vec<String>,
    ) -> Result<String, Failure> {
        let (of_first, of_second) = (self.value(first, value, parameters)?, self.value(second, key, parameters)?);
        Ok(format!("({}, {}) > ({of_first}, {of_second})", self.raw(first), self.raw(second)))
    }

    /// Entries have the number of their transaction. All that come before the oldest transaction that still goes on are settled: none
    /// of those transactions can write any more.
    fn begin_log(&mut self, table: &str, max: Duration) -> Result<Log, Error> {
        self.begin(max)?;
        let table = &self.quoted_table(table);
        let query = format!(
            "SELECT w.id, w.uid, pg_snapshot_xmin(pg_current_snapshot()), pg_snapshot_xmax(pg_current_snapshot()), \
             w.trimmed_transaction, w.trimmed_number, {PREPARED}, (SELECT transaction FROM tidewaiter.log \
             WHERE watched = w.id ORDER BY transaction DESC LIMIT 1) FROM tidewaiter.watched AS w WHERE w.relation = $1::regclass \
             AND 2 = (SELECT count(*) FROM pg_trigger WHERE tgrelid = w.relation AND tgenabled = 'A' \
             AND tgfoid = 'tidewaiter.note'::regproc AND tgname IN ('tidewaiter', 'tidewaiter_truncate'))"
        );
        let found = one(self, &query, &[table]).map_err(Error::from);
        let found = found.context("reading the log, which postgresql-log.sql makes")?;
        let [Some(id), Some(uid), Some(oldest), Some(next), transaction, number, prepared, last] = found else {
            let problem = "is not watched, or its triggers are gone: call tidewaiter.watch for it";
            return Err(Error::configuration(format!("the table {table} {problem}")));
        };
        if prepared.as_deref() == Some(TRUE) {
            warn!("a prepared transaction holds changes back: they wait until it is committed or rolled back");
        }
        let number_of = |text: &String| text.parse::<u64>().map_err(|_| Error::other("the server told no number"));
        let trimmed = match (transaction, number) {
            (Some(transaction), Some(number)) => Some((number_of(&transaction)?, number.parse().unwrap_or(i64::MAX))),
            _ => None,
        };
        let (settled, next) = (number_of(&oldest)?.saturating_sub(1), number_of(&next)?);
        let last = last.as_ref().map(number_of).transpose()?;
        if last.max(trimmed.map(|(transaction, _)| transaction)).is_some_and(|last| last >= next) {
            let problem = "is of another server, which counted its transactions further: call tidewaiter.watch again";
            return Err(Error::configuration(format!("the log of {table} {problem}")));
        }
        Ok(Log { id, uid, settled: Some((settled, i64::MAX)), next: (next, i64::MIN), trimmed })
    }

    fn logged(
        &self,
        cells: &str,
        (source, uid): (Source<'_>, &Column),
        (since, settled): (&Entry, Place),
        parameters: &mut Vec<String>,
    ) -> String {
        let (from, key, kind) = (self.from(source), self.raw(uid), &uid.type_name);
        parameters.extend([since.log.clone(), since.transaction.to_string(), since.number.to_string()]);
        parameters.push(settled.0.to_string());
        format!(
            "SELECT l.transaction, l.number, l.uid, {cells} \
             FROM tidewaiter.log AS l LEFT JOIN {from} ON {key} = l.uid::{kind} \
             WHERE l.watched = $1::uuid AND l.transaction <= $4::xid8 \
             AND (l.transaction, l.number) > ($2::xid8, $3::bigint) \
             AND NOT EXISTS (SELECT FROM tidewaiter.log AS n WHERE n.watched = l.watched AND n.uid = l.uid \
             AND (n.transaction, n.number) > (l.transaction, l.number)) ORDER BY l.transaction, l.number"
        )
    }
}

impl Drop for PostgreSql {
    /// Says goodbye: the server would note a broken connection.
    fn drop(&mut self) {
        self.to_send.clear();
        frontend::terminate(&mut self.to_send);
        let _ = self.connection.write_all(&self.to_send);
    }
}

/// TLS in the protocol's way: asked for in clear, and answered in one byte.
fn upgraded(mut connection: Connection, host: &str) -> Result<Connection, Error> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    connection.write_all(&request)?;
    // No byte more is read: whatever else came in clear is not taken for what comes by TLS.
    let mut answer = [0];
    match (connection.read(&mut answer)?, answer) {
        (1, [b'S']) => connection.into_tls(host),
        (1, [b'N']) => {
            Err(Error::connection_failed(format!("{host} offers no TLS; setting `tls` says that it is required")))
        }
        (1, _) => Err(Error::connection_failed(format!("{host} doesn't speak PostgreSQL's protocol"))),
        _ => Err(Error::connection_broken(format!("{host} closed the connection"))),
    }
}

fn cell_type(name: &str) -> CellType {
    match name {
        "bool" => CellType::Boolean,
        "int2" | "int4" | "int8" | "oid" => CellType::Integer,
        "numeric" => CellType::Decimal,
        "float4" | "float8" => CellType::Real,
        "bytea" => CellType::Binary,
        "json" | "jsonb" => CellType::Json,
        "timestamptz" | "timestamp" => CellType::Timestamp,
        _ => CellType::Text,
    }
}

fn out_of_turn() -> Error {
    Error::from(io::Error::new(io::ErrorKind::InvalidData, "the server sent a message out of turn"))
}

/// What the server says no with. The kind is by the code of the error (PostgreSQL's appendix A); details, which may hold data, are
/// not told.
fn refused(mut fields: ErrorFields<'_>) -> Failure {
    let (mut code, mut message) = (String::new(), String::new());
    while let Ok(Some(field)) = fields.next() {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = text,
            b'M' => message = text,
            _ => {}
        }
    }
    let kind = match code.as_str() {
        code if code.starts_with("28") => ErrorKind::InvalidCredential,
        "42501" => ErrorKind::PermissionDenied,
        "3D000" | "22023" | "08P01" => ErrorKind::Configuration,
        "57014" => ErrorKind::TimedOut,
        code if code.starts_with("42") => ErrorKind::Configuration,
        code if code.starts_with("08") || code.starts_with("57P") => ErrorKind::ConnectionBroken,
        code if ["40", "53", "55", "58"].iter().any(|class| code.starts_with(class)) => ErrorKind::Retryable,
        _ => ErrorKind::Other,
    };
    Failure::refused(Error::new(kind, format!("the server says: {message} ({code})")), code.starts_with("22"))
}
