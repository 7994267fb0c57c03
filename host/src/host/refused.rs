//! What operators do about the dead letters of sinks: look at them, have them sent again, or give them up. What waited for them goes on then, in its
//! order.

use std::time::Duration;

use tidewaiter_core::journal::{Body, Entry};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::refusal::{Letter, Line, Patience};
use tidewaiter_core::state::Actor;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::dead_letter::{LetterView, Settled};
use super::{Host, HostError};
use crate::db::{Db, Delivered, RefusedEntry, Sensitive};
use crate::sink::render;

/// How long whoever has one sent again waits for news of its sink; then a sink that fails is told.
const NEWS_WAIT: Duration = Duration::from_secs(5);

/// A dead letter of a sink, and which sink's.
pub(super) type OfSink = (String, RefusedEntry);

impl LetterView {
    pub(super) fn of_sink((sink, refused): OfSink) -> Self {
        let RefusedEntry { number, entry, problem: fault, at, .. } = refused;
        let delta = entry.body.delta();
        let kind = match &entry.body {
            Body::Delta(delta) | Body::Read(delta) => delta.change.kind(),
            Body::Marker { marker, .. } => marker.kind(),
            Body::Erased { .. } => "erased",
        };
        Self {
            number,
            kind: kind.to_owned(),
            class: delta.map(|delta| delta.object_class.clone()).unwrap_or_default(),
            uid: delta.map(|delta| delta.change.uid().to_owned()).unwrap_or_default(),
            previous_uid: delta.and_then(|delta| delta.change.previous_uid()).map(str::to_owned),
            key: entry.key,
            fault,
            run: entry.run,
            at,
            sink: Some(sink),
            sequence: Some(entry.id.sequence),
            delta: None,
        }
    }

    pub(super) fn of_sink_with_delta(of: OfSink, sensitive: &Sensitive) -> Self {
        let delta = Some(render::masked(&of.1.entry, sensitive));
        Self { delta, ..Self::of_sink(of) }
    }
}

/// The dead letters of all sinks, or of one.
pub(super) async fn refused(db: &Db, of: Option<String>) -> Result<Vec<OfSink>, HostError> {
    let db = db.clone();
    let refused = spawn_blocking(move || db.refused(of.as_deref())).await??;
    Ok(refused.into_iter().flat_map(|(sink, of)| of.into_iter().map(move |one| (sink.clone(), one))).collect())
}

impl Host {
    /// Has a dead letter of a sink sent again, with what waits for it, and waits until the sink took or refused it, or fails.
    pub(super) async fn send_again(&self, (sink, refused): OfSink, by: Actor) -> Result<Settled, HostError> {
        let RefusedEntry { number, entry, problem, .. } = refused;
        let Some(mut reached) = self.sinks.get(&sink).cloned() else {
            let why = format!("there is no sink {sink} in the configuration");
            return Err(HostError::NotRetried { number, why });
        };
        let (db, audit, clock, sequence) = (self.db.clone(), self.audit.clone(), self.clock, entry.id.sequence);
        self.act(async move {
            let before = self::refused(&db, Some(sink.clone())).await?;
            if problem.is_none() && is_behind(&before, sequence) {
                return Err(HostError::OnlyWaits { number });
            }
            audit.act(&by, "dead-letters retry", format!("{} {number} of sink {sink}", entry.key)).await?;
            reached.mark_unchanged();
            db.delivered(&sink, Delivered { judged: vec![(sequence, None)], ..Delivered::nothing(clock.now()) })
                .await?;
            let not_retried = |why: String| Err(HostError::NotRetried { number, why });
            loop {
                let news = timeout(NEWS_WAIT, reached.changed()).await;
                let failing = reached.borrow_and_update().problem.clone();
                let left = self::refused(&db, Some(sink.clone())).await?;
                let is_left = |number: u64| left.iter().any(|(_, one)| one.number == number);
                // What waits for it goes with it, unless the sink fails.
                let due = due(&left);
                let goes = before.iter().any(|(_, one)| is_left(one.number) && due.contains(&one.entry.id.sequence));
                let why = match (news, failing) {
                    (Err(_), Some(failing)) => Some(format!("it is sent once the sink works again: {failing}")),
                    (Ok(Err(_)), _) => Some("it is sent when the host begins again".to_owned()),
                    (Err(_) | Ok(Ok(())), _) => None,
                };
                match left.iter().find(|(_, one)| one.number == number) {
                    None if !goes || why.is_some() => {
                        let others = before.iter().map(|(_, one)| one.number).filter(|other| *other != number);
                        let released = others.filter(|number| !is_left(*number)).collect();
                        return Ok(Settled { settled: vec![number], released, ..Settled::default() });
                    }
                    Some((_, one)) if one.is_refused() => return not_retried(one.problem.clone().unwrap_or_default()),
                    Some(_) if !due.contains(&sequence) => return Err(HostError::OnlyWaits { number }),
                    Some(_) | None => {}
                }
                if let Some(why) = why {
                    return not_retried(why);
                }
            }
        })
        .await
    }

