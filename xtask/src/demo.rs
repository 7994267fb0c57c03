//! `cargo xtask demo`: the founding story with the real program, in `target/demo`. Owns the telling; what is shown is what happens.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{output, run_logged};
use crate::{cargo, connectors};

const CONFIG: &str = "\
[http]
listen = \"127.0.0.1:0\"          # 0: a port that is free

[sinks]
file = { type = \"ndjson\", path = \"changes.ndjson\" }
";
const CONNECTION: &str = "\
connector = \"csv\"

[settings]
folder = \"people\"
uid = \"id\"
name = \"mail\"
updated_at = \"updated_at\"
deleted_at = \"left_at\"
settle_ms = 0                    # files are replaced whole here

[types.account]
class = \"account\"
every = \"1s\"
";
const GRANT: &str = "read = [\"people\"]\n";
const HEAD: &str = "id,mail,department,updated_at,left_at\n";
const DOCUMENT: &str = "repo/synchronisation/pooledSyncStage/SYSTEMHRACCOUNT";
const SYNC: &str = "system?_action=liveSync&source=system/hr/account";
/// Rows of the large change.
const LARGE: u32 = 100_000;
/// How long anything may take that the story waits for.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Tells the story; `keep`: the server runs on at its end.
pub(crate) fn tell(root: &Path, keep: bool) -> Result<()> {
    connectors::build(root, &["csv"])?;
    let mut build = cargo(root, &["build", "--locked", "--profile", "house", "--package", "tidewaiter"]);
    run_logged(root, "tidewaiter", "building tidewaiter (some minutes the first time)", &mut build)?;
    let mut demo = Demo::prepare(root)?;
    demo.first_run()?;
    demo.changes()?;
    demo.reset()?;
    demo.kill()?;
    demo.end(keep)
}

struct Demo {
    program: PathBuf,
    folder: PathBuf,
    server: Option<Child>,
    /// Bytes of the log that have been shown or passed over.
    log_read: usize,
    keep: bool,
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Demo {
    fn prepare(root: &Path) -> Result<Self> {
        let folder = root.join("target/demo");
        if UnixStream::connect(folder.join("data/tidewaiter.sock")).is_ok() {
            let owner = std::fs::read_to_string(folder.join("data/tidewaiter.lock")).unwrap_or_default();
            bail!("the server of an earlier demo still runs: end {} first", owner.trim());
        }
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        let program = root.join("target/house/tidewaiter");
        let demo = Self { program, folder, server: None, log_read: 0, keep: false };
        for name in ["people", "connectors", "connections", "grants"] {
            std::fs::create_dir_all(demo.folder.join(name))?;
        }
        std::fs::copy(root.join("target/connectors/csv.wasm"), demo.folder.join("connectors/csv.wasm"))?;
        for (name, text) in
            [("tidewaiter.toml", CONFIG), ("connections/hr.toml", CONNECTION), ("grants/hr.toml", GRANT)]
        {
            std::fs::write(demo.folder.join(name), text)?;
        }
        Ok(demo)
    }

    fn first_run(&mut self) -> Result<()> {
        chapter("A company's people are in a CSV file, and other systems want to know what changes in it");
        self.people(
            "1,ann@example.org,Sales,2026-03-01T08:00:00Z,\n2,bob@example.org,Support,2026-03-01T09:00:00Z,\n",
        )?;
        show("people/people.csv", &std::fs::read_to_string(self.folder.join("people/people.csv"))?);
        tell_more(
            "The connector `csv` can read such files. It is a WebAssembly component: it runs in a sandbox, and reaches nothing but \
             what it asked for and you granted. This is all the configuration there is:",
        );
        for (name, text) in
            [("tidewaiter.toml", CONFIG), ("connections/hr.toml", CONNECTION), ("grants/hr.toml", GRANT)]
        {
            show(name, text);
        }
        tell_more(
            "Nobody has to trust a connector with more than that. Which file may be run at all is said by its hash, in tidewaiter.lock:",
        );
        self.command(&["connectors", "pin", "csv"])?;
        tell_more("Can it run like that?");
        self.command(&["check"])?;

        chapter("First run: no token is held, so getLatestSyncToken is asked; sync finds nothing");
        tell_more(
            "A sync token marks a place in the history of a source. Without one, the host asks the connector for the latest, \
             stores it, and goes on from there: what was in the file before is not news. The host's log:",
        );
        self.start()?;
        self.log_until(&["run ended"])
    }

    fn changes(&mut self) -> Result<()> {
        chapter("Somebody comes, somebody moves, somebody leaves: the next scheduled run delivers exactly those");
        self.people(
            "1,ann@example.org,Management,2026-03-02T08:00:00Z,\n\
             2,bob@example.org,Support,2026-03-01T09:00:00Z,2026-03-02T17:00:00Z\n\
             3,eve@example.org,Sales,2026-03-02T09:00:00Z,\n",
        )?;
        show("people/people.csv", &std::fs::read_to_string(self.folder.join("people/people.csv"))?);
        self.pass_over_log()?;
        self.log_until(&["deltas=3"])?;
        tell_more(
            "The changes and the token that covers them were written in one transaction. They are in the journal, and in the file \
             that the configuration names as a sink:",
        );
        self.command(&["changes"])
    }

    fn reset(&mut self) -> Result<()> {
        chapter("Scripts written for OpenIDM go on working: one resets the token, the next runs live sync");
        self.pass_over_log()?;
        self.call("DELETE", DOCUMENT)?;
        self.call("POST", SYNC)?;
        tell_more("The log shows getLatestSyncToken again, and why. And no change: nothing was news.");
        self.log_until(&["trigger=api", "run ended"])
    }

    fn kill(&mut self) -> Result<()> {
        chapter(&format!("{LARGE} people change at once, and in the middle of it the host is killed with kill -9"));
        let before = self.journal()?.len();
        let row = |n: u32| {
            let (day, second) = (n / 86_400, n % 86_400);
            let time =
                format!("2026-04-{:02}T{:02}:{:02}:{:02}Z", 1 + day, second / 3600, second / 60 % 60, second % 60);
            format!("{n},person{n}@example.org,Merged,{time},\n")
        };
        let sink = self.folder.join("changes.ndjson");
        let delivered = std::fs::metadata(&sink)?.len();
        self.people(&(1..=LARGE).map(row).collect::<String>())?;
        self.until("a change is delivered", || Ok(std::fs::metadata(&sink)?.len() > delivered))?;
        if let Some(mut server) = self.server.take() {
            server.kill()?;
            server.wait()?;
        }
        let survived = self.journal()?.len() - before;
        tell_more(&format!(
            "Killed. Without a server, the commands open the data themselves: of the {LARGE} changes, {survived} are in the journal. The \
             token stored with them says where to go on. Start again:"
        ));
        self.start()?;
        self.log_until(&["run ended"])?;
        let journal = self.journal()?;
        let mut uids: Vec<u32> =
            journal[before..].iter().filter_map(|entry| entry["uid"].as_str()?.parse().ok()).collect();
        let entries = uids.len();
        uids.sort_unstable();
        uids.dedup();
        if entries != LARGE as usize || uids.len() != entries {
            bail!("{entries} entries for {} of {LARGE} changed people: that is a bug", uids.len());
        }
        tell_more(&format!(
            "{entries} entries for {LARGE} changed people: nothing is missing, and nothing is there twice."
        ));
        self.command(&["connections", "list"])
    }

    fn end(mut self, keep: bool) -> Result<()> {
        self.keep = keep;
        let id = self.server.as_ref().map_or(0, Child::id);
        if !keep {
            chapter("That was it. The server ends, and target/demo is removed; `cargo xtask demo --keep` leaves both");
            // It ends at a checkpoint of each run, as with any SIGTERM.
            output(Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id.to_string()]))?;
            if let Some(mut server) = self.server.take() {
                server.wait()?;
            }
            return Ok(());
        }
        chapter("The server runs on");
        tell_more(&format!(
            "Its folder is {folder}; change people/people.csv and see. Its log is in `log`, the API's token in data/http-token.\n\
             Commands:  cd {folder} && {program} connections show hr\n\
             API:       {api}\n\
             To end it: kill {id}",
            folder = self.folder.display(),
            program = self.program.display(),
            api = self.api()?,
        ));
        Ok(())
    }

    fn people(&self, rows: &str) -> Result<()> {
        let partial = self.folder.join("people/new");
        std::fs::write(&partial, format!("{HEAD}{rows}"))?;
        Ok(std::fs::rename(partial, self.folder.join("people/people.csv"))?)
    }

    fn start(&mut self) -> Result<()> {
        said("tidewaiter serve");
        self.pass_over_log()?;
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = Command::new(&self.program);
        command.arg("serve").current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().context("starting tidewaiter")?);
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Result<()> {
        said(&format!("tidewaiter {}", words.join(" ")));
        quote(&output(Command::new(&self.program).args(words).current_dir(&self.folder))?);
        Ok(())
    }

    fn journal(&self) -> Result<Vec<Value>> {
        let text = output(Command::new(&self.program).args(["changes", "--json"]).current_dir(&self.folder))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn log(&self) -> Result<String> {
        let path = self.folder.join("log");
        if path.exists() { Ok(std::fs::read_to_string(path)?) } else { Ok(String::new()) }
    }

    fn pass_over_log(&mut self) -> Result<()> {
        self.log_read = self.log()?.len();
        Ok(())
    }

    /// Shows the log up to the line where the last of these texts has come, one after the other.
    fn log_until(&mut self, texts: &[&str]) -> Result<()> {
        let begin = self.log_read;
        let end = |log: &str| {
            texts.iter().try_fold(begin, |from, text| {
                let found = log.get(from..)?.find(text)? + from;
                log[found..].find('\n').map(|line| found + line + 1)
            })
        };
        self.until(&texts.join(", then "), || Ok(end(&self.log()?).is_some()))?;
        let log = self.log()?;
        let end = end(&log).unwrap_or(log.len());
        quote(&log[begin..end]);
        self.log_read = end;
        Ok(())
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let mut waited = Duration::ZERO;
        while !is_so()? {
            if waited > PATIENCE {
                bail!("waited in vain for {what:?}; the log:\n{}", self.log()?);
            }
            std::thread::sleep(LOOK_AGAIN);
            waited += LOOK_AGAIN;
        }
        Ok(())
    }

    fn api(&self) -> Result<String> {
        let log = self.log()?;
        let address = log.rsplit("HTTP API at ").next().and_then(|rest| rest.lines().next());
        Ok(format!("{}/openidm", address.context("the log has no address of the API")?))
    }

    fn call(&self, method: &str, path: &str) -> Result<()> {
        let url = format!("{}/{path}", self.api()?);
        said(&format!("curl -X {method} -H \"Authorization: Bearer $(cat data/http-token)\" '{url}'"));
        let token = std::fs::read_to_string(self.folder.join("data/http-token"))?;
        let request = ureq::http::Request::builder().method(method).uri(&url);
        let request = request.header("Authorization", format!("Bearer {}", token.trim())).body(())?;
        let text = ureq::run(request)?.body_mut().read_to_string()?;
        quote(&text);
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "the story is told here")]
fn print(text: &str) {
    println!("{text}");
}

fn chapter(text: &str) {
    print(&format!("\n== {text}\n"));
}

fn tell_more(text: &str) {
    print(&format!("{text}\n"));
}

fn said(command: &str) {
    print(&format!("$ {command}"));
}

fn show(name: &str, text: &str) {
    print(&format!("{name}:"));
    quote(text);
}

fn quote(text: &str) {
    for line in text.lines() {
        print(&format!("    {line}"));
    }
    print("");
}
