//! What was measured, as tables for people or as JSON.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use serde_json::{Value, json};

use crate::stats::{Spread, spread};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
}

/// One thing that is measured, with its unit in its name.
pub type Metric = (&'static str, Better);

/// Metrics of which all are better where they are higher.
pub fn higher<const N: usize>(names: [&'static str; N]) -> [Metric; N] {
    names.map(|name| (name, Better::Higher))
}

/// Whether an expectation is met, as the end of the line that says so.
pub const fn verdict(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "MISSED" }
}

/// One load: a row for each server, a column for each metric, a value for each round.
pub struct Table {
    load: String,
    metrics: Vec<Metric>,
    servers: Vec<&'static str>,
    rounds: BTreeMap<(usize, usize), Vec<f64>>,
    expected: Vec<Expected>,
    notes: Vec<String>,
    failures: Vec<String>,
}

struct Expected {
    metric: &'static str,
    server: &'static str,
    at_least: f64,
}

/// The server that the others are compared with.
pub const OURS: &str = "kvnode";

impl Table {
    /// An empty table. Servers are compared by the first metric.
    pub fn new(load: impl Into<String>, metrics: &[Metric]) -> Self {
        Self {
            load: load.into(),
            metrics: metrics.to_vec(),
            servers: Vec::new(),
            rounds: BTreeMap::new(),
            expected: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// States what kvnode is to reach: so many times the other server's value (or, where lower is better, the
    /// other's value that many times its own).
    pub fn expect(mut self, metric: &'static str, server: &'static str, at_least: f64) -> Self {
        self.expected.push(Expected { metric, server, at_least });
        self
    }

    /// The same load by another way, of which other things are expected: expectations without a metric in the table are left out.
    pub fn over(&mut self, way: &str, expected: &[(&'static str, &'static str, f64)]) {
        self.load = format!("{}, {way}", self.load);
        let expected = expected.iter().map(|(metric, server, at_least)| Expected {
            metric,
            server,
            at_least: *at_least,
        });
        self.expected = expected.collect();
    }

    /// Which column a metric is.
    pub fn column(&self, metric: &str) -> Option<usize> {
        self.metrics.iter().position(|(name, _)| *name == metric)
    }

    /// Adds one round of a server: a value for each metric, in their order; NaN for none.
    pub fn add(&mut self, server: &'static str, values: &[f64]) {
        let row = self.servers.iter().position(|known| *known == server).unwrap_or_else(|| {
            self.servers.push(server);
            self.servers.len() - 1
        });
        for (column, value) in values.iter().enumerate() {
            self.rounds.entry((row, column)).or_default().push(*value);
        }
    }

    /// States that a server failed. The figures of its rounds before stay.
    pub fn fail(&mut self, server: &'static str, error: impl Display) {
        // A row, also of a server that never came so far.
        self.add(server, &vec![f64::NAN; self.metrics.len()]);
        self.failures.push(format!("{server} FAILED: {error}"));
    }

    /// What failed, each with the name of the load.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|failure| format!("{}: {failure}", self.load))
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    fn values(&self, server: &str, column: usize) -> &[f64] {
        let row = self.servers.iter().position(|known| *known == server);
        row.and_then(|row| self.rounds.get(&(row, column))).map_or(&[], Vec::as_slice)
    }

    /// How many times better kvnode is, round by round.
    fn ratio(&self, server: &str, column: usize) -> Option<Spread> {
        self.between(OURS, server, column)
    }

    /// How many times better one server is than the other, round by round.
    pub fn between(&self, one: &str, other: &str, column: usize) -> Option<Spread> {
        let better = self.metrics.get(column)?.1;
        let pairs = self.values(one, column).iter().zip(self.values(other, column));
        let ratios: Vec<f64> = pairs
            .map(|(ours, theirs)| if better == Better::Higher { ours / theirs } else { theirs / ours })
            .collect();
        spread(&ratios)
    }

    /// The median of one server's metric.
    pub fn median(&self, server: &str, column: usize) -> Option<f64> {
        spread(self.values(server, column)).map(|spread| spread.median)
    }

    fn checked(&self) -> impl Iterator<Item = (&Expected, f64)> {
        self.expected.iter().filter_map(|expected| {
            let column = self.column(expected.metric)?;
            Some((expected, self.ratio(expected.server, column)?.median))
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(self.metrics.iter().map(|(name, _)| (*name).to_owned()));
        rows[0].push(format!("{OURS}/it"));
        for server in &self.servers {
            let mut row = vec![(*server).to_owned()];
            row.extend((0..self.metrics.len()).map(|column| cell(spread(self.values(server, column)))));
            row.push(self.ratio(server, 0).filter(|_| *server != OURS).map_or(String::new(), |ratio| {
                format!("{:.2} [{:.2}..{:.2}]", ratio.median, ratio.min, ratio.max)
            }));
            rows.push(row);
        }
        if self.servers.is_empty() {
            rows.clear();
        }
        let columns = rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = format!("\n{}\n", self.load);
        for row in rows {
            let mut line = format!("  {:<width$}", row[0], width = widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                let _ = write!(line, "  {cell:>width$}");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for line in self.expectations().chain(self.notes.iter().chain(&self.failures).cloned()) {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    /// What was expected, and whether it was reached, in words.
    fn expectations(&self) -> impl Iterator<Item = String> {
        self.checked().map(|(Expected { metric, server, at_least }, ratio)| {
            let verdict = verdict(ratio >= *at_least);
            format!("{metric}: {ratio:.2} of {server}, expected {at_least:.2}: {verdict}")
        })
    }

    /// All verdicts below this table, each with the name of the load.
    pub fn verdicts(&self) -> impl Iterator<Item = String> {
        let verdict = |line: &String| line.ends_with("MISSED") || line.ends_with("reached");
        let lines = self.expectations().chain(self.notes.iter().cloned()).filter(verdict);
        lines.map(|line| format!("{}: {line}", self.load))
    }

    /// For programs: every round's values.
    pub fn json(&self) -> Value {
        let servers: Vec<Value> = self
            .servers
            .iter()
            .map(|server| {
                let metrics: serde_json::Map<String, Value> = self
                    .metrics
                    .iter()
                    .enumerate()
                    .map(|(column, (name, _))| {
                        let rounds = self.values(server, column);
                        let summary = spread(rounds).map(|spread| {
                            json!({ "median": spread.median, "min": spread.min, "max": spread.max, "rounds": rounds,
                                    "kvnode_ratio": self.ratio(server, column).map(|ratio| ratio.median) })
                        });
                        ((*name).to_owned(), summary.unwrap_or(Value::Null))
                    })
                    .collect();
                json!({ "server": server, "metrics": metrics })
            })
            .collect();
        let expected: Vec<Value> = self
            .checked()
            .map(|(Expected { metric, server, at_least }, ratio)| {
                json!({ "metric": metric, "of": server, "at_least": at_least, "ratio": ratio,
                        "reached": ratio >= *at_least })
            })
            .collect();
        json!({ "load": self.load, "servers": servers, "expected": expected, "notes": self.notes,
                "failures": self.failures })
    }
}

fn cell(spread: Option<Spread>) -> String {
    match spread {
        None => "-".into(),
        Some(Spread { median, min, max }) if min == max => number(median),
        Some(Spread { median, min, max }) => format!("{} [{}..{}]", number(median), number(min), number(max)),
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match scaled.abs() {
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{unit}")
}
