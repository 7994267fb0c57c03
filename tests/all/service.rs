//! What the service manager is told by a server, over a real socket of its kind.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

use tidewaiter::clock::Clock;
use tidewaiter_tests::{Place, Server};

/// One that listens, in the place of systemd.
struct Manager(UnixDatagram);

impl Manager {
    fn new(place: &Place) -> Self {
        let socket = UnixDatagram::bind(place.path("notify.sock")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(socket)
    }

    fn start(place: &Place, environment: &[(&str, &str)]) -> Server {
        let mut command = place.command(&["serve"]);
        command.env("NOTIFY_SOCKET", place.path("notify.sock")).envs(environment.iter().copied());
        place.start_by(command)
    }

    /// The next thing that it is told; waits for it.
    fn told(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("the server tells something");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// What it was told and has not heard yet.
    fn rest(&self) -> String {
        self.0.set_nonblocking(true).unwrap();
        let mut all = String::new();
        let mut bytes = [0; 4096];
        while let Ok(length) = self.0.recv(&mut bytes) {
            all.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        all
    }
}

fn hang_up(server: &Server) {
    let told = Command::new("kill").args(["-HUP", &server.id().to_string()]).status();
    assert!(told.unwrap().success());
}

#[test]
fn the_service_manager_is_told_when_commands_are_answered_and_when_the_server_ends() {
    let place = Place::new();
    place.people("");
    let manager = Manager::new(&place);
    let server = Manager::start(&place, &[]);
    let is_ready = |told: String| assert!(told.starts_with("READY=1\nSTATUS=serving /"), "{told}");
    is_ready(manager.told());
    UnixStream::connect(place.path("data/tidewaiter.sock")).unwrap();
    assert_eq!(place.run("connections list").code, 0);

    let mut since = 0;
    for _ in 0..2 {
        hang_up(&server);
        let told = manager.told();
        let at = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{told}"));
        let at: u64 = at.trim().parse().unwrap();
        assert!(at > since, "{at} after {since}");
        since = at;
        is_ready(manager.told());
    }
    let (code, _) = server.end();
    let told = manager.told();
    assert!(code == 0 && told.starts_with("STOPPING=1\nSTATUS=ending"), "{code}: {told}");
    assert_eq!(manager.rest(), "", "nobody asked for more");
}

#[test]
fn a_service_manager_that_watches_is_told_twice_in_its_time_whatever_guests_do() {
    let place = Place::new();
    place.install("hostile");
    let types = "[types.account]\nclass = \"account\"\nevery = \"100ms\"\n";
    place.write("connections/hr.toml", &format!("connector = \"hostile\"\nsettings.do = \"endless-loop\"\n{types}"));
    let manager = Manager::new(&place);
    let server = Manager::start(&place, &[("WATCHDOG_USEC", "200000")]);
    assert!(manager.told().starts_with("READY=1\n"));
    server.wait_for("sync called", 0);
    // Some of it waits to be heard: no more than the kernel keeps, which is ten or so.
    let mut told = manager.told();
    let clock = Clock::start();
    for _ in 0..30 {
        assert_eq!(told, "WATCHDOG=1\n");
        told = manager.told();
    }
    assert!(clock.moment().0 > 1500, "thirty times in {} ms", clock.moment().0);
    assert!(!server.log().iter().any(|line| line.contains("run ended")), "{:?}", server.log());
    server.kill();
}

#[test]
fn who_watches_another_process_is_told_nothing_again() {
    let place = Place::new();
    place.people("");
    let manager = Manager::new(&place);
    let server = Manager::start(&place, &[("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "1")]);
    assert!(manager.told().starts_with("READY=1\n"));
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(server.end().0, 0);
    assert!(manager.told().starts_with("STOPPING=1\n"), "and nothing before it");
}
