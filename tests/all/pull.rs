//! Connectors from a registry: what is pulled is what its digest says, is trusted as its operator says, and changes nothing where it is not.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use tidewaiter_servers::{Registry, Tls};
use tidewaiter_tests::web::{Authority, Web};
use tidewaiter_tests::{Ended, Place, connector, is_there, patched, until};

const PINNED: &str = "connector-trust.mode = \"pinned\"\n";
const WASM: &str = "hostile.wasm:application/wasm";

/// A place that follows a source without changes, and has no connector yet.
fn place(trust: &str) -> Place {
    let place = Place::empty();
    place.write("tidewaiter.toml", trust);
    place.write("people/count", "0");
    let types = "[types.account]\nclass = \"account\"\nevery = \"100ms\"\n";
    let settings = "[settings]\ndo = \"revised\"\nfolder = \"people\"\n";
    place.write("connections/hr.toml", &format!("connector = \"hostile\"\n{settings}{types}"));
    place.write("grants/hr.toml", "read = [\"people\"]\n");
    place
}

/// A version of the connector `hostile`, as a publisher has it in a folder.
fn revision(version: &str, word: &str) -> Vec<u8> {
    let bytes = fs::read(connector("hostile")).unwrap();
    let before = "describe:well-behaved";
    let bytes = patched(bytes, before, &format!("{:width$}", format!("describe:{word}"), width = before.len()));
    patched(bytes, "version:0.1.0", &format!("version:{version}"))
}

fn pushes() -> bool {
    is_there("oras", Registry::has_client())
}

fn publish(registry: &Registry, version: &str, word: &str, tag: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hostile.wasm"), revision(version, word)).unwrap();
    registry.push(folder.path(), &format!("acme/hostile:{tag}"), &[WASM]);
}

/// As whoever has nothing in Docker's configuration but this.
#[expect(clippy::disallowed_methods, reason = "PATH is where programs are looked for")]
fn pull_as(place: &Place, docker: &str, words: &str) -> Ended {
    place.write("docker/config.json", docker);
    let words: Vec<&str> = ["connectors", "pull"].into_iter().chain(words.split_whitespace()).collect();
    let mut paths = vec![place.path("docker")];
    paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut command = place.command(&words);
    command.env("DOCKER_CONFIG", place.path("docker")).env("PATH", std::env::join_paths(paths).unwrap());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn pull(place: &Place, words: &str) -> Ended {
    pull_as(place, "{}", words)
}

/// What was told, each change by the word of the file that told it.
fn has_told(place: &Place, words: &[&str]) {
    place.write("people/count", &words.len().to_string());
    let told = || -> Vec<String> {
        let word = |entry: Json| entry["attributes"]["mail"][0].as_str().unwrap().to_owned();
        place.changes().into_iter().map(word).collect()
    };
    until(&format!("{words:?}"), || told().len() >= words.len());
    assert_eq!(told(), words);
}

fn installed(place: &Place) -> Option<Vec<u8>> {
    fs::read(place.path("connectors/hostile.wasm")).ok()
}

fn refused(ended: &Ended, code: i32, part: &str) {
    assert!(ended.code == code && ended.stderr.contains(part), "{part}: {ended:?}");
}

#[test]
fn what_is_pulled_runs_and_the_lock_has_its_digest() {
    if !pushes() {
        return;
    }
    let registry = Registry::start();
    publish(&registry, "0.1.0", "one", "stable");
    let place = place(PINNED);
    let from = format!("127.0.0.1:{}/acme/hostile", registry.port());
    refused(&pull(&place, &format!("{from}:none")), 4, "none");
    assert_eq!(installed(&place), None);
    let pulled = pull(&place, &format!("{from}:stable --json"));
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let first = pulled.json()[0].clone();
    assert_eq!((&first["connector"], &first["from"]), (&"hostile".into(), &format!("{from}:stable").into()));
    let lock = || fs::read_to_string(place.path("tidewaiter.lock")).unwrap();
    for part in ["digest", "sha256"] {
        assert!(lock().contains(first[part].as_str().unwrap()), "{part}: {}", lock());
    }
    assert_eq!(installed(&place).unwrap(), revision("0.1.0", "one"));
    let server = place.serve();
    until("a first token", || place.run("token get hr account --json").json()["state"] == "live");
    has_told(&place, &["one"]);

    // The tag is another one's by now, and so is what runs once it is pulled.
    publish(&registry, "0.2.0", "two", "stable");
    assert_eq!(pull(&place, &format!("{from}:stable")).code, 0);
    server.wait_for("runs from now on", 0);
    has_told(&place, &["one", "two"]);
    assert!(!server.log().iter().any(|line| line.contains("ERROR")), "{:?}", server.log());
    let second = lock();
    assert!(!second.contains(first["digest"].as_str().unwrap()), "{second}");
    let audit = fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains("\"act\":\"connectors pull\""), "{audit}");

    // What is older is not, unless somebody says so, and what runs is what was.
    let digest = first["digest"].as_str().unwrap();
    refused(&pull(&place, &format!("{from}@{digest}")), 5, "is not newer than \"0.2.0\"");
    assert_eq!((installed(&place).unwrap(), lock()), (revision("0.2.0", "two"), second.clone()));
    has_told(&place, &["one", "two", "two"]);
    assert_eq!(pull(&place, &format!("{from}@{digest} --allow-downgrade")).code, 0);
    has_told(&place, &["one", "two", "two", "one"]);
    assert_eq!(server.end().0, 0);

    // Whoever has the lock gets what it says, whatever the tag is by then.
    fs::write(place.path("tidewaiter.lock"), &second).unwrap();
    publish(&registry, "0.3.0", "new", "stable");
    for has in [Some(revision("0.3.0", "new")), None] {
        match has {
            Some(bytes) => fs::write(place.path("connectors/hostile.wasm"), bytes).unwrap(),
            None => fs::remove_file(place.path("connectors/hostile.wasm")).unwrap(),
        }
        let locked = pull(&place, "--locked");
        assert!(locked.code == 0 && locked.stdout.starts_with("hostile "), "{locked:?}");
        assert_eq!(installed(&place).unwrap(), revision("0.2.0", "two"));
    }
    assert_eq!(pull(&place, "--locked").stdout, "the folder has what the lock says\n");
    // A lock that says another hash than the registry has for the digest.
    let hash = second.lines().rfind(|line| line.starts_with("sha256 = ")).unwrap().to_owned();
    fs::write(place.path("tidewaiter.lock"), second.replace(&hash, &format!("sha256 = \"{}\"", "0".repeat(64))))
        .unwrap();
    refused(&pull(&place, "--locked"), 5, "pulled.hostile: the file in");
    assert_eq!(installed(&place).unwrap(), revision("0.2.0", "two"));
}

