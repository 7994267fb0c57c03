//! A session with a server that speaks MariaDB's protocol: TLS, login, statements, rows. Over the protocol's crate, because
//! connections are the host's. Every value goes as a parameter of a prepared statement, and every row comes in the binary form.

use std::io::{self, Read, Write};
use std::mem::take;
use std::ops::Range;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use mysql_common::auth::plugins::caching_sha2_password::scramble_sha256;
use mysql_common::auth::plugins::{self, ChallengeResponsePlugin};
use mysql_common::constants::{CapabilityFlags, MariadbCapabilities};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{
    AuthMoreData, AuthPlugin, AuthSwitchRequest, ComStmtClose, ComStmtExecuteRequestBuilder, ErrPacket,
    HandshakePacket, HandshakeResponse, SslRequest, StmtPacket,
};
use mysql_common::proto::{MyDeserialize, MySerialize};
use mysql_common::value::Value;
use sha2::{Digest, Sha512};
use tidewaiter_connector::net::Connection;
use tidewaiter_connector::{Context, Error, ErrorKind, secrets};

use super::cells::Field;
use crate::database::{EachRow, Failure, Row};
use crate::settings::{Settings, Tls};

/// Read at a time.
const CHUNK: usize = 128 * 1024;
/// What is longer is no row of a directory.
const PACKET_BYTES_MAX: usize = 32 << 20;
/// What is longer describes no column.
const FIELD_BYTES_MAX: usize = 64 << 10;
/// So many columns a table can have, and more than parameters are ever used.
const FIELDS_MAX: u64 = 4096;
/// What a server says in a login, in packets.
const LOGIN_STEPS_MAX: usize = 8;
/// A packet of this length goes on in another one.
const FRAME_BYTES_MAX: usize = 0xff_ff_ff;
/// What every server of the last twenty years does.
const NEEDED: CapabilityFlags = CapabilityFlags::CLIENT_PROTOCOL_41
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_CONNECT_WITH_DB);
/// Tells of types that are others underneath: JSON, UUID.
const WISHED: MariadbCapabilities = MariadbCapabilities::MARIADB_CLIENT_EXTENDED_METADATA;
/// `utf8mb4_general_ci`, which all of them know.
const COLLATION: u8 = 45;

const QUERY: u8 = 0x03;
const PREPARE: u8 = 0x16;
const QUIT: u8 = 0x01;
const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const FILE_WANTED: u8 = 0xfb;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// A packet that begins as an end does and is longer is none.
const END_BYTES_MAX: usize = 8;

/// A session that is logged in.
pub(super) struct Session {
    connection: Connection,
    chunk: Vec<u8>,
    /// What was received, and up to where it was read.
    received: Vec<u8>,
    read: usize,
    /// The number of the next packet, by which the two know that none was lost.
    number: u8,
    has_metadata: bool,
}

/// A statement that the server has parsed.
struct Statement {
    id: u32,
    fields: Vec<Field>,
}

impl Session {
    pub(super) fn open(settings: &Settings) -> Result<Self, Error> {
        let (host, port) = settings.server()?;
        let connection = Connection::open(host, port)?;
        let (chunk, received) = (vec![0; CHUNK], Vec::new());
        let mut this = Self { connection, chunk, received, read: 0, number: 0, has_metadata: false };
        let greeting = this.packet()?;
        if greeting.first() == Some(&ERROR) {
            return Err(refused(&greeting).into());
        }
        let not_spoken = |_| Error::connection_failed(format!("{host} doesn't speak MariaDB's protocol"));
        let greeting = HandshakePacket::deserialize((), &mut ParseBuf(&greeting)).map_err(not_spoken)?.into_owned();
        if !greeting.capabilities().contains(NEEDED) {
            return Err(Error::unsupported(format!("{host} speaks the protocol of a time before MariaDB")));
        }
        // A server that isn't MariaDB has something else there.
        let is_mariadb = !greeting.capabilities().contains(CapabilityFlags::CLIENT_LONG_PASSWORD);
        this.has_metadata = is_mariadb && greeting.mariadb_ext_capabilities().contains(WISHED);
        if settings.tls == Tls::Required {
            this = this.upgraded(host, greeting.capabilities())?;
        }
        let in_log_in = || format!("logging in to {host}:{port} as {:?}", settings.user);
        this.log_in(settings, &greeting).with_context(in_log_in)?;
        Ok(this)
    }

    fn wished(&self) -> MariadbCapabilities {
        if self.has_metadata { WISHED } else { MariadbCapabilities::empty() }
    }

