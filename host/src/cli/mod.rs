//! The command line: what can be said, and what a process ends with. Asks a running host over its socket, or is the host itself
//! where none runs; prints what is answered, and decides nothing else.

mod access;
mod changes;
mod check;
mod connectors;
mod consumers;
mod db;
mod dead_letters;
mod door;
mod fail;
mod guard;
mod import;
mod log;
mod manual;
mod print;
mod progress;
mod promote;
mod pull;
mod serve;
mod service;
mod sinks;
mod token;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tidewaiter_core::name::{ConnectionName, TypeKey, TypeName};
use tidewaiter_core::run::{Outcome, RunReport, Trigger};

use self::door::{Door, Site};
use self::fail::{Exit, Fail};
use crate::config::Config;
use crate::host::ask::{Answer, Ask};
use crate::host::{NotTaken, Runs, Scope, Synced, TypesOf};

/// How long calls that can't be interrupted may go on when the work is done.
const ABANDONED_AFTER: Duration = Duration::from_secs(2);

/// This program, also after its file was replaced.
const OURSELVES: &str = "/proc/self/exe";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the host, its db or the file system failed
  2  bad usage or configuration
  3  what was named doesn't exist
  4  a run failed, a check found something, or an inline sink did not take what was journaled
  5  refused in the present state, or to this user: token lost, held by its guard, data in use,
     shutting down, run superseded, a dead letter that stays";

/// Runs sandboxed connectors, and journals every change that they hand over with the sync token that covers it.
#[derive(Debug, Parser)]
#[command(name = "tidewaiter", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    /// The host's configuration; connections/ and grants/ are beside it
    #[arg(long, global = true, value_name = "FILE", default_value = "tidewaiter.toml")]
    config: PathBuf,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// What is logged to standard error, as in `info` or `warn,connector=debug` [default: info for serve, else warn]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// How it is logged
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: log::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every schedule, and answer the other commands and the HTTP API, until SIGTERM or SIGINT; SIGHUP
    /// has it take over the configuration
    Serve,
    /// Run every object type once
    Run {
        /// Once, then end
        #[arg(long, required = true)]
        once: bool,
    },
    /// Run live sync of an object type now, and wait for its end
    Sync(Type),
    /// Show, set or throw away sync tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Read all objects of a type as they are now, and journal what differs from what was journaled before
    Reconcile {
        #[command(flatten)]
        of: Type,
        /// The one object with this uid, whatever was journaled of it before
        #[arg(long, conflicts_with_all = ["full", "allow_deletes"])]
        uid: Option<String>,
        /// If the source has no object with this uid, journal that it is deleted
        #[arg(long, requires = "uid")]
        gone: bool,
        /// Journal all objects, and not only those that differ: for consumers that lost something
        #[arg(long)]
        full: bool,
        /// Read, compare and count, and journal nothing
        #[arg(long)]
        dry_run: bool,
        /// Journal deletions beyond what the type's guard lets pass
        #[arg(long)]
        allow_deletes: bool,
    },
    /// Decide about what a type's guard held
    #[command(subcommand)]
    Guard(guard::Command),
    /// Look at what is kept out of the journal, try it again, or give it up
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Print journaled changes, oldest first
    Changes(changes::Arguments),
    /// Who may ask over HTTP
    #[command(subcommand)]
    Access(access::Command),
    /// Readers of the journal with a place of their own
    #[command(subcommand)]
    Consumers(consumers::Command),
    /// Where entries are delivered, and how far that is
    #[command(subcommand)]
    Sinks(sinks::Command),
    /// Print what is counted, in the format of OpenMetrics: of a running server, or what the data says where none runs
    Metrics,
    /// Copy all data into a new file, while a server runs or not
    Backup {
        /// The file, which must not be there yet
        file: PathBuf,
    },
    /// Make the data out of a copy, where there is none. Tokens go on from where they were then
    Restore {
        /// The copy
        file: PathBuf,
    },
    /// Look after the data
    #[command(subcommand)]
    Db(db::Command),
    /// Look at connectors
    #[command(subcommand)]
    Connectors(connectors::Command),
    /// Look at connections
    #[command(subcommand)]
    Connections(Connections),
    /// Make connections out of what another system is configured with, and list what has no counterpart
    #[command(subcommand)]
    Import(import::Command),
    /// Have a running server take over what the configuration says by now of connections and grants. It does so by itself when a file is saved
    Reload,
    /// Erase what the journal and the logs of runs say of an object. Its source still has it: remove it there first
    Erase {
        /// The connection, as in `hr`
        connection: ConnectionName,
        /// The object's uid
        #[arg(long)]
        uid: String,
    },
    /// Whether the audit is whole: each line of audit.ndjson in the data folder has the hash of the one before
    Audit,
    /// Check configuration, connectors, grants and sources, and print what to add
    Check,
    /// The versions of this program, of the contract with connectors, and of what it is made of
    Version,
    /// Print a script that has a shell complete commands and options
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder; packages are made with it
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Compile a connector from standard input to standard output, confined; the host calls it
    #[command(hide = true)]
    Compile,
}