    /// Gives a dead letter of a sink up. What was said of its object is forgotten, so that the next reconciliation tells it again; before the first one,
    /// nobody knows what was said.
    pub(super) async fn give_up(&self, (sink, refused): OfSink, by: Actor) -> Result<Settled, HostError> {
        let RefusedEntry { number, entry, problem, .. } = refused;
        let (db, audit, clock, sequence) = (self.db.clone(), self.audit.clone(), self.clock, entry.id.sequence);
        self.act(async move {
            if problem.is_none() && is_behind(&self::refused(&db, Some(sink.clone())).await?, sequence) {
                return Err(HostError::OnlyWaits { number });
            }
            audit.act(&by, "dead-letters drop", format!("{} {number} of sink {sink}", entry.key)).await?;
            let note = forget_what_was_said(&db, &entry).await?;
            db.delivered(&sink, Delivered { gone: vec![sequence], ..Delivered::nothing(clock.now()) }).await?;
            tracing::warn!(
                target: "tidewaiter::sink", sink, connection = %entry.key.connection, r#type = %entry.key.object_type,
                code = "dead-letter-dropped", uid = entry.body.delta().map_or("", |delta| delta.change.uid()), sequence, number,
                by = %by, "never delivered"
            );
            Ok(Settled { settled: vec![number], notes: note.into_iter().collect(), ..Settled::default() })
        })
        .await
    }
}

/// The sequences of those whose turn has come.
fn due(letters: &[OfSink]) -> Vec<u64> {
    let mut line = Line::new(Patience::FOREVER);
    line.know(letters.iter().map(|(_, one)| Letter::new(&one.entry, one.is_refused())).collect());
    line.due()
}

/// Whether one that is still there, and wasn't refused itself, has others of its object before it.
fn is_behind(letters: &[OfSink], sequence: u64) -> bool {
    letters.iter().any(|(_, one)| one.entry.id.sequence == sequence) && !due(letters).contains(&sequence)
}

/// So that the next comparison tells it again. Answers what does, where none will.
async fn forget_what_was_said(db: &Db, entry: &Entry) -> Result<Option<String>, HostError> {
    let Some(delta) = entry.body.delta() else { return Ok(None) };
    if db.shadow(&entry.key)?.is_none() {
        let TypeKey { connection, object_type } = &entry.key;
        return Ok(Some(format!(
            "{} was never reconciled, so nothing finds by itself what was dropped: `tidewaiter reconcile {connection} {object_type} --uid UID` \
             tells the object again, or `--full` every object, where its connector reads none by uid",
            entry.key
        )));
    }
    let hold = db.wait_for_shadow(&entry.key).await;
    let hold = hold.ok_or_else(|| HostError::PassUnderWay { key: entry.key.clone() })?;
    let uids = delta.change.previous_uid().into_iter().chain([delta.change.uid()]);
    hold.doubt(uids).await?;
    Ok(None)
}
