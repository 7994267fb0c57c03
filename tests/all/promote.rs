//! Connections and their grants from one environment to another: what is written travels, and no token does.

use std::fs;

use tidewaiter_tests::{Place, until};

fn connection(every: &str) -> String {
    let settings = "[settings]\nfolder = \"people\"\nuid = \"id\"\nupdated_at = \"updated_at\"\n";
    format!("connector = \"csv\"\n{settings}[types.account]\nclass = \"account\"\nevery = {every:?}\n")
}

fn environment(host: &str) -> Place {
    let place = Place::empty();
    place.write("tidewaiter.toml", host);
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place
}

fn add(place: &Place, folder: &str, name: &str, every: &str) {
    place.write(&format!("{folder}connections/{name}.toml"), &connection(every));
    place.write(&format!("{folder}grants/{name}.toml"), "read = [\"people\"]\n");
}

fn count(place: &Place) -> usize {
    place.run("connections list --json").json().as_array().unwrap().len()
}

#[test]
fn what_was_tried_in_one_environment_is_compared_and_taken_over_in_another() {
    let (test, live) = (environment(""), environment(""));
    for name in ["one", "two", "three"] {
        add(&test, "", name, "100ms");
    }
    add(&live, "", "one", "1h");
    add(&live, "", "old", "1h");
    assert_eq!(test.run("run --once").code, 0);
    let out = test.path("out");
    let unknown = test.run("connections export out nobody");
    assert!(unknown.code == 3 && !out.exists(), "{unknown:?}");
    assert_eq!(test.run("connections export out one two").code, 0);
    let again = test.run("connections export out");
    assert!(again.code == 5 && again.stderr.contains("is not empty"), "{again:?}");
    let files = |folder: &str| -> Vec<String> {
        let name = |entry: Result<fs::DirEntry, _>| entry.unwrap().file_name().into_string().unwrap();
        let mut files: Vec<String> = fs::read_dir(out.join(folder)).unwrap().map(name).collect();
        files.sort();
        files
    };
    assert_eq!(
        (files(""), files("connections")),
        (vec!["connections".into(), "grants".into()], vec!["one.toml".into(), "two.toml".into()])
    );

    let folder = out.to_str().unwrap();
    // Nothing runs there yet.
    let seen = live.run(&format!("connections diff {folder}"));
    assert!(seen.code == 4 && seen.stdout == "two is new\none changed: types\n", "{seen:?}");
    let server = live.serve();
    let seen = live.run(&format!("connections diff {folder} --prune"));
    assert!(seen.code == 4 && seen.stdout == "two is new\none changed: types\nold is gone\n", "{seen:?}");
    assert_eq!(count(&live), 2, "nothing is changed yet");
    let applied = live.run(&format!("connections apply {folder}"));
    assert!(applied.code == 0 && applied.stdout == "two is new\none changed: types\n", "{applied:?}");
    assert_eq!(count(&live), 3);
    let same = live.run(&format!("connections diff {folder}"));
    assert!(same.code == 0 && same.stdout == "nothing differs\n", "{same:?}");

    // What is wrong with one of them keeps all of them as they were.
    let wrong = fs::read_to_string(out.join("connections/two.toml")).unwrap().replace("folder = \"people\"\n", "");
    fs::write(out.join("connections/two.toml"), wrong).unwrap();
    fs::write(out.join("connections/one.toml"), connection("2h")).unwrap();
    let refused = live.run(&format!("connections apply {folder}"));
    assert!(
        refused.code == 2 && refused.stderr.contains("connection two: settings: \"folder\" is a required"),
        "{refused:?}"
    );
    let one = || fs::read_to_string(live.path("connections/one.toml")).unwrap();
    assert!(one().contains("100ms"), "{}", one());
    fs::write(out.join("connections/two.toml"), "nonsense").unwrap();
    let refused = live.run(&format!("connections apply {folder}"));
    assert!(refused.code == 2 && refused.stderr.contains("two.toml"), "{refused:?}");

    fs::remove_file(out.join("connections/two.toml")).unwrap();
    let orphan = live.run(&format!("connections apply {folder} --prune"));
    assert!(orphan.code == 2 && orphan.stderr.contains("a connection that doesn't exist"), "{orphan:?}");
    fs::remove_file(out.join("grants/two.toml")).unwrap();
    assert_eq!(live.run(&format!("connections apply {folder} --prune")).code, 0);
    assert!(
        one().contains("2h") && !live.path("connections/old.toml").exists() && !live.path("grants/two.toml").exists()
    );
    assert_eq!(count(&live), 1);
    let nowhere = live.run("connections diff nowhere");
    assert!(nowhere.code == 2 && nowhere.stderr.contains("nowhere/connections"), "{nowhere:?}");
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_cannot_be_written_is_taken_back() {
    let place = environment("");
    add(&place, "", "one", "1h");
    add(&place, "wanted/", "one", "2h");
    add(&place, "wanted/", "two", "2h");
    place.write("wanted/grants/one.toml", "read = [\"people\"] # more\n");
    let there = || {
        let files = ["connections/one.toml", "connections/two.toml", "grants/one.toml", "grants/two.toml"];
        files.map(|file| fs::read_to_string(place.path(file)).ok())
    };
    // Nothing can be begun there.
    fs::create_dir_all(place.path("grants/.two.toml.new")).unwrap();
    let before = there();
    let failed = place.run("connections apply wanted");
    assert!(failed.code == 1 && failed.stderr.contains("grants/two.toml: "), "{failed:?}");
    assert_eq!(there(), before);
    fs::remove_dir(place.path("grants/.two.toml.new")).unwrap();

    // A link leads to where it is written.
    fs::rename(place.path("grants/one.toml"), place.path("elsewhere.toml")).unwrap();
    std::os::unix::fs::symlink("../elsewhere.toml", place.path("grants/one.toml")).unwrap();
    assert_eq!(place.run("connections apply wanted").code, 0);
    assert!(fs::symlink_metadata(place.path("grants/one.toml")).unwrap().is_symlink());
    assert!(fs::read_to_string(place.path("elsewhere.toml")).unwrap().contains("# more"));
    assert!(there().iter().all(Option::is_some));

    // Also without a server it is seen what a connector can't work with.
    place.write(
        "wanted/connections/two.toml",
        &connection("2h").replace("folder = \"people\"\n", "").replace("\"id\"", "7"),
    );
    for command in ["diff", "apply"] {
        let wrong = place.run(&format!("connections {command} wanted"));
        let named = wrong.stderr.contains("settings: \"folder\" is a required")
            && wrong.stderr.contains("settings.uid (line 3)");
        assert!(wrong.code == 2 && named, "{wrong:?}");
    }
    fs::remove_dir_all(place.path("wanted/connections")).unwrap();
    fs::create_dir(place.path("wanted/connections")).unwrap();
    let nothing = place.run("connections apply wanted --prune");
    assert!(nothing.code == 2 && nothing.stderr.contains("no NAME.toml"), "{nothing:?}");
    assert_eq!(count(&place), 2);
}

#[test]
fn where_the_host_keeps_connections_only_whoever_asks_it_changes_them() {
    let place = environment("config.source = \"api\"\n");
    add(&place, "", "file", "1h");
    add(&place, "wanted/", "one", "100ms");
    assert_eq!(count(&place), 0, "files are not read");
    let applied = place.run("connections apply wanted");
    assert!(applied.code == 0 && applied.stdout == "one is new\n", "{applied:?}");
    let server = place.serve();
    server.wait_for("nobody reads these files", 0);
    until("a token", || place.run("token get one account --json").json()["state"] == "live");

    add(&place, "wanted/", "two", "100ms");
    place.write("wanted/connections/one.toml", &connection("1h"));
    assert_eq!(place.run("connections apply wanted").code, 0);
    until("another token", || place.run("token get two account --json").json()["state"] == "live");
    // Grants are for whoever decides.
    place.write("tidewaiter.toml", "config.source = \"api\"\nsocket.security = []\n");
    assert_eq!(place.run("reload").code, 0);
    place.write("wanted/connections/one.toml", &connection("2h"));
    assert_eq!(place.run("connections apply wanted").code, 0);
    place.write("wanted/grants/one.toml", "read = [\"people\", \"connectors\"]\n");
    let refused = place.run("connections apply wanted");
    assert!(refused.code == 5 && refused.stderr.contains("may not decide"), "{refused:?}");
    assert_eq!(server.end().0, 0);

    let server = place.serve();
    assert_eq!(count(&place), 2, "it is kept");
    let schedule = place.run("connections show one --json").json()["types"][0]["schedule"].clone();
    assert_eq!(schedule, "every 7200 s");
    assert_eq!(place.run("connections export kept").code, 0);
    assert!(place.path("kept/connections/two.toml").exists());
    assert_eq!(server.end().0, 0);
}