#[derive(Debug, Subcommand)]
enum Connections {
    /// Every object type of every connection, its state and its last run
    List,
    /// A connection's settings, grants, limits, types and last runs
    Show {
        /// Its name
        connection: ConnectionName,
    },
    /// Establish the token of each type that has none, then read all objects and journal what differs, then go on from the token
    BringUp {
        /// The connection's name
        connection: ConnectionName,
    },
    /// Begin no run of a connection until it is resumed; one that is under way ends
    Pause(Types),
    /// Let a connection that is paused go on
    Resume(Types),
    /// Write connections and their grants into a new folder, as files: for another environment, or to keep them. Tokens stay
    Export {
        /// The folder
        folder: PathBuf,
        /// Only these connections
        connections: Vec<ConnectionName>,
    },
    /// What would change with the connections and grants of a folder, as `export` writes it; ends with 4 where something would
    Diff {
        /// The folder
        folder: PathBuf,
        /// Those that it doesn't have would go
        #[arg(long)]
        prune: bool,
    },
    /// Take over the connections and grants of a folder, as `export` writes it, all or none of them. What has the same name is replaced
    Apply {
        /// The folder
        folder: PathBuf,
        /// Those that it doesn't have go
        #[arg(long)]
        prune: bool,
    },
    /// Let a connector ask for what an update of it asks for beyond what was approved, as `show` has it
    Approve {
        /// The connection's name
        connection: ConnectionName,
        /// The id that `show` prints beside what awaits approval
        id: String,
    },
}

/// An object type of a connection.
#[derive(Clone, Debug, clap::Args)]
struct Type {
    /// The connection, as in `hr`
    connection: ConnectionName,
    /// The object type in it, as in `account`
    #[arg(value_name = "TYPE")]
    object_type: TypeName,
}

/// Object types of a connection.
#[derive(Clone, Debug, clap::Args)]
struct Types {
    /// The connection, as in `hr`
    connection: ConnectionName,
    /// The one object type in it, as in `account` [default: all]
    #[arg(value_name = "TYPE")]
    object_type: Option<TypeName>,
}

impl From<Types> for TypesOf {
    fn from(named: Types) -> Self {
        Self { connection: named.connection, object_type: named.object_type }
    }
}

impl From<Type> for TypeKey {
    fn from(named: Type) -> Self {
        Self { connection: named.connection, object_type: named.object_type }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::Compile) {
        return u8::try_from(crate::wasm::compiler()).unwrap_or(1).into();
    }
    let format = arguments.log_format;
    let usual = if matches!(arguments.command, Command::Serve) { "info" } else { "warn" };
    let result = log::begin(arguments.log.as_deref().unwrap_or(usual), format).and_then(|()| {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| Fail::new(Exit::Host, error))?;
        let result = runtime.block_on(perform(arguments));
        // A connector's call into a file system that doesn't answer is abandoned.
        runtime.shutdown_timeout(ABANDONED_AFTER);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            log::failed(&fail, format);
            fail.exit.into()
        }
    }
}

