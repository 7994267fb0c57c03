//! Traces of runs, in OpenTelemetry's words: one for each run, with a span for each call into the connector and for each write. A leaf for whoever runs
//! something; `export` sends spans to a collector. Tracing holds nothing up: a span that finds no place is dropped and counted.
//!
//! In a span are names that an operator gave, numbers, and codes of closed lists. No token, no setting, nothing of an object, and no word of a connector or
//! a server gets in: a collector is run by others.

mod export;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tidewaiter_core::name::{ConnectorName, TypeKey};
use tidewaiter_core::run::{Failure, Outcome, RunReport, Trigger};

pub(crate) use self::export::Exporting;
use self::export::Queue;
pub use self::export::TraceError;
use crate::config::Telemetry;
use crate::egress::Outside;
use crate::meters::Meters;

/// Traces runs, if somebody wants that. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    tracer: Option<SdkTracer>,
}

/// The trace of a run. Clones are the same; where nobody wants traces it is nothing.
#[derive(Clone, Debug, Default)]
pub struct RunTrace {
    of: Option<(SdkTracer, Context)>,
}

/// Something that is known by a code of a closed list where it fails.
pub(crate) trait Coded {
    /// The code.
    fn code(&self) -> String;
}

impl Coded for Failure {
    fn code(&self) -> String {
        Failure::code(self)
    }
}

impl Traces {
    /// Traces go to a collector, by whom a task sends them. `instance` tells this host from others.
    ///
    /// # Errors
    /// There is no way to the collector.
    pub(crate) fn to(
        telemetry: &Telemetry,
        instance: String,
        outside: &Outside,
        meters: Meters,
    ) -> Result<(Self, Exporting), TraceError> {
        let resource = telemetry.resource(instance);
        let (queue, exporting) = export::queue(telemetry, &resource, outside, meters)?;
        let provider = SdkTracerProvider::builder();
        let provider = provider.with_resource(resource).with_span_processor::<Queue>(queue).build();
        Ok((Self { tracer: Some(provider.tracer("tidewaiter")) }, exporting))
    }

    /// A run begins.
    pub(crate) fn run(&self, (key, connector): (&TypeKey, &ConnectorName), run: u64, trigger: Trigger) -> RunTrace {
        let Some(tracer) = &self.tracer else { return RunTrace::default() };
        let attributes = [
            KeyValue::new("tidewaiter.connection", key.connection.to_string()),
            KeyValue::new("tidewaiter.type", key.object_type.to_string()),
            KeyValue::new("tidewaiter.connector", connector.to_string()),
            KeyValue::new("tidewaiter.run", number(run)),
            KeyValue::new("tidewaiter.trigger", trigger.to_string()),
        ];
        let span = tracer.span_builder("run").with_kind(SpanKind::Internal).with_attributes(attributes);
        // It belongs to nobody's: whoever asked may wait for a run that others asked for, too.
        let span = tracer.build_with_context(span, &Context::new());
        RunTrace { of: Some((tracer.clone(), Context::new().with_span(span))) }
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl RunTrace {
    /// A part of the run, as long as it takes. One that is abandoned ends where that happens.
    pub(crate) async fn part<T, E: Coded>(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some((tracer, run)) = &self.of else { return part.await };
        let span = tracer.span_builder(name).with_kind(SpanKind::Internal);
        let span = Context::new().with_span(tracer.build_with_context(span, run));
        let done = part.await;
        if let Err(error) = &done {
            fails(&span, error.code());
        }
        span.span().end();
        done
    }

    /// The run is over.
    pub(crate) fn end(&self, report: &RunReport) {
        let Some((_, run)) = &self.of else { return };
        let span = run.span();
        span.set_attribute(KeyValue::new("tidewaiter.outcome", report.outcome.name()));
        span.set_attribute(KeyValue::new("tidewaiter.deltas", number(report.deltas)));
        span.set_attribute(KeyValue::new("tidewaiter.bytes", number(report.bytes)));
        span.set_attribute(KeyValue::new("tidewaiter.dead_letters", number(report.dead_letters)));
        span.set_attribute(KeyValue::new("tidewaiter.dropped", number(report.dropped)));
        if let Outcome::Failed(failure) | Outcome::WentBack(failure) = &report.outcome {
            fails(run, failure.code());
        }
        span.end();
    }
}

fn fails(of: &Context, code: String) {
    let span = of.span();
    span.set_attribute(KeyValue::new("error.type", code.clone()));
    span.set_status(Status::error(code));
}
