//! The changes of a store, as they come.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, Refusal};
use super::inbox::{End, Inbox, Next};
use super::request::{Request, Target, unknown, written};
use super::{Handle, found};
use crate::CallError;
use crate::etf::{ConvertError, OwnedTerm, TermView, atom, from_term};
use crate::node::{ProcessHandle, Watch};
use crate::within::within;

/// What of a store's changes is to be told, and from where on; [`begin`](Self::begin) has it told.
#[must_use = "nothing is watched before it is begun"]
pub struct WatchBuilder<K, V> {
    handle: Handle<K, V>,
    options: Vec<(&'static str, OwnedTerm)>,
    begins: Begins,
    unwritable: Option<ConvertError>,
}

/// Where a watch begins.
#[derive(Clone, Copy)]
enum Begins {
    Now,
    Behind(u64),
    Initial,
}

/// What a store tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent<K, V> {
    /// A key has got a value. Of what is shown first the number is the revision of the value, and these come in no order.
    Put {
        /// The number of the change.
        seq: u64,
        /// The key.
        key: K,
        /// The value; `()` where the watch is one of [keys](Handle::watch_keys).
        value: V,
    },
    /// A key was deleted, or a deletion of what was not there was asked for.
    Delete {
        /// The number of the change.
        seq: u64,
        /// The key.
        key: K,
    },
    /// A key is gone as its time was over. (A slave tells it as [deleted](Self::Delete).)
    Expire {
        /// The number of the change.
        seq: u64,
        /// The key.
        key: K,
    },
    /// All keys are gone at once, those too that the watch is not told of.
    Clear {
        /// The number of the change.
        seq: u64,
    },
    /// All that was there with this number was shown, as [`WatchBuilder::initial`] wants it. What follows are changes.
    Current {
        /// The number of the last change before.
        seq: u64,
    },
    /// Something has changed that this node cannot decode.
    Undecodable {
        /// The number of the change.
        seq: u64,
    },
    /// Changes came faster than they were taken, and some are lost: the watch is over. Watch again [from](WatchBuilder::from) the
    /// [last number](Changes::seq), or with what is there.
    Overrun,
}

impl<K, V> WatchBuilder<K, V> {
    pub(super) const fn new(handle: Handle<K, V>) -> Self {
        Self { handle, options: Vec::new(), begins: Begins::Now, unwritable: None }
    }

