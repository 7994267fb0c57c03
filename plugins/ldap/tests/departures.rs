//! What goes out of a class other than by being deleted where it was, and what changes while a run looks.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ldap::Ldap;
use serde_json::{Value as Json, json};
use support::*;
use tidewaiter_connector::testing::Connection;
use tidewaiter_servers::{Ds389, OpenLdap, Slapd};

fn slapd() -> OpenLdap {
    let server = OpenLdap::start(&Slapd {
        server_id: 1,
        database: "syncprov-sessionlog 10000\n".to_owned(),
        ..Slapd::default()
    });
    server.change(TREE);
    server
}

fn ds389() -> Ds389 {
    let server = Ds389::start();
    server.change(TREE);
    server
}

/// Each server with its log.
fn each(test: impl Fn(&dyn Directory, Json)) {
    test(&slapd(), json!({ "by": "accesslog" }));
    test(&ds389(), json!({ "by": "changelog" }));
}

#[test]
fn what_went_with_its_branch_is_gone_whatever_happens_to_it_then() {
    each(|server, changes| {
        let team = format!("ou=team,{PEOPLE}");
        server.change(&format!("dn: {team}\nobjectClass: organizationalUnit\nou: team\n"));
        server.change(&["a", "b", "c"].map(|uid| person_below(&team, uid, "in")).concat());
        let filter = "(&(objectClass=inetOrgPerson)(sn=in))";
        let connection = connection(server, account(server, json!({ "filter": filter, "changes": changes })));
        let mut names = Names::default();
        let first = connection.sync("account", None);
        assert_eq!(names.sorted(&first), ["a in", "b in", "c in"]);
        server.change(&format!(
            "dn: {team}\nchangetype: modrdn\nnewrdn: ou=team\ndeleteoldrdn: 1\nnewsuperior: ou=others,dc=example,dc=com\n"
        ));
        server.change("dn: uid=a,ou=team,ou=others,dc=example,dc=com\nchangetype: delete\n");
        server.change("dn: uid=b,ou=team,ou=others,dc=example,dc=com\nchangetype: modify\nreplace: sn\nsn: out\n");
        let told = names.sorted(&connection.sync("account", first.token()));
        // The branch itself is no object, and was where it could have been one.
        assert_eq!(told, ["-?", "-a", "-b", "-c"]);
    });
}

#[test]
fn what_leaves_the_filter_is_gone_by_whatever_name_it_asks() {
    each(|server, changes| {
        for (uid, filter, change) in [
            ("one", "(surname=one)", "replace: sn\nsn: x\n"),
            ("two", "(sn=two)", "replace: surname\nsurname: x\n"),
            ("three", "(2.5.4.4=three)", "replace: sn\nsn: x\n"),
        ] {
            server.change(&person(uid, uid));
            let connection = connection(server, account(server, json!({ "filter": filter, "changes": changes })));
            let mut names = Names::default();
            let first = connection.sync("account", None);
            assert_eq!(names.sorted(&first), [format!("{uid} {uid}")], "{filter}");
            server.change(&format!("dn: uid={uid},{PEOPLE}\nchangetype: modify\n{change}"));
            assert_eq!(names.told(&connection.sync("account", first.token())), [format!("-{uid}")], "{filter}");
        }
    });
}

/// Hands on what a server says, and does something before it hands on the end of its nth answer.
fn before_answer(to: u16, nth: usize, something: impl Fn() + Send + 'static) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handing_on = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut asked, mut asks) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut asked, &mut asks);
            let _ = asks.shutdown(Shutdown::Both);
        });
        let (mut bytes, mut part, mut answers) = (Vec::new(), [0; 65_536], 0);
        while let Ok(count @ 1..) = server.read(&mut part) {
            bytes.extend_from_slice(&part[..count]);
            while let Some(length) = message(&bytes) {
                // The number of a search's end, after that of the message.
                let head = if bytes[1] < 0x80 { 2 } else { 2 + usize::from(bytes[1] & 0x7f) };
                answers += usize::from(bytes[head + 2 + usize::from(bytes[head + 1])] == 0x65);
                if answers == nth {
                    answers += 1;
                    something();
                }
                let _ = client.write_all(&bytes[..length]);
                bytes.drain(..length);
            }
        }
    });
    (port, handing_on)
}

/// How long the message is that these bytes begin with, if it is there.
fn message(bytes: &[u8]) -> Option<usize> {
    let first = usize::from(*bytes.get(1)?);
    let length = match first {
        0..0x80 => 2 + first,
        _ => {
            let count = first & 0x7f;
            let digits = bytes.get(2..2 + count)?;
            2 + count + digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        }
    };
    (bytes.len() >= length).then_some(length)
}

/// Bug: what got its time between two that had been counted was in none of the stretches that are read.
#[test]
fn what_changes_while_times_are_counted_is_told() {
    let mut server = slapd();
    let all: String = (0..12_000).map(|n| person(&format!("p{n}"), "old").replace("changetype: add\n", "")).collect();
    server.load(&all);
    thread::sleep(Duration::from_millis(1500));
    let server = Arc::new(server);
    let writer = Arc::clone(&server);
    // After the root entry, the schema and the tree's identity comes the first page of the count.
    let (port, handing_on) = before_answer(server.port(), 4, move || {
        writer.change(&renamed("p5", "new"));
        thread::sleep(Duration::from_millis(1300));
        writer.change(&renamed("p11999", "new"));
    });
    let mut settings = Directory::settings(&*server);
    settings["server"] = format!("127.0.0.1:{port}").into();
    settings["classes"] = account(&*server, json!({ "changes": { "by": "timestamp", "lag_ms": 1000 } }));
    let through = Connection::<Ldap>::new(settings).secret("password", OpenLdap::PASSWORD);
    let told = Names::default().told(&through.sync("account", None));
    handing_on.join().unwrap();
    assert_eq!(told.len(), 12_000);
    assert!(told.contains(&"p5 new".to_owned()) && told.contains(&"p11999 new".to_owned()));
}
