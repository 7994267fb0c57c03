//! Which figures there are, by name, and what each is of. `packaging/METRICS.md` says the same to people, and a test compares them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::state::{SyncState, TypeState};
use tidewaiter_core::time::UnixMillis;

use super::{Look, Process};
use crate::db::{Consumer, Reader};
use crate::meters::{Counted, CountedOfType};
use crate::wasm::ENGINE_VERSION;

/// What a series is of.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Writes one kind of figure after the other.
struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn gauges<'l, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l, N>, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        rows.into_iter().try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
    }

    fn counters<'l, const N: usize, V: EncodeCounterValue>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l, N>, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        let none = None::<&Exemplar<NoLabelSet, f64>>;
        rows.into_iter().try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_counter(&value, none))
    }

    fn histograms<'l, const N: usize>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l, N>, Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        rows.into_iter().try_for_each(|(labels, histogram)| histogram.encode(metric.encode_family(&labels)?))
    }
}

fn seconds(name: &str) -> (&str, Option<Unit>) {
    (name, Some(Unit::Seconds))
}

fn bytes(name: &str) -> (&str, Option<Unit>) {
    (name, Some(Unit::Bytes))
}

/// A time as Prometheus has times.
fn unix_seconds(at: UnixMillis) -> f64 {
    at.0 as f64 / 1000.0
}

impl Collector for Look {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sheet = &mut Sheet(encoder);
        self.runs(sheet)?;
        self.states(sheet)?;
        self.connections(sheet)?;
        self.journal(sheet)?;
        self.readers(sheet)?;
        self.host(sheet)?;
        self.process(sheet)
    }
}

impl Look {
    /// The types that are configured.
    fn types(&self) -> impl Iterator<Item = (Labels<'_, 2>, TypeKey)> {
        self.config.connections.iter().flat_map(|(connection, written)| {
            written.types.keys().map(|object_type| {
                let labels = [("connection", connection.as_str()), ("type", object_type.as_str())];
                (labels, TypeKey { connection: connection.clone(), object_type: object_type.clone() })
            })
        })
    }

    /// What was counted of each.
    fn of_types<V>(&self, value: impl Fn(&CountedOfType) -> Option<V>) -> impl Iterator<Item = (Labels<'_, 2>, V)> {
        let nothing = CountedOfType::default();
        self.types().filter_map(move |(labels, key)| {
            let counted = self.counted.get(key.connection.as_str());
            let counted = counted.and_then(|counted| counted.types.get(&key.object_type)).unwrap_or(&nothing);
            value(counted).map(|value| (labels, value))
        })
    }

    /// What is stored of each.
    fn of_states<V>(
        &self,
        value: impl Fn(Option<&TypeState>) -> Option<V>,
    ) -> impl Iterator<Item = (Labels<'_, 2>, V)> {
        self.types().filter_map(move |(labels, key)| value(self.figures.states.get(&key)).map(|value| (labels, value)))
    }

    fn of_connections<V>(&self, value: impl Fn(&Counted) -> V) -> impl Iterator<Item = (Labels<'_, 1>, V)> {
        let nothing = Counted::default();
        self.config.connections.keys().map(move |name| {
            ([("connection", name.as_str())], value(self.counted.get(name.as_str()).unwrap_or(&nothing)))
        })
    }

    fn runs(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let runs = self.of_types(|counted| Some(counted.runs.clone())).flat_map(|([connection, object_type], runs)| {
            runs.into_iter().map(move |(outcome, count)| ([connection, object_type, ("outcome", outcome)], count))
        });
        sheet.counters(("tidewaiter_runs", None), "Runs that ended, by how they ended", runs)?;
        let took = self.of_types(|counted| Some(counted.took.clone()));
        sheet.histograms(seconds("tidewaiter_run_duration"), "How long runs took", took)?;
        let deltas = self.of_types(|counted| Some(counted.deltas));
        sheet.counters(("tidewaiter_deltas", None), "Deltas that were journaled", deltas)?;
        let size = self.of_types(|counted| Some(counted.bytes));
        sheet.counters(
            bytes("tidewaiter_delta"),
            "Size of the deltas that were journaled, as they were handed over",
            size,
        )?;
        let dropped = self.of_types(|counted| Some(counted.dropped));
        let help =
            "Deltas that were handed over and not journaled, because no checkpoint covered them: they come again";
        sheet.counters(("tidewaiter_deltas_dropped", None), help, dropped)?;
        let succeeded = self.of_types(|counted| counted.succeeded.map(unix_seconds));
        let help = "When live sync ended well last; none since the start, if it is not there";
        sheet.gauges(seconds("tidewaiter_last_success_timestamp"), help, succeeded)?;
        let lag = self.of_types(|counted| counted.source_lag_ms.map(|ms| ms as f64 / 1000.0));
        let help = "How long after its change in the source, by the clock of that, the last delta was journaled";
        sheet.gauges(seconds("tidewaiter_source_lag"), help, lag)
    }

