//! A process that is killed at a named step of a commit, again and again on the same file: what it said it committed is there, and of
//! the commit under way all or nothing.

use std::process::{Command, Stdio};

use fastrand::Rng;
use rustix::process::{Signal, getpid, kill_process};

use super::*;

/// Where the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// Its deltas are staged; the commit that names them is not.
    Staged,
    /// Before one of the writes to the file.
    BeforeWrite,
    /// A part of a write is done.
    WithinWrite,
    /// Everything is written, and not flushed.
    BeforeFlush,
    /// It is flushed, and nobody knows yet.
    AfterFlush,
    /// It is known.
    Answered,
}

const STEPS: [Step; 6] =
    [Step::Staged, Step::BeforeWrite, Step::WithinWrite, Step::BeforeFlush, Step::AfterFlush, Step::Answered];

/// What a child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Fate {
    path: PathBuf,
    step: Step,
    /// How many commits go well before.
    commits: u64,
    /// Which write it is, where it is about writes.
    write: u64,
}

const FATE: &str = "TIDEWAITER_TEST_FATE";

/// A file whose process ends while it is written.
#[derive(Debug)]
struct Deadly {
    file: FileBackend,
    /// None: not yet.
    fate: Arc<Mutex<Option<Fate>>>,
}

fn end() -> ! {
    kill_process(getpid(), Signal::KILL).unwrap();
    loop {
        std::thread::park();
    }
}

impl StorageBackend for Deadly {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let step = self.fate.lock().unwrap().as_ref().map(|fate| fate.step);
        match step {
            None | Some(Step::Staged | Step::Answered) => self.file.sync_data(),
            Some(Step::AfterFlush) => {
                self.file.sync_data()?;
                end()
            }
            // A commit with fewer writes than that.
            Some(Step::BeforeWrite | Step::WithinWrite | Step::BeforeFlush) => end(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if let Some(fate) = self.fate.lock().unwrap().as_mut()
            && matches!(fate.step, Step::BeforeWrite | Step::WithinWrite)
        {
            if fate.write == 0 && fate.step == Step::WithinWrite {
                self.file.write(offset, &data[..data.len() / 2])?;
            }
            if fate.write == 0 {
                end();
            }
            fate.write -= 1;
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: std::ops::Bound<u64>, end: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
}

fn deadly(path: &Path) -> (RedbStore, Arc<Mutex<Option<Fate>>>) {
    let fate = Arc::<Mutex<Option<Fate>>>::default();
    let opener = {
        let (path, fate) = (path.to_owned(), Arc::clone(&fate));
        move || {
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            builder().create_with_backend(Deadly { file: FileBackend::new(file)?, fate: Arc::clone(&fate) })
        }
    };
    let database = opener().unwrap();
    (RedbStore::new(Box::new(opener), None, database, Arc::default()), fate)
}

/// The uids of the n-th commit; of every third one some are staged first.
fn uids_of(revision: u64) -> Vec<String> {
    (0..=revision % 4).map(|n| format!("{revision}-{n}")).collect()
}

fn packed_uids(uids: &[String]) -> Vec<Packed> {
    vec![pack(&uids.iter().map(|uid| super::crash::named(uid)).collect::<Vec<_>>()).unwrap()]
}

#[test]
#[ignore = "the process that is killed: the test below starts it"]
#[expect(clippy::disallowed_methods, reason = "how it is told its fate")]
fn child() {
    let Ok(fate) = std::env::var(FATE) else { return };
    let fate: Fate = serde_json::from_str(&fate).unwrap();
    let (store, armed) = deadly(&fate.path);
    store.drop_staged().unwrap();
    let first = store.state(&key("a")).unwrap().map_or(0, |state| state.revision) + 1;
    let db = started(store);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        for revision in first.. {
            let last = revision == first + fate.commits;
            let mut uids = uids_of(revision);
            let mut commit = commit("a", revision, 0);
            if revision % 3 == 0 || fate.step == Step::Staged {
                let key = commit.key.clone();
                let staged = packed_uids(&uids.drain(..1).collect::<Vec<_>>());
                commit.staged = db.stage(&key, 2, 1, staged, UnixMillis(1)).await.unwrap();
            }
            commit.batches = packed_uids(&uids);
            if last && fate.step == Step::Staged {
                end();
            }
            if last {
                *armed.lock().unwrap() = Some(fate.clone());
            }
            db.commit(commit).await.unwrap();
            println!("committed {revision}");
            if last {
                end();
            }
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "how xtask says how long a test may take")]
fn kills() -> u64 {
    let asked = std::env::var("TIDEWAITER_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if std::env::var_os("TIDEWAITER_TEST_QUICK").is_some() { 30 } else { 100 })
}

#[test]
fn a_kill_at_any_step_of_a_commit_leaves_all_of_it_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path());
    migrate::create(dir.path(), &path).unwrap();
    let mut chance = Rng::with_seed(4711);
    let (mut found, mut flushed) = ([0; 2], [0; 2]);
    let mut before = 0;
    for (round, step) in (0..kills()).zip(STEPS.iter().cycle()) {
        let fate = Fate { path: path.clone(), step: *step, commits: chance.u64(..4), write: chance.u64(..14) };
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "db::tests::kill::child", "--ignored", "--nocapture"]);
        child.env(FATE, serde_json::to_string(&fate).unwrap()).stderr(Stdio::null());
        let ended = child.output().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        assert_eq!(signal, Some(Signal::KILL.as_raw()), "round {round}: {fate:?}");
        let said = String::from_utf8(ended.stdout).unwrap();
        let mut numbers = said.lines().filter_map(|line| line.rsplit_once("committed ")?.1.parse::<u64>().ok());
        let known = numbers.next_back().unwrap_or(before);

        let (store, _) = deadly(&path);
        store.drop_staged().unwrap();
        let problems = [store.check(true).unwrap().problems, store.examine().unwrap()].concat();
        assert_eq!(problems, Vec::<String>::new(), "round {round}: {fate:?}");
        let revision = store.state(&key("a")).unwrap().map_or(0, |state| state.revision);
        assert!(revision == known || revision == known + 1, "round {round}: {fate:?}: {known} known, {revision} there");
        let must: Vec<String> = (1..=revision).flat_map(uids_of).collect();
        assert!(
            super::crash::journaled(&store) == must,
            "round {round}: {fate:?}: the journal is not what its token says"
        );
        match step {
            Step::Answered => assert_eq!(revision, known, "round {round}"),
            Step::Staged => assert_eq!(revision, known, "round {round}: nothing named what was staged"),
            // What was written outlives its process, and whether it is enough depends on the write that was missing.
            Step::BeforeWrite | Step::WithinWrite | Step::BeforeFlush => found[usize::from(revision > known)] += 1,
            // A commit that makes the file longer flushes twice.
            Step::AfterFlush => flushed[usize::from(revision > known)] += 1,
        }
        before = revision;
    }
    assert!(found[0] > 0, "no kill came too early: {found:?}");
    assert!(flushed[1] > flushed[0] * 5, "what was flushed was not there: {flushed:?}");
}
