//! Entries that are put into a store, many at once, as it takes them.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use smol::Timer;

use super::{AT_ONCE, counted, key_text};
use crate::cli::answer::{refusal, text};
use crate::cli::store::Store;
use crate::cli::{CliError, progress};
use crate::etf::OwnedTerm;

/// Pairs that are put at once have so many bytes together at most, but for a single one.
pub(super) const BYTES_AT_ONCE: usize = 1 << 20;
/// A store that takes nothing now is asked again for so long: an etcd without a leader has one by then, and a kvnode that restarts is back. An entry
/// that is put twice is as put once.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two of these times.
const PAUSE: Duration = Duration::from_millis(500);
/// Keys of entries that were refused, of which are told.
const TOLD_MAX: usize = 10;

/// An entry that is to be put.
#[derive(Debug)]
pub(super) struct Entry {
    /// `{key, value}`
    pub(super) pair: OwnedTerm,
    /// The milliseconds that it has; `None`: it stays.
    pub(super) ttl: Option<u64>,
}

/// Entries that are put together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    bytes: usize,
}

impl Batch {
    /// Whether an entry of so many bytes is for the next one.
    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
        self.entries.len() >= AT_ONCE || !self.entries.is_empty() && self.bytes + bytes > BYTES_AT_ONCE
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.pair.view().bytes().len();
        self.entries.push(entry);
    }
}

/// A store that entries are put into.
pub(super) struct Puts<'a> {
    store: &'a Store<'a>,
    counter: progress::Counter,
    count: Cell<u64>,
    /// Something was asked for.
    has_begun: Cell<bool>,
    /// Keys that the store takes in one write.
    at_once: Cell<usize>,
    refused: RefCell<Refused>,
}

/// Entries that are larger than the store takes.
#[derive(Default)]
struct Refused {
    count: u64,
    first: Vec<String>,
    /// Bytes of key and value that it takes.
    bytes_max: u64,
}

/// Why entries were not put.
pub(super) enum NotPut {
    /// The store refuses: nothing of these was put.
    Refused(CliError),
    /// It is not known.
    Unknown(CliError),
}

impl<'a> Puts<'a> {
    pub(super) fn new(store: &'a Store<'a>) -> Self {
        let (count, has_begun, at_once) = (Cell::new(0), Cell::new(false), Cell::new(AT_ONCE));
        Self {
            store,
            counter: progress::Counter::on_terminal(),
            count,
            has_begun,
            at_once,
            refused: RefCell::default(),
        }
    }

    /// Entries that were put.
    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    /// Whether some may have been put that are not counted.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// Puts all of a batch but the entries that are larger than the store takes. Those are remembered.
    pub(super) async fn put(&self, batch: Batch) -> Result<(), NotPut> {
        let (ending, staying): (Vec<Entry>, Vec<Entry>) =
            batch.entries.into_iter().partition(|entry| entry.ttl.is_some());
        // What is to be put, the first last.
        let mut parts = vec![staying.into_iter().map(|entry| entry.pair).collect::<Vec<_>>()];
        while let Some(mut part) = parts.pop() {
            if part.len() > self.at_once.get() {
                let rest = part.split_off(self.at_once.get());
                parts.push(rest);
            }
            if part.is_empty() {
                continue;
            }
            let answer = self.call(|_| put_request(&part)).await?;
            match Answer::of(&answer) {
                Answer::Done => self.add(part.len()),
                Answer::TooMany(most) if most < part.len() => {
                    self.at_once.set(most.max(1));
                    parts.push(part);
                }
                Answer::TooLarge(_) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Answer::TooLarge(most) => part.iter().for_each(|pair| self.refuse(pair, most)),
                Answer::TooMany(_) | Answer::Other => return Err(refused(&answer)),
            }
        }
        self.put_ending(ending).await
    }

    /// Puts entries that end, each with its own time: all of them are asked for at once.
    async fn put_ending(&self, entries: Vec<Entry>) -> Result<(), NotPut> {
        let executor = smol::LocalExecutor::new();
        let tasks: Vec<_> = entries.iter().map(|entry| executor.spawn(self.put_one(entry))).collect();
        executor
            .run(async {
                for task in tasks {
                    task.await?;
                }
                Ok(())
            })
            .await
    }

    async fn put_one(&self, Entry { pair, ttl }: &Entry) -> Result<(), NotPut> {
        let request = |waited: Duration| {
            let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            let left = ttl.unwrap_or(1).saturating_sub(waited).max(1);
            let request = OwnedTerm::write(|w| {
                let [key, value] = pair.view().as_tuple::<2>().unwrap_or([pair.view(); 2]);
                w.tuple(4).atom("put").term(key).term(value);
                w.list(1).tuple(2).atom("ttl").unsigned(left).nil();
            });
            request.map_err(not_sent)
        };
        let answer = self.call(request).await?;
        match Answer::of(&answer) {
            Answer::Done => self.add(1),
            Answer::TooLarge(most) => self.refuse(pair, most),
            Answer::TooMany(_) | Answer::Other => return Err(refused(&answer)),
        }
        Ok(())
    }

