//! Clients of a server: so many at a time, taken until the host closes, and waited for as long as they fetch their answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::host::Host;

/// How long clients may take to fetch their answers when the host has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Clients that are served.
pub(crate) struct Clients(JoinSet<()>);

impl Clients {
    /// Serves whoever `accept` brings, until the host closes: so many at a time, and more wait until one leaves.
    pub(crate) async fn serve<S, A, C>(
        host: &Host,
        at_once: usize,
        mut accept: impl FnMut() -> A,
        client: impl Fn(S) -> C,
    ) -> Self
    where
        A: Future<Output = io::Result<S>>,
        C: Future<Output = ()> + Send + 'static,
    {
        let (mut clients, room) = (JoinSet::new(), Arc::new(Semaphore::new(at_once)));
        let mut next = async || {
            let place = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((accept().await?, place))
        };
        while let Some(accepted) = host.closing().run_until_cancelled(next()).await {
            while clients.try_join_next().is_some() {}
            match accepted {
                Ok((stream, place)) => {
                    let served = client(stream);
                    clients.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(target: "tidewaiter", "a client can't be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Self(clients)
    }

    /// As long as runs take to stop, their askers wait; who doesn't fetch an answer is not waited for.
    pub(crate) async fn last_answers(mut self, host: &Host) {
        let answered = async { while self.0.join_next().await.is_some() {} };
        let ended = async {
            host.ended().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            () = answered => {}
            () = ended => {}
        }
    }
}
