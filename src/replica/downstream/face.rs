//! What a [`Downstream`](super::Downstream) is told, and what it wants done.

use std::sync::Arc;

use super::Event;
use crate::etf::{OwnedTerm, Pid};
use crate::replica::greeting::{GreetingAnswer, Hello, KnownSlave};
use crate::replica::{Refusal, Source};

/// What a machine may look at while it handles an input: nothing of it is kept.
pub struct Around<'a> {
    /// The store that is replicated, which is also told of greetings that are under way, of slaves that are gone or given up.
    pub source: &'a dyn Source,
    /// Whether a process is the store itself.
    pub is_own: &'a dyn Fn(&Pid) -> bool,
    /// A number below its argument by chance.
    pub chance: &'a mut dyn FnMut(u32) -> u32,
}

/// Something that has come, for a machine to handle. Answers have the number of their question: one to an earlier question
/// is ignored, so that it may come whenever it likes.
#[derive(Clone, Debug)]
pub enum Input {
    /// To [`Output::Locate`].
    Located {
        /// The question.
        question: u64,
        /// The process with the slave's name, if there is one; or why that is not known.
        found: Result<Option<Pid>, String>,
    },
    /// To [`Output::Watch`]: the process is watched from now on, or cannot be, for this reason.
    Watched {
        /// The question.
        question: u64,
        /// What has come of it.
        watched: Result<(), String>,
    },
    /// The process that is watched has ended. The slave was told so before, at once: [`Slave::gone`](crate::replica::Slave::gone).
    /// Else what it is sent could go on over a next connection, behind what was lost with the last.
    Down {
        /// The question that it is watched for.
        question: u64,
        /// Its exit reason; `noconnection` where its node is lost.
        reason: OwnedTerm,
    },
    /// To [`Output::AskDialect`]: whether it is so, or why that is not known.
    DialectKnown {
        /// The question.
        question: u64,
        /// The answer.
        is_kvnode: Result<bool, String>,
    },
    /// To [`Output::Greet`].
    Greeted {
        /// The question.
        question: u64,
        /// The answer.
        answer: GreetingAnswer,
    },
    /// To [`Output::AskKind`]: the module of a server that is of another kind, or why that is not known.
    KindKnown {
        /// The question.
        question: u64,
        /// The answer.
        foreign: Result<Option<String>, String>,
    },
    /// To [`Output::Look`]: all processes with the slave's name, as far as that is known.
    Holders {
        /// The question.
        question: u64,
        /// These.
        holders: Vec<Pid>,
    },
    /// To [`Output::ReadKeys`].
    KeysRead {
        /// The question.
        question: u64,
        /// What has come of it.
        read: KeysRead,
    },
    /// A node has come up: it may have the slave, or know of it.
    NodeArrived,
    /// The slave's stream has something to do: see [`Slave::on_change`](crate::replica::Slave::on_change).
    Changed,
    /// [`poll_timeout`](super::Downstream::poll_timeout) has come.
    Timeout,
}

impl Input {
    /// Whether it may settle whose process a slave is. The machines of one store handle such inputs one after the other:
    /// each sees by what processes the others are found.
    pub const fn may_settle(&self) -> bool {
        matches!(self, Self::Greeted { .. } | Self::KindKnown { .. } | Self::DialectKnown { .. })
    }
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
    /// Its keys are to be shown to [`Slave::sweep_key`](crate::replica::Slave::sweep_key).
    ReadKeys {
        /// The question.
        question: u64,
        /// The process.
        at: Pid,
    },
    /// A kvnode's store is to be told of all slaves: [`write_siblings`](crate::replica::dialect::write_siblings).
    TellSiblings {
        /// The process.
        at: Pid,
        /// The session.
        session: u64,
        /// All slaves.
        slaves: Vec<KnownSlave>,
    },
    /// It is a slave no more, and to be told so for each session that it may be in, where its node is connected:
    /// [`write_bye`](crate::replica::dialect::write_bye).
    Bye {
        /// The process.
        at: Pid,
        /// The sessions.
        sessions: Vec<u64>,
    },
    /// Whoever had the slave added is answered. Comes once, where somebody waits.
    Settle(Option<Refusal>),
    /// A former primary has become a slave, and gives its names in `global` up.
    CheckNames,
    /// To be told to people.
    Log(Event),
}
