//! What all pages have in common, and how single things look.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use tidewaiter_core::access::Role;
use tidewaiter_core::run::{Outcome, RunReport};
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::SyncToken;

use crate::api::extract::Principal;
use crate::host::view::TypeView;

/// So many characters of a token are shown.
const TOKEN_SHOWN: usize = 48;
const LINKS: [(&str, &str); 4] = [
    ("/", "Overview"),
    ("/ui/changes", "Changes"),
    ("/ui/connectors", "Connectors"),
    ("/ui/dead-letters", "Dead letters"),
];

/// A page for who is logged in.
pub(super) fn inside(title: &str, at: &str, who: &Principal, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body data-live="/ui/live" {
                a class="skip" href="#main" { "Skip to content" }
                header {
                    span class="name" { "Tidewaiter" }
                    nav aria-label="Pages" {
                        ul {
                            @for (link, name) in LINKS {
                                li { a href=(link) aria-current=[(link == at).then_some("page")] { (name) } }
                            }
                        }
                    }
                    form method="post" action="/ui/logout" {
                        span class="who" { (who.name) " (" (who.role) ")" }
                        button type="submit" class="quiet" { "Log out" }
                    }
                }
                main id="main" tabindex="-1" { (body) }
                footer {
                    "Tidewaiter has sandboxed connectors pull changes out of other systems, journals each, and hands them on. "
                    a href="/api/v1/reference" { "The HTTP API" }
                }
                p id="told" role="status" aria-live="polite" {}
                script src="/ui/page.js" defer {}
            }
        }
    }
}

/// A page for anybody.
pub(super) fn outside(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" { (head(title)) body { main id="main" { (body) } } }
    }
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " – Tidewaiter" }
            link rel="icon" href="/ui/icon.svg" type="image/svg+xml";
            link rel="stylesheet" href="/ui/style.css";
        }
    }
}

/// Something that is asked of the API.
pub(super) struct Act<'a> {
    pub(super) method: &'a str,
    pub(super) path: String,
    /// JSON.
    pub(super) body: Option<&'a str>,
    pub(super) label: &'a str,
    /// What is to be known before; none: it does no harm.
    pub(super) sure: Option<&'a str>,
    pub(super) role: Role,
}

/// A button for it; with a question first, where it can't be taken back. Whoever may not do it sees none.
pub(super) fn act(who: &Principal, act: &Act<'_>) -> Markup {
    let Act { method, path, body, label, sure, role } = act;
    if !who.role.allows(*role) {
        return html! {};
    }
    let button = |class: &str, text: &str| {
        html! { button type="button" class=(class) data-method=(method) data-path=(path) data-body=[body] { (text) } }
    };
    match sure {
        None => button("act", label),
        Some(sure) => html! {
            details class="sure" {
                summary { (label) "…" }
                p { (sure) }
                (button("act danger", &format!("Yes, {}", lower(label))))
            }
        },
    }
}

fn lower(label: &str) -> String {
    let mut chars = label.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

/// How a type does, in a word that needs no colour.
pub(super) fn state(view: &TypeView) -> Markup {
    let (class, word) = match (&view.problem, view.token.state.as_str()) {
        (Some(_), _) => ("bad", "can’t run"),
        (None, "token-lost") => ("bad", "token lost"),
        (None, "held") => ("bad", "held"),
        (None, "paused") => ("off", "paused"),
        (None, _) if view.token.failures > 0 => ("warn", "failing"),
        (None, "new" | "origin") => ("off", "new"),
        (None, _) => ("good", "live"),
    };
    html! { span class={ "state " (class) } { (word) } }
}

/// What is to be known of a type, if there is something.
pub(super) fn why(view: &TypeView) -> Option<String> {
    let known =
        view.problem.as_ref().or(view.token.lost.as_ref()).or(view.token.held.as_ref()).or(view.notice.as_ref());
    known.cloned().or_else(|| match view.last_run.as_ref().map(|run| &run.outcome) {
        Some(Outcome::Failed(failure)) if view.token.failures > 0 => Some(failure.to_string()),
        _ => None,
    })
}

/// A time, for people and for machines; the script says how long ago it is.
pub(super) fn time(at: UnixMillis) -> Markup {
    let text = at.to_string();
    html! { time datetime=(text) { (text.replace('T', " ")) } }
}

pub(super) fn outcome(report: &RunReport) -> Markup {
    let class = match report.outcome {
        Outcome::Ok | Outcome::More => "good",
        Outcome::Stopped | Outcome::Superseded => "off",
        _ => "bad",
    };
    html! { span class={ "state " (class) } { (report.outcome.name()) } }
}

/// A token, cut where it is long.
pub(super) fn token(token: Option<&SyncToken>) -> Markup {
    let Some(token) = token else { return html! { span class="none" { "none" } } };
    let text = token.to_string();
    let cut = text.char_indices().nth(TOKEN_SHOWN).map(|(at, _)| at);
    html! { code title=(token.kind()) { (cut.map_or(text.as_str(), |at| &text[..at])) @if cut.is_some() { "…" } } }
}

/// Changes of the last runs, oldest first, as bars: with room for so many.
pub(super) fn sparkline(deltas: &[u64], places: usize) -> Markup {
    let (most, total) = (deltas.iter().max().copied().unwrap_or(0).max(1), deltas.iter().sum::<u64>());
    let free = places.saturating_sub(deltas.len());
    let bar = |(at, deltas): (usize, &u64)| {
        let height = if *deltas == 0 { 1 } else { 2 + deltas.saturating_mul(18) / most };
        format!("<rect x=\"{}\" y=\"{}\" width=\"3\" height=\"{height}\"/>", (free + at) * 4, 20 - height.min(20))
    };
    let bars: String = deltas.iter().enumerate().map(bar).collect();
    let label = format!("{total} changes in the last {} runs", deltas.len());
    html! {
        svg class="spark" role="img" aria-label=(label) viewBox={ "0 0 " (places * 4) " 20" } width="120" height="20" preserveAspectRatio="none" {
            (PreEscaped(bars))
        }
    }
}

/// Bytes and milliseconds, as people read them.
pub(super) fn amount(name: &str, value: u64) -> String {
    if name.ends_with("-time") {
        return if value < 10_000 { format!("{value} ms") } else { format!("{} s", value / 1000) };
    }
    if !name.ends_with("bytes") {
        return value.to_string();
    }
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let step = UNITS.len().min(1 + (64 - value.leading_zeros().min(63) as usize - 1) / 10) - 1;
    let whole = value >> (10 * step);
    format!("{whole} {}", UNITS[step])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_at_a_glance() {
        for (value, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (64 << 20, "64 MiB"), (3 << 40, "3072 GiB")]
        {
            assert_eq!(amount("memory-bytes", value), text);
        }
        for (name, value, text) in
            [("run-deltas", 1024, "1024"), ("call-time", 12, "12 ms"), ("call-time", 90_000, "90 s")]
        {
            assert_eq!(amount(name, value), text);
        }
    }

    #[test]
    fn what_others_say_is_text() {
        let token = token(Some(&SyncToken::Text("<script>alert(1)</script>".into()))).0;
        assert!(!token.contains("<script"), "{token}");
    }
}
