//! Messages over a connection: numbered, framed, and bounded. Owns that nothing is taken for an answer that is none, and how a server is
//! asked for TLS.

use std::io::{Read, Write};

use lber::structure::PL;
use tidewaiter_connector::Error;
use tidewaiter_connector::net::Connection;

use crate::ber::{self, Parts, Tag};
use crate::failure::Outcome;

/// Read at a time.
const CHUNK: usize = 128 * 1024;
/// The request for TLS, and a server's word that it is about to close the connection.
const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
const DISCONNECTION: &str = "1.3.6.1.4.1.1466.20036";

/// Operations that are no searches, by the numbers of their tags.
const EXTENDED: u64 = 23;
const EXTENDED_ANSWER: u64 = 24;

/// What goes with a request or an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Control {
    pub(crate) oid: String,
    pub(crate) value: Vec<u8>,
}

/// A message from the server.
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(crate) operation: Tag,
    pub(crate) controls: Vec<Control>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    connection: Connection,
    chunk: Vec<u8>,
    received: Vec<u8>,
    /// Up to where it was read.
    read: usize,
    last_id: i32,
}

impl Wire {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, chunk: vec![0; CHUNK], received: Vec::new(), read: 0, last_id: 0 }
    }

    /// The same, over TLS.
    pub(crate) fn upgraded(mut self, host: &str) -> Result<Self, Error> {
        let request = ber::application(EXTENDED, PL::C(vec![ber::context(0, PL::P(START_TLS.into()))]));
        let id = self.send(request, Vec::new())?;
        let mut answer = self.answer(id, EXTENDED_ANSWER)?;
        let outcome = outcome(&mut answer)?;
        if !outcome.is_success() {
            let problem = outcome.error(&format!("asking {host} for TLS"));
            return Err(Error::connection_failed(problem.message()));
        }
        // What else came in clear is not taken for what comes by TLS.
        if self.read < self.received.len() {
            return Err(Error::connection_failed(format!("{host} said more than yes before TLS began")));
        }
        Ok(Self { connection: self.connection.into_tls(host)?, ..self })
    }

    /// Sends a request, and answers its number.
    pub(crate) fn send(&mut self, operation: Tag, controls: Vec<Control>) -> Result<i32, Error> {
        self.last_id += 1;
        let mut parts = vec![ber::integer(self.last_id), operation];
        if !controls.is_empty() {
            let control =
                |Control { oid, value }| ber::sequence(vec![ber::octets(oid), ber::boolean(true), ber::octets(value)]);
            parts.push(ber::context(0, PL::C(controls.into_iter().map(control).collect())));
        }
        self.connection.write_all(&ber::encoded(ber::sequence(parts))?)?;
        Ok(self.last_id)
    }

    /// The one answer to a request that has one.
    pub(crate) fn answer(&mut self, id: i32, operation: u64) -> Result<Parts, Error> {
        let message = self.next()?;
        let is_it = message.id == i64::from(id) && message.operation.id == operation;
        if is_it { Parts::of(message.operation) } else { Err(out_of_turn()) }
    }

    /// The next message, which is about what was asked.
    pub(crate) fn next(&mut self) -> Result<Message, Error> {
        loop {
            let there = &self.received[self.read..];
            match ber::message_length(there)? {
                Some(length) if length <= there.len() => {
                    let message = message(ber::decoded(&there[..length])?)?;
                    self.read += length;
                    return if message.id == 0 { Err(goodbye(message)?) } else { Ok(message) };
                }
                _ => self.receive()?,
            }
        }
    }

    fn receive(&mut self) -> Result<(), Error> {
        self.received.drain(..self.read);
        self.read = 0;
        match self.connection.read(&mut self.chunk)? {
            0 => Err(Error::connection_broken("the server closed the connection")),
            count => {
                self.received.extend_from_slice(&self.chunk[..count]);
                Ok(())
            }
        }
    }
}

fn message(tag: Tag) -> Result<Message, Error> {
    let mut parts = Parts::of(tag)?;
    let id = parts.number()?;
    let operation = parts.part()?;
    let controls = match parts.context(0) {
        Some(tag) => Parts::of(tag)?.map(control).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    Ok(Message { id, operation, controls })
}

fn control(tag: Tag) -> Result<Control, Error> {
    let mut parts = Parts::of(tag)?;
    let oid = parts.text()?;
    parts.optional_boolean()?;
    Ok(Control { oid, value: parts.optional_octets()?.unwrap_or_default() })
}

pub(crate) fn outcome(parts: &mut Parts) -> Result<Outcome, Error> {
    let code = parts.number()?;
    parts.octets()?;
    let message = String::from_utf8_lossy(&parts.octets()?).into_owned();
    Ok(Outcome { code, message })
}

/// What the server says of itself: that it is about to close the connection, and why.
fn goodbye(message: Message) -> Result<Error, Error> {
    let mut parts = Parts::of(message.operation)?;
    let outcome = outcome(&mut parts)?;
    let is_disconnection =
        parts.any(|tag| tag.id == 10 && ber::bytes(tag).is_ok_and(|oid| oid == DISCONNECTION.as_bytes()));
    let error = outcome.error("the server closes the connection");
    Ok(if is_disconnection { Error::connection_broken(error.message()) } else { out_of_turn() })
}

pub(crate) fn out_of_turn() -> Error {
    Error::other("the server sent a message out of turn")
}
