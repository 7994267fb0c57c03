//! What goes with the program into a package: what it says of itself, its unit for systemd and its configuration, manual pages, completions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidewaiter_servers::systemd_analyze;
use tidewaiter_tests::{Place, program};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The versions of a package that the lock has.
fn locked(package: &str) -> Vec<String> {
    let lock = fs::read_to_string(project().join("Cargo.lock")).unwrap();
    let mut lines = lock.lines();
    let mut versions = Vec::new();
    while let Some(line) = lines.next() {
        if line == format!("name = {package:?}") {
            let version = lines.next().and_then(|line| line.strip_prefix("version = ")).unwrap();
            versions.push(version.trim_matches('"').to_owned());
        }
    }
    versions
}

#[test]
fn the_versions_are_those_that_are_locked() {
    // Nothing is configured here.
    let place = Place::empty();
    let version = place.run("version --json").json();
    for (package, said) in [("tidewaiter", "tidewaiter"), ("wasmtime", "wasmtime"), ("redb", "redb")] {
        let locked = locked(package);
        assert_eq!(locked, [version[said].as_str().unwrap()], "{version}");
    }
    let world = fs::read_to_string(project().join("wit/world.wit")).unwrap();
    let contract = version["contract"].as_str().unwrap();
    assert!(world.contains(&format!("package {contract};")), "{version}");
    let rustc = Command::new("rustc").arg("-vV").current_dir(project()).output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let said = |key: &str| version[key].as_str().unwrap().to_owned();
    assert_eq!(rustc.lines().next().unwrap(), said("rustc"));
    assert!(rustc.lines().any(|line| line == format!("host: {}", said("target"))), "{version}");

    let text = place.run("version");
    assert_eq!(text.code, 0, "{text:?}");
    for part in ["tidewaiter", "wasmtime", "redb", "target", "contract"] {
        let line = text.stdout.lines().find(|line| line.starts_with(part)).unwrap_or_default();
        assert!(line.ends_with(&said(part)), "{part}: {text:?}");
    }
}

/// The values that a key has in the unit.
fn of_unit(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(packaging("tidewaiter.service")).unwrap();
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
    values.collect()
}

fn packaging(name: &str) -> PathBuf {
    project().join("packaging").join(name)
}

