//! The body of an answer, as the guest gets it: no longer, and no slower, than it may be.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::BoxError;
use super::error::EgressError;
use super::meter::Meter;

/// A body that is on its way.
pub(super) struct Received {
    incoming: Incoming,
    between_bytes: Duration,
    /// Set while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
    bytes: u64,
    meter: Arc<Meter>,
    ended: bool,
}

impl Received {
    pub(super) fn new(incoming: Incoming, between_bytes: Duration, meter: Arc<Meter>) -> Self {
        Self { incoming, between_bytes, silence: None, bytes: 0, meter, ended: false }
    }

    fn take(&mut self, frame: &Frame<Bytes>) -> Result<(), EgressError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.bytes += bytes;
        self.meter.received(bytes, self.bytes)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let end = match Pin::new(&mut this.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.silence = None;
                match this.take(&frame) {
                    Ok(()) => return Poll::Ready(Some(Ok(frame))),
                    Err(error) => Some(Err(error.into())),
                }
            }
            Poll::Ready(Some(Err(error))) => Some(Err(error.into())),
            Poll::Ready(None) => None,
            Poll::Pending => {
                let max = this.between_bytes;
                let silence = this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(max)));
                match silence.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => {
                        Some(Err(EgressError::TimedOut { what: "the next part of the answer", max }.into()))
                    }
                }
            }
        };
        this.ended = true;
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
