//! What we wait for from other nodes: the answers of calls, the ends of processes that we monitor, and of those that
//! we had spawned.
//!
//! A wait has a reference of ours, which is the monitor's, the alias that a call is answered to, or the spawn
//! request's id. It ends once, by whatever comes first, and what comes later finds nothing.

use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::Registry;
use super::call_error::write_too_large;
use crate::distribution::TooLarge;
use crate::etf::{Cursor, OwnedTerm, Reference, ReferenceView, TermError, TermView};

/// How the wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call was answered.
    Replied(OwnedTerm),
    /// The process ended with this reason, encoded.
    Down(Vec<u8>),
    /// The spawn request was refused for this reason, encoded.
    Refused(Vec<u8>),
    /// The connection to its node is lost, or could not be set up.
    NoConnection,
    /// The answer, or the reason of the end, was over a bound and was not received.
    TooLarge(TooLarge),
}

impl Outcome {
    /// The reason in the `DOWN` message of a monitor that has ended so.
    pub(crate) fn into_reason(self) -> OwnedTerm {
        let reason = match self {
            Self::Down(reason) | Self::Refused(reason) => OwnedTerm::parse(reason).ok(),
            Self::TooLarge(size) => OwnedTerm::write(|w| write_too_large(w, &size)).ok(),
            Self::Replied(_) | Self::NoConnection => None,
        };
        reason.unwrap_or_else(|| OwnedTerm::atom("noconnection"))
    }
}

type Done = Box<dyn FnOnce(Outcome) + Send>;

struct Waiter {
    node: Arc<str>,
    /// The reference is an alias too.
    is_call: bool,
    done: Done,
}

/// A reference of ours, as a key.
type Key = [u32; 3];

/// All waits of this node, by the reference of the monitor, the call or the spawn request.
#[derive(Default)]
pub struct Waiters {
    table: Arc<Mutex<AHashMap<Key, Waiter>>>,
}

/// A wait that is under way; dropping it forgets the wait. What comes later finds nothing.
#[must_use = "dropping it forgets the wait"]
pub struct PendingCall {
    table: Arc<Mutex<AHashMap<Key, Waiter>>>,
    key: Key,
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let waiter = self.table.lock().remove(&self.key);
        // Without the lock: what it holds may hold other waits.
        drop(waiter);
    }
}

impl fmt::Debug for PendingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingCall({:?})", self.key)
    }
}

impl Waiters {
    /// Calls `done` once when the process behind `reference`, on `node`, ends. To be said before the request goes
    /// out, so that a connection that is lost meanwhile is noticed.
    pub fn expect(
        &self,
        reference: &Reference,
        node: &Arc<str>,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) {
        self.insert(reference, Waiter { node: Arc::clone(node), is_call: false, done: Box::new(done) });
    }

    /// As [`expect`](Self::expect), for a call: `reference` is the monitor's and the tag's, and an answer that
    /// carries it ends the wait too.
    pub fn expect_reply(
        &self,
        reference: &Reference,
        node: &Arc<str>,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) {
        self.insert(reference, Waiter { node: Arc::clone(node), is_call: true, done: Box::new(done) });
    }

    fn insert(&self, reference: &Reference, waiter: Waiter) {
        self.table.lock().insert(key(&reference.words), waiter);
    }

    /// No caller waits for it any more.
    pub fn cancel(&self, reference: &Reference) {
        self.table.lock().remove(&key(&reference.words));
    }

    /// A wait that began just now, to be forgotten when what this gives is dropped.
    pub fn pending(&self, reference: &Reference) -> PendingCall {
        PendingCall { table: Arc::clone(&self.table), key: key(&reference.words) }
    }

    /// How many waits there are.
    pub fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// Whether nothing is waited for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node says that it has ended. What another node says of it is not believed.
    pub fn ended(&self, reference: &ReferenceView<'_>, node: &str, outcome: impl FnOnce() -> Outcome) {
        self.end(reference, |waiter| *waiter.node == *node, outcome);
    }

    /// A message came for an alias of ours (erl_dist_protocol, "ALTACT_SIG_SEND" and "ALIAS_SEND"). Any process may send to an alias that
    /// it knows, as on a BEAM. `payload` is walked only where a caller waits for it.
    ///
    /// # Errors
    /// The sender's: the payload is no term.
    pub(super) fn alias_message(
        &self,
        alias: &ReferenceView<'_>,
        payload: &[u8],
        registry: &Registry,
    ) -> Result<(), TermError> {
        let awaited = self.table.lock().get(&key(alias.words())).is_some_and(|waiter| waiter.is_call);
        if awaited {
            self.replied(TermView::parse(payload)?, registry);
        }
        Ok(())
    }

    /// Takes a message that answers a call of ours, `{Tag, Reply}`; `false`: it is none.
    pub(super) fn replied(&self, message: TermView<'_>, registry: &Registry) -> bool {
        let mut cursor = message.cursor();
        if cursor.tuple() != Ok(2) {
            return false;
        }
        let Some(reference) = in_tag(&mut cursor) else { return false };
        if !registry.is_own(&reference) {
            return false;
        }
        let reply = || Outcome::Replied(message.tail_at(cursor).into());
        self.end(&reference, |waiter| waiter.is_call, reply);
        // A late answer is a message to nobody, not one to the process that had called.
        true
    }

