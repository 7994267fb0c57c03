//! The service functions as data: what can be asked, what is answered, and what can go wrong, each by a stable code. Whoever
//! asks (this process, another one over the socket) gets the same answer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tidewaiter_core::access::Role;
use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::journal::{BadEntryId, EntryId};
use tidewaiter_core::name::{AccessName, ConnectionName, ConnectorName, ConsumerName, TypeKey};
use tidewaiter_core::run::Trigger;
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::state::Actor;
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::SyncToken;
use tokio::task::spawn_blocking;

use super::view::{ConnectionView, ConsumerView, TokenView, TypeView};
use super::{
    Apply, BroughtUp, Host, HostError, LetterView, NotReloaded, Reconciled, Reloaded, RevisionRow, Scope, Settled,
    SinkView, Synced, TypesOf,
};
use crate::access::{AccessError, AccessView, NewAccess};
use crate::audit::Event;
use crate::db::{Checked, CommitError, ConsumerError, ReadError, TokenChange};
use crate::driver::Progress;
use crate::sink::render;
use crate::trust::{Lock, Pulled};

/// Entries in one answer.
const CHANGES_MAX: usize = 10_000;
/// Rows of history in one answer: all that are kept.
const ROWS_MAX: usize = 1000;
/// The longest wait for an entry.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// Something to be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Live sync of a type, now.
    Sync(TypeKey),
    /// What follows a run that ended with more to do: the run that goes on by itself, or one that begins now.
    SyncMore(TypeKey),
    /// The token of a type.
    Token(TypeKey),
    /// Set the token of a type.
    TokenSet {
        /// Which.
        key: TypeKey,
        /// To this.
        token: SyncToken,
    },
    /// Throw the token of a type away.
    TokenReset(TypeKey),
    /// Take the token of a type back to an earlier one.
    TokenRewind {
        /// Which.
        key: TypeKey,
        /// The revision of a row of its history; none: the newest one with another token.
        to: Option<u64>,
    },
    /// Read objects of a type again, and journal them.
    Reconcile {
        /// Which.
        key: TypeKey,
        /// What of it.
        scope: Scope,
    },
    /// Bring the types of a connection up.
    BringUp(ConnectionName),
    /// Make the passes that are owed.
    PayOwed,
    /// How far the pass over a type is.
    Pass(TypeKey),
    /// The access tokens that there are.
    Access,
    /// Make an access token.
    AccessAdd {
        /// What it is called.
        name: AccessName,
        /// What may be done with it.
        role: Role,
        /// When it ends to be one; none: when it is revoked.
        expires: Option<UnixMillis>,
    },
    /// Have an access token be none any more.
    AccessRevoke(AccessName),
    /// Begin no run of these types until they are resumed.
    Pause(TypesOf),
    /// Let types that are paused go on.
    Resume(TypesOf),
    /// Let what the guard of a type held pass.
    Release(TypeKey),
    /// Throw away what the guard of a type held.
    Discard(TypeKey),
    /// The dead letters of a connection, or all.
    DeadLetters(Option<ConnectionName>),
    /// One dead letter, with what came.
    DeadLetter(u64),
    /// Have the object of a dead letter told as it is now.
    DeadLetterRetry(u64),
    /// Give a dead letter up.
    DeadLetterDrop(u64),
    /// What became of the token of a type.
    TokenHistory {
        /// Which.
        key: TypeKey,
        /// At most that many rows.
        limit: usize,
    },
    /// Entries of the journal.
    Changes {
        /// Those after this place.
        after: After,
        /// At most that many.
        limit: usize,
        /// Wait that long if there are none.
        wait_ms: u64,
        /// With what is sensitive; it is masked otherwise.
        #[serde(default)]
        sensitive: bool,
    },
    /// What the connectors of all connections may ask for. They are about to be started, each with what it is allowed, and let look at
    /// their sources.
    Check,
    /// Let a connector ask for what awaits approval.
    Approve {
        /// Of which connection.
        connection: ConnectionName,
        /// The id of what was shown.
        id: String,
    },
    /// Let a connector ask for what awaits approval, in all its connections where it is that.
    ApproveConnector {
        /// Which.
        connector: ConnectorName,
        /// The id of what was shown.
        id: String,
    },
    /// Erase what is known of an object.
    Erase {
        /// Of which connection.
        connection: ConnectionName,
        /// Its uid.
        uid: String,
    },
    /// The files of a connector that were met.
    Revisions(ConnectorName),
    /// Let connections run another file of their connector.
    RollBack {
        /// Which connector.
        connector: ConnectorName,
        /// Its hash begins so; none: the one before.
        to: Option<String>,
    },
    /// Let connections run the file that they went back from.
    TryAgain {
        /// Of which connector.
        connector: ConnectorName,
        /// Also where it is older than what runs.
        downgrade: bool,
    },
    /// Pin the file of a connector that the folder has.
    Pin {
        /// Which connector.
        connector: ConnectorName,
        /// Also where it isn't newer than what is pinned.
        downgrade: bool,
    },
    /// Have the lock expect a file of a connector that was pulled from a registry.
    Expect {
        /// Which connector.
        connector: ConnectorName,
        /// What it says of itself.
        version: String,
        /// The file, and where it is from.
        pulled: Pulled,
        /// Also where it isn't newer than what is pinned.
        downgrade: bool,
    },
    /// Deny files of connectors.
    Deny {
        /// Their hashes.
        files: Vec<String>,
        /// For people.
        why: Option<String>,
        /// Deny them no more.
        lift: bool,
    },
    /// Put a connector in quarantine.
    Quarantine {
        /// Which.
        connector: ConnectorName,
        /// For people.
        why: Option<String>,
        /// Let it out again.
        end: bool,
    },
    /// Take over what is configured by now.
    Reload,
    /// Take over other connections and grants than are written.
    Apply(Apply),
    /// What is written, and is not taken over.
    NotReloaded,
    /// The sinks that are configured.
    Sinks,
    /// What is counted, for monitoring.
    Metrics,
    /// Those who read the journal by themselves.
    Consumers,
    /// Where a consumer goes on.
    ConsumerPosition(ConsumerName),
    /// Add a consumer.
    ConsumerAdd {
        /// Which.
        consumer: ConsumerName,
        /// It has everything up to here.
        after: After,
        /// It expires when more entries than that wait for it.
        max_lag: Option<u64>,
    },
    /// A consumer has everything up to here.
    ConsumerAck {
        /// Which.
        consumer: ConsumerName,
        /// The last entry that it has.
        upto: After,
    },
    /// Remove a consumer.
    ConsumerRemove(ConsumerName),
    /// Copy all data into a new file.
    Backup {
        /// Which, from the root on.
        to: PathBuf,
    },
    /// Look whether everything fits together.
    DbCheck {
        /// Read every entry.
        deep: bool,
        /// Look at the file itself, too: whoever asks has not.
        file: bool,
    },
    /// Give unused room back.
    DbCompact,
    /// Encrypt what is stored with the current key.
    DbRekey,
    /// All types of all connections.
    Connections,
    /// One connection.
    Connection(ConnectionName),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "named after what was asked")]