#[test]
fn what_is_no_connector_or_was_tampered_with_leaves_the_folder_as_it_was() {
    if !pushes() {
        return;
    }
    let registry = Registry::start();
    publish(&registry, "0.1.0", "one", "good");
    let place = place(PINNED);
    let from = format!("127.0.0.1:{}/acme", registry.port());
    assert_eq!(pull(&place, &format!("{from}/hostile:good")).code, 0);
    let before = (installed(&place), fs::read(place.path("tidewaiter.lock")).unwrap());

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hostile.wasm"), revision("0.2.0", "two")).unwrap();
    fs::write(folder.path().join("none.wasm"), "no component").unwrap();
    let large = fs::File::create(folder.path().join("large.wasm")).unwrap();
    large.set_len(65 * 1024 * 1024).unwrap();
    for (artifact, files) in [
        ("other:1", &[WASM][..]),
        ("hostile:text", &["hostile.wasm:text/plain"]),
        ("hostile:two", &[WASM, "none.wasm:application/wasm"]),
        ("hostile:none", &["none.wasm:application/wasm"]),
        ("hostile:large", &["large.wasm:application/wasm"]),
    ] {
        registry.push(folder.path(), &format!("acme/{artifact}"), files);
    }
    for (words, code, part) in [
        // Its name is the one that it says itself.
        ("other:1", 5, "it calls itself \"hostile\""),
        ("hostile:text", 4, "it has 0 layers of application/wasm, and a connector is one; it has: text/plain"),
        ("hostile:two", 4, "it has 2 layers"),
        ("hostile:none", 5, "connector hostile"),
        ("hostile:large", 4, "more than the 67108864 bytes allowed"),
        ("hostile", 2, "it ends with a tag or a digest"),
    ] {
        refused(&pull(&place, &format!("{from}/{words}")), code, part);
        assert_eq!((installed(&place), fs::read(place.path("tidewaiter.lock")).unwrap()), before, "{words}");
        assert!(!place.path("connectors/other.wasm").exists());
    }
    assert_eq!(pull(&place, &format!("{from}/other:1 --name hostile")).code, 0);

    // Who may write into the registry's files, or is between, changes nothing unseen.
    let mut blobs = vec![registry.storage()];
    let mut tampered = 0;
    while let Some(path) = blobs.pop() {
        match path.is_dir() {
            true => blobs.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())),
            false if fs::read(&path).unwrap() == revision("0.1.0", "one") => {
                fs::write(&path, revision("0.9.0", "evil")).unwrap();
                tampered += 1;
            }
            false => {}
        }
    }
    assert_eq!(tampered, 1);
    let now = installed(&place);
    refused(&pull(&place, &format!("{from}/hostile:good --allow-downgrade")), 4, "igest");
    assert_eq!(installed(&place), now);

    // Nor does whoever may not decide.
    place.write("tidewaiter.toml", &format!("{PINNED}socket.security = []\n"));
    publish(&registry, "0.5.0", "new", "new");
    refused(&pull(&place, &format!("{from}/hostile:new")), 5, "may not decide");
    assert_eq!(installed(&place), now);
}

