//! Hostile guests in a real server, one after the other, each with one promise to break: the run ends by a stable code, the server's
//! memory grows by no more than the guest may have, and a well-behaved connection keeps its schedule beside it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tidewaiter::clock::Clock;
use tidewaiter_tests::{HR, Place, Server};

/// What every guest may have.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// What one call may hand over to the host: four times a batch.
const HOSTCALL_BYTES: u64 = 4 * 8 * 1024 * 1024;
/// What the host may need for itself meanwhile.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;

/// What it does, and by which code it ends; none: it ends well, for it can do no harm.
const GUESTS: [(&str, Option<&str>); 52] = [
    // Processor time.
    ("endless-loop", Some("limit.call-time")),
    ("endless-host-call", Some("limit.call-time")),
    ("deep-recursion", Some("trap.stack-overflow")),
    ("spin-in-host-calls", Some("limit.call-time")),
    ("spin-in-rejections", Some("contract.empty-uid")),
    ("spin-in-reveals", Some("limit.call-time")),
    ("spin-in-flush", Some("limit.call-time")),
    ("exit", Some("trap.other")),
    // Memory, its own and the host's.
    ("memory-hog", Some("limit.memory-bytes")),
    ("grow-at-once", Some("connector.other")),
    ("host-call-bomb", Some("trap.other")),
    ("random-bomb", Some("trap.other")),
    ("handle-bomb", Some("trap.other")),
    ("open-bomb", Some("connector.other")),
    ("list-bomb", Some("connector.other")),
    ("fields-bomb", Some("trap.other")),
    ("words-bomb", Some("connector.other")),
    ("requests-bomb", Some("trap.other")),
    ("body-bomb", Some("connector.other")),
    ("deltas-without-end", Some("limit.uncovered-bytes")),
    // Logs.
    ("log-flood", None),
    ("flood-stdout", Some("limit.call-time")),
    ("flood-one-line", Some("limit.call-time")),
    ("flood-stderr", Some("limit.call-time")),
    ("hostile-words", Some("connector.other")),
    ("huge-error", Some("connector.other")),
    ("panic-with-words", Some("trap.unreachable-code-reached")),
    // The contract.
    ("empty-uid", Some("contract.empty-uid")),
    ("swallow-rejection", Some("contract.empty-uid")),
    ("too-many-deltas", Some("contract.batch-too-large")),
    ("too-many-bytes", Some("contract.batch-too-large")),
    ("undeclared-class", Some("contract.undeclared-class")),
    ("undeclared-attribute", Some("contract.data-fault")),
    ("attribute-twice", Some("contract.data-fault")),
    ("not-a-number", Some("contract.data-fault")),
    ("bad-timestamp", Some("contract.data-fault")),
    ("huge-uid", Some("contract.data-fault")),
    ("huge-class", Some("contract.undeclared-class")),
    ("many-attributes", Some("contract.data-fault")),
    ("deltas-without-token", Some("contract.uncovered-deltas")),
    ("huge-checkpoint", Some("contract.token-too-large")),
    ("huge-last-token", Some("contract.token-too-large")),
    ("huge-first-token", Some("contract.token-too-large")),
    ("emit-outside-sync", Some("contract.not-in-sync")),
    ("trap-in-the-middle", Some("trap.unreachable-code-reached")),
    ("lose-the-token", Some("connector.invalid-sync-token")),
    // Ways out.
    ("reach-out", Some("connector.other")),
    ("scan", Some("connector.other")),
    ("sockets-bomb", Some("connector.other")),
    ("read-drops", Some("limit.call-time")),
    ("read-flood", Some("limit.call-time")),
    ("write-on", Some("limit.call-time")),
];

/// What a server on this machine does with each of its connections.
type Peer = fn(TcpStream);

/// Those that a guest may reach over TCP, each with what it does there; the others may reach the last one.
const PEERS: [(&str, Peer); 3] = [
    ("read-drops", |mut stream| {
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    }),
    ("read-flood", |mut stream| while stream.write_all(&[b'x'; 65_536]).is_ok() {}),
    // Takes a connection, and nothing that comes over it.
    ("write-on", |_stream| thread::park()),
];