    /// As [`replied`](Self::replied), for a message that was too large to be received. `beginning`: its first bytes.
    pub(super) fn reply_skipped(&self, beginning: &[u8], size: TooLarge, registry: &Registry) -> bool {
        let mut cursor = Cursor::new(beginning);
        if cursor.tuple() != Ok(2) {
            return false;
        }
        let reference = in_tag(&mut cursor).filter(|reference| registry.is_own(reference));
        let Some(reference) = reference else { return false };
        self.end(&reference, |waiter| waiter.is_call, || Outcome::TooLarge(size));
        true
    }

    fn end(
        &self,
        reference: &ReferenceView<'_>,
        is_meant: impl FnOnce(&Waiter) -> bool,
        outcome: impl FnOnce() -> Outcome,
    ) {
        let key = key(reference.words());
        let waiter = {
            let mut table = self.table.lock();
            match table.get(&key) {
                Some(waiter) if is_meant(waiter) => table.remove(&key),
                _ => None,
            }
        };
        if let Some(waiter) = waiter {
            (waiter.done)(outcome());
        }
    }

    /// The node cannot be reached: everything that waits for it ends.
    pub fn node_down(&self, node: &str) {
        self.take(node).tell();
    }

    /// The same in two steps: takes everything out that waits for a node, which is told by [`Unreached::tell`].
    pub fn take(&self, node: &str) -> Unreached {
        Unreached(self.table.lock().extract_if(|_, waiter| *waiter.node == *node).collect())
    }
}

/// What waited for a node that cannot be reached.
#[must_use = "it waits until it is told"]
pub struct Unreached(Vec<(Key, Waiter)>);

impl Unreached {
    /// Tells it so.
    pub fn tell(self) {
        let Self(mut ended) = self;
        // The same each time, and not in the table's order.
        ended.sort_unstable_by_key(|(key, _)| *key);
        for (_, waiter) in ended {
            (waiter.done)(Outcome::NoConnection);
        }
    }
}

impl fmt::Debug for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unreached({})", self.0.len())
    }
}

/// The reference in a tag of ours: `Ref`, or `[alias | Ref]` (stdlib, gen.erl, do_call/4).
fn in_tag<'a>(cursor: &mut Cursor<'a>) -> Option<ReferenceView<'a>> {
    if let Ok(reference) = cursor.reference() {
        return Some(reference);
    }
    if cursor.list().ok()? != 1 || cursor.atom().ok()? != "alias" {
        return None;
    }
    cursor.reference().ok()
}

fn key(words: &[u32]) -> Key {
    std::array::from_fn(|at| words.get(at).copied().unwrap_or(0))
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters").field("len", &self.table.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::TermWriter;
    use crate::etf::encode;

    /// A wait for a call, what became of it, and the registry that its reference is of.
    fn wait() -> (Registry, Waiters, Reference, Arc<Mutex<Option<Outcome>>>) {
        let (registry, waiters) = (Registry::new("k@h".into(), 5), Waiters::default());
        let reference = registry.new_reference();
        let outcome = Arc::new(Mutex::new(None));
        let told = Arc::clone(&outcome);
        waiters.expect_reply(&reference, &"m@h".into(), move |how| *told.lock() = Some(how));
        (registry, waiters, reference, outcome)
    }

    fn answer(tag: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
        encode(|w| {
            w.tuple(2);
            tag(w);
            w.atom("fine");
        })
    }

    fn say(waiters: &Waiters, registry: &Registry, message: &[u8]) -> bool {
        waiters.replied(TermView::parse(message).expect("a term"), registry)
    }

    #[test]
    fn an_answer_is_found_by_either_tag_and_taken_once() {
        for alias in [true, false] {
            let (registry, waiters, reference, outcome) = wait();
            let message = answer(|w| {
                if alias {
                    w.list(1).atom("alias");
                }
                w.reference(&reference);
            });
            assert!(say(&waiters, &registry, &message));
            assert_eq!(outcome.lock().take(), Some(Outcome::Replied(OwnedTerm::atom("fine"))));
            assert!(waiters.is_empty());
            assert!(say(&waiters, &registry, &message), "a late answer is still an answer");
            assert_eq!(*outcome.lock(), None);
        }
    }

    #[test]
    fn what_carries_no_reference_of_ours_is_no_answer() {
        let (registry, waiters, reference, outcome) = wait();
        let other = Reference { node: "m@h".into(), ..reference.clone() };
        let former = Reference { creation: 4, ..reference.clone() };
        for reference in [&other, &former] {
            assert!(!say(&waiters, &registry, &answer(|w| _ = w.reference(reference))));
        }
        assert!(!say(&waiters, &registry, &answer(|w| _ = w.atom("tag"))));
        assert!(!say(&waiters, &registry, &encode(|w| _ = w.tuple(1).reference(&reference))));
        assert!(outcome.lock().is_none());
        assert_eq!(waiters.len(), 1);
    }

    #[test]
    fn only_its_own_node_says_that_it_has_ended() {
        let (_registry, waiters, reference, outcome) = wait();
        let bytes = encode(|w| _ = w.reference(&reference));
        let view = TermView::parse(&bytes).expect("a term").as_reference().expect("a reference");
        waiters.ended(&view, "x@h", || Outcome::NoConnection);
        waiters.node_down("x@h");
        assert!(outcome.lock().is_none());
        waiters.node_down("m@h");
        assert_eq!(*outcome.lock(), Some(Outcome::NoConnection));
        assert!(waiters.is_empty());
    }
}
