//! The samples of one scrape, gathered by family and written in Prometheus's text format.
//!
//! Invariant: a family comes out once, with one line of help and type, however often its name was
//! given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::durations::{DURATION_BOUNDS, Durations};
use super::process;

pub use prometheus_text::CONTENT_TYPE;

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

type SampleLabels = Vec<(&'static str, Cow<'static, str>)>;

#[derive(Debug, Clone)]
enum SampleValue {
    Number(Number),
    Histogram {
        buckets: Vec<(f64, u64)>,
        count: u64,
        sum_seconds: f64,
    },
}

#[derive(Debug)]
struct MetricFamily {
    kind: MetricType,
    help: &'static str,
    samples: Vec<(SampleLabels, SampleValue)>,
}

/// The samples of one scrape. Names have the unit in them; those of counters end in `_total`.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<&'static str, MetricFamily>);

impl Samples {
    /// A sum since the start.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: impl Into<Number>) {
        self.add(
            MetricType::Counter,
            name,
            help,
            Vec::new(),
            SampleValue::Number(value.into()),
        );
    }

    /// Something as it is now.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<Number>) {
        self.add(
            MetricType::Gauge,
            name,
            help,
            Vec::new(),
            SampleValue::Number(value.into()),
        );
    }

    /// Sums since the start, one for each set of label values.
    pub fn counters_by<const N: usize, L: Into<Cow<'static, str>>, V: Into<Number>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        samples: impl IntoIterator<Item = ([L; N], V)>,
    ) {
        for (values, value) in samples {
            self.add(
                MetricType::Counter,
                name,
                help,
                named(labels, values),
                SampleValue::Number(value.into()),
            );
        }
    }

    /// Something as it is now, one for each set of label values.
    pub fn gauges_by<const N: usize, L: Into<Cow<'static, str>>, V: Into<Number>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        samples: impl IntoIterator<Item = ([L; N], V)>,
    ) {
        for (values, value) in samples {
            self.add(
                MetricType::Gauge,
                name,
                help,
                named(labels, values),
                SampleValue::Number(value.into()),
            );
        }
    }

    /// How long something took, in seconds, one for each set of label values.
    pub fn histograms_by<'a, const N: usize, L: Into<Cow<'static, str>>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        samples: impl IntoIterator<Item = ([L; N], &'a Durations)>,
    ) {
        for (values, durations) in samples {
            let counts = durations.counts();
            let count = counts.iter().sum();
            let buckets = DURATION_BOUNDS.into_iter().zip(counts).collect();
            let value = SampleValue::Histogram {
                buckets,
                count,
                sum_seconds: durations.sum_seconds(),
            };
            self.add(
                MetricType::Histogram,
                name,
                help,
                named(labels, values),
                value,
            );
        }
    }

    fn add(
        &mut self,
        kind: MetricType,
        name: &'static str,
        help: &'static str,
        labels: SampleLabels,
        value: SampleValue,
    ) {
        let family = self.0.entry(name).or_insert_with(|| MetricFamily {
            kind,
            help,
            samples: Vec::new(),
        });
        debug_assert!(family.kind == kind, "{name} has two types");
        family.samples.push((labels, value));
    }
}

fn named<const N: usize, L: Into<Cow<'static, str>>>(
    names: [&'static str; N],
    values: [L; N],
) -> SampleLabels {
    names.into_iter().zip(values.map(Into::into)).collect()
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, family) in &self.0 {
            // The encoder writes this end of a counter's name itself.
            let name = match family.kind {
                MetricType::Counter => name.strip_suffix("_total").unwrap_or(name),
                _ => name,
            };
            // The encoder's registry ends a help with a full stop of its own; here it is part of
            // the text.
            let mut metric = encoder.encode_descriptor(name, family.help, None, family.kind)?;
            for (labels, value) in &family.samples {
                let one = if labels.is_empty() {
                    None
                } else {
                    Some(metric.encode_family(labels)?)
                };
                match one {
                    Some(mut one) => encode_value(&mut one, family.kind, value)?,
                    None => encode_value(&mut metric, family.kind, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode_value(
    encoder: &mut prometheus_client::encoding::MetricEncoder<'_>,
    kind: MetricType,
    value: &SampleValue,
) -> fmt::Result {
    match (kind, value) {
        (
            _,
            SampleValue::Histogram {
                buckets,
                count,
                sum_seconds,
            },
        ) => encoder.encode_histogram::<NoLabelSet>(*sum_seconds, *count, buckets, None),
        (MetricType::Counter, SampleValue::Number(Number::Whole(n))) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(n, None)
        }
        (MetricType::Counter, SampleValue::Number(Number::Real(n))) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(n, None)
        }
        (_, SampleValue::Number(Number::Whole(n))) => encoder.encode_gauge(n),
        (_, SampleValue::Number(Number::Real(n))) => encoder.encode_gauge(n),
    }
}

/// The answer of `/metrics` of a `role`: what `fill` adds, and what is true of every process. Reads
/// `/proc`: blocks.
pub fn exposition(role: &'static str, fill: impl FnOnce(&mut Samples)) -> String {
    let mut samples = Samples::default();
    process::samples(role, &mut samples);
    fill(&mut samples);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(samples));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("writing to a String cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_family_comes_out_once_whoever_adds_to_it() {
        let durations = Durations::default();
        durations.observe(Duration::from_micros(20));
        durations.observe(Duration::from_secs(99));
        let text = exposition("test", |out| {
            out.gauge("a_bytes", "Bytes.", 1_u64);
            out.counters_by(
                "b_total",
                "Bs.",
                ["kind"],
                [(["x"], 2_u64), (["y \"quoted\"\n"], 3)],
            );
            out.histograms_by("took_seconds", "Time.", ["op"], [(["read"], &durations)]);
            out.counters_by("b_total", "Bs.", ["kind"], [(["z"], 4_u64)]);
            out.gauge("age_seconds", "Age.", 1.5);
        });
        assert!(
            text.contains("# HELP a_bytes Bytes.\n# TYPE a_bytes gauge\na_bytes 1\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "# HELP b_total Bs.\n# TYPE b_total counter\nb_total{kind=\"x\"} \
             2\nb_total{kind=\"y \\\"quoted\\\"\\n\"} 3\nb_total{kind=\"z\"} 4\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("took_seconds_bucket{op=\"read\",le=\"3e-05\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("took_seconds_bucket{op=\"read\",le=\"+Inf\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("took_seconds_count{op=\"read\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("age_seconds 1.5\n"), "{text}");
        assert_eq!(text.matches("# TYPE b_total").count(), 1);
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }
}
