//! What answers a connection, and is no directory, or no honest one.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use ldap::Ldap;
use serde_json::json;
use tidewaiter_connector::testing::Connection;
use tidewaiter_connector::{Error, ErrorKind};

/// What the connector says of a server that answers its first request with these bytes, and closes the connection.
fn answered(tls: &str, answer: Vec<u8>) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(client.read(&mut request).unwrap() > 0);
        client.write_all(&answer).unwrap();
    });
    let classes = json!({ "account": { "base": "dc=x", "attributes": ["cn"] } });
    let settings = json!({ "server": format!("127.0.0.1:{port}"), "tls": tls, "classes": classes });
    let error = Connection::<Ldap>::new(settings).check().unwrap_err();
    server.join().unwrap();
    error
}

/// A message with this number and operation, which says yes.
fn yes(id: u8, operation: u8) -> Vec<u8> {
    vec![0x30, 12, 2, 1, id, operation, 7, 10, 1, 0, 4, 0, 4, 0]
}

#[test]
fn what_is_no_answer_is_taken_for_none() {
    const SEARCH_DONE: u8 = 0x65;
    const BIND_ANSWER: u8 = 0x61;
    let disconnection: Vec<u8> =
        [&[0x30, 39, 2, 1, 0, 0x78, 34, 10, 1, 52, 4, 0, 4, 3][..], b"bye", &[0x8a, 22], b"1.3.6.1.4.1.1466.20036"]
            .concat();
    for (answer, kind, part) in [
        (Vec::new(), ErrorKind::ConnectionBroken, "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), ErrorKind::ConnectionBroken, "closed the connection"),
        (yes(7, SEARCH_DONE), ErrorKind::Other, "out of turn"),
        (yes(1, BIND_ANSWER), ErrorKind::Other, "out of turn"),
        (vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], ErrorKind::Other, "a message of over"),
        (vec![0x30, 0x80, 0, 0], ErrorKind::Other, "no LDAP"),
        (vec![0x30, 4, 2, 2, 0], ErrorKind::ConnectionBroken, "closed the connection"),
        (vec![0x30, 3, 2, 9, 1], ErrorKind::Other, "no LDAP"),
        ([&[0x30, 0x81, 200][..], &[0x30, 0x7e].repeat(100)].concat(), ErrorKind::Other, "no LDAP"),
        (disconnection, ErrorKind::ConnectionBroken, "unavailable (52): bye"),
    ] {
        let error = answered("off", answer.clone());
        assert!(error.kind() == kind && error.message().contains(part), "{answer:?}: {error:?}");
    }
}

/// Whoever is in between could put words behind the server's yes, which would be taken for what came by TLS.
#[test]
fn nothing_that_came_in_clear_is_taken_for_what_comes_by_tls() {
    const EXTENDED_ANSWER: u8 = 0x78;
    let error = answered("starttls", [yes(1, EXTENDED_ANSWER), yes(2, 0x65)].concat());
    assert!(error.message().contains("said more than yes"), "{error:?}");
    let error = answered("starttls", yes(1, EXTENDED_ANSWER));
    assert!(error.kind() == ErrorKind::Unsupported, "now TLS begins, which is the host's: {error:?}");
    let refused = vec![0x30, 12, 2, 1, 1, EXTENDED_ANSWER, 7, 10, 1, 2, 4, 0, 4, 0];
    let error = answered("starttls", refused);
    assert!(error.kind() == ErrorKind::ConnectionFailed && error.message().contains("for TLS"), "{error:?}");
}
