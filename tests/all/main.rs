//! Everything that is tested from outside.
//!
//! - `api`: OpenIDM's calls
//! - `approval`: updates that ask for more
//! - `bars`: figures that have to be reached
//! - `cli`: the commands, with a server and without
//! - `comparison`: changes that are found by reading everything
//! - `data`: staging, budgets, quotas, consumers, copies
//! - `dead_letters`: deltas whose data is at fault, and what waits for them
//! - `egress`: what leaves over HTTP, and what does not
//! - `engine`: compiling, the cache of what was compiled, memory for instances
//! - `fuzz`: readers of foreign bytes, fed by a seeded mutator
//! - `guard`: what waits for somebody: floods, lost tokens, wrong settings, connectors that trap
//! - `host`: schedules, operators' acts, restarts, through the library's face
//! - `hostile`: guests that misbehave
//! - `http`: the HTTP API, and who may do what over it
//! - `import`: OpenIDM's files as connections
//! - `inline`: sinks that whoever asks for a run waits for
//! - `kill`: SIGKILL at seeded instants
//! - `languages`: connectors in Python and JavaScript
//! - `log`: its two forms
//! - `logins`: those that the host puts into requests
//! - `metrics`: what is counted, for whoever watches a host
//! - `packaging`: what goes with the program into a package
//! - `panics`: of the host itself
//! - `privacy`: what people see, what is kept, what is forgotten
//! - `promises`: those that need a look while things happen
//! - `queue`: a source that forgets what was acknowledged
//! - `reconcile`: objects that are read again on purpose
//! - `revisions`: connectors that come, change and go while a host runs
//! - `rough`: full and read-only disks, a process that is stopped, guests that take all they can get
//! - `sender`: what `egress` and `logins` have in common
//! - `service`: what the service manager is told
//! - `shapes`: components whose shape is the attack
//! - `sink`: delivery that fails and comes back
//! - `ldap`: the connector `ldap` in its sandbox, over TLS, with servers and networks that fail
//! - `sql`: the connector `sql` in its sandbox, over TLS, with servers and networks that fail
//! - `stale`: tokens that no longer mean what they meant
//! - `story`: the founding story, with the exact lines of the log
//! - `tcp`: connections of connectors that speak a protocol of their own
//! - `traces`: what a collector gets to know of runs
//! - `webhook`: delivery to a URL
//! - `zoo`: hostile guests in a real server, one promise each
//! - `sync`: the sandboxed csv connector, a real db, and runs from one to the other
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod approval;
mod bars;
mod cli;
mod comparison;
mod data;
mod dead_letters;
mod egress;
mod embed;
mod engine;
mod fuzz;
mod guard;
mod host;
mod hostile;
mod http;
mod import;
mod inline;
mod kill;
mod languages;
mod ldap;
mod listeners;
mod log;
mod logins;
mod metrics;
mod packaging;
mod page;
mod panics;
mod privacy;
mod promises;
mod promote;
mod pull;
mod queue;
mod reconcile;
mod refused;
mod reload;
mod revisions;
mod rough;
mod sender;
mod service;
mod settings;
mod shapes;
mod sink;
mod sql;
mod stale;
mod story;
mod sync;
mod tcp;
mod traces;
mod trust;
mod webhook;
mod zoo;