pub enum Answer {
    Sync(Box<Synced>),
    Reconciled(Box<Reconciled>),
    /// What bringing types up did, of each that was tried.
    BroughtUp(Vec<BroughtUp>),
    /// Passes that were owed, and are made.
    Paid(Vec<Reconciled>),
    /// How far a pass is; none: there is none.
    Pass(Option<Progress>),
    DeadLetters(Vec<LetterView>),
    DeadLetter(Box<LetterView>),
    Settled(Settled),
    Token(Box<TokenView>),
    Tokens(Vec<TokenView>),
    Access(Vec<AccessView>),
    NewAccess(NewAccess),
    TokenHistory(Vec<TokenChange>),
    /// As `sink::render` has them.
    Changes(Vec<Json>),
    Revisions(Vec<RevisionRow>),
    Lock(Lock),
    Reloaded(Reloaded),
    NotReloaded(Option<NotReloaded>),
    Sinks(Vec<SinkView>),
    /// In the format of OpenMetrics.
    Metrics(String),
    Consumers(Vec<ConsumerView>),
    /// By connection; one that has not run yet is not there.
    Approved(BTreeMap<ConnectionName, Approved>),
    /// A sequence.
    Position(u64),
    /// The last sequence that is in the copy, at least.
    BackedUp(u64),
    Checked(Checked),
    /// Whether there was any.
    Compacted(bool),
    /// So many entries say nothing any more.
    Erased(u64),
    /// All is encrypted with this key; none: not encrypted.
    Rekeyed(Option<String>),
    Connections(Vec<TypeView>),
    Connection(Box<ConnectionView>),
}

