//! `kvnode watch`: the changes of a kvnode's store, as they come.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_signal::{Signal, Signals};
use clap::Args;
use serde_json::{Map, json};
use smol::Timer;
use smol::channel::{Receiver, Sender, unbounded};
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::answer::{Form, json_of, refusal, text};
use super::ask::{AskArgs, Session, ToArgs};
use super::scan::{read_early, read_late};
use super::store::Store;
use super::{CliError, log, size};
use crate::config::ServerName;
use crate::etf::{OwnedTerm, TermView};
use crate::{Caller, Client, GenServer, Turn};

/// Bytes of what waits to be printed. Beyond it the store is told to stop, and asked for the rest once these are.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Between two tries to reach a store that is lost.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(before_help = "\
EXAMPLES
  $ kvnode watch --match '{:user, :_}'
  {1043, :put, {:user, 7}, %{name: \"Manolito\"}}
  {1044, :delete, {:user, 9}}
  $ kvnode watch --initial --json | jq .key.term
  $ kvnode watch --from 1043

A line for each change, with its number, in the order of the store's writes, until Ctrl-C. If the store is lost, it is looked for,
and watched again from the last number that was printed.")]
pub(super) struct WatchArgs {
    /// Changes of keys that match this alone: a term as for scan
    #[arg(long = "match", value_name = "PATTERN", allow_hyphen_values = true)]
    pattern: Option<String>,
    /// Changes of keys that begin with a tuple's elements, with those of a list, or with the bytes of a binary
    #[arg(long, value_name = "TERM", allow_hyphen_values = true)]
    prefix: Option<String>,
    /// Begin behind the change with this number
    #[arg(long, value_name = "N", conflicts_with = "initial")]
    from: Option<u64>,
    /// Print what is there first
    #[arg(long)]
    initial: bool,
    /// Print keys without their values
    #[arg(long, help_heading = "Output")]
    no_values: bool,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

/// The process that is told.
struct Listener {
    tell: Sender<OwnedTerm>,
    /// Of what was told and is not printed.
    waiting_bytes: AtomicUsize,
    /// Something was not taken.
    is_behind: AtomicBool,
}

impl Listener {
    fn take(&self, message: TermView<'_>) {
        let bytes = message.bytes().len();
        let is_full = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > WAITING_BYTES_MAX;
        if is_full || self.tell.try_send(message.into()).is_err() {
            self.printed(bytes);
            self.is_behind.store(true, Ordering::Release);
        }
    }

    /// So much waits no more.
    fn printed(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl GenServer for Listener {
    fn handle_call(&self, _request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        turn.end_call(caller, |w| _ = w.atom("noproc"));
    }

    fn handle_cast(&self, _request: TermView<'_>, _turn: &mut Turn<'_>) {}

    fn handle_info(&self, message: TermView<'_>, _turn: &mut Turn<'_>) {
        if !self.is_behind.load(Ordering::Acquire) {
            self.take(message);
        }
    }
}

/// Why a watch is over.
enum Over {
    /// Nobody wants to see more.
    Stopped,
    /// The store is not there, or does not answer.
    Lost(String),
    /// Something was not taken in time: the rest is asked for.
    Behind,
}

pub(super) fn watch(args: WatchArgs) -> Result<(), CliError> {
    let to = args.to.name()?;
    let early = read_early([("match", "PATTERN", &args.pattern), ("prefix", "TERM", &args.prefix)])?;
    args.ask.with_lasting_session(async |session: &Session| {
        let options = read_late(early, session)?;
        let (tell, told) = unbounded();
        let (waiting_bytes, is_behind) = Default::default();
        let listener = Arc::new(Listener { tell, waiting_bytes, is_behind });
        let process = session.node.serve_inline(Arc::clone(&listener) as Arc<dyn GenServer>);
        let mut watch = Watch {
            args: &args,
            to: &to,
            session,
            client: session.node.client_of(process.pid()),
            options,
            listener,
            told,
            seq: args.from,
            is_first: true,
        };
        let mut signals =
            Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map_err(CliError::cannot_run)?;
        let stopped = async {
            signals.next().await;
            Ok(())
        };
        watch.go_on().or(stopped).await
    })
}

/// A watch, over the lives of its store.
struct Watch<'a> {
    args: &'a WatchArgs,
    to: &'a ServerName,
    session: &'a Session,
    client: Client,
    /// The terms of `match:` and `prefix:`.
    options: Vec<(&'static str, OwnedTerm)>,
    listener: Arc<Listener>,
    told: Receiver<OwnedTerm>,
    /// The number that was printed last; `None`: of what is there not all was.
    seq: Option<u64>,
    is_first: bool,
}

impl Watch<'_> {
    async fn go_on(&mut self) -> Result<(), CliError> {
        loop {
            match self.follow().await? {
                Over::Stopped => return Ok(()),
                Over::Behind => {}
                Over::Lost(why) => {
                    let behind = self.seq.map_or_else(String::new, |seq| format!(" from {seq}"));
                    log::say(&format!("{why}; the store is looked for, and watched again{behind}"));
                    while let Ok(message) = self.told.try_recv() {
                        self.listener.printed(message.view().bytes().len());
                    }
                    Timer::after(PAUSE).await;
                }
            }
        }
    }

    /// Watches the store as long as it is there.
    ///
    /// # Errors
    /// It cannot be watched at all, or stdout is gone.
    async fn follow(&mut self) -> Result<Over, CliError> {
        let (session, to) = (self.session, self.to);
        let store = match Store::find(session, to, &self.args.ask).await {
            Ok(store) => store,
            Err(error) if self.is_first => return Err(error),
            Err(error) => return Ok(Over::Lost(error.to_string())),
        };
        self.listener.is_behind.store(false, Ordering::Release);
        let request = self.request()?;
        let answer = self.client.call_term(store.at(), request.view(), session.time).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if self.is_first => return Err(session.failed(to, &error)),
            Err(error) => return Ok(Over::Lost(error.to_string())),
        };
        if refusal(answer.view()).is_some_and(|reason| reason.is_atom("too_old")) && !self.is_first {
            log::say("the store does not know what has changed since: changes were missed");
            self.seq = None;
            return Ok(Over::Behind);
        }
        if refusal(answer.view()).is_some_and(is_for_now) && !self.is_first {
            return Ok(Over::Lost(format!("the store answers {}", text(answer.view()))));
        }
        let begun = answer.view().as_tuple::<3>().filter(|[ok, ..]| ok.is_atom("ok"));
        let Some([_, reference, seq]) = begun else { return Err(refused(answer.view())) };
        self.is_first = false;
        if !(self.seq.is_none() && self.args.initial) {
            self.seq = seq.as_unsigned();
        }
        let reference = OwnedTerm::from(reference);
        let mut monitor = match self.client.monitor(store.at()).await {
            Ok(monitor) => monitor,
            Err(error) => return Ok(Over::Lost(error.to_string())),
        };
        loop {
            if self.told.is_empty() && self.listener.is_behind.load(Ordering::Acquire) {
                self.unwatch(&store, reference.view()).await;
                // Begun again, it would come to the same.
                if self.seq.is_none() {
                    return Err(CliError::Failed(format!(
                        "what is there comes faster than it is printed, and more than {} wait: print it into a file, or read it with kvnode \
                         scan",
                        size::shown(WAITING_BYTES_MAX)
                    )));
                }
                return Ok(Over::Behind);
            }
            let ended = async {
                let reason = monitor.ended().await;
                Err(text(reason.view()))
            };
            let told = self.told.recv();
            let told = async { told.await.map_err(|_| "it ends".to_owned()) }.or(ended).await;
            let message = match told {
                Ok(message) => {
                    self.listener.printed(message.view().bytes().len());
                    message
                }
                Err(reason) => return Ok(Over::Lost(format!("the store is lost ({reason})"))),
            };
            if let Some(over) = self.print(message.view(), reference.view())? {
                return Ok(over);
            }
        }
    }

    async fn unwatch(&self, store: &Store<'_>, reference: TermView<'_>) {
        let request = OwnedTerm::write(|w| _ = w.tuple(2).atom("unwatch").term(reference));
        if let Ok(request) = request {
            // What it still sends is of a watch that nobody listens to.
            _ = self.client.call_term(store.at(), request.view(), self.session.time).await;
        }
    }

    /// `{:watch, options}`
    fn request(&self) -> Result<OwnedTerm, CliError> {
        let is_initial = self.args.initial && self.seq.is_none();
        let request = OwnedTerm::write(|w| {
            let said = [self.seq.is_some(), is_initial, self.args.no_values];
            let said = said.iter().filter(|is_said| **is_said).count();
            w.tuple(2).atom("watch").list(self.options.len() + said);
            for (option, term) in &self.options {
                w.tuple(2).atom(option).term(term.view());
            }
            if let Some(seq) = self.seq {
                w.tuple(2).atom("from").unsigned(seq);
            }
            if is_initial {
                w.tuple(2).atom("initial").atom("true");
            }
            if self.args.no_values {
                w.tuple(2).atom("values").atom("false");
            }
            w.nil();
        });
        request.map_err(CliError::cannot_run)
    }

    /// Prints what the store has told; gives whether the watch is over.
    fn print(&mut self, message: TermView<'_>, reference: TermView<'_>) -> Result<Option<Over>, CliError> {
        let Some([_, of, told]) = message.as_tuple::<3>() else { return Ok(None) };
        // Of an earlier watch.
        if of.bytes() != reference.bytes() {
            return Ok(None);
        }
        if told.is_atom("overrun") {
            return Ok(Some(Over::Behind));
        }
        if let Some(reason) = refusal(told) {
            return Ok(Some(Over::Lost(format!("the store cannot be read ({})", text(reason)))));
        }
        if self.seq.is_some() || is_current(told) {
            self.seq = first_of(told);
        }
        let line = match self.args.ask.form() {
            Form::Json => json_line(told),
            _ => text(told),
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => Ok(None),
            // As `head` does once it has enough.
            Err(reason) if reason.kind() == ErrorKind::BrokenPipe => Ok(Some(Over::Stopped)),
            Err(reason) => Err(CliError::cannot_run(format!("cannot write to stdout: {reason}"))),
        }
    }
}

/// Whether a store that refuses a watch so may take the watch later.
fn is_for_now(reason: TermView<'_>) -> bool {
    reason.is_atom("busy") || reason.as_tuple::<2>().is_some_and(|[word, _]| word.is_atom("too_many"))
}

/// The elements of what a store tells.
fn elements(told: TermView<'_>) -> Vec<TermView<'_>> {
    let mut cursor = told.cursor();
    let arity = cursor.tuple().unwrap_or(0);
    (0..arity).map_while(|_| cursor.term().ok()).collect()
}

fn first_of(told: TermView<'_>) -> Option<u64> {
    elements(told).first().and_then(|seq| seq.as_unsigned())
}

fn is_current(told: TermView<'_>) -> bool {
    matches!(elements(told)[..], [_, word] if word.is_atom("current"))
}

/// `{"seq": n, "event": "put", "key": …, "value": …}`
fn json_line(told: TermView<'_>) -> String {
    let mut object = Map::new();
    for (name, element) in ["seq", "event", "key", "value"].iter().zip(elements(told)) {
        let shown = match (*name, element.as_unsigned(), element.as_atom()) {
            ("seq", Some(seq), _) => json!(seq),
            ("event", _, Some(word)) => json!(word.to_str()),
            _ => json_of(element),
        };
        object.insert((*name).to_owned(), shown);
    }
    serde_json::Value::from(object).to_string()
}

fn refused(answer: TermView<'_>) -> CliError {
    match refusal(answer) {
        Some(reason) if reason.is_atom("too_old") => CliError::Failed(
            "the store does not know what has changed since that number, or it is of another store: --initial begins with what is there"
                .into(),
        ),
        _ => CliError::Failed(format!("it answers {}", text(answer))),
    }
}