    /// TLS in the protocol's way: asked for in clear, by a packet that says nothing else.
    fn upgraded(mut self, host: &str, offered: CapabilityFlags) -> Result<Self, Error> {
        if !offered.contains(CapabilityFlags::CLIENT_SSL) {
            let problem = format!("{host} offers no TLS; setting `tls` says that it is required");
            return Err(Error::connection_failed(problem));
        }
        let wanted = NEEDED | CapabilityFlags::CLIENT_SSL;
        let size = u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX);
        let request = SslRequest::new(wanted, size, COLLATION).with_mariadb_capabilities(self.wished());
        self.send(&serialized(&request))?;
        // Whatever else came in clear is not taken for what comes by TLS.
        self.received.clear();
        self.read = 0;
        self.connection = self.connection.into_tls(host)?;
        Ok(self)
    }

    fn log_in(&mut self, settings: &Settings, greeting: &HandshakePacket<'_>) -> Result<(), Error> {
        let is_secret = settings.tls == Tls::Required;
        let login = Login { password: secrets::reveal("password")? };
        let (mut next, response) = login.begin(&AuthPlugin::MysqlNativePassword, &greeting.nonce(), is_secret)?;
        let mut wanted = NEEDED;
        wanted.set(CapabilityFlags::CLIENT_SSL, is_secret);
        let size = u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX);
        let name = Some(AuthPlugin::MysqlNativePassword);
        let (user, database) = (Some(settings.user.as_bytes()), Some(settings.database.as_bytes()));
        let answer = HandshakeResponse::new(Some(response), (10, 5, 0), user, database, name, wanted, None, size);
        self.send(&serialized(&answer.with_mariadb_ext_capabilities(self.wished())))?;
        for _ in 0..LOGIN_STEPS_MAX {
            let packet = self.packet()?;
            let answer = match packet.first() {
                Some(&OK) => return Ok(()),
                Some(&ERROR) => return Err(refused(&packet).into()),
                Some(&END) => {
                    // By its number alone: a login that is broken by today's computers.
                    if packet.len() == 1 {
                        return Err(Error::unsupported("the server wants a login of before 2004"));
                    }
                    let switch = AuthSwitchRequest::deserialize((), &mut ParseBuf(&packet))?;
                    let (switched, answer) = login.begin(&switch.auth_plugin(), switch.plugin_data(), is_secret)?;
                    next = switched;
                    Some(answer)
                }
                Some(&MORE) => {
                    let more = AuthMoreData::deserialize((), &mut ParseBuf(&packet))?;
                    login.go_on(next, more.data())?
                }
                _ => return Err(out_of_turn()),
            };
            if let Some(answer) = answer {
                self.send(&answer)?;
            }
        }
        Err(out_of_turn())
    }

    /// Sends a packet. None is ever so long that it needs two: of what is sent only a parameter could be, and is refused before.
    fn send(&mut self, packet: &[u8]) -> Result<(), Error> {
        if packet.len() >= FRAME_BYTES_MAX {
            return Err(Error::internal("a parameter is too long"));
        }
        let [low, middle, high, _] = u32::try_from(packet.len()).unwrap_or_default().to_le_bytes();
        let mut frame = vec![low, middle, high, self.number];
        frame.extend_from_slice(packet);
        self.number = self.number.wrapping_add(1);
        Ok(self.connection.write_all(&frame)?)
    }

    /// Sends a command: the first packet of an exchange.
    fn command(&mut self, command: u8, text: &str) -> Result<(), Error> {
        self.number = 0;
        self.send(&[&[command], text.as_bytes()].concat())
    }

    /// Takes the next packet into a buffer, in as many frames as it has.
    fn packet_into(&mut self, packet: &mut Vec<u8>) -> Result<(), Error> {
        packet.clear();
        loop {
            let header = self.have(4)?;
            let &[low, middle, high, number] = &self.received[header] else { return Err(out_of_turn()) };
            let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
            if number != self.number {
                return Err(out_of_turn());
            }
            if packet.len() + length > PACKET_BYTES_MAX {
                return Err(Error::other(format!("the server sends a packet of over {PACKET_BYTES_MAX} bytes")));
            }
            self.number = number.wrapping_add(1);
            let body = self.have(length)?;
            packet.extend_from_slice(&self.received[body]);
            if length < FRAME_BYTES_MAX {
                return Ok(());
            }
        }
    }

    fn packet(&mut self) -> Result<Vec<u8>, Error> {
        let mut packet = Vec::new();
        self.packet_into(&mut packet)?;
        Ok(packet)
    }

    /// Where the next bytes are, which are read by this.
    fn have(&mut self, count: usize) -> Result<Range<usize>, Error> {
        while self.received.len() - self.read < count {
            self.received.drain(..take(&mut self.read));
            match self.connection.read(&mut self.chunk)? {
                0 => return Err(Error::connection_broken("the server closed the connection")),
                length => self.received.extend_from_slice(&self.chunk[..length]),
            }
        }
        let begin = self.read;
        self.read += count;
        Ok(begin..self.read)
    }

    /// The next packet of an answer, if it is none that says no.
    fn answer(&mut self) -> Result<Vec<u8>, Failure> {
        let packet = self.packet()?;
        match packet.first() {
            Some(&ERROR) => Err(refused(&packet)),
            Some(_) => Ok(packet),
            None => Err(out_of_turn().into()),
        }
    }

    /// A statement without an answer, which holds nothing from outside.
    pub(super) fn run(&mut self, statement: &str) -> Result<(), Error> {
        self.command(QUERY, statement)?;
        match self.answer()?.first() {
            Some(&OK) => Ok(()),
            _ => Err(out_of_turn()),
        }
    }

    /// What a query gives.
    pub(super) fn described(&mut self, query: &str) -> Result<Vec<Field>, Failure> {
        let statement = self.prepare(query)?;
        self.close(statement.id)?;
        Ok(statement.fields)
    }

    /// Runs a query with parameters, which are all texts.
    pub(super) fn select(&mut self, query: &str, parameters: &[String], each: EachRow<'_>) -> Result<(), Failure> {
        let statement = self.prepare(query)?;
        let done = self.execute(&statement, parameters, each);
        // After another failure there may be rows left that nobody reads.
        if done.is_ok() {
            self.close(statement.id)?;
        }
        done
    }

    fn prepare(&mut self, query: &str) -> Result<Statement, Failure> {
        self.command(PREPARE, query)?;
        let answer = self.answer()?;
        let prepared = StmtPacket::deserialize((), &mut ParseBuf(&answer)).map_err(Error::from)?;
        self.fields(prepared.num_params().into())?;
        let fields = self.fields(prepared.num_columns().into())?;
        Ok(Statement { id: prepared.statement_id(), fields })
    }

    /// So many descriptions, and their end.
    fn fields(&mut self, count: u64) -> Result<Vec<Field>, Failure> {
        if count > FIELDS_MAX {
            return Err(out_of_turn().into());
        }
        let mut fields = Vec::new();
        for _ in 0..count {
            let field = self.answer()?;
            let field = (field.len() <= FIELD_BYTES_MAX).then(|| Field::read(&field, self.has_metadata)).flatten();
            fields.push(field.ok_or_else(out_of_turn)?);
        }
        if count > 0 && !is_end(&self.answer()?) {
            return Err(out_of_turn().into());
        }
        Ok(fields)
    }

    fn execute(&mut self, statement: &Statement, parameters: &[String], each: EachRow<'_>) -> Result<(), Failure> {
        let values: Vec<Value> = parameters.iter().map(|text| Value::Bytes(text.clone().into_bytes())).collect();
        let (request, _) = ComStmtExecuteRequestBuilder::new(statement.id).build(&values);
        self.number = 0;
        self.send(&serialized(&request))?;
        let answer = self.answer()?;
        match answer.first() {
            // To a question for rows it is no answer.
            Some(&OK) => return Err(out_of_turn().into()),
            Some(&FILE_WANTED) => return Err(Error::other("the server asks for a file").into()),
            _ => {}
        }
        let count = ParseBuf(&answer).checked_eat_lenenc_int().ok_or_else(out_of_turn)?;
        // The types may differ from what was told when no parameter was known.
        let fields = self.fields(count)?;
        let (mut packet, mut text, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.packet_into(&mut packet)?;
            match packet.first() {
                Some(&OK) => {
                    Field::cells(&fields, &packet[1..], &mut text, &mut cells).ok_or_else(out_of_turn)?;
                    each(Row { bytes: &text, cells: &cells })?;
                }
                Some(&ERROR) => return Err(refused(&packet)),
                _ if is_end(&packet) => return Ok(()),
                _ => return Err(out_of_turn().into()),
            }
        }
    }

    /// Whoever doesn't hear it has gone before.
    pub(super) fn quit(&mut self) {
        let _ = self.command(QUIT, "");
    }

    fn close(&mut self, id: u32) -> Result<(), Error> {
        self.number = 0;
        self.send(&serialized(&ComStmtClose::new(id)))
    }
}

