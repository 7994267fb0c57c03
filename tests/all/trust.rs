//! Which files connectors may be: what is not trusted is never run, whichever way it comes, and what isn't trusted any more ends at once.

use std::fs;
use std::time::Duration;

use minisign::KeyPair;
use serde_json::Value as Json;
use tidewaiter::clock::Clock;
use tidewaiter_servers::minisign;
use tidewaiter_tests::{Place, connector, patched, until};

const PINNED: &str = "connector-trust.mode = \"pinned\"\n";

/// A file of the connector `hostile` of this version, other than all files of other words.
fn revision(version: &str, word: &str) -> Vec<u8> {
    let bytes = fs::read(connector("hostile")).unwrap();
    let before = "describe:well-behaved";
    let bytes = patched(bytes, before, &format!("{:width$}", format!("describe:{word}"), width = before.len()));
    patched(bytes, "version:0.1.0", &format!("version:{version}"))
}

fn save(place: &Place, version: &str, word: &str) {
    place.save("hostile", &revision(version, word));
}

fn count(place: &Place, count: u64) {
    place.write("people/count", &count.to_string());
}

/// With a connection to a source without changes.
fn place(trust: &str, what: &str) -> Place {
    let place = Place::empty();
    save(&place, "0.1.0", "one");
    count(&place, 0);
    place.write("tidewaiter.toml", trust);
    let types = "[types.account]\nclass = \"account\"\nevery = \"100ms\"\n";
    let settings = format!("[settings]\ndo = {what:?}\nfolder = \"people\"\n");
    let limits = "[limits]\ncall-time = \"10m\"\n";
    place.write("connections/hr.toml", &format!("connector = \"hostile\"\n{settings}{limits}{types}"));
    place.write("grants/hr.toml", "read = [\"people\"]\n");
    place
}

/// What was told, each change by the word of the file that told it.
fn told(place: &Place) -> Vec<String> {
    let word = |entry: Json| entry["attributes"]["mail"][0].as_str().unwrap().to_owned();
    place.changes().into_iter().map(word).collect()
}

fn has_told(place: &Place, words: &[&str]) {
    count(place, words.len() as u64);
    until(&format!("{words:?}"), || told(place).len() >= words.len());
    assert_eq!(told(place), words);
}

fn is_live(place: &Place) {
    until("a first token", || place.run("token get hr account --json").json()["state"] == "live");
}

