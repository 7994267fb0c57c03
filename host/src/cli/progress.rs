//! A progress bar for a pass, on a terminal; elsewhere nothing.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::shadow::Counts;

use super::door::Door;
use crate::driver::Progress;
use crate::host::ask::{Answer, Ask, Problem};

/// How often it is asked how far the pass is.
const LOOK: Duration = Duration::from_millis(500);

/// Asks for a pass over a type, and shows how far it is meanwhile.
pub(super) async fn ask(door: &mut Door, ask: &Ask, key: &TypeKey) -> Result<Answer, Problem> {
    if !stderr().is_terminal() {
        return door.ask(ask).await;
    }
    // A second way in: the first one waits for the answer.
    let Ok(mut watching) = door.another().await else { return door.ask(ask).await };
    let bar = ProgressBar::no_length();
    let shown = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            if let Ok(Answer::Pass(Some(progress))) = watching.ask(&Ask::Pass(key.clone())).await {
                show(&bar, &progress);
            }
        }
    };
    let answer = tokio::select! {
        answer = door.ask(ask) => answer,
        () = shown => unreachable!("it goes on for ever"),
    };
    bar.finish_and_clear();
    answer
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let Counts { read, new, changed, gone, .. } = progress.counts;
    if let Some(style) = style(progress.expected > 0) {
        bar.set_style(style);
    }
    if progress.expected > 0 {
        // The source may have more by now.
        bar.set_length(progress.expected.max(read));
    }
    bar.set_position(read);
    bar.set_message(format!("{new} new, {changed} changed, {gone} gone"));
}

/// With what is expected, or without.
fn style(is_known: bool) -> Option<ProgressStyle> {
    let template = match is_known {
        true => "{bar:30} {human_pos} of about {human_len} objects, {msg}, {elapsed}, about {eta} left",
        false => "{human_pos} objects, {msg}, {elapsed}",
    };
    ProgressStyle::with_template(template).ok()
}