/// What a login goes on with after its first answer.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// Nothing: the server has what it needs.
    Verdict,
    /// The password itself, if the server doesn't remember it.
    Password,
}

/// A server that remembers the password says this, and one that wants to have it that.
const REMEMBERED: u8 = 0x03;
const WANTED: u8 = 0x04;

struct Login {
    password: Vec<u8>,
}

impl Login {
    /// The answer to a server's first challenge. Where others may read, it is one that the password doesn't follow from.
    fn begin(&self, plugin: &AuthPlugin<'_>, challenge: &[u8], is_secret: bool) -> Result<(Next, Vec<u8>), Error> {
        let answered = match plugin {
            AuthPlugin::MysqlNativePassword => {
                plugins::mysql_native_password::MysqlNativePassword::default().run(self, challenge)
            }
            AuthPlugin::Ed25519 => return Ok((Next::Verdict, self.signed(challenge))),
            AuthPlugin::MysqlClearPassword if is_secret => return Ok((Next::Verdict, self.in_clear())),
            AuthPlugin::CachingSha2Password if is_secret => {
                let nonce = challenge.try_into().map_err(|_| challenged(plugins::Error::Challenge))?;
                let answer = scramble_sha256(nonce, &self.password);
                return Ok((Next::Password, answer.map(Vec::from).unwrap_or_default()));
            }
            AuthPlugin::MysqlClearPassword | AuthPlugin::CachingSha2Password => {
                let problem = "the server wants the password in a form that others can read, and TLS is off";
                return Err(Error::permission_denied(problem));
            }
            other => {
                let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
                return Err(Error::unsupported(format!("the server wants a login by {name:?}")));
            }
        };
        Ok((Next::Verdict, answered.map_err(challenged)?.data().unwrap_or_default().to_vec()))
    }

