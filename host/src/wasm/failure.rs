//! What a failed call means, in the core's words.

use tidewaiter_core::run::Failure;
use wasmtime::{FrameInfo, Trap, WasmBacktrace};

/// Functions of a backtrace that are told, the innermost first. A panic has some ten of its own before those of its author.
const FRAMES_SHOWN: usize = 16;

/// A run connected to where its grant asks for TLS, and spoke none.
#[derive(Debug, thiserror::Error)]
#[error("it connected over TCP to where its grant asks for TLS, and spoke none")]
pub(super) struct NeedsTls;

impl NeedsTls {
    pub(super) fn failure(&self) -> Failure {
        Failure::Trapped { code: "egress.tls-required".into(), message: self.to_string() }
    }
}

/// A trap, an end at a limit, or an error of ours.
pub(super) fn classify(error: &wasmtime::Error, memory_refused: Option<u64>) -> Failure {
    if error.downcast_ref::<NeedsTls>().is_some() {
        return NeedsTls.failure();
    }
    let (code, what) = match (memory_refused, error.downcast_ref::<Trap>()) {
        (Some(max), _) => ("limit.memory-bytes".to_owned(), format!("more memory than the {max} bytes allowed")),
        (None, Some(Trap::StackOverflow)) => ("trap.stack-overflow".to_owned(), "the stack is used up".to_owned()),
        (None, Some(trap)) => (format!("trap.{}", kebab(&format!("{trap:?}"))), trap.to_string()),
        (None, None) => ("trap.other".to_owned(), error.root_cause().to_string()),
    };
    let message = match error.downcast_ref::<WasmBacktrace>() {
        None => what,
        Some(trace) => {
            // A component without names has numbers still, which its author can look up.
            let name = |frame: &FrameInfo| match frame.func_name() {
                Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
                None => format!("function {}", frame.func_index()),
            };
            let names: Vec<String> = trace.frames().iter().take(FRAMES_SHOWN).map(name).collect();
            format!("{what}, in {}", names.join(" < "))
        }
    };
    Failure::Trapped { code, message: tidewaiter_core::text::shown(&message, 2048) }
}

fn kebab(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}
