//! Sends spans to a collector, by OTLP over HTTP. Whoever ends a span puts it into a queue of a certain length and goes on; one task takes them out, some
//! at a time. Where the collector is slow or away, the queue is full and spans are dropped: they are counted, and nobody waits.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Telemetry;
use crate::egress::{EgressError, Endpoint, Outside};
use crate::meters::Meters;

/// Spans that wait: some mebibytes, and a minute of many runs.
const QUEUE_MAX: usize = 4096;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long a request may take, with the times that it is sent again.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(10);
/// More of an answer isn't read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why nothing can be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The collector's URL.
    #[error("telemetry.otlp: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The way there.
    #[error("telemetry.otlp: {0}")]
    Egress(#[from] EgressError),
}

impl Telemetry {
    /// Who tells it.
    pub(super) fn resource(&self, instance: String) -> Resource {
        let attributes = [
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ];
        Resource::builder_empty().with_service_name(self.service_name.clone()).with_attributes(attributes).build()
    }
}

/// The way from whoever ends a span to the task that sends it.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    meters: Meters,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.meters.spans_dropped(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A queue, and what sends what is in it.
pub(super) fn queue(
    telemetry: &Telemetry,
    resource: &Resource,
    outside: &Outside,
    meters: Meters,
) -> Result<(Queue, Exporting), TraceError> {
    let exporter = SpanExporter::builder().with_http().with_http_client(Client(Endpoint::new(outside)?));
    let exporter = exporter.with_endpoint(telemetry.traces()).with_protocol(Protocol::HttpBinary);
    let mut exporter = exporter.with_timeout(EXPORT_TIME_MAX).build()?;
    exporter.set_resource(resource);
    let (spans, queued) = mpsc::channel(QUEUE_MAX);
    let exporting = Exporting { queued, exporter, meters: meters.clone(), is_failing: false };
    Ok((Queue { spans, meters }, exporting))
}

/// Sends what is queued.
pub(crate) struct Exporting {
    queued: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    meters: Meters,
    is_failing: bool,
}

impl Exporting {
    /// Works until it is told that nothing more comes, and then sends what is left.
    pub(crate) async fn work(mut self, closing: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while let Some(taken) = closing.run_until_cancelled(self.queued.recv_many(&mut batch, BATCH_MAX)).await {
            if taken == 0 {
                return;
            }
            if batch.len() < BATCH_MAX {
                let _ = closing.run_until_cancelled(tokio::time::sleep(LINGER)).await;
            }
            self.fill(&mut batch);
            self.export(std::mem::take(&mut batch)).await;
        }
        self.fill(&mut batch);
        while !batch.is_empty() {
            self.export(std::mem::take(&mut batch)).await;
            self.fill(&mut batch);
        }
    }

    /// Takes what is there, as much as goes together.
    fn fill(&mut self, batch: &mut Vec<SpanData>) {
        while batch.len() < BATCH_MAX
            && let Ok(span) = self.queued.try_recv()
        {
            batch.push(span);
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let sent = tokio::time::timeout(EXPORT_TIME_MAX, self.exporter.export(batch)).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("it takes longer than {} s", EXPORT_TIME_MAX.as_secs())),
        };
        if problem.is_some() {
            self.meters.spans_dropped(spans);
        }
        // Once when it begins, and once when it is over.
        match (problem, self.is_failing) {
            (Some(problem), false) => {
                tracing::warn!(
                    target: "tidewaiter", code = "traces-dropped",
                    "the collector takes no traces, and they are dropped: {}", tidewaiter_core::text::shown(&problem, 1000)
                );
                self.is_failing = true;
            }
            (None, true) => {
                tracing::info!(target: "tidewaiter", "the collector takes traces again");
                self.is_failing = false;
            }
            _ => {}
        }
    }
}

/// What leaves goes the way of everything that an operator wrote down.
struct Client(Endpoint);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// An answer, on its way.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'this, 'answer>(&'this self, request: Request<Bytes>) -> Answering<'answer>
    where
        'this: 'answer,
        Self: 'answer,
    {
        let never = |never: std::convert::Infallible| match never {};
        let answering = self.0.send(request.map(|bytes| Full::from(bytes).map_err(never).boxed_unsync()));
        Box::pin(async move {
            let (head, mut body) = answering.await?.into_parts();
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame?;
                let part = frame.data_ref().map_or(&[][..], |data| data);
                if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                    return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes").into());
                }
                bytes.extend_from_slice(part);
            }
            Ok(Response::from_parts(head, bytes.freeze()))
        })
    }
}