/// Starts one.
fn peer(serve: Peer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// What is said where the code alone would be the same if another bound had held.
const SAID: [(&str, &str); 11] = [
    ("host-call-bomb", "fuel allocated for hostcalls has been exhausted"),
    ("random-bomb", "exceeds limit 65536"),
    ("handle-bomb", "resource table has no free keys"),
    ("open-bomb", ": 124 files: "),
    ("list-bomb", ": 4 listings: "),
    ("fields-bomb", "total size of fields exceeds limit"),
    ("words-bomb", "method: Err(()), authority: Err(())"),
    ("requests-bomb", "resource table has no free keys"),
    ("body-bomb", ": 131072 bytes are taken"),
    ("scan", ": 0 of 1000 ports, metadata: false"),
    ("sockets-bomb", ": 16 connections, then refused"),
];

fn guest(what: &str, to: SocketAddr) -> String {
    format!(
        "connector = \"hostile\"\n[settings]\ndo = \"{what}\"\nfolder = \"people\"\ntcp = [\"{to}\"]\nto = \"{to}\"\n\
         [types.account]\nclass = \"account\"\n\
         [limits]\ncall-time = \"1s\"\nmemory-bytes = {MEMORY_BYTES}\nuncovered-bytes = 33554432\nlog-lines = 20\n"
    )
}

/// A line of `/proc/PID/status`, in bytes.
fn memory(server: &Server, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn neighbours_runs(server: &Server) -> usize {
    server.log().iter().filter(|line| line.contains("sync called") && line.contains("connection=hr")).count()
}

#[test]
fn every_hostile_guest_is_contained() {
    let place = Place::new();
    place.install("hostile");
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place.write("people/file", "x");
    place.write("connections/hr.toml", &HR.replace("class =", "every = \"100ms\"\nclass ="));
    let peers = PEERS.map(|(what, serve)| (what, peer(serve)));
    for (what, _) in GUESTS {
        let (_, to) = peers.iter().find(|(who, _)| *who == what).unwrap_or(&peers[PEERS.len() - 1]);
        place.write(&format!("connections/{what}.toml"), &guest(what, *to));
        let grants = format!("read = [\"people\"]\nhttp = [\"http://127.0.0.1:1\"]\ntcp = [\"{to}\"]\n");
        place.write(&format!("grants/{what}.toml"), &grants);
    }
    let server = place.serve();
    // What a host needs once: pages of a first run, threads.
    assert_eq!(place.run("sync undeclared-class account").code, 4);
    let (mut wrong, clock) = (Vec::new(), Clock::start());
    for (what, code) in GUESTS {
        std::fs::write(format!("/proc/{}/clear_refs", server.id()), "5").unwrap();
        let (before, runs) = (memory(&server, "VmRSS"), neighbours_runs(&server));
        let began = clock.moment();
        let ended = place.run(&format!("sync {what} account"));
        let (took, ran) = (clock.moment().0 - began.0, neighbours_runs(&server) - runs);
        let grown = memory(&server, "VmHWM").saturating_sub(before);
        let expected = code.map_or((0, String::new()), |code| (4, format!("({code})")));
        let said = SAID.iter().find(|(who, _)| *who == what).map_or("", |(_, said)| said);
        if ended.code != expected.0 || !ended.stderr.contains(&expected.1) || !ended.stderr.contains(said) {
            wrong.push(format!("{what}: {ended:?}"));
        }
        if grown > MEMORY_BYTES + HOSTCALL_BYTES + SLACK_BYTES {
            wrong.push(format!("{what}: the server grew by {grown} bytes"));
        }
        if took > 500 && ran < 2 {
            wrong.push(format!("{what}: its neighbour ran {ran} times in {took} ms"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let refused = |line: &&String| line.contains("a secret is not revealed") && line.contains("=spin-in-reveals ");
    let refused = server.log().iter().filter(refused).count();
    assert!((1..=50).contains(&refused), "{refused} lines for one guest that asks and asks");
    let audit = std::fs::metadata(place.path("data/audit.ndjson")).unwrap().len();
    assert!(audit < 1024 * 1024, "{audit} bytes of audit");
    assert_eq!(place.run("sync hr account").code, 0);
}

#[test]
fn a_granted_folder_is_read_and_nothing_else() {
    let place = Place::new();
    place.install("hostile");
    let folder = place.path("people");
    place.write("people/file", "inside");
    place.write("secret", "outside");
    std::os::unix::fs::symlink("file", folder.join("link")).unwrap();
    for (name, to) in
        [("up", ".."), ("out", "../secret"), ("root", "/"), ("password", "/etc/passwd"), ("self", "/proc/self")]
    {
        std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("pipe", folder.join("to-pipe")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    let paths = [
        ("people/file", "read inside"),
        ("people/link", "read inside"),
        ("people", "a folder"),
        ("people/../secret", ""),
        ("people/up/secret", ""),
        ("people/out", ""),
        ("people/root/etc/passwd", ""),
        ("people/password", ""),
        ("people/self/environ", ""),
        ("people/pipe", ""),
        ("people/to-pipe", ""),
        ("people/socket", ""),
        ("/etc/passwd", ""),
        ("secret", ""),
        ("../secret", ""),
        ("/proc/self/environ", ""),
    ];
    let list = paths.map(|(path, _)| format!("{path:?}")).join(", ");
    let connection = guest("read-paths", SocketAddr::from(([127, 0, 0, 1], 1)))
        .replace("folder =", &format!("paths = [{list}]\nfolder ="));
    place.write("connections/bad.toml", &connection);
    place.write("grants/bad.toml", "read = [\"people\"]");
    let ended = place.run("sync bad account");
    let last = ended.stderr.lines().last().unwrap_or_default();
    let said = last.split_once("connector error: ").map(|(_, said)| said).unwrap_or_default();
    let said: Vec<&str> = said.split("; ").collect();
    assert_eq!(said.len(), paths.len() + 1, "{ended:?}");
    for ((path, expected), said) in paths.iter().zip(&said) {
        let fine =
            if expected.is_empty() { !said.starts_with("read") && *said != "a folder" } else { said == expected };
        assert!(fine, "{path}: {said}");
    }
    assert_eq!(*said.last().unwrap(), "written 0");
    assert!(place.path("people/file").exists() && !place.path("people/new").exists());
    assert_eq!(std::fs::read_to_string(place.path("people/file")).unwrap(), "inside");
}
