//! The run's log: [`info!`](crate::info) and its siblings.

pub use crate::bindings::tidewaiter::connector::log::Level;

/// Writes one message. Control characters are escaped by the host, long messages cut.
pub fn write(level: Level, message: &str) {
    crate::host::log(level, message);
}

macro_rules! levels {
    ($d:tt $($name:ident $level:ident $doc:literal;)*) => {$(
        #[doc = $doc]
        #[macro_export]
        macro_rules! $name {
            ($d($d message:tt)*) => {
                $crate::log::write($crate::log::Level::$level, &::std::format!($d($d message)*))
            };
        }
    )*};
}

levels! { $
    trace Trace "Logs what only an author wants to know.";
    debug Debug "Logs what helps to find a fault.";
    info Info "Logs what an operator may want to know.";
    warn Warn "Logs what an operator should look at.";
    error Error "Logs what went wrong, where it is not the answer of the call.";
}
