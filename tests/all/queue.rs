//! A source that forgets what was acknowledged: a queue. Whatever is killed at whatever instant, each message is journaled once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse;
use fastrand::Rng;
use tidewaiter_tests::web::Web;
use tidewaiter_tests::{Place, is_quick};

/// Messages in one answer.
const AT_ONCE: usize = 20;

#[derive(Debug, Default)]
struct Queue {
    messages: BTreeSet<u64>,
    last: u64,
    handed_out: u64,
}

impl Queue {
    fn push(&mut self, count: u64) {
        self.messages.extend(self.last + 1..=self.last + count);
        self.last += count;
    }
}

fn serve(queue: &Arc<Mutex<Queue>>) -> Web {
    let queue = Arc::clone(queue);
    Web::answering(move |seen| {
        let mut queue = queue.lock().unwrap();
        if let Some((_, upto)) = seen.uri.split_once("?upto=") {
            let upto: u64 = upto.parse().unwrap();
            queue.messages.retain(|number| *number > upto);
            return Some("".into_response());
        }
        let numbers: Vec<String> = queue.messages.iter().take(AT_ONCE).map(u64::to_string).collect();
        queue.handed_out += numbers.len() as u64;
        Some(numbers.join(",").into_response())
    })
}

#[test]
fn a_queue_that_forgets_what_was_acknowledged_loses_and_repeats_nothing() {
    let queue = Arc::new(Mutex::new(Queue::default()));
    let web = serve(&queue);
    let place = Place::empty();
    place.install("hostile");
    place.write("tidewaiter.toml", "");
    let url = web.url("/queue");
    place.write(
        "connections/mq.toml",
        &format!(
            "connector = \"hostile\"\n[settings]\ndo = \"queue\"\nask = \"{}\"\nqueue = \"{url}\"\n\
             [types.account]\nclass = \"account\"\nevery = \"100ms\"\n",
            web.url("")
        ),
    );
    place.write("grants/mq.toml", &format!("http = [\"{}\"]\n", web.url("")));
    let (mut chance, rounds) = (Rng::with_seed(20_261_126), if is_quick() { 6 } else { 30 });
    for _ in 0..rounds {
        queue.lock().unwrap().push(chance.u64(50..300));
        let server = place.serve();
        server.wait_for("sync called", 0);
        std::thread::sleep(Duration::from_millis(chance.u64(..60)));
        server.kill();
    }
    let server = place.serve();
    server.wait_for("outcome=\"ok\"", 0);
    while !queue.lock().unwrap().messages.is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.end().0, 0);
    let queue = queue.lock().unwrap();
    let uids: Vec<u64> = place.changes().iter().map(|entry| entry["uid"].as_str().unwrap().parse().unwrap()).collect();
    assert!(uids.iter().copied().eq(1..=queue.last), "the journal lost, repeated or moved a message: {uids:?}");
    assert!(queue.handed_out > queue.last, "no kill came between a message and its acknowledgement");
}
