//! Tasks and timers: performs what the core decides. A connector's calls run in a task of their own, which ends with its run.

mod connection;
mod deliver;
mod lateness;
mod pass;
pub(crate) mod retain;
mod roster;
mod run;
mod schedule;
mod session;
pub(crate) mod settings;
mod traced;

pub use connection::{Allowed, Awaiting, Connection};
pub(crate) use connection::{Needed, TRIAL_RUNS, Trial};
pub(crate) use deliver::{Delivery, Reached};
pub use lateness::Lateness;
pub(crate) use lateness::LatenessBuckets;
pub use pass::{Comparison, Manner, Progress};
pub(crate) use roster::Roster;
pub use run::{Order, Performed, Signal, perform};
pub use schedule::Activity;
pub(crate) use schedule::{Request, Task, works};
pub use session::{Calling, Session, Source};