#[test]
fn a_statement_comes_along_and_is_needed_where_connectors_are_signed() {
    if !pushes() {
        return;
    }
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let keys = ["ours", "theirs"].map(|name| {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        fs::write(folder.path().join(name), pair.sk.to_box(None).unwrap().to_string()).unwrap();
        pair.pk.to_base64()
    });
    let place = place(&format!("[connector-trust]\nmode = \"signed\"\nkeys = [{:?}]\n", keys[0]));
    let sign = |key: &str, version: &str| {
        fs::write(folder.path().join("hostile.wasm"), revision(version, "one")).unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let signed = place.run(&format!("connectors sign {} --key {}", path("hostile.wasm"), path(key)));
        assert_eq!(signed.code, 0, "{signed:?}");
    };
    let all = [WASM, "hostile.statement:text/plain", "hostile.statement.minisig:text/plain"];
    let push = |tag: &str, files: &[&str]| registry.push(folder.path(), &format!("acme/hostile:{tag}"), files);
    sign("theirs", "0.1.0");
    push("theirs", &all);
    sign("ours", "0.1.0");
    push("ours", &all);
    push("unsigned", &[WASM]);
    fs::write(folder.path().join("hostile.wasm"), revision("0.2.0", "two")).unwrap();
    push("other", &all);
    let from = format!("127.0.0.1:{}/acme/hostile", registry.port());
    for (tag, part) in
        [("theirs", "its statement: "), ("unsigned", "there is no signed statement"), ("other", "is of the file")]
    {
        refused(&pull(&place, &format!("{from}:{tag}")), 5, part);
        assert_eq!(installed(&place), None, "nothing is made of it");
        assert!(!place.path("connectors/hostile.statement").exists());
    }
    let pulled = pull(&place, &format!("{from}:ours"));
    assert_eq!(pulled.code, 0, "{pulled:?}");
    assert_eq!(place.run("sync hr account").code, 0);
    assert!(fs::read_to_string(place.path("tidewaiter.lock")).unwrap().contains("[pulled.hostile]"));
}

#[test]
fn logins_are_those_of_docker_and_are_told_to_nobody_else() {
    if !pushes() {
        return;
    }
    let mut registry = Registry::start();
    publish(&registry, "0.1.0", "one", "1");
    registry.restart(None, true);
    let (place, port) = (place(PINNED), registry.port());
    let words = format!("127.0.0.1:{port}/acme/hostile:1");
    refused(&pull(&place, &words), 4, "127.0.0.1");
    let login = |password: &str| {
        use base64::Engine as _;
        let both = format!("{}:{password}", Registry::USER);
        let both = base64::engine::general_purpose::STANDARD.encode(both);
        format!("{{\"auths\": {{\"127.0.0.1:{port}\": {{\"auth\": \"{both}\"}}}}}}")
    };
    let wrong = pull_as(&place, &login("hunter2"), &words);
    assert!(wrong.code == 4 && !wrong.stderr.contains("hunter2"), "{wrong:?}");
    for broken in ["{ \"auths\": ", "{ \"credsStore\": \"that-is-not-there\" }"] {
        refused(&pull_as(&place, broken, &words), 4, "docker/config.json: ");
    }
    assert_eq!(installed(&place), None);
    // A helper that has no login for it, one that fails, and one that has it.
    let (user, password) = (Registry::USER, Registry::PASSWORD);
    for (does, code, part) in [
        ("echo credentials not found in native keychain; exit 1".to_owned(), 4, "127.0.0.1"),
        ("echo hunter2; exit 1".to_owned(), 4, "docker-credential-test failed"),
        (format!("echo '{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"{password}\"}}'"), 0, ""),
    ] {
        place.write("docker/docker-credential-test", &format!("#!/bin/sh\ncat > /dev/null\n{does}\n"));
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(place.path("docker/docker-credential-test"), executable).unwrap();
        let helped = pull_as(&place, "{ \"credsStore\": \"test\" }", &words);
        assert!(!helped.stderr.contains("hunter2"), "{helped:?}");
        refused(&helped, code, part);
    }
    let right = pull_as(&place, &login(password), &words);
    assert_eq!(right.code, 0, "{right:?}");
}

