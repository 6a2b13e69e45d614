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
    /// Somebody waits to be told whether it is a slave: see [`Output::Settle`].
    pub is_awaited: bool,
    /// Where pauses are as long as chance has it.
    pub chance: Chance,
}

/// Gives a number below its argument by chance.
pub struct Chance(pub Box<dyn FnMut(u32) -> u32 + Send>);

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}

/// Something that has come, for a machine to handle. Answers have the number of their question: one to an earlier question
/// is ignored, so that it may come whenever it likes.
#[derive(Debug)]
pub enum Input {
    /// It is looked for from now on. Comes once; before, it lacks everything.
    Begin(Search),
    /// To [`Output::Locate`].
    Located {
        /// The question.
        question: u64,
        /// The process with the slave's name; or why that is not known.
        found: Result<Whereabouts, String>,
    },
    /// To [`Output::Watch`]: the process is watched from now on, or cannot be, for this reason.
    Watched {
        /// The question.
        question: u64,
        /// What has come of it.
        watched: Result<(), String>,
    },
    /// The process that is watched has ended. By the thread that notices that, before another connection to its node can be
    /// made: else what it is sent could go on over that one, behind what was lost with the last.
    Down {
        /// The question that it is watched for.
        question: u64,
        /// Its exit reason; `noconnection` where its node is lost.
        reason: OwnedTerm,
    },
    /// To [`Output::AskDialect`], [`Output::Greet`] or [`Output::AskKind`]. No other slave of the store is handed such an
    /// answer between the time at which `store` is looked up and the time at which this one has handled it, and the
    /// [`Output::Drop`] and [`Output::Forget`] that it wants are carried out: each sees by what processes the others are found.
    Answered {
        /// The question.
        question: u64,
        /// The answer.
        answer: Answer,
        /// What the store is now.
        store: Standpoint,
    },
    /// To [`Output::Look`]: all processes with the slave's name, as far as that is known.
    Holders {
        /// The question.
        question: u64,
        /// These.
        holders: Vec<Pid>,
    },
    /// While its keys are read: it has this one, in its canonical encoding, and the store has not, or cannot read it.
    StrayKey {
        /// The key.
        key: Box<[u8]>,
    },
    /// To [`Output::ReadKeys`], behind its stray keys.
    KeysRead {
        /// The question.
        question: u64,
        /// What has come of it.
        read: KeysRead,
    },
    /// To [`Output::ReadPart`].
    PartRead {
        /// The scan.
        scan: u64,
        /// The part.
        part: usize,
        /// What has come of it.
        read: PartRead,
    },
    /// The slave's answer to [`Acknowledge::Now`](super::Acknowledge::Now): everything up to the mark was handled by it. Or it
    /// did not keep something of that, or is in no session of this store, for this reason.
    Acknowledged {
        /// The mark.
        mark: Mark,
        /// What it says.
        kept: Result<(), Refusal>,
    },
    /// It may lack anything: everything is copied to it. Under the store's order of writes: a kvnode puts aside what is
    /// written from here on, too.
    CopyAll,
    /// It is to be greeted anew: it says that it is in no session of this store, or what it was told of the store has changed.
    Renew,
    /// It is to be told of the other slaves, which are others than it was told.
    SiblingsChanged,
    /// Another slave of the store is dropped that was the same process, and may have been greeted in these sessions: they are
    /// in force there until it is greeted anew by this one.
    TakenOver {
        /// The sessions.
        sessions: Vec<u64>,
    },
    /// Another slave of the store is followed at this process. Where this one was followed there before, what that has is the
    /// other's, and counts once.
    Elsewhere {
        /// The process.
        at: Pid,
        /// The incarnation of a kvnode's store.
        incarnation: Option<u64>,
    },
    /// It is a slave no more.
    Removed,
    /// A node has come up: it may have the slave, or know of it.
    NodeArrived,
    /// [`poll_timeout`](super::Downstream::poll_timeout) has come.
    Timeout,
}

/// The process that has a slave's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// None has.
    Nobody,
    /// It is the store itself.
    Itself,
    /// This one.
    At(Pid),
}

/// What a process, or its node, has answered before it is a slave.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Output::AskDialect`]: whether it is so, or why that is not known.
    Dialect(Result<bool, String>),
    /// To [`Output::Greet`].
    Greeting(GreetingAnswer),
    /// To [`Output::AskKind`]: the module of a server that is of another kind, or why that is not known.
    Kind(Result<Option<String>, String>),
}