async fn perform(arguments: Arguments) -> Result<(), Fail> {
    let Arguments { config: file, json, command, .. } = arguments;
    // What whoever makes a connector needs, who has no configuration.
    match &command {
        Command::Connectors(connectors::Command::Inspect { file }) => return connectors::inspect(file, json).await,
        Command::Connectors(connectors::Command::Sign { file, key, password_file }) => {
            return connectors::sign(file, key, password_file.as_deref(), json).await;
        }
        Command::Import(command) => return import::perform(&file, command, json),
        Command::Version => return version::print(json),
        Command::Completions { shell } => return manual::completions(*shell),
        Command::Man { folder } => return manual::pages(folder),
        _ => {}
    }
    let site = &Site::new(file);
    match command {
        Command::Serve => serve::serve(site.config()?).await,
        Command::Run { .. } => Box::pin(run_once(site, json)).await,
        Command::Sync(named) => sync(site, vec![named.into()], json).await,
        Command::Token(command) => Box::pin(token::perform(site, command, json)).await,
        Command::Reconcile { of, uid, gone, full, dry_run, allow_deletes } => {
            let (key, scope) = (TypeKey::from(of), Scope { uid, gone, full, dry_run, allow_deletes });
            let asked = Ask::Reconcile { key: key.clone(), scope };
            let mut door = Door::open(site, Runs::WhenAsked).await?;
            let answer = Box::pin(progress::ask(&mut door, &asked, &key)).await;
            door.close().await;
            let Answer::Reconciled(reconciled) = answer? else { return Err(Fail::other_answer()) };
            print::out(json, &reconciled, |reconciled| print::reconciled(reconciled, dry_run))?;
            judged(&reconciled.last)
        }
        Command::Guard(command) => Box::pin(guard::perform(site, command, json)).await,
        Command::DeadLetters(command) => Box::pin(dead_letters::perform(site, command, json)).await,
        Command::Changes(arguments) => Box::pin(changes::perform(site, arguments, json)).await,
        Command::Access(command) => access::perform(site, command, json).await,
        Command::Sinks(command) => sinks::perform(site, command, json).await,
        Command::Metrics => {
            let answer = ask(site, Runs::Never, Ask::Metrics).await?;
            let Answer::Metrics(text) = answer else { return Err(Fail::other_answer()) };
            print::out(json, &text, |text| text.to_owned())
        }
        Command::Consumers(command) => consumers::perform(site, command, json).await,
        Command::Backup { file } => db::backup(site, &file, json).await,
        Command::Restore { file } => db::restore(site.host()?, file, json).await,
        Command::Db(command) => Box::pin(db::perform(site, command, json)).await,
        Command::Connectors(command) => Box::pin(connectors::perform(site, command, json)).await,
        Command::Connections(Connections::List) => {
            let answer = ask(site, Runs::Never, Ask::Connections).await?;
            let Answer::Connections(types) = answer else { return Err(Fail::other_answer()) };
            print::out(json, &types, |types| print::types(types))?;
            promote::warn(site).await
        }
        Command::Connections(Connections::Show { connection }) => {
            let answer = ask(site, Runs::WhenAsked, Ask::Connection(connection)).await?;
            let Answer::Connection(connection) = answer else { return Err(Fail::other_answer()) };
            print::out(json, &connection, |connection| print::connection(connection))?;
            promote::warn(site).await
        }
        Command::Connections(Connections::BringUp { connection }) => {
            let answer = ask(site, Runs::WhenAsked, Ask::BringUp(connection)).await?;
            let Answer::BroughtUp(types) = answer else { return Err(Fail::other_answer()) };
            print::out(json, &types, |types| print::brought_up(types))?;
            let last = types
                .last()
                .and_then(|one| one.reconciled.as_ref().map(|pass| &pass.last).or(one.established.as_ref()));
            last.map_or(Ok(()), judged)
        }
        Command::Connections(Connections::Pause(of)) => paused(site, Ask::Pause(of.into()), json).await,
        Command::Connections(Connections::Resume(of)) => paused(site, Ask::Resume(of.into()), json).await,
        Command::Connections(Connections::Export { folder, connections }) => {
            promote::export(site, &folder, &connections, json)
        }
        Command::Connections(Connections::Diff { folder, prune }) => promote::diff(site, &folder, prune, json).await,
        Command::Connections(Connections::Apply { folder, prune }) => promote::apply(site, &folder, prune, json).await,
        Command::Connections(Connections::Approve { connection, id }) => {
            let answer = ask(site, Runs::WhenAsked, Ask::Approve { connection, id }).await?;
            let Answer::Connection(connection) = answer else { return Err(Fail::other_answer()) };
            print::out(json, &connection, |connection| print::asked(connection))
        }
        Command::Reload => promote::reload(site, json).await,
        Command::Audit => audit(&site.host()?, json),
        Command::Erase { connection, uid } => {
            let answer = ask(site, Runs::Never, Ask::Erase { connection, uid }).await?;
            let Answer::Erased(entries) = answer else { return Err(Fail::other_answer()) };
            print::out(json, &entries, |entries| print::erased(*entries))
        }
        Command::Check => check::check(site, json).await,
        Command::Version
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Import(_)
        | Command::Compile => {
            unreachable!("answered before there is a site, or a runtime")
        }
    }
}

async fn paused(site: &Site, ask: Ask, json: bool) -> Result<(), Fail> {
    let Answer::Tokens(views) = self::ask(site, Runs::Never, ask).await? else { return Err(Fail::other_answer()) };
    print::out(json, &views, |views| views.iter().map(print::token).collect::<Vec<_>>().join("\n"))
}

fn audit(config: &Config, json: bool) -> Result<(), Fail> {
    let checked = crate::audit::check(&config.data).map_err(|error| Fail::of(Exit::Host, &error))?;
    print::out(json, &checked, |checked| {
        let found = if checked.problems.is_empty() { vec!["whole".to_owned()] } else { checked.problems.clone() };
        format!("{} lines, the last one with the hash {}\n{}", checked.lines, checked.last, found.join("\n"))
    })?;
    if checked.problems.is_empty() { Ok(()) } else { Err(Fail::told(Exit::RunFailed)) }
}

