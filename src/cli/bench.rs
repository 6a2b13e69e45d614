//! `kvnode bench`: how many gets and puts a server answers, and how soon.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::time::{Duration, Instant};

use async_signal::{Signal, Signals};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use smol::future::FutureExt;
use smol::stream::StreamExt;
use smol::{LocalExecutor, Timer};

use super::answer::{Form, text};
use super::ask::{AskArgs, Session, ToArgs};
use super::{CliError, print, progress, span};
use crate::Client;
use crate::config::ServerName;
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, TermWriter};
use crate::program::shown;

const EXAMPLES: &str = "\
EXAMPLES
  $ kvnode bench
  $ kvnode bench --callers 1 --time 30s --reads 50 --value-bytes 4000
  $ kvnode bench --node master@myhost --to global:master --json | jq .get.p99_us

Only get, put and delete are asked, which Elixir's stores know too. What is put is under keys of its own, {:kvnode_bench, RUN, N}, and \
is deleted in the end, also after ^C. All callers are one process and one connection: it measures the server, and this machine beside it.";

#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct BenchArgs {
    /// How many call at once
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    callers: u32,
    /// For how long: 500ms, 10s, 5m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span::parse)]
    time: Duration,
    /// Gets among a hundred calls; the others are puts
    #[arg(long, value_name = "PERCENT", default_value = "90", value_parser = clap::value_parser!(u32).range(..=100))]
    reads: u32,
    /// Keys that are read and written
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Bytes of a value, a binary
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(..=16_777_216))]
    value_bytes: u32,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

/// Digits of a time that are told apart.
const DIGITS: u8 = 3;
/// The shortest time of the drawn ones; each of the others is twice the one before.
const DRAWN_FROM_NANOS: u64 = 64_000;
/// Characters of the longest bar.
const BAR: u64 = 50;

pub(super) fn bench(args: &BenchArgs) -> Result<(), CliError> {
    let to = args.to.name()?;
    args.ask.with_lasting_session(async |session: &Session| {
        let load = Load::new(args, session, &to).await?;
        let mut signals = Signals::new([Signal::Int]).map_err(CliError::cannot_run)?;
        let measured = async {
            let put = load.each_key("put", |w, load| _ = w.binary(&load.value));
            load.unless_stopped(put, &mut signals, Duration::MAX).await?;
            load.run(&mut signals).await
        };
        let measured = measured.await;
        // What was put goes, also after an error.
        load.stop.set(false);
        let cleaned = load.each_key("delete", |_, _| {}).await;
        let times = measured?;
        cleaned.map_err(|error| {
            error.with_hint(&format!("keys {{:kvnode_bench, {}, _}} are left there", load.run))
        })?;
        print(&if args.ask.form() == Form::Json { times.json() } else { times.text(&load) })
    })
}

/// What is asked of a server.
struct Load<'a> {
    args: &'a BenchArgs,
    session: &'a Session,
    to: &'a ServerName,
    client: Client,
    at: ServerRef,
    /// Of this run alone.
    run: u32,
    value: Vec<u8>,
    stop: Cell<bool>,
}

/// What came of it.
struct Times {
    gets: Histogram<u64>,
    puts: Histogram<u64>,
    lasted: Duration,
}

impl<'a> Load<'a> {
    async fn new(args: &'a BenchArgs, session: &'a Session, to: &'a ServerName) -> Result<Self, CliError> {
        let client = session.node.client();
        // A global name is looked up once.
        let at = client.locate(&session.server(to)).await.map_err(|error| session.failed(to, &error))?;
        let mut run = [0; 4];
        getrandom::fill(&mut run).map_err(CliError::cannot_run)?;
        let value = vec![b'v'; args.value_bytes as usize];
        let (at, run) = (at.into(), u32::from_ne_bytes(run));
        Ok(Self { args, session, to, client, at, run, value, stop: Cell::new(false) })
    }