    fn states(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let failures = self.of_states(|state| Some(state.map_or(0, |state| state.failures)));
        sheet.gauges(("tidewaiter_failures", None), "Failed runs in a row", failures)?;
        let changed = self.of_states(|state| Some(unix_seconds(state?.changed_at)));
        sheet.gauges(
            seconds("tidewaiter_token_timestamp"),
            "When the token, or the state that it is in, was stored",
            changed,
        )?;
        let held = self.of_states(|state| Some(u32::from(state.is_some_and(|state| state.held.is_some()))));
        sheet.gauges(("tidewaiter_held", None), "Whether its guard holds the type", held)?;
        let paused = self.of_states(|state| Some(u32::from(state.is_some_and(|state| state.paused.is_some()))));
        sheet.gauges(("tidewaiter_paused", None), "Whether an operator paused the type", paused)?;
        let is_lost = |state: &TypeState| matches!(state.sync, SyncState::TokenLost { .. });
        let lost = self.of_states(|state| Some(u32::from(state.is_some_and(is_lost))));
        sheet.gauges(("tidewaiter_token_lost", None), "Whether the token is lost, and somebody has to decide", lost)?;
        let letters = self.types().map(|(labels, TypeKey { connection, object_type })| {
            (labels, self.figures.dead_letters.get(&(connection.into(), object_type.into())).copied().unwrap_or(0))
        });
        sheet.gauges(("tidewaiter_dead_letters", None), "Deltas that are kept out of the journal", letters)
    }

    fn connections(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let count = [([], self.config.connections.len())];
        sheet.gauges(("tidewaiter_connections", None), "Connections that are configured", count)?;
        let broken = self.config.connections.keys();
        let broken = broken.map(|name| ([("connection", name.as_str())], u32::from(self.broken.contains(name))));
        sheet.gauges(("tidewaiter_connection_broken", None), "Whether the connection can't run", broken)?;
        let quarantined = self.connectors.iter();
        let quarantined = quarantined.map(|(name, is_in)| ([("connector", name.as_str())], u32::from(*is_in)));
        sheet.gauges(
            ("tidewaiter_connector_quarantined", None),
            "Whether the connector is in quarantine",
            quarantined,
        )?;
        let cpu = self.of_connections(|counted| counted.cpu_us as f64 / 1e6);
        sheet.counters(
            seconds("tidewaiter_connector_cpu"),
            "Processor time that calls into the connector took",
            cpu,
        )?;
        let memory = self.of_connections(|counted| counted.memory_peak_bytes);
        sheet.gauges(bytes("tidewaiter_connector_memory_peak"), "The most memory that an instance held", memory)?;
        let abandoned = self.of_connections(|counted| counted.abandoned_calls);
        let help = "Host calls that did not come back in time";
        sheet.counters(("tidewaiter_connector_abandoned_calls", None), help, abandoned)?;
        let passages = self.of_connections(|counted| counted.passages.clone()).flat_map(|([connection], passages)| {
            passages
                .into_iter()
                .map(move |((decision, code), count)| ([connection, ("decision", decision), ("code", code)], count))
        });
        let help = "HTTP requests and TCP connections: those that left, and those that didn't, by the reason";
        sheet.counters(("tidewaiter_egress", None), help, passages)?;
        let logins = self.of_connections(|counted| counted.logins.clone()).flat_map(|([connection], logins)| {
            logins.into_iter().map(move |(outcome, count)| ([connection, ("outcome", outcome)], count))
        });
        sheet.counters(("tidewaiter_logins", None), "Logins that were tried", logins)
    }

    fn journal(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let (usage, quota) = (&self.figures.usage, self.config.quota);
        // What has no bound has no series.
        let bound = |bytes: u64| (bytes != u64::MAX).then_some(([], bytes));
        let of =
            self.config.connections.keys().map(|name| {
                ([("connection", name.as_str())], usage.connections.get(name.as_str()).copied().unwrap_or(0))
            });
        sheet.gauges(bytes("tidewaiter_journal_connection"), "Size of what the journal holds of the connection", of)?;
        let max = bound(quota.connection_bytes);
        sheet.gauges(bytes("tidewaiter_journal_connection_quota"), "How much it may hold of a connection", max)?;
        sheet.gauges(bytes("tidewaiter_journal"), "Size of what the journal holds", [([], usage.total)])?;
        let max = bound(quota.total_bytes);
        sheet.gauges(bytes("tidewaiter_journal_quota"), "How much it may hold", max)?;
        let help = "The first entry that is kept, or will be";
        sheet.gauges(("tidewaiter_journal_first_sequence", None), help, [([], self.figures.first)])?;
        sheet.gauges(("tidewaiter_journal_last_sequence", None), "The last entry", [([], self.figures.last)])?;
        let [took, members] = self.commits.clone();
        sheet.histograms(
            seconds("tidewaiter_commit_duration"),
            "How long the db took for a group of writes",
            [([], took)],
        )?;
        sheet.histograms(("tidewaiter_commit_group_size", None), "Writes of a group, with one flush", [([], members)])
    }

