//! What a [`Downstream`](super::Downstream) is told, and what it wants done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Event, Mark, PartRead, SlaveName, Standpoint};
use crate::etf::{OwnedTerm, Pid};
use crate::replica::Refusal;
use crate::replica::greeting::{GreetingAnswer, Hello};

/// How a slave is looked for.
#[derive(Debug)]
pub struct Search {
    /// The first pause of a series of searches.
    pub pause_first: Duration,
    /// The longest.
    pub pause_max: Duration,
    /// A caller waits to be told whether the process becomes a slave: see [`Output::Settle`].
    pub is_awaited: bool,
    /// Makes pauses of random length.
    pub chance: Chance,
}

/// Gives a random number below its argument.
pub struct Chance(pub Box<dyn FnMut(u32) -> u32 + Send>);

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}

/// An event for a machine to handle. An answer carries the number of its question. The machine ignores answers to earlier
/// questions, so these may come at any time.
#[derive(Debug)]
pub enum Input {
    /// The slave is looked for from now on. Comes once; before, the slave lacks everything.
    Begin(Search),
    /// To [`Output::Locate`].
    Located {
        /// The question.
        question: u64,
        /// The process with the slave's name, or why none could be looked up.
        found: Result<Whereabouts, String>,
    },
    /// To [`Output::Watch`]: the process is watched from now on, or cannot be watched.
    Watched {
        /// The question.
        question: u64,
        /// Why not.
        watched: Result<(), String>,
    },
    /// The watched process has ended. The thread that notices hands this in before another connection to that node can be made:
    /// otherwise the stream could go on over the new connection, with a gap where the old one was lost.
    Down {
        /// The question of [`Output::Watch`].
        question: u64,
        /// The exit reason; `noconnection` if the node is lost.
        reason: OwnedTerm,
    },
    /// To [`Output::AskDialect`], [`Output::Greet`] or [`Output::AskKind`].
    ///
    /// One lock for all slaves of the store is held from looking up `store` until this answer is handled and its
    /// [`Output::Drop`] and [`Output::Forget`] are carried out: the machine decides by the processes at which the other slaves
    /// are.
    Answered {
        /// The question.
        question: u64,
        /// The answer.
        answer: Answer,
        /// What the store is now.
        store: Standpoint,
    },
    /// To [`Output::Look`]: all processes that are known to have the slave's name.
    Holders {
        /// The question.
        question: u64,
        /// The processes.
        holders: Vec<Pid>,
    },
    /// While the slave's keys are read: the slave has a key that the store does not have, or cannot read.
    StrayKey {
        /// The key, in its canonical encoding.
        key: Box<[u8]>,
    },
    /// To [`Output::ReadKeys`], after all stray keys.
    KeysRead {
        /// The question.
        question: u64,
        /// The result.
        read: KeysRead,
    },
    /// To [`Output::ReadPart`].
    PartRead {
        /// The scan.
        scan: u64,
        /// The part.
        part: usize,
        /// The result.
        read: PartRead,
    },
    /// The slave's answer to [`Acknowledge::Now`](super::Acknowledge::Now): the slave has handled everything up to the mark. An
    /// error: the slave did not keep some of that, or is in no session of this store.
    Acknowledged {
        /// The mark.
        mark: Mark,
        /// What the slave says.
        kept: Result<(), Refusal>,
    },
    /// The slave may lack anything: the whole store is copied to it. Under the store's order of writes, because a kvnode's slave
    /// puts later writes aside with the copy.
    CopyAll,
    /// Greet the slave anew: the slave says that it is in no session of this store, or the store is no longer as the slave was
    /// told.
    Renew,
    /// The store's slaves have changed: tell this one.
    SiblingsChanged,
    /// Another entry of the same process is dropped. The process may still be in one of that entry's sessions, until it is greeted
    /// anew for this entry.
    TakenOver {
        /// The sessions.
        sessions: Vec<u64>,
    },
    /// Another entry streams to this process now. If this entry did before, the other one owns that history, so that the process
    /// counts once for confirmed writes.
    Elsewhere {
        /// The process.
        at: Pid,
        /// The incarnation of a kvnode's store.
        incarnation: Option<u64>,
    },
    /// The slave was removed.
    Removed,
    /// A node has come up that may have the slave, or know where it is.
    NodeArrived,
    /// The time of [`poll_timeout`](super::Downstream::poll_timeout) has come.
    Timeout,
}

/// The process that has a slave's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// No process.
    Nobody,
    /// The store itself.
    Itself,
    /// Another process.
    At(Pid),
}

