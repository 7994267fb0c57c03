//! Compiles connectors, in a child process: the compiler is large, and reads bytes of strangers. The child has no way to files
//! or the network, bounded time and memory, and hands machine code back; only this process puts it into the cache.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use landlock::{Access, AccessFs, AccessNet, CompatLevel, Compatible, RulesetAttr, RulesetError, Scope};
use rustix::process::{Resource, Rlimit};
use tidewaiter_core::text::shown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use wasmtime::component::Component;

use super::cache::{Artifact, Cache};
use super::engine::{self, Engine, EngineOptions};
use crate::meters::Meters;

/// How long compiling one connector may take; the largest known (Python) takes 4 to 9 s.
pub(super) const TIME_MAX: Duration = Duration::from_secs(300);
/// Processor time of the child, in seconds; it compiles with several threads.
const CPU_SECONDS_MAX: u64 = 600;
/// Addresses of the child. The largest known connector takes 1.5 GiB of them.
const ADDRESS_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Machine code of one connector; the largest known has 33 MB.
const ARTIFACT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// What a child may say of its failure.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024;
/// A component that is compiled in a moment; those of the connectors in Rust have less than a mebibyte.
const SMALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much less than others the child may compute.
const NICE: i32 = 10;
/// The child refuses the component; any other end is a failure of the compiler.
const REFUSED: i32 = 65;

/// A connector that was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is not a component, in wasmtime's words.
    #[error("not a WebAssembly component: {0}")]
    Refused(String),
    /// The compiler did not come to an end by itself.
    #[error("the compiler died ({status}): {said}")]
    Died {
        /// How.
        status: ExitStatus,
        /// What it said before.
        said: String,
    },
    /// It took too long.
    #[error("compiling takes longer than the {} s allowed", .0.as_secs())]
    TooLong(Duration),
    /// More than any connector needs.
    #[error("more than {ARTIFACT_BYTES_MAX} bytes of machine code")]
    TooLarge,
    /// The compiler can't be started or talked to.
    #[error("can't run the compiler {}: {source}", program.display())]
    Io {
        /// Which program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A bug of ours.
    #[error("compiling ended unexpectedly: {0}")]
    Ended(#[from] JoinError),
    /// What came out can't be loaded, in wasmtime's words.
    #[error("what the compiler made can't be loaded: {0}")]
    Unusable(String),
}

/// Turns bytes into components, from the cache where it has them.
pub(super) struct Compiler {
    program: Option<PathBuf>,
    cache: Option<Cache>,
    time_max: Duration,
    /// One small one and one large one at a time: a compiler takes all processors, and much memory, and a large connector takes its time.
    turns: [Semaphore; 2],
    meters: Meters,
}

impl Compiler {
    pub(super) fn new(options: &EngineOptions, cache: Option<Cache>) -> Self {
        let (program, time_max, meters) = (options.compiler.clone(), options.compile_time, options.meters.clone());
        Self { program, cache, time_max, turns: [1, 1].map(Semaphore::new), meters }
    }

    /// The component of these bytes.
    pub(super) async fn component(&self, engine: &Engine, bytes: &[u8]) -> Result<Component, CompileError> {
        let cached = self.cache.as_ref().and_then(|cache| cache.component(engine, bytes));
        if let Some(component) = cached {
            return Ok(component);
        }
        let _turn = self.turns[usize::from(bytes.len() > SMALL_BYTES_MAX)].acquire().await;
        self.meters.compiled(self.compile(engine, bytes)).await
    }

    async fn compile(&self, engine: &Engine, bytes: &[u8]) -> Result<Component, CompileError> {
        let Some(program) = &self.program else {
            let (engine, bytes) = (engine.inner().clone(), bytes.to_vec());
            let compiled = spawn_blocking(move || Component::from_binary(&engine, &bytes)).await?;
            return compiled.map_err(|error| CompileError::Refused(format!("{error:#}")));
        };
        let artifact = self.in_child(program, bytes).await?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(bytes, &artifact)
        {
            tracing::warn!("a compiled connector can't be kept: {error}");
        }
        artifact.load(engine.inner()).map_err(|error| CompileError::Unusable(format!("{error:#}")))
    }

    async fn in_child(&self, program: &PathBuf, bytes: &[u8]) -> Result<Artifact, CompileError> {
        let failed = |source| CompileError::Io { program: program.clone(), source };
        let mut command = Command::new(program);
        command.arg("compile").env_clear().current_dir("/").kill_on_drop(true);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.spawn().map_err(failed)?;
        let talked = tokio::time::timeout(self.time_max, talk(child, bytes)).await;
        let (status, code, message) = talked.map_err(|_| CompileError::TooLong(self.time_max))?.map_err(failed)?;
        match status.code() {
            Some(0) if code.len() as u64 > ARTIFACT_BYTES_MAX => Err(CompileError::TooLarge),
            Some(0) => Ok(Artifact::of_our_compiler(code)),
            Some(REFUSED) => Err(CompileError::Refused(shown(String::from_utf8_lossy(&message).trim_end(), 2048))),
            _ => Err(CompileError::Died { status, said: shown(String::from_utf8_lossy(&message).trim_end(), 2048) }),
        }
    }
}

/// Gives the child its bytes, takes what it answers, and waits for its end.
async fn talk(mut child: Child, bytes: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let missing = || std::io::Error::other("it has no pipes");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let mut stdout = child.stdout.take().ok_or_else(missing)?.take(ARTIFACT_BYTES_MAX + 1);
    let mut stderr = child.stderr.take().ok_or_else(missing)?.take(MESSAGE_BYTES_MAX);
    let give = async {
        // A child that has seen enough closes its end.
        let _ = stdin.write_all(bytes).await;
        drop(stdin);
    };
    let (mut code, mut message) = (Vec::new(), Vec::new());
    let ((), code_read, message_read) =
        tokio::join!(give, stdout.read_to_end(&mut code), stderr.read_to_end(&mut message));
    code_read.and(message_read)?;
    // What it still says is not read: it must not wait for that.
    drop((stdout, stderr));
    let status = child.wait().await?;
    Ok((status, code, message))
}

/// The child's whole life: bytes from standard input, machine code to standard output. Answers the exit code.
pub fn child() -> i32 {
    let compiled = confine().and_then(|()| {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let result = match compiled {
        Ok(bytes) => wasmtime::Engine::new(&engine::config()).and_then(|engine| engine.precompile_component(&bytes)),
        Err(error) => return say(1, &error),
    };
    match result {
        Ok(code) => std::io::stdout().lock().write_all(&code).map_or_else(|error| say(1, &error.into()), |()| 0),
        Err(error) => say(REFUSED, &error.into()),
    }
}

fn say(code: i32, error: &anyhow::Error) -> i32 {
    let _ = writeln!(std::io::stderr().lock(), "{error:#}");
    code
}

/// Gives up everything that compiling doesn't need. The kernel may be too old for Landlock; the limits always hold.
fn confine() -> anyhow::Result<()> {
    let limit = |resource, max| rustix::process::setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max) });
    limit(Resource::As, ADDRESS_BYTES_MAX)?;
    limit(Resource::Cpu, CPU_SECONDS_MAX)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    rustix::process::nice(NICE)?;
    Ok(landlocked()?)
}

fn landlocked() -> Result<(), RulesetError> {
    let abi = landlock::ABI::V6;
    landlock::Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(())
}