/// A place in the journal: `0` is its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum After {
    /// By sequence, in whichever journal this is.
    Sequence(u64),
    /// By id.
    Id(EntryId),
}

impl FromStr for After {
    type Err = BadEntryId;
    fn from_str(text: &str) -> Result<Self, BadEntryId> {
        text.parse().map(Self::Sequence).or_else(|_| text.parse().map(Self::Id))
    }
}

impl TryFrom<String> for After {
    type Error = BadEntryId;
    fn try_from(text: String) -> Result<Self, BadEntryId> {
        text.parse()
    }
}

impl From<After> for String {
    fn from(after: After) -> Self {
        after.to_string()
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(sequence) => write!(f, "{sequence}"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

/// What went wrong, in the words that go over a wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Which.
    pub code: ProblemCode,
    /// For people.
    pub message: String,
}

/// Stable codes of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// It was not understood.
    BadRequest,
    /// No such type or connection.
    Unknown,
    /// The connection is configured, and can't run.
    Broken,
    /// What is configured can't be taken over.
    Configuration,
    /// The token is lost.
    TokenLost,
    /// More came than the guard lets pass; or nothing is held. A dead letter stays.
    Held,
    /// An operator paused it; or it is not paused.
    Paused,
    /// The connector is in quarantine.
    Quarantined,
    /// Another pass over the type is under way.
    Busy,
    /// Somebody cancelled it.
    Cancelled,
    /// The host shuts down.
    ShuttingDown,
    /// Somebody else wrote the state meanwhile, or something else awaits approval.
    Changed,
    /// There is one of that name, or there are too many.
    Exists,
    /// For another role.
    NotAllowed,
    /// An entry of another journal, or a consumer that read another one: this one was restored.
    IncarnationChanged,
    /// Entries that have been dropped.
    Dropped,
    /// A consumer is expired, exists already, or acknowledges what is not there.
    Consumer,
    /// The host behind the socket ended while it was asked.
    Gone,
    /// The db, or the host itself.
    Host,
}

impl Ask {
    /// What somebody does by it, and to what; none: they only look, or it is written down where it is done.
    fn act(&self) -> Option<(&'static str, String)> {
        Some(match self {
            Self::Sync(key) | Self::SyncMore(key) => ("sync", key.to_string()),
            Self::ConsumerAck { consumer, .. } => ("consumers ack", consumer.to_string()),
            Self::Backup { to } => ("backup", to.display().to_string()),
            Self::DbCompact => ("db compact", String::new()),
            Self::DbRekey => ("db rekey", String::new()),
            Self::Check => ("check", String::new()),
            Self::Token(_)
            | Self::TokenSet { .. }
            | Self::TokenReset(_)
            | Self::TokenRewind { .. }
            | Self::Reconcile { .. }
            | Self::BringUp(_)
            | Self::PayOwed
            | Self::Pass(_)
            | Self::Access
            | Self::AccessAdd { .. }
            | Self::AccessRevoke(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Release(_)
            | Self::Discard(_)
            | Self::DeadLetters(_)
            | Self::DeadLetter(_)
            | Self::DeadLetterRetry(_)
            | Self::DeadLetterDrop(_)
            | Self::TokenHistory { .. }
            | Self::Changes { .. }
            | Self::Erase { .. }
            | Self::Approve { .. }
            | Self::ApproveConnector { .. }
            | Self::Revisions(_)
            | Self::RollBack { .. }
            | Self::TryAgain { .. }
            | Self::Pin { .. }
            | Self::Expect { .. }
            | Self::Deny { .. }
            | Self::Quarantine { .. }
            | Self::Reload
            | Self::Apply(_)
            | Self::Sinks
            | Self::Metrics
            | Self::Consumers
            | Self::ConsumerPosition(_)
            | Self::ConsumerAdd { .. }
            | Self::ConsumerRemove(_)
            | Self::DbCheck { .. }
            | Self::Connections
            | Self::NotReloaded
            | Self::Connection(_) => return None,
        })
    }
}

impl ProblemCode {
    /// All there are.
    pub const ALL: [Self; 19] = [
        Self::BadRequest,
        Self::Unknown,
        Self::Broken,
        Self::Configuration,
        Self::TokenLost,
        Self::Held,
        Self::Paused,
        Self::Quarantined,
        Self::Busy,
        Self::Cancelled,
        Self::ShuttingDown,
        Self::Changed,
        Self::Exists,
        Self::NotAllowed,
        Self::IncarnationChanged,
        Self::Dropped,
        Self::Consumer,
        Self::Gone,
        Self::Host,
    ];