    /// Sinks and consumers: how far they are.
    fn readers(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let last = self.figures.last;
        let waits = |reader: &Reader| {
            let ms = reader.waits_since.map_or(0, |since| self.now.0.saturating_sub(since.0).max(0));
            ms as f64 / 1000.0
        };
        let sinks = || {
            self.config.sinks.keys().map(|name| {
                ([("sink", name.as_str())], name, self.figures.sinks.get(name).unwrap_or(&self.figures.beginner))
            })
        };
        let behind = sinks().map(|(labels, _, reader)| (labels, last.saturating_sub(reader.position)));
        sheet.gauges(("tidewaiter_sink_lag_entries", None), "Entries that the sink hasn't got", behind)?;
        let waiting = sinks().map(|(labels, _, reader)| (labels, waits(reader)));
        sheet.gauges(seconds("tidewaiter_sink_lag"), "How long the first of them has been there", waiting)?;
        let letters = sinks().map(|(labels, name, _)| (labels, self.figures.refused.get(name).copied().unwrap_or(0)));
        let help = "Entries that the sink refuses for good, and those that wait for them";
        sheet.gauges(("tidewaiter_sink_dead_letters", None), help, letters)?;
        let failing = sinks().map(|(labels, name, _)| (labels, u32::from(self.failing.contains(name))));
        sheet.gauges(("tidewaiter_sink_failing", None), "Whether the last attempt to deliver failed", failing)?;
        let consumers = || {
            let rows = self.figures.consumers.iter();
            rows.map(|(name, (consumer, reader))| ([("consumer", name.as_str())], consumer, reader))
        };
        let behind = consumers().map(|(labels, _, reader)| (labels, last.saturating_sub(reader.position)));
        sheet.gauges(
            ("tidewaiter_consumer_lag_entries", None),
            "Entries that the consumer hasn't acknowledged",
            behind,
        )?;
        let waiting = consumers().map(|(labels, _, reader)| (labels, waits(reader)));
        sheet.gauges(seconds("tidewaiter_consumer_lag"), "How long the first of them has been there", waiting)?;
        let is_expired = |consumer: &Consumer| u32::from(consumer.expired.is_some());
        let expired = consumers().map(|(labels, consumer, _)| (labels, is_expired(consumer)));
        sheet.gauges(("tidewaiter_consumer_expired", None), "Whether nothing waits for the consumer any more", expired)
    }

    fn host(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("wasmtime", ENGINE_VERSION)];
        let mut info = sheet.0.encode_descriptor("tidewaiter_build", "What runs", None, MetricType::Info)?;
        info.encode_info(&labels)?;
        let lateness = &self.lateness;
        let name = "tidewaiter_schedule_lateness";
        let help = "How long after they were due scheduled runs began";
        let mut late = sheet.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        late.encode_histogram::<NoLabelSet>(lateness.sum, lateness.count, &lateness.buckets, None)?;
        let [compiled, not_compiled] = self.compiling.clone();
        let compiling = [([("outcome", "ok")], compiled), ([("outcome", "failed")], not_compiled)];
        sheet.histograms(seconds("tidewaiter_compile_duration"), "How long compiling a connector took", compiling)?;
        let live = self.instances.map(|instances| ([], instances));
        sheet.gauges(("tidewaiter_instances", None), "Instances of connectors that live", live)?;
        let max = self.instances_max.map(|instances| ([], instances));
        sheet.gauges(
            ("tidewaiter_instances_limit", None),
            "How many instances may live; not there: as many as there is room for",
            max,
        )?;
        let refused = [([], u32::from(self.is_reload_refused))];
        let help = "Whether what is written in the configuration is not taken over";
        sheet.gauges(("tidewaiter_reload_refused", None), help, refused)?;
        let dropped = [([], self.dropped_spans)];
        let help = "Spans of traces that the collector did not take in time";
        sheet.counters(("tidewaiter_trace_spans_dropped", None), help, dropped)
    }

    fn process(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Process { cpu, memory_bytes, virtual_bytes, threads, files } = self.process;
        sheet.counters(seconds("process_cpu_time"), "Processor time of the process", [([], cpu.as_secs_f64())])?;
        sheet.gauges(bytes("process_memory_usage"), "Memory that is in use", [([], memory_bytes)])?;
        sheet.gauges(bytes("process_memory_virtual"), "Addresses that are in use", [([], virtual_bytes)])?;
        sheet.gauges(("process_thread_count", None), "Threads", [([], threads)])?;
        sheet.gauges(("process_unix_file_descriptor_count", None), "Open files and sockets", [([], files)])?;
        sheet.gauges(seconds("process_uptime"), "Since the host began to start", [([], self.up_seconds)])
    }
}