fn hash_of(place: &Place) -> String {
    let verified = place.run("connectors verify connectors/hostile.wasm --json");
    let row: Json = serde_json::from_str(&verified.stdout).unwrap();
    row["sha256"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_not_pinned_is_not_run_and_what_was_comes_back_only_by_a_rollback() {
    let place = place(PINNED, "revised");
    for (words, code) in [("check", 4), ("connectors verify connectors/hostile.wasm", 4), ("sync hr account", 2)] {
        let refused = place.run(words);
        let text = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.code == code && text.contains("`tidewaiter connectors pin hostile`"), "{words}: {refused:?}");
    }
    let pinned = place.run("connectors pin hostile");
    assert!(pinned.code == 0 && pinned.stdout.contains("hostile 0.1.0 pinned"), "{pinned:?}");
    assert!(place.run("connectors verify connectors/hostile.wasm").stdout.contains("pinned"));
    let server = place.serve();
    is_live(&place);
    has_told(&place, &["one"]);

    save(&place, "0.2.0", "two");
    server.wait_for("is not pinned in", 0);
    has_told(&place, &["one", "one"]);
    let shown = place.run("connections list").stdout;
    assert!(shown.contains("hr/account: an earlier file of its connector runs"), "{shown}");
    assert!(!shown.contains("can't run"), "{shown}");
    let list = place.run("connectors list");
    assert!(list.code == 4 && list.stdout.contains("is not pinned"), "nothing is made of it: {list:?}");
    let two = hash_of(&place);
    assert_eq!(place.run("connectors pin hostile").code, 0);
    server.wait_for("runs from now on", 0);
    has_told(&place, &["one", "one", "two"]);
    let history = place.run("connectors history hostile").stdout;
    assert!(history.contains("  pinned\n") && history.contains("version 0.2.0"), "{history}");

    // What was pinned before isn't installed again by whoever may write into the folder, nor pinned by mistake.
    let at = server.log().len();
    save(&place, "0.1.0", "one");
    server.wait_for("was pinned before", at);
    let older = place.run("connectors pin hostile");
    assert!(older.code == 5 && older.stderr.contains("is not newer than \"0.2.0\""), "{older:?}");
    has_told(&place, &["one", "one", "two", "two"]);
    assert_eq!(place.run("connectors rollback hostile").code, 0);
    has_told(&place, &["one", "one", "two", "two", "one"]);
    assert_eq!(server.end().0, 0);
    let server = place.serve();
    has_told(&place, &["one", "one", "two", "two", "one", "one"]);
    assert_eq!(place.run("connectors pin hostile --allow-downgrade").code, 0);
    let lock = fs::read_to_string(place.path("tidewaiter.lock")).unwrap();
    assert!(lock.contains(&format!("earlier = [\"{two}\"]")), "{lock}");

    // The lock is the operator's own: what is written into it counts at once.
    fs::write(place.path("tidewaiter.lock"), "version = 1\nnonsense\n").unwrap();
    server.wait_for("tidewaiter.lock", server.log().len().saturating_sub(1));
    until("nobody is trusted", || place.run("connections list").stdout.contains("tidewaiter.lock"));
    fs::write(place.path("tidewaiter.lock"), lock).unwrap();
    until("and then again", || place.run("sync hr account").code == 0);
    assert_eq!(server.end().0, 0);
    let audit = fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains(&format!(r#""act":"connectors pin","on":"hostile 0.2.0 {two}""#)), "{audit}");
}

#[test]
fn what_is_denied_or_in_quarantine_ends_at_once_in_whatever_call_it_is() {
    let place = place("connector-trust.mode = \"any\"\n", "endless-host-call");
    let server = place.serve();
    server.wait_for("sync called", 0);
    let sha256 = hash_of(&place);
    let clock = Clock::start();
    let is_running = || place.run("connections show hr --json").code == 0;
    assert!(is_running());
    let denied = place.run(&format!("connectors deny {sha256} --why hole"));
    assert!(denied.code == 0 && denied.stdout.contains(&format!("denied {sha256}: hole")), "{denied:?}");
    server.wait_for("run ended", 0);
    assert!(clock.moment().0 < 10_000, "it would have slept for an hour");
    for words in ["sync hr account", "connections show hr"] {
        let refused = place.run(words);
        assert!(refused.code == 2 && refused.stderr.contains("is denied by"), "{words}: {refused:?}");
    }
    let retried = place.run("connectors retry hostile");
    assert!(retried.code == 5 && retried.stderr.contains("is denied by"), "{retried:?}");
    let history = place.run("connectors history hostile").stdout;
    assert!(history.contains("  denied: hole\n") && !history.contains("runs in"), "{history}");
    // Not after a restart either, nor under another name.
    assert_eq!(server.end().0, 0);
    let server = place.serve();
    assert!(place.run("connections list").stdout.contains("is denied by"));
    let at = server.log().len();
    assert_eq!(place.run(&format!("connectors deny {sha256} --lift")).code, 0);
    server.wait_for("sync called", at);
    let at = server.log().len();
    assert_eq!(place.run("connectors quarantine hostile --why looked-at").code, 0);
    server.wait_for("run ended", at);
    save(&place, "0.2.0", "two");
    let list = place.run("connections list").stdout;
    assert!(list.contains("in quarantine by") && list.contains("looked-at"), "{list}");
    assert_eq!(place.run("connectors quarantine hostile --end").code, 0);
    server.wait_for("sync called", at);
    assert_eq!(server.end().0, 0);
    let bad = place.run("connectors deny 1234");
    assert!(bad.code == 2 && bad.stderr.contains("64 hexadecimal digits"), "{bad:?}");
}

/// A component of no world of ours that takes long to compile.
fn large() -> Vec<u8> {
    let steps = "local.get 0 i64.const 7 i64.mul i64.const 3 i64.rotl i64.popcnt local.set 0 ".repeat(200);
    let function = format!("(func (param i64) (result i64) {steps} local.get 0)");
    wat::parse_str(format!("(component (core module {}))", function.repeat(4000))).unwrap()
}

#[test]
fn what_is_denied_does_not_wait_for_what_is_compiled() {
    let place = place("connector-trust.mode = \"any\"\n", "endless-host-call");
    let server = place.serve();
    let at = server.wait_for("sync called", 0);
    let sha256 = hash_of(&place);
    let clock = Clock::start();
    fs::write(place.path("new"), large()).unwrap();
    fs::rename(place.path("new"), place.path("connectors/hostile.wasm")).unwrap();
    let children = || {
        let threads = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
        let children = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")));
        children.flatten().any(|children| !children.trim().is_empty())
    };
    until("it is compiled", children);
    let mut denying = place.command(&["connectors", "deny", &sha256]).spawn().unwrap();
    server.wait_for("run ended", at);
    let (ended, is_compiling) = (clock.moment().0, denying.try_wait().unwrap().is_none());
    assert!(place.run("connections list").stdout.contains("is denied by"));
    assert!(denying.wait().unwrap().success());
    println!("the run ended after {ended} ms, the command after {} ms", clock.moment().0);
    assert!(is_compiling, "it took no time to compile");
    assert_eq!(server.end().0, 0);
}

#[test]
fn a_denied_update_goes_back_to_what_ran_before_and_a_denied_way_back_is_none() {
    let place = place("connector-trust.mode = \"any\"\n", "revised");
    let server = place.serve();
    is_live(&place);
    has_told(&place, &["one"]);
    let one = hash_of(&place);
    save(&place, "0.2.0", "two");
    server.wait_for("runs from now on", 0);
    has_told(&place, &["one", "two"]);
    let two = hash_of(&place);
    assert_eq!(place.run(&format!("connectors deny {two}")).code, 0);
    has_told(&place, &["one", "two", "one"]);
    // The folder still has it, and it stays out.
    let at = server.log().len();
    save(&place, "0.3.0", "three");
    server.wait_for("runs from now on", at);
    has_told(&place, &["one", "two", "one", "three"]);
    assert_eq!(place.run(&format!("connectors deny {one}")).code, 0);
    let goes_back = || place.run("connections show hr --json").json()["revision"]["goes-back-to"].clone();
    until("no way back", || goes_back().is_null());
    let rollback = place.run(&format!("connectors rollback hostile --to {one}"));
    assert!(rollback.code == 5 && rollback.stderr.contains("is denied"), "{rollback:?}");
    has_told(&place, &["one", "two", "one", "three", "three"]);
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_is_signed_is_run_and_nothing_else() {
    let [ours, theirs] = std::array::from_fn(|_| KeyPair::generate_unencrypted_keypair().unwrap());
    let public = ours.pk.to_base64();
    let trust = format!("[connector-trust]\nmode = \"signed\"\nkeys = [{public:?}]\n");
    let place = place(&trust, "revised");
    let key = |name: &str, pair: &KeyPair| {
        place.write(name, &pair.sk.to_box(None).unwrap().into_string());
    };
    key("ours.key", &ours);
    key("theirs.key", &theirs);
    let sign =
        |key: &str| assert_eq!(place.run(&format!("connectors sign connectors/hostile.wasm --key {key}")).code, 0);
    let refused = place.run("sync hr account");
    assert!(refused.stderr.contains("no signed statement"), "{refused:?}");
    // Whoever makes a connector has no configuration.
    let public_key = place.run("connectors sign connectors/hostile.wasm --key tidewaiter.toml --config nowhere.toml");
    assert!(public_key.code == 2 && public_key.stderr.contains("no secret key of minisign"), "{public_key:?}");
    sign("ours.key");
    let server = place.serve();
    is_live(&place);
    has_told(&place, &["one"]);

    // A file alone, then with its statement.
    save(&place, "0.2.0", "two");
    server.wait_for("its statement is of the file", 0);
    has_told(&place, &["one", "one"]);
    sign("theirs.key");
    server.wait_for("by no key that is listed", 0);
    has_told(&place, &["one", "one", "one"]);
    sign("ours.key");
    server.wait_for("runs from now on", 0);
    has_told(&place, &["one", "one", "one", "two"]);
    let history = place.run("connectors history hostile").stdout;
    assert!(history.contains(&format!("signed by {public}")), "{history}");

    // What was run before, which it would go back to, and another older one: both signed.
    for word in ["one", "old"] {
        let at = server.log().len();
        save(&place, "0.1.0", word);
        sign("ours.key");
        server.wait_for("is older than", at);
    }
    has_told(&place, &["one", "one", "one", "two", "two"]);
    // Whoever takes the statement of what runs away, or spoils it, takes nothing from that.
    save(&place, "0.2.0", "two");
    sign("ours.key");
    let statement = place.path("connectors/hostile.statement");
    let text = fs::read_to_string(&statement).unwrap();
    fs::remove_file(&statement).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    has_told(&place, &["one", "one", "one", "two", "two", "two"]);
    fs::write(&statement, text.replace("0.2.0", "0.3.0")).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    has_told(&place, &["one", "one", "one", "two", "two", "two", "two"]);
    fs::write(&statement, text).unwrap();
    // An operator may let an older one come all the same.
    let before = told(&place);
    save(&place, "0.1.0", "old");
    sign("ours.key");
    assert_eq!(place.run("connectors retry hostile").code, 0);
    let mut before: Vec<&str> = before.iter().map(String::as_str).collect();
    before.push("two");
    has_told(&place, &before);
    assert_eq!(place.run("connectors retry hostile --allow-downgrade").code, 0);
    before.push("old");
    has_told(&place, &before);

    // Another connector's file and statement under this name.
    let verify = |file: &str| place.run(&format!("connectors verify connectors/{file}.wasm"));
    for extension in ["wasm", "statement", "statement.minisig"] {
        let from = place.path(&format!("connectors/hostile.{extension}"));
        fs::copy(from, place.path(&format!("connectors/second.{extension}"))).unwrap();
    }
    let second = verify("second");
    assert!(second.code == 4 && second.stdout.contains("the connector \"hostile\""), "{second:?}");
    let text = fs::read_to_string(place.path("connectors/hostile.statement")).unwrap();
    fs::write(place.path("connectors/hostile.statement"), text.replace("0.1.0", "0.9.0")).unwrap();
    let forged = verify("hostile");
    assert!(forged.code == 4 && forged.stdout.contains("its signature is not of what it says"), "{forged:?}");

    // A key that is revoked takes away what it signed, at once and after a restart.
    place.write("tidewaiter.toml", &format!("{trust}revoked-keys = [{public:?}]\n"));
    until("a key that is revoked", || place.run("connections list").stdout.contains("a key that is revoked"));
    assert_eq!(server.end().0, 0);
    let server = place.serve();
    assert!(place.run("connections list").stdout.contains("a key that is revoked"));
    assert_eq!(server.end().0, 0);
    for (written, why) in [
        ("[connector-trust]\nmode = \"signed\"\n", "needs keys"),
        ("[connector-trust]\nmode = \"signed\"\nkeys = [\"nonsense\"]\n", "no public key of minisign"),
        ("[connector-trust]\nkeys = [\"nonsense\"]\n", "keys are for mode"),
        ("[connector-trust]\nmode = \"some\"\n", "some"),
    ] {
        place.write("tidewaiter.toml", written);
        let wrong = place.run("check");
        assert!(wrong.code == 2 && wrong.stderr.contains(why), "{wrong:?}");
    }
}

#[test]
fn what_others_sign_with_signs_and_verifies_the_same() {
    let place = place(PINNED, "revised");
    let minisign = |words: &str| {
        let output = minisign(&place.path(""), words, "s3cret");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let (done, said) = minisign("-G -p theirs.pub -s theirs.key");
    assert!(done, "{said}");
    let public = fs::read_to_string(place.path("theirs.pub")).unwrap().lines().nth(1).unwrap().to_owned();
    place.write("tidewaiter.toml", &format!("[connector-trust]\nmode = \"signed\"\nkeys = [{public:?}]\n"));
    let verified = || place.run("connectors verify connectors/hostile.wasm");

    place.write("password", "s3cret\n");
    let signed = place.run("connectors sign connectors/hostile.wasm --key theirs.key --password-file password");
    assert_eq!(signed.code, 0, "{signed:?}");
    assert_eq!(verified().code, 0, "{:?}", verified());
    let (done, said) = minisign("-V -p theirs.pub -m connectors/hostile.statement");
    assert!(done && said.contains("Signature and comment signature verified"), "{said}");

    fs::remove_file(place.path("connectors/hostile.statement.minisig")).unwrap();
    assert_eq!(verified().code, 4);
    let (done, said) = minisign("-S -s theirs.key -m connectors/hostile.statement");
    assert!(done, "{said}");
    assert_eq!(verified().code, 0, "{:?}", verified());
    // As it was done before, without a hash of what is signed.
    let (done, said) = minisign("-S -l -s theirs.key -m connectors/hostile.statement");
    assert!(done, "{said}");
    assert!(verified().code == 4, "{:?}", verified());
}

#[test]
fn a_second_file_that_claims_a_name_replaces_nothing() {
    let place = place("connector-trust.mode = \"any\"\n", "revised");
    let server = place.serve();
    is_live(&place);
    has_told(&place, &["one"]);
    for file in ["second.wasm", "HOSTILE.wasm", "hostile.WASM", "hostile.wasm.wasm", "sub/hostile.wasm"] {
        place.write(&format!("connectors/{file}"), "");
        fs::write(place.path(&format!("connectors/{file}")), revision("0.2.0", "two")).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1500));
    has_told(&place, &["one", "one"]);
    let list = place.run("connectors list");
    assert!(list.stdout.contains("it calls itself \"hostile\", its file says \"second\""), "{list:?}");
    assert_eq!(server.end().0, 0);
}