    /// Its name, as it goes over a wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Unknown => "unknown",
            Self::Broken => "broken",
            Self::Configuration => "configuration",
            Self::TokenLost => "token-lost",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Exists => "exists",
            Self::Quarantined => "quarantined",
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::ShuttingDown => "shutting-down",
            Self::Changed => "changed",
            Self::NotAllowed => "not-allowed",
            Self::IncarnationChanged => "incarnation-changed",
            Self::Dropped => "dropped",
            Self::Consumer => "consumer",
            Self::Gone => "gone",
            Self::Host => "host",
        }
    }
}

impl HostError {
    /// The stable code.
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::Refused(Refusal::Unknown(_)) | Self::UnknownConnection(_) => ProblemCode::Unknown,
            Self::Broken { .. } => ProblemCode::Broken,
            Self::Refused(Refusal::TokenLost { .. }) => ProblemCode::TokenLost,
            Self::Refused(Refusal::Held { .. }) | Self::NotHeld { .. } => ProblemCode::Held,
            Self::Refused(Refusal::Paused { .. }) | Self::NotPaused { .. } => ProblemCode::Paused,
            Self::Refused(Refusal::Quarantined { .. }) => ProblemCode::Quarantined,
            Self::NoSuchToken { .. } | Self::NoSuchLetter { .. } | Self::NoSuchRevision { .. } => ProblemCode::Unknown,
            Self::OnlyWaits { .. } | Self::NotRetried { .. } | Self::Kept { .. } | Self::NotRevised { .. } => {
                ProblemCode::Held
            }
            Self::Refused(Refusal::ShuttingDown) => ProblemCode::ShuttingDown,
            Self::Changed { .. } | Self::WrittenMeanwhile { .. } | Self::NotAwaited { .. } => ProblemCode::Changed,
            Self::NotSecurity { .. } => ProblemCode::NotAllowed,
            Self::NotReloaded { .. } => ProblemCode::Configuration,
            Self::PassUnderWay { .. } => ProblemCode::Busy,
            Self::NoPass { .. } | Self::NoSuchObject { .. } => ProblemCode::Unknown,
            Self::PassCancelled { .. } => ProblemCode::Cancelled,
            Self::Access(AccessError::Unknown(_)) => ProblemCode::Unknown,
            Self::Access(AccessError::Exists(_) | AccessError::TooMany) => ProblemCode::Exists,
            Self::Access(AccessError::Past(_)) => ProblemCode::BadRequest,
            Self::TokenTooLarge { .. } | Self::CannotRead { .. } => ProblemCode::BadRequest,
            Self::IncarnationChanged { .. } => ProblemCode::IncarnationChanged,
            Self::Read(ReadError::Dropped { .. }) => ProblemCode::Dropped,
            Self::Read(ReadError::Consumer(error)) | Self::Write(CommitError::Consumer(error)) => match error {
                ConsumerError::Unknown { .. } => ProblemCode::Unknown,
                ConsumerError::IncarnationChanged { .. } => ProblemCode::IncarnationChanged,
                _ => ProblemCode::Consumer,
            },
            Self::Read(_)
            | Self::Write(_)
            | Self::Audit(_)
            | Self::Access(AccessError::File { .. })
            | Self::Erased(_)
            | Self::Lock(_)
            | Self::Ask(_)
            | Self::Ended(_) => ProblemCode::Host,
        }
    }
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl Host {
    /// Does what is asked, in the name of whoever asks.
    ///
    /// # Errors
    /// Those of the function that is asked for.
    pub async fn answer(&self, ask: Ask, by: Actor) -> Result<Answer, HostError> {
        match (ask.act(), &ask) {
            // Begun at once, whether or not whoever asks is there still; and what consumers do all day.
            (Some((act, on)), Ask::Sync(_) | Ask::SyncMore(_) | Ask::ConsumerAck { .. }) => {
                self.audit().note(&Event::Act { by: by.to_string(), act, on })?
            }
            (Some((act, on)), _) => self.audit().act(&by, act, on).await?,
            (None, _) => {}
        }
        Ok(match ask {
            Ask::Sync(key) => Answer::Sync(Box::new(self.sync_and_deliver(key, Trigger::Command).await?)),
            Ask::SyncMore(key) => Answer::Sync(Box::new(self.sync_and_deliver(key, Trigger::Continue).await?)),
            Ask::Token(key) => Answer::Token(Box::new(self.token(&key)?)),
            Ask::TokenSet { key, token } => Answer::Token(Box::new(self.token_set(&key, token, None, by).await?)),
            Ask::TokenReset(key) => Answer::Token(Box::new(self.token_reset(&key, None, by).await?)),
            Ask::TokenRewind { key, to } => Answer::Token(Box::new(self.token_rewind(&key, to, by).await?)),
            Ask::Reconcile { key, scope } => Answer::Reconciled(Box::new(self.reconcile(&key, scope, by).await?)),
            Ask::BringUp(connection) => Answer::BroughtUp(self.bring_up(&connection, by).await?),
            Ask::PayOwed => Answer::Paid(self.pay_owed().await?),
            Ask::Pass(key) => Answer::Pass(self.pass(&key)),
            Ask::Access => Answer::Access(self.access.list()),
            Ask::AccessAdd { name, role, expires } => {
                Answer::NewAccess(self.access_add(&name, role, expires, by).await?)
            }
            Ask::AccessRevoke(name) => {
                self.access_revoke(&name, by).await?;
                Answer::Access(self.access.list())
            }
            Ask::Pause(of) => Answer::Tokens(self.pause(&of, by).await?),
            Ask::Resume(of) => Answer::Tokens(self.resume(&of, by).await?),
            Ask::Release(key) => Answer::Token(Box::new(self.release(&key, by).await?)),
            Ask::Discard(key) => Answer::Token(Box::new(self.discard(&key, by).await?)),
            Ask::DeadLetters(of) => Answer::DeadLetters(self.dead_letters(of.as_ref()).await?),
            Ask::DeadLetter(number) => Answer::DeadLetter(Box::new(self.dead_letter(number, &by).await?)),
            Ask::DeadLetterRetry(number) => Answer::Settled(Box::pin(self.retry_dead_letter(number, by)).await?),
            Ask::DeadLetterDrop(number) => Answer::Settled(self.drop_dead_letter(number, by).await?),
            Ask::TokenHistory { key, limit } => Answer::TokenHistory(self.token_history(&key, limit.min(ROWS_MAX))?),
            Ask::Check => {
                let mut all = BTreeMap::new();
                for name in self.config().connections.keys() {
                    if let Some(approved) = self.db.approved(name)? {
                        all.insert(name.clone(), approved);
                    }
                }
                Answer::Approved(all)
            }
            Ask::Approve { connection, id } => {
                self.approve(&connection, &id, by).await?;
                Answer::Connection(Box::new(self.connection(&connection)?))
            }
            Ask::ApproveConnector { connector, id } => {
                self.approve_all(&connector, &id, by).await?;
                Answer::Revisions(self.revisions(&connector)?)
            }
            Ask::Erase { connection, uid } => Answer::Erased(self.erase(&connection, &uid, by).await?),
            Ask::Changes { after, limit, wait_ms, sensitive } => {
                let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
                let entries = self.changes(after, limit.min(CHANGES_MAX), wait).await?;
                if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                    let entries = [first.id.to_string(), last.id.to_string()];
                    self.audit().note(&Event::Read { by: by.to_string(), entries, sensitive })?;
                }
                match sensitive {
                    true => Answer::Changes(entries.iter().map(render::entry).collect()),
                    false => {
                        let sensitive = self.db.sensitive()?;
                        Answer::Changes(entries.iter().map(|entry| render::masked(entry, &sensitive)).collect())
                    }
                }
            }
            Ask::Revisions(connector) => Answer::Revisions(self.revisions(&connector)?),
            Ask::RollBack { connector, to } => {
                self.roll_back(connector.clone(), to, by).await?;
                Answer::Revisions(self.revisions(&connector)?)
            }
            Ask::TryAgain { connector, downgrade } => {
                self.try_again(connector.clone(), downgrade, by).await?;
                Answer::Revisions(self.revisions(&connector)?)
            }
            Ask::Pin { connector, downgrade } => Answer::Lock(self.pin(connector, downgrade, by).await?),
            Ask::Expect { connector, version, pulled, downgrade } => {
                Answer::Lock(self.expect(connector, version, pulled, downgrade, by).await?)
            }
            Ask::Deny { files, why, lift } => Answer::Lock(self.deny(files, why, lift, by).await?),
            Ask::Quarantine { connector, why, end } => Answer::Lock(self.quarantine(connector, why, end, by).await?),
            Ask::Apply(apply) => Answer::Reloaded(self.apply(apply, by).await?),
            Ask::NotReloaded => Answer::NotReloaded(self.not_reloaded()),
            Ask::Reload => Answer::Reloaded(self.reload(by).await?),
            Ask::Sinks => Answer::Sinks(self.sinks().await?),
            Ask::Metrics => Answer::Metrics(self.metrics()?),
            Ask::Consumers => Answer::Consumers(self.consumers()?),
            Ask::ConsumerPosition(consumer) => Answer::Position(self.db.consumer_position(consumer.as_str())?),
            Ask::ConsumerAdd { consumer, after, max_lag } => {
                let (position, now) = (self.sequence(after)?, self.clock.now());
                let (audit, db) = (self.audit.clone(), self.db.clone());
                self.act(async move {
                    audit.act(&by, "consumers add", consumer.to_string()).await?;
                    Ok(db.add_consumer(consumer.as_str(), position, max_lag, now).await?)
                })
                .await?;
                Answer::Consumers(self.consumers()?)
            }
            Ask::ConsumerAck { consumer, upto } => {
                let (sequence, knows) = (self.sequence(upto)?, matches!(upto, After::Id(_)));
                self.db.acknowledge(consumer.as_str(), (sequence, knows), self.clock.now()).await?;
                Answer::Consumers(self.consumers()?)
            }
            Ask::ConsumerRemove(consumer) => {
                let (audit, db) = (self.audit.clone(), self.db.clone());
                self.act(async move {
                    audit.act(&by, "consumers remove", consumer.to_string()).await?;
                    Ok(db.remove_consumer(consumer.as_str()).await?)
                })
                .await?;
                Answer::Consumers(self.consumers()?)
            }
            Ask::Backup { to } => {
                let (db, last) = (self.db.clone(), self.db.last_sequence());
                spawn_blocking(move || db.backup(&to)).await??;
                Answer::BackedUp(last)
            }
            Ask::DbCheck { deep, file } => {
                let db = self.db.clone();
                let check = move || {
                    let mut checked = db.check(deep)?;
                    if file {
                        checked.problems.extend(db.examine()?);
                    }
                    Ok::<_, ReadError>(checked)
                };
                Answer::Checked(spawn_blocking(check).await??)
            }
            Ask::DbRekey => {
                self.db.rekey().await?;
                Answer::Rekeyed(self.db.key().map(|id| id.to_string()))
            }
            Ask::DbCompact => {
                let db = self.db.clone();
                Answer::Compacted(spawn_blocking(move || db.compact()).await??)
            }
            Ask::Connections => Answer::Connections(self.types(None)?),
            Ask::Connection(name) => Answer::Connection(Box::new(self.connection(&name)?)),
        })
    }
}