/// What has come of reading a slave's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysRead {
    /// Keys that the store has not.
    pub foreign: u64,
    /// Keys that can be none here.
    pub unusable: u64,
    /// Why not all were read.
    pub error: Option<String>,
}

/// What a machine wants done, in this order. Each question is answered by one [`Input`], unless it is over before: at the
/// next [`Unwatch`](Self::Unwatch) nobody waits for an answer to anything any more.
#[derive(Clone, Debug)]
pub enum Output {
    /// Which process has the slave's name?
    Locate {
        /// The question.
        question: u64,
    },
    /// The process's node is to be connected, and the process to be watched.
    Watch {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// Nothing is watched, and no answer waited for, any more. What the slave was asked in its stream is not answered.
    Unwatch,
    /// A greeting is under way, or is no more: meanwhile the store's lineage should not change.
    Greeting(bool),
    /// Is it on a kvnode that speaks this one's dialect?
    AskDialect {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// It is to be greeted.
    Greet {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
        /// What it is told; the names of the store come to it.
        hello: Hello,
    },
    /// Is it a server of the protocol?
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
    /// Something may wait in its stream for this node.
    Feed {
        /// The node.
        node: Arc<str>,
    },
    /// Its keys are to be read, and shown by [`Input::StrayKey`] where the store has them otherwise.
    ReadKeys {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// The keys of a part of the store are to be read that were there at this write.
    ReadPart {
        /// The scan that wants them.
        scan: u64,
        /// The part.
        part: usize,
        /// The write's number.
        since: u64,
    },
    /// [`Downstream::repair`](super::Downstream::repair) is to be called, under the store's order of writes.
    Repair,
    /// A kvnode's store is to be told of all slaves: [`write_siblings`](crate::replica::dialect::write_siblings).
    TellSiblings {
        /// The process.
        at: Pid,
        /// The session.
        session: u64,
    },
    /// It is a slave no more, and to be told so for each session that it may be in, where its node is connected:
    /// [`write_bye`](crate::replica::dialect::write_bye).
    Bye {
        /// The process.
        at: Pid,
        /// The sessions.
        sessions: Vec<u64>,
    },
    /// The same, unless another slave of the store is followed there: that other [takes the sessions over](Input::TakenOver), as
    /// only the process knows which of all is in force.
    Part {
        /// The process.
        at: Pid,
        /// The incarnation of the kvnode's store there, where that is known.
        incarnation: Option<u64>,
        /// The sessions.
        sessions: Vec<u64>,
    },
    /// Another slave of the store is the same process, and [removed](Input::Removed).
    Drop {
        /// Its name.
        name: SlaveName,
    },
    /// All other slaves of the store are told that this one is followed there: [`Input::Elsewhere`].
    Forget {
        /// The process.
        at: Pid,
        /// The incarnation of a kvnode's store.
        incarnation: Option<u64>,
    },
    /// This slave is a former primary. What it had sent last to those slaves that do not tell one primary from another may have
    /// come behind what this store has sent: all [others](super::Downstream::is_unnumbered) that are such get
    /// [everything again](Input::CopyAll).
    CopyOthers,
    /// It is on another node than before: the other slaves are [told so](Input::SiblingsChanged), and what is to be known of the
    /// slaves after a restart is to be kept. One of them may be promoted, and looks for it then.
    Moved,
    /// It was dropped as it could not be one: what is to be known of the slaves after a restart is to be kept.
    SlavesChanged,
    /// Whoever had the slave added is answered. Comes once, where somebody waits.
    Settle(Option<Refusal>),
    /// It is up to date. Where it is a former primary, it gives its names in `global` up.
    UpToDate,
    /// To be told to people.
    Log(Event),
}

impl Output {
    /// It has a repair or the feed go on.
    pub(super) const fn goes_on(&self) -> bool {
        matches!(self, Self::Repair | Self::ReadPart { .. } | Self::Feed { .. })
    }

    /// It is for a slave that is followed, and for nobody once it is not.
    pub(super) const fn is_of_stream(&self) -> bool {
        self.goes_on() || matches!(self, Self::TellSiblings { .. } | Self::ReadKeys { .. })
    }
}