    pub(super) fn option(mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Self {
        match written(value) {
            Ok(term) => self.options.push((name, term)),
            Err(error) => self.unwritable = Some(error),
        }
        self
    }

    /// Those changes alone whose keys match a pattern of `:ets.match_object/2` with `:_` for any term:
    /// `.matching(&(atom("user"), atom("_")))`.
    pub fn matching(self, pattern: &(impl Serialize + ?Sized)) -> Self {
        self.option("match", pattern)
    }

    /// Those changes alone whose keys begin with the elements of a tuple, with those of a list, or with the bytes of a binary. The store
    /// needs no order for it.
    pub fn prefix(self, prefix: &(impl Serialize + ?Sized)) -> Self {
        self.option("prefix", prefix)
    }

    /// What has changed behind this number, which was told before ([`Changes::seq`]), and what changes from now on. A store that does not
    /// know all of it refuses by [`Refusal::TooOld`]. In place of [`initial`](Self::initial).
    pub const fn from(mut self, seq: u64) -> Self {
        self.begins = Begins::Behind(seq);
        self
    }

    /// What is there first, each entry as a [put](WatchEvent::Put), then [`Current`](WatchEvent::Current), then what has changed since:
    /// nothing is missed, and nothing comes twice. In place of [`from`](Self::from).
    ///
    /// A store brings its entries as fast as the connection takes them, and as many may wait as [`Changes`] has room for: more are to be
    /// taken as they come. Where each takes long, begin without this, then [scan](Handle::scan), and take the changes last: what the
    /// scan has shown of them comes again.
    pub const fn initial(mut self) -> Self {
        self.begins = Begins::Initial;
        self
    }

    /// Has it told. Once this is done every change that follows comes.
    ///
    /// # Errors
    /// See [`Error`]; [`Refusal::TooOld`], [`TooMany`](Refusal::TooMany), [`TooLarge`](Refusal::TooLarge) and
    /// [`Busy`](Refusal::Busy) for the bounds of watches; [`Error::NotKvnode`].
    pub fn begin(self) -> impl Future<Output = Result<Changes<K, V>, Error>> + Send + use<K, V> {
        let Self { handle, mut options, begins, unwritable } = self;
        let begins = match begins {
            Begins::Now => None,
            Begins::Behind(seq) => Some(("from", written(&seq))),
            Begins::Initial => Some(("initial", written(&true))),
        };
        options.extend(begins.and_then(|(name, value)| Some((name, value.ok()?))));
        async move {
            if let Some(error) = unwritable {
                return Err(CallError::Unwritable(error).into());
            }
            let limit = handle.target.timeout;
            let begun = within(limit, begin(&handle, &options)).await;
            begun.unwrap_or(Err(CallError::Timeout.into()))
        }
    }
}

/// Has a process of its own watch a store.
async fn begin<K, V>(
    handle: &Handle<K, V>,
    options: &[(&'static str, OwnedTerm)],
) -> Result<Changes<K, V>, Error> {
    let node = handle.target.client.node();
    let inbox = Inbox::new(node.limits());
    let listener = Listener(node.serve_inline(Arc::clone(&inbox) as _));
    let client = node.client_of(listener.0.pid());
    let at = client.locate(&handle.target.store).await?;
    // Before it watches: the end of the store is not missed.
    let down = Arc::clone(&inbox);
    let monitor = client.monitor_with(at.clone(), move |reason| down.end(End::Down(reason)))?;
    let options: Vec<_> = options.iter().map(|(name, value)| (atom(name), value)).collect();
    let target = Target { client, store: at.into(), ..handle.target.clone() };
    let (reference, seq) = Request::new("watch").part(&options).to(target).answer(begun).await?;
    let is_shown = options.iter().any(|(name, _)| *name == atom("initial"));
    Ok(Changes {
        inbox,
        _listener: listener,
        monitor,
        reference,
        seq: (!is_shown).then_some(seq),
        is_over: false,
        types: PhantomData,
    })
}

/// `{:ok, ref, seq}`
fn begun(answer: TermView<'_>) -> Result<(OwnedTerm, u64), Error> {
    let [_, reference, seq] = found::<3>(answer).ok_or_else(|| unknown(answer))?;
    Ok((reference.into(), from_term(seq)?))
}

/// The process that is told. It ends with this, and the store's watch with it.
struct Listener(ProcessHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.stop(&atom("normal"));
    }
}

/// The changes of a store, in the order of its writes, without a gap and each once: a [`Stream`]. Dropping it ends the watch.
///
/// It is over once it has said why, and gives `None` from there on:
///
/// - [`WatchEvent::Overrun`]: more waits to be taken here than a server with a mailbox has room for
///   ([`Limits::mailbox_messages_max`](crate::config::Limits::mailbox_messages_max)), or the node has not taken what the store tells.
/// - [`Error::Ended`]: the store has ended, or its node is lost.
/// - [`Error::Refused`]: the store cannot read what it is to show first.
///
/// A change that is no `K` and `V` is [unreadable](CallError::Unreadable), and others follow.
pub struct Changes<K, V> {
    inbox: Arc<Inbox>,
    _listener: Listener,
    monitor: Watch,
    reference: OwnedTerm,
    seq: Option<u64>,
    is_over: bool,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Changes<K, V> {
    /// The number of the last change that was taken, or the one that the watch has begun behind, to watch on
    /// [from](WatchBuilder::from); `None`: of what is there first not all was.
    pub const fn seq(&self) -> Option<u64> {
        self.seq
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> Changes<K, V> {
    /// The next change; `None`: it is over, as was said.
    ///
    /// # Errors
    /// Those that [`Changes`] names.
    pub async fn next_event(&mut self) -> Result<Option<WatchEvent<K, V>>, Error> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    /// What a message says; `None`: it is none of this watch.
    fn read(&mut self, message: TermView<'_>) -> Option<Result<WatchEvent<K, V>, Error>> {
        let [_, reference, told] = message.as_tuple::<3>()?;
        if reference.bytes() != self.reference.view().bytes() {
            return None;
        }
        if told.is_atom("overrun") {
            self.is_over = true;
            return Some(Ok(WatchEvent::Overrun));
        }
        if let Some([word, reason]) = told.as_tuple::<2>()
            && word.is_atom("error")
        {
            self.is_over = true;
            return Some(Err(Refusal::read(reason).into()));
        }
        Some(self.event(told))
    }

    fn event(&mut self, told: TermView<'_>) -> Result<WatchEvent<K, V>, Error> {
        let parts = (told.as_tuple::<2>(), told.as_tuple::<3>(), told.as_tuple::<4>());
        let (seq, word, key, value) = match parts {
            (Some([seq, word]), ..) => (seq, word, None, None),
            (_, Some([seq, word, key]), _) => (seq, word, Some(key), None),
            (.., Some([seq, word, key, value])) => (seq, word, Some(key), Some(value)),
            _ => return Err(unknown(told)),
        };
        let (seq, word) = (from_term(seq)?, word.as_atom().ok_or_else(|| unknown(told))?);
        // What is shown first has revisions, and these are in no order.
        if self.seq.is_some() || word == "current" {
            self.seq = Some(seq);
        }
        let no_value = OwnedTerm::atom("nil");
        Ok(match (word.as_bytes(), key) {
            (b"put", Some(key)) => {
                let value = value.unwrap_or_else(|| no_value.view());
                WatchEvent::Put { seq, key: from_term(key)?, value: from_term(value)? }
            }
            (b"delete", Some(key)) => WatchEvent::Delete { seq, key: from_term(key)? },
            (b"expire", Some(key)) => WatchEvent::Expire { seq, key: from_term(key)? },
            (b"clear", None) => WatchEvent::Clear { seq },
            (b"current", None) => WatchEvent::Current { seq },
            (b"undecodable", None) => WatchEvent::Undecodable { seq },
            _ => return Err(unknown(told)),
        })
    }

    /// What the end of it says.
    fn over(&mut self, end: End) -> Result<WatchEvent<K, V>, Error> {
        self.is_over = true;
        match end {
            End::Full => Ok(WatchEvent::Overrun),
            End::Stopped => Err(Error::Ended(CallError::Stopped)),
            End::Down(reason) => Err(Error::Ended(match reason.view() {
                reason if reason.is_atom("noproc") => CallError::NoProcess,
                reason if reason.is_atom("noconnection") => {
                    CallError::NodeDown(Arc::clone(self.monitor.process().node()))
                }
                _ => CallError::Exit(reason),
            })),
        }
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> Stream for Changes<K, V> {
    type Item = Result<WatchEvent<K, V>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.is_over {
            let event = match ready!(this.inbox.poll_next(cx)) {
                Next::Message(message) => this.read(message.view()),
                Next::End(end) => Some(this.over(end)),
            };
            if event.is_some() {
                return Poll::Ready(event);
            }
        }
        Poll::Ready(None)
    }
}

impl<K, V> fmt::Debug for WatchBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBuilder").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for Changes<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("store", self.monitor.process())
            .field("seq", &self.seq)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}