    /// Asks until the store takes or refuses it, or [`PATIENCE`] is over. The request is made anew each time, so long after the first.
    async fn call(
        &self,
        request: impl Fn(Duration) -> Result<OwnedTerm, NotPut>,
    ) -> Result<OwnedTerm, NotPut> {
        let begun = now();
        loop {
            let request = request(begun.elapsed())?;
            self.has_begun.set(true);
            let answer = self.store.call(request.view()).await.map_err(NotPut::Unknown)?;
            if !is_passing(&answer) || begun.elapsed() + PAUSE > PATIENCE {
                return Ok(answer);
            }
            Timer::after(PAUSE).await;
        }
    }

    fn add(&self, count: usize) {
        self.counter.add(count);
        self.count.set(self.count.get() + count as u64);
    }

    fn refuse(&self, pair: &OwnedTerm, bytes_max: u64) {
        let refused = &mut *self.refused.borrow_mut();
        refused.count += 1;
        refused.bytes_max = bytes_max;
        if refused.first.len() < TOLD_MAX
            && let Some([key, value]) = pair.view().as_tuple::<2>()
        {
            let bytes = key.bytes().len() + value.bytes().len();
            refused.first.push(format!("\n  {} ({bytes} bytes)", key_text(key.bytes())));
        }
    }

    /// All was put that could be.
    ///
    /// # Errors
    /// The store has refused some entries: how many, and which.
    pub(super) fn finish(&self) -> Result<u64, CliError> {
        let Refused { count, first, bytes_max } = &*self.refused.borrow();
        if *count == 0 {
            return Ok(self.count());
        }
        let more = count.saturating_sub(first.len() as u64);
        let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
        let verb = if *count == 1 { "was" } else { "were" };
        Err(CliError::Failed(format!(
            "{} {verb} not put, as the store takes {bytes_max} bytes of key and value; {} were put. Not put:{}{more}",
            counted(*count),
            self.count(),
            first.concat(),
        )))
    }
}

/// What a store says of a write.
enum Answer {
    Done,
    /// It names more keys than this.
    TooMany(usize),
    /// It has more bytes than this.
    TooLarge(u64),
    Other,
}

impl Answer {
    fn of(answer: &OwnedTerm) -> Self {
        if answer.view().is_atom("ok") {
            return Self::Done;
        }
        let Some([word, most]) = refusal(answer.view()).and_then(|reason| reason.as_tuple::<2>()) else {
            return Self::Other;
        };
        match most.as_unsigned() {
            Some(most) if word.is_atom("too_many") => {
                Self::TooMany(usize::try_from(most).unwrap_or(usize::MAX))
            }
            Some(most) if word.is_atom("too_large") => Self::TooLarge(most),
            _ => Self::Other,
        }
    }
}

/// Refusals of a store that may take the same a moment later. Behind `unknown` it may have been put.
const PASSING: [&str; 3] = ["unavailable", "unknown", "no_primary"];

fn is_passing(answer: &OwnedTerm) -> bool {
    refusal(answer.view()).is_some_and(|reason| PASSING.iter().any(|word| reason.is_atom(word)))
}

/// A refusal, for people.
fn refused(answer: &OwnedTerm) -> NotPut {
    let is_unknown = refusal(answer.view()).is_some_and(|reason| reason.is_atom("unknown"));
    let error = CliError::Failed(match refusal(answer.view()) {
        Some(reason) if reason.is_atom("no_space") => NO_SPACE.to_owned(),
        Some(_) if is_passing(answer) => format!(
            "the store takes nothing, for {} s now: it answers {}. kvnode status of it says more, and of a store in etcd kvnode doctor --etcd",
            PATIENCE.as_secs(),
            text(answer.view())
        ),
        Some(reason) => match reason.as_tuple::<2>() {
            Some([word, primary]) if word.is_atom("slave_of") => {
                format!("the store is a slave: import into its primary, {}", text(primary))
            }
            _ => format!("it answers {}", text(answer.view())),
        },
        None => format!("it answers {}", text(answer.view())),
    });
    if is_unknown { NotPut::Unknown(error) } else { NotPut::Refused(error) }
}

/// What is to be done where a store is full.
const NO_SPACE: &str = "the store is full. In etcd its members are to be compacted and defragmented, or to have a larger --quota-backend-bytes, and \
    `etcdctl alarm disarm` is said then: kvnode doctor --etcd shows how full they are. In memory --memory-max says how much it may hold; on disk the \
    disk is to get room";

#[expect(clippy::disallowed_methods, reason = "a person waits by the clock of this machine")]
fn now() -> Instant {
    Instant::now()
}

fn not_sent(error: impl std::fmt::Display) -> NotPut {
    NotPut::Refused(CliError::cannot_run(error))
}

fn put_request(pairs: &[OwnedTerm]) -> Result<OwnedTerm, NotPut> {
    let request = OwnedTerm::write(|w| match pairs {
        // As large as one value may be.
        [pair] => {
            let [key, value] = pair.view().as_tuple::<2>().unwrap_or([pair.view(); 2]);
            w.tuple(3).atom("put").term(key).term(value);
        }
        pairs => {
            w.tuple(2).atom("put_many").list(pairs.len());
            pairs.iter().for_each(|pair| _ = w.term(pair.view()));
            w.nil();
        }
    });
    request.map_err(not_sent)
}