    /// The answer to what a server says in addition.
    fn go_on(&self, next: Next, said: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match (next, said) {
            (Next::Password, [REMEMBERED]) => Ok(None),
            (Next::Password, [WANTED]) => Ok(Some(self.in_clear())),
            _ => Err(out_of_turn()),
        }
    }

    /// By Ed25519, with a key that the password itself is hashed to: the protocol's crate could do it, with tables of 30 KiB.
    fn signed(&self, challenge: &[u8]) -> Vec<u8> {
        let key = ExpandedSecretKey::from_bytes(&Sha512::digest(&self.password).into());
        raw_sign::<Sha512>(&key, challenge, &VerifyingKey::from(&key)).to_bytes().to_vec()
    }

    fn in_clear(&self) -> Vec<u8> {
        [&self.password[..], &[0]].concat()
    }
}

impl plugins::Context for &Login {
    fn pass(&self) -> &[u8] {
        &self.password
    }

    fn is_ipc_transport(&self) -> bool {
        false
    }

    fn is_tls_transport(&self) -> bool {
        false
    }

    fn scramble(&self) -> &[u8] {
        &[]
    }

    fn server_key_pem(&self) -> Option<&[u8]> {
        None
    }
}

fn challenged(error: plugins::Error) -> Error {
    Error::other(format!("the server's challenge: {error}"))
}

fn serialized(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&END) && packet.len() <= END_BYTES_MAX
}

fn out_of_turn() -> Error {
    Error::from(io::Error::new(io::ErrorKind::InvalidData, "the server sent a packet out of turn"))
}

/// What the server says no with. The kind is by the number of the error.
fn refused(packet: &[u8]) -> Failure {
    let parsed = ErrPacket::deserialize(CapabilityFlags::CLIENT_PROTOCOL_41, &mut ParseBuf(packet));
    // Before the greeting there is no state in it.
    let plain = || ErrPacket::deserialize(CapabilityFlags::empty(), &mut ParseBuf(packet));
    let Ok(ErrPacket::Error(error)) = parsed.or_else(|_| plain()) else { return out_of_turn().into() };
    let code = error.error_code();
    let kind = match code {
        1045 | 1698 | 1820 | 1862 | 4151 => ErrorKind::InvalidCredential,
        1044 | 1130 | 1142 | 1143 | 1227 | 1370 => ErrorKind::PermissionDenied,
        1049 | 1051 | 1052 | 1054 | 1064 | 1103 | 1109 | 1146 | 1193 | 1267 | 1298 | 1305 | 1356 => {
            ErrorKind::Configuration
        }
        1226 => ErrorKind::RateLimited,
        1021 | 1040 | 1041 | 1203 | 1205 | 1213 | 1412 => ErrorKind::Retryable,
        1053 | 1927 => ErrorKind::ConnectionBroken,
        1317 => ErrorKind::Retryable,
        1969 | 3024 => ErrorKind::TimedOut,
        _ => ErrorKind::Other,
    };
    let message = String::from_utf8_lossy(error.message_ref()).into_owned();
    Failure::refused(Error::new(kind, format!("the server says: {message} ({code})")), false)
}