/// The configuration of the package, in a place of its own, with all that it only shows.
fn unpacked() -> Place {
    let place = Place::empty();
    let shipped = fs::read_to_string(packaging("tidewaiter.toml")).unwrap();
    let shown = shipped.lines().filter(|line| !line.contains('`') && !line.starts_with("# Connections"));
    let here = shown.map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n");
    let state = place.path("state").display().to_string();
    fs::create_dir(&state).unwrap();
    place.write("secrets/db.key", &"ab".repeat(32));
    let here = here.replace("/var/lib/tidewaiter", &state).replace(":8585", ":0");
    let here = here.replace("/run/credentials/tidewaiter.service", &place.path("secrets").display().to_string());
    assert!(!here.contains("/run/") && here.contains("[encryption]"), "{here}");
    place.write("tidewaiter.toml", &here);
    fs::rename(place.path("connectors"), place.path("state/connectors")).unwrap();
    place
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_leaves_little_open() {
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(packaging("tidewaiter.service")).unwrap();
    let program = fs::canonicalize(program()).unwrap();
    let installed = unit.replace("/usr/bin/tidewaiter", program.to_str().unwrap());
    fs::write(folder.path().join("tidewaiter.service"), &installed).unwrap();
    // Wrong keys and values are no errors to systemd, and nothing else notices them.
    fs::write(folder.path().join("wrong.service"), installed.replace("PrivateTmp=yes", "PrivateTemp=yes")).unwrap();
    let verified =
        |name: &str| systemd_analyze(folder.path(), &format!("verify --man=no --recursive-errors=no {name}"));
    let taken = verified("./tidewaiter.service");
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert!(!verified("./wrong.service").status.success());

    // Tenths, of 0 (nothing is open) to 10.
    let open = |tenths: u32| {
        let words = format!("security --offline=true --no-pager --threshold={tenths} ./tidewaiter.service");
        let judged = systemd_analyze(folder.path(), &words);
        assert!(judged.stdout.starts_with(b"  NAME"), "{judged:?}");
        !judged.status.success()
    };
    assert!(!open(20), "more is open than there was");
    assert!(open(5), "it judges nothing");
}

#[test]
fn the_unit_starts_and_reloads_the_program_with_the_configuration_of_the_package() {
    let place = unpacked();
    let of_service = |key: &str| {
        let commands = of_unit(key);
        assert_eq!(commands.len(), 1, "{key}");
        let words: Vec<String> = commands[0].split(' ').map(str::to_owned).collect();
        assert_eq!(words[0], "/usr/bin/tidewaiter");
        let here = place.path("tidewaiter.toml").display().to_string();
        let words = words[1..].iter().map(|word| word.replace("/etc/tidewaiter/tidewaiter.toml", &here));
        words.collect::<Vec<String>>()
    };
    let (start, reload) = (of_service("ExecStart"), of_service("ExecReload"));
    let words = |words: &[String]| place.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let none = words(&reload).output().unwrap();
    assert!(!none.status.success(), "no server runs");
    let server = place.start_by(words(&start));
    server.wait_for("serving", 0);
    let reloaded = words(&reload).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    place.write("connections/hr.toml", "nonsense");
    let refused = words(&reload).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(server.end().0, 0);
    // All that it wrote is where the unit lets it write.
    assert!(place.path("state/data/audit.ndjson").exists() && !place.path("data").exists());

    // What it ends with if it can't be configured is what the unit doesn't begin anew.
    let wrong = words(&start).output().unwrap();
    assert_eq!(of_unit("RestartPreventExitStatus"), [wrong.status.code().unwrap().to_string()], "{wrong:?}");
}

#[test]
fn folders_and_user_of_the_package_are_those_of_the_unit() {
    for key in ["StateDirectory", "ConfigurationDirectory", "User", "Group"] {
        assert_eq!(of_unit(key), ["tidewaiter"], "{key}");
    }
    let user = fs::read_to_string(packaging("tidewaiter.sysusers")).unwrap();
    assert!(user.starts_with("u tidewaiter - ") && user.ends_with(" /var/lib/tidewaiter\n"), "{user}");
    let configured = fs::read_to_string(packaging("tidewaiter.toml")).unwrap();
    for (key, value) in [("data", "data"), ("connectors", "connectors")] {
        assert!(configured.contains(&format!("\n{key} = \"/var/lib/tidewaiter/{value}\"\n")), "{configured}");
    }
    // The service may write its lock there, and nothing of root's.
    let made = fs::read_to_string(packaging("debian/postinst")).unwrap();
    let mode = of_unit("ConfigurationDirectoryMode").concat();
    assert!(
        mode.starts_with('1') && made.contains(&format!("-o root -g tidewaiter -m {mode} /etc/tidewaiter\n")),
        "{made}"
    );
    // What shuts the compiler off is let through.
    let calls = of_unit("SystemCallFilter").join(" ");
    assert!(
        ["create_ruleset", "restrict_self"].iter().all(|call| calls.contains(&format!("landlock_{call}"))),
        "{calls}"
    );
    for name in ["postinst", "postrm"] {
        let script = fs::read_to_string(packaging("debian").join(name)).unwrap();
        assert!(!script.contains("rm "), "{name} takes something away");
        let read = Command::new("sh").arg("-n").arg(packaging("debian").join(name)).status();
        assert!(read.unwrap().success() && script.contains("\n#DEBHELPER#\n"), "{name}");
    }
}

/// All commands, each with the commands that it is one of: as help has them.
fn commands(place: &Place, of: &str) -> Vec<String> {
    let help = place.run(&format!("{of} --help")).stdout;
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let names = names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help");
    let mut all = Vec::new();
    for name in names {
        let name = format!("{of} {name}").trim().to_owned();
        all.extend(commands(place, &name));
        all.push(name);
    }
    all
}

#[test]
fn every_command_has_a_manual_page() {
    let place = Place::empty();
    let made = place.run("man manual");
    assert_eq!((made.code, made.stdout.as_str()), (0, ""), "{made:?}");
    let files = fs::read_dir(place.path("manual")).unwrap();
    let mut pages: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let all = commands(&place, "");
    assert!(all.len() > 40 && all.contains(&"connections bring-up".to_owned()), "{all:?}");
    let name = |command: &String| format!("tidewaiter-{}.1", command.replace(' ', "-"));
    let mut expected: Vec<String> = all.iter().map(name).chain(["tidewaiter.1".to_owned()]).collect();
    pages.sort();
    expected.sort();
    assert_eq!(pages, expected);
    for command in &all {
        let page = fs::read_to_string(place.path("manual").join(name(command))).unwrap();
        let title = format!(".TH tidewaiter-{} 1", command.replace(' ', "-"));
        assert!(page.contains(&title) && page.contains("\n.SH SYNOPSIS\n"), "{command}: {page}");
    }
}

#[test]
fn shells_complete_commands() {
    let place = Place::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&format!("completions {shell}"));
        assert!(script.code == 0 && script.stdout.contains("dead-letters"), "{shell}: {script:?}");
        fs::write(place.path(shell), script.stdout).unwrap();
    }
    assert_eq!(place.run("completions nonsense").code, 2);
    let completed = |words: &str, place_of_word: usize, word: &str| {
        let ask = format!(
            "set -e; source ./bash; complete -p tidewaiter >/dev/null; COMP_WORDS=({words} {word:?}); COMP_CWORD={place_of_word}; \
             _tidewaiter tidewaiter {word:?} x; echo \"${{COMPREPLY[@]}}\""
        );
        let bash =
            Command::new("bash").args(["--norc", "--noprofile", "-c", &ask]).current_dir(place.path(".")).output();
        let bash = bash.unwrap();
        assert!(bash.status.success() && bash.stderr.is_empty(), "{bash:?}");
        String::from_utf8(bash.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed("tidewaiter", 1, "connec"), "connectors connections");
    assert_eq!(completed("tidewaiter connections", 2, "bri"), "bring-up");
}