/// Asks one thing.
async fn ask(site: &Site, runs: Runs, ask: Ask) -> Result<Answer, Fail> {
    let mut door = Door::open(site, runs).await?;
    let answer = door.ask(&ask).await;
    door.close().await;
    Ok(answer?)
}

async fn run_once(site: &Site, json: bool) -> Result<(), Fail> {
    let config = site.config()?;
    let keys: Vec<TypeKey> = config.keys().collect();
    if keys.is_empty() {
        return Err(Fail::new(Exit::Usage, format!("{}: there is no connection to run", config.file.display())));
    }
    sync(site, keys, json).await?;
    // What a server would do by itself.
    if config.may_owe_passes().next().is_none() {
        return Ok(());
    }
    let answer = ask(site, Runs::WhenAsked, Ask::PayOwed).await?;
    let Answer::Paid(passes) = answer else { return Err(Fail::other_answer()) };
    for pass in &passes {
        print::out(json, pass, |pass| print::reconciled(pass, false))?;
        judged(&pass.last)?;
    }
    Ok(())
}

/// Runs types one after the other; the worst that happened is what the process ends with.
async fn sync(site: &Site, keys: Vec<TypeKey>, json: bool) -> Result<(), Fail> {
    let mut door = Door::open(site, Runs::WhenAsked).await?;
    let mut worst = Ok(());
    for key in keys {
        let mut ask = Ask::Sync(key.clone());
        let result = loop {
            match door.ask(&ask).await {
                Ok(Answer::Sync(synced)) => {
                    let printed = print::out(json, synced.as_ref(), |synced| print::report(&synced.report));
                    let judged = printed.and_then(|()| judged(&synced.report)).and_then(|()| delivered(&synced));
                    match judged {
                        Ok(()) if synced.report.outcome == Outcome::More => ask = Ask::SyncMore(key.clone()),
                        judged => break judged,
                    }
                }
                Ok(_) => break Err(Fail::other_answer()),
                Err(problem) => break Err(problem.into()),
            }
        };
        if let Err(fail) = result {
            fail.tell();
            worst = Err(Fail::told(fail.exit));
        }
    }
    door.close().await;
    worst
}

/// What whoever waits for inline sinks wants to know.
fn delivered(synced: &Synced) -> Result<(), Fail> {
    let Some(NotTaken { sink, sequence, problem }) = &synced.undelivered else { return Ok(()) };
    let key = &synced.report.key;
    let what = format!("{key}: journaled, and sink {sink} has not got entry {sequence} yet: {problem}");
    Err(Fail::new(Exit::RunFailed, what))
}

fn judged(report: &RunReport) -> Result<(), Fail> {
    let key = &report.key;
    match &report.outcome {
        Outcome::Ok | Outcome::More => Ok(()),
        Outcome::Failed(failure) => {
            let hint = match failure.code().as_str() {
                "contract.data-fault" => {
                    "; nothing goes on until the source is mended, or `data-faults = \"dead-letter\"` keeps it beside the journal"
                }
                _ => "",
            };
            let (run, code) = (report.run, failure.code());
            Err(Fail::new(Exit::RunFailed, format!("{key}: run {run} failed ({code}): {failure}{hint}")))
        }
        Outcome::WentBack(failure) => {
            let what = "the connector's new revision failed, and what ran before has not run yet";
            Err(Fail::new(Exit::Refused, format!("{key}: {what}: {failure}")))
        }
        Outcome::Stopped => Err(Fail::new(Exit::Refused, format!("{key}: stopped at a checkpoint"))),
        Outcome::Held(why) => Err(Fail::new(Exit::Refused, format!("{key}: {why}"))),
        Outcome::Guarded(why) if report.trigger == Trigger::Reconcile => {
            let TypeKey { connection, object_type } = key;
            let what = format!("`tidewaiter reconcile {connection} {object_type} --allow-deletes`");
            Err(Fail::new(
                Exit::Refused,
                format!("{key}: {why}: no deletion is journaled; look at the source, then {what}"),
            ))
        }
        Outcome::Guarded(why) => {
            let what = "look at what came, then `guard release` or `guard discard` it";
            Err(Fail::new(Exit::Refused, format!("{key} is held: {why}; {what}")))
        }
        Outcome::Superseded => Err(Fail::new(
            Exit::Refused,
            format!("{key}: somebody acted on the token, the guard or a dead letter during the run"),
        )),
    }
}
