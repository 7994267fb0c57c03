//! Tasks and timers: performs what the core decides. A connector's calls run in a task of their own, which ends with its run.

mod connection;
mod deliver;
mod run;
mod schedule;

pub use connection::Connection;
pub(crate) use deliver::Delivery;
pub use run::{Order, Signal, perform};
pub(crate) use schedule::{Request, Task};