/// The answer of a process, or of its node, before it is a slave.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Output::AskDialect`]: yes or no, or why there is no answer.
    Dialect(Result<bool, String>),
    /// To [`Output::Greet`].
    Greeting(GreetingAnswer),
    /// To [`Output::AskKind`]: the module of a server of another kind, `None` for a server of the protocol, or why there is no
    /// answer.
    Kind(Result<Option<String>, String>),
}

/// The result of reading a slave's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysRead {
    /// Keys that the store does not have.
    pub foreign: u64,
    /// Keys that no store of this node can have.
    pub unusable: u64,
    /// Why not all were read.
    pub error: Option<String>,
}

/// What a machine wants done, in this order. One [`Input`] answers each question. [`Unwatch`](Self::Unwatch) ends all questions
/// that are open: their answers may be left out.
#[derive(Clone, Debug)]
pub enum Output {
    /// Which process has the slave's name?
    Locate {
        /// The question.
        question: u64,
    },
    /// Connect to the process's node and monitor the process.
    Watch {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// Demonitor the process and drop all open questions, those in the slave's stream too.
    Unwatch,
    /// A greeting begins (`true`) or ends: in between the store's lineage should not change.
    Greeting(bool),
    /// Is the process on a kvnode that speaks this node's dialect?
    AskDialect {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// Greet the process.
    Greet {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
        /// What the process is told, beside the store's names.
        hello: Hello,
    },
    /// Is the process a server of the protocol?
    AskKind {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// Which processes have the slave's name now?
    Look {
        /// The question.
        question: u64,
    },
    /// The slave's stream may have something for this node.
    Feed {
        /// The node.
        node: Arc<str>,
    },
    /// Read the slave's keys, and hand those in by [`Input::StrayKey`] that the store does not have.
    ReadKeys {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// Read the keys that a part of the store had at this write.
    ReadPart {
        /// The scan that wants them.
        scan: u64,
        /// The part.
        part: usize,
        /// The write's number.
        since: u64,
    },
    /// Call [`Downstream::repair`](super::Downstream::repair) under the store's order of writes.
    Repair,
    /// Tell a kvnode's store of all slaves: [`write_siblings`](crate::replica::dialect::write_siblings).
    TellSiblings {
        /// The process.
        at: Pid,
        /// The session.
        session: u64,
    },
    /// Tell the former slave, for each session that it may be in, that it is none any more, if its node is connected:
    /// [`write_bye`](crate::replica::dialect::write_bye).
    Bye {
        /// The process.
        at: Pid,
        /// The sessions.
        sessions: Vec<u64>,
    },
    /// The same, unless another entry streams to the process: that entry then [takes the sessions over](Input::TakenOver), because
    /// only the process knows which of them is in force.
    Part {
        /// The process.
        at: Pid,
        /// The incarnation of the kvnode's store there, where that is known.
        incarnation: Option<u64>,
        /// The sessions.
        sessions: Vec<u64>,
    },
    /// [Remove](Input::Removed) another entry of the same process.
    Drop {
        /// Its name.
        name: SlaveName,
    },
    /// Tell all other entries that this one streams to the process: [`Input::Elsewhere`].
    Forget {
        /// The process.
        at: Pid,
        /// The incarnation of a kvnode's store.
        incarnation: Option<u64>,
    },
    /// This slave is a former primary. Elixir slaves do not tell one primary from another, and the last writes of the former one
    /// may have reached them after writes of this store: hand [`Input::CopyAll`] to all other entries that are
    /// [unnumbered](super::Downstream::is_unnumbered).
    CopyOthers,
    /// The slave is on another node than before: hand [`Input::SiblingsChanged`] to the other entries, and keep the store's record
    /// of its slaves. A slave that is promoted later looks for the others there.
    Moved,
    /// The entry was dropped, as the process cannot be a slave: keep the store's record of its slaves.
    SlavesChanged,
    /// Answer the caller that added the slave: `None` is success. Comes once, if a caller waits.
    Settle(Option<Refusal>),
    /// The slave is up to date. If it is a former primary, it gives up its names in `global`.
    UpToDate,
    /// Log an event.
    Log(Event),
}

impl Output {
    /// Whether it continues a repair or the feed.
    pub(super) const fn goes_on(&self) -> bool {
        matches!(self, Self::Repair | Self::ReadPart { .. } | Self::Feed { .. })
    }

    /// Whether it makes sense only while the slave is streamed to.
    pub(super) const fn is_of_stream(&self) -> bool {
        self.goes_on() || matches!(self, Self::TellSiblings { .. } | Self::ReadKeys { .. })
    }
}