    /// `{word, key, …}`; `arity` with the word.
    fn request(
        &self,
        word: &str,
        arity: usize,
        key: u32,
        rest: impl FnOnce(&mut TermWriter<'_>),
    ) -> OwnedTerm {
        let request = OwnedTerm::write(|w| {
            w.tuple(arity).atom(word).tuple(3).atom("kvnode_bench");
            w.unsigned(self.run.into()).unsigned(key.into());
            rest(w);
        });
        request.expect("what is written is one term")
    }

    async fn ask(&self, request: &OwnedTerm) -> Result<OwnedTerm, CliError> {
        let called = self.client.call_term(&self.at, request.view(), self.session.time).await;
        called.map_err(|error| self.session.failed(self.to, &error))
    }

    async fn change(&self, request: &OwnedTerm) -> Result<(), CliError> {
        let answer = self.ask(request).await?;
        if answer.view().is_atom("ok") {
            Ok(())
        } else {
            Err(CliError::Failed(format!("it answers {}", text(answer.view()))))
        }
    }

    /// Does the same for every key, by all callers.
    async fn each_key(&self, word: &str, rest: impl Fn(&mut TermWriter<'_>, &Self)) -> Result<(), CliError> {
        let (next, counter) = (Cell::new(0), progress::Counter::on_terminal());
        let arity = if word == "put" { 3 } else { 2 };
        self.by_all(|_| async {
            while next.get() < self.args.keys && !self.stop.get() {
                let key = next.replace(next.get() + 1);
                self.change(&self.request(word, arity, key, |w| rest(w, self))).await?;
                counter.add(1);
            }
            Ok(())
        })
        .await
    }

    /// Has all callers do something; the first error ends it for all.
    async fn by_all<F: Future<Output = Result<(), CliError>>>(
        &self,
        act: impl Fn(u32) -> F,
    ) -> Result<(), CliError> {
        let callers = LocalExecutor::new();
        let tasks: Vec<_> = (0..self.args.callers)
            .map(|caller| {
                let act = act(caller);
                callers.spawn(async {
                    let done = act.await;
                    if done.is_err() {
                        self.stop.set(true);
                    }
                    done
                })
            })
            .collect();
        callers
            .run(async {
                let mut all = Ok(());
                for task in tasks {
                    let done = task.await;
                    all = all.and(done);
                }
                all
            })
            .await
    }

    /// Reads and writes for the time that was said, or until ^C.
    async fn run(&self, signals: &mut Signals) -> Result<Times, CliError> {
        let new = || RefCell::new(Histogram::<u64>::new(DIGITS).expect("so many digits are told apart"));
        let (gets, puts) = (new(), new());
        let begun = now();
        let calls = self.by_all(|caller| {
            let (gets, puts) = (&gets, &puts);
            async move {
                // Xorshift; 0 would stay.
                let mut random = u64::from(self.run) << 32 | u64::from(caller) << 1 | 1;
                let mut number = |below: u32| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    ((random >> 32) % u64::from(below)) as u32
                };
                while !self.stop.get() {
                    let (is_get, key) = (number(100) < self.args.reads, number(self.args.keys));
                    let request = if is_get {
                        self.request("get", 2, key, |_| {})
                    } else {
                        self.request("put", 3, key, |w| _ = w.binary(&self.value))
                    };
                    let asked = now();
                    if is_get { self.ask(&request).await.map(|_| ()) } else { self.change(&request).await }?;
                    let nanos = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    let times = if is_get { gets } else { puts };
                    // It takes any time that there is.
                    let _ = times.borrow_mut().record(nanos);
                }
                Ok(())
            }
        });
        self.unless_stopped(calls, signals, self.args.time).await?;
        Ok(Times { gets: gets.into_inner(), puts: puts.into_inner(), lasted: begun.elapsed() })
    }

    /// Does something that ends when it is to stop: after this time, or on ^C.
    async fn unless_stopped(
        &self,
        work: impl Future<Output = Result<(), CliError>>,
        signals: &mut Signals,
        time: Duration,
    ) -> Result<(), CliError> {
        let interrupted = async { _ = signals.next().await };
        let over = async { _ = Timer::after(time).await };
        let stop = async {
            over.or(interrupted).await;
            self.stop.set(true);
            smol::future::pending().await
        };
        work.or(stop).await
    }
}

impl Times {
    fn kinds(&self) -> [(&'static str, &Histogram<u64>); 2] {
        [("get", &self.gets), ("put", &self.puts)]
    }

    fn per_second(&self, times: &Histogram<u64>) -> f64 {
        times.len() as f64 / self.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn json(&self) -> String {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let of = |times: &Histogram<u64>| {
            let at = |percent| micros(times.value_at_percentile(percent));
            json!({
                "calls": times.len(), "per_second": self.per_second(times), "mean_us": times.mean() / 1e3,
                "p50_us": at(50.0), "p90_us": at(90.0), "p99_us": at(99.0), "p999_us": at(99.9), "max_us": micros(times.max()),
            })
        };
        let kinds = self.kinds().map(|(word, times)| (word.to_owned(), of(times)));
        let mut all: serde_json::Map<String, Value> = kinds.into_iter().collect();
        all.insert("seconds".into(), json!(self.lasted.as_secs_f64()));
        format!("{}\n", Value::from(all))
    }

    fn text(&self, load: &Load<'_>) -> String {
        let BenchArgs { callers, reads, keys, value_bytes, .. } = load.args;
        let (seconds, at) = (self.lasted.as_secs_f64(), &load.at);
        let counted = |count: u64, nouns| shown::counted(count, nouns, |count| count.to_string());
        let callers = counted((*callers).into(), ["caller", "callers"]);
        let keys = counted((*keys).into(), ["key", "keys"]);
        let value_bytes = counted((*value_bytes).into(), ["byte", "bytes"]);
        let mut out = format!(
            "{seconds:.1} s at {at}: {callers}, {reads} % gets, {keys}, values of {value_bytes}\n\n\
             {:7}{:>10}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}\n",
            "", "calls", "per s", "p50", "p90", "p99", "p99.9", "max"
        );
        for (word, times) in self.kinds().into_iter().filter(|(_, times)| !times.is_empty()) {
            let [p50, p90, p99, p999] =
                [50.0, 90.0, 99.0, 99.9].map(|percent| time(times.value_at_percentile(percent)));
            let (calls, each, max) = (times.len(), self.per_second(times), time(times.max()));
            // Writing to a String does not fail.
            let _ = writeln!(out, "{word:7}{calls:>10}{each:>10.0}{p50:>9}{p90:>9}{p99:>9}{p999:>9}{max:>9}");
        }
        out.push_str(&self.drawn());
        out
    }

    /// How many calls took how long, as bars.
    fn drawn(&self) -> String {
        let mut all = self.gets.clone();
        // It takes any time that there is.
        let _ = all.add(&self.puts);
        let classes: Vec<(u64, u64)> = all
            .iter_log(DRAWN_FROM_NANOS, 2.0)
            .map(|class| (class.value_iterated_to(), class.count_since_last_iteration()))
            .collect();
        let most = classes.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        let mut out = String::from("\n");
        for (to, count) in classes {
            let len = (count * BAR).div_ceil(most) as usize;
            let _ = writeln!(out, "{:>10}  {:<50} {count}", format!("< {}", time(to + 1)), "█".repeat(len));
        }
        out
    }
}

/// A time in three digits.
fn time(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

#[expect(clippy::disallowed_methods, reason = "a person measures by the clock of this machine")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_to_read() {
        for (nanos, text) in [
            (950, "0.95 µs"),
            (64_000, "64.0 µs"),
            (1_234_567, "1.23 ms"),
            (345_678_901, "346 ms"),
            (2_000_000_000, "2.00 s"),
        ] {
            assert_eq!(time(nanos), text);
        }
    }

    #[test]
    fn calls_are_drawn_by_their_times() {
        let mut times = Histogram::new(DIGITS).expect("so many digits are told apart");
        for nanos in [10_000, 50_000, 100_000, 300_000] {
            times.record(nanos).expect("it takes any");
        }
        let puts = Histogram::new(DIGITS).expect("so many digits are told apart");
        let drawn = Times { gets: times, puts, lasted: Duration::from_secs(2) }.drawn();
        let lines: Vec<(&str, &str)> = drawn
            .trim()
            .lines()
            .map(|line| {
                (
                    line.trim().split("  ").next().unwrap_or_default(),
                    line.rsplit(' ').next().unwrap_or_default(),
                )
            })
            .collect();
        assert_eq!(lines, [("< 64.0 µs", "2"), ("< 128 µs", "1"), ("< 256 µs", "0"), ("< 512 µs", "1")]);
    }
}