#[test]
fn what_a_registry_sends_is_bounded() {
    if !pushes() {
        return;
    }
    use axum::body::{Body, Bytes};
    let endless = || {
        let part = Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20]));
        Body::from_stream(futures_util::stream::repeat_with(move || {
            Ok::<_, std::io::Error>(part.as_ref().unwrap().clone())
        }))
    };
    let answers = move |seen: &tidewaiter_tests::web::Seen| {
        let answer = axum::http::Response::builder();
        Some(match seen.uri.as_str() {
            "/v2/" => answer.body(Body::empty()).unwrap(),
            uri if uri.contains("/fails/") => answer.status(500).body(endless()).unwrap(),
            _ => answer.header("content-type", "application/vnd.oci.image.manifest.v1+json").body(endless()).unwrap(),
        })
    };
    let hostile = Web::answering(answers);
    let place = place(PINNED);
    for artifact in ["endless", "fails"] {
        let words = format!("{}/acme/{artifact}/hostile:1", hostile.address);
        refused(&pull(&place, &words), 4, "more than 268435456 bytes of memory");
    }
    // Nor is there anything in the way that is written to, or waited for.
    fs::write(place.path("victim"), "theirs").unwrap();
    std::os::unix::fs::symlink("../victim", place.path("connectors/.hostile.wasm.new")).unwrap();
    let registry = Registry::start();
    publish(&registry, "0.1.0", "one", "1");
    let words = format!("127.0.0.1:{}/acme/hostile:1", registry.port());
    assert_eq!(pull(&place, &words).code, 0);
    assert_eq!(fs::read_to_string(place.path("victim")).unwrap(), "theirs");
    fs::remove_dir_all(place.path("connectors")).unwrap();
    assert_eq!(pull(&place, "--locked").code, 0);
    fs::remove_file(place.path("connectors/hostile.wasm")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.path("connectors/hostile.wasm")).status();
    assert!(made.unwrap().success());
    assert_eq!(pull(&place, "--locked").code, 0);
    assert_eq!(installed(&place).unwrap(), revision("0.1.0", "one"));
    fs::remove_file(place.path("tidewaiter.lock")).unwrap();
    refused(&pull(&place, "--locked"), 2, "tidewaiter.lock is not there");
}

#[test]
fn registries_elsewhere_are_spoken_to_over_tls_and_nothing_else() {
    if !pushes() {
        return;
    }
    let authority = Authority::new();
    let mut registry = Registry::start();
    publish(&registry, "0.1.0", "one", "1");
    let (certificate, key) = authority.sign(&["localhost"]);
    registry.restart(Some(&Tls { certificate, key }), false);
    let place = place(PINNED);
    let words = format!("https://localhost:{}/acme/hostile:1", registry.port());
    // Nobody trusts it yet.
    refused(&pull(&place, &words), 4, "ertificate");
    authority.write(&place.path("ca.pem"));
    place.write("tidewaiter.toml", &format!("trust = [\"ca.pem\"]\n{PINNED}"));
    let pulled = pull(&place, &words);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let lock = fs::read_to_string(place.path("tidewaiter.lock")).unwrap();
    assert!(lock.contains("https://localhost:"), "{lock}");
    fs::remove_file(place.path("connectors/hostile.wasm")).unwrap();
    assert_eq!(pull(&place, "--locked").code, 0);

    // What a registry says of where to log in is not followed in clear, and no login is sent there.
    let listening = Web::new();
    let realm = format!("Bearer realm=\"{}\",service=\"x\"", listening.url("/token"));
    let answers = move |_: &_| {
        let answer = axum::http::Response::builder().status(401).header("www-authenticate", realm.clone());
        Some(answer.body(axum::body::Body::empty()).unwrap())
    };
    let server = authority.server(&["localhost"], false);
    let elsewhere = Web::at([127, 0, 0, 1].into(), Some(server), std::sync::Arc::new(answers));
    let words = format!("https://localhost:{}/acme/hostile:1", elsewhere.address.port());
    let login =
        format!("{{\"auths\": {{\"localhost:{}\": {{\"auth\": \"YW5uOmh1bnRlcjI=\"}}}}}}", elsewhere.address.port());
    let refused_there = pull_as(&place, &login, &words);
    assert!(refused_there.code == 4 && !elsewhere.seen().is_empty(), "{refused_there:?}");
    assert!(listening.seen().is_empty(), "{:?}", listening.seen());

    // In clear there is nobody but on this machine.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let here = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let Some(here) = here.ok().filter(|here| !here.is_loopback()) else { return };
    let clear = Web::at(here, None, std::sync::Arc::new(|_: &_| None));
    let words = format!("{}/acme/hostile:1", clear.address);
    refused(&pull(&place, &words), 4, "acme/hostile:1");
    refused(&pull(&place, &format!("http://{words}")), 2, "in clear");
    assert!(clear.seen().is_empty(), "{:?}", clear.seen());
    assert!(Path::new(&place.path("connectors/hostile.wasm")).exists());
}
