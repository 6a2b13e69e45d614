//! What a [`Candidate`](super::Candidate) is told, and what it wants done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Life;
use crate::etf::Pid;

/// The key that names the holder, as it stands in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The revision of its last write.
    pub mod_revision: i64,
    /// The holder; `None`: the value is not understood.
    pub by: Option<Pid>,
    /// The lease that the key ends with; 0: none.
    pub lease: i64,
}

/// The key that names those that have held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// The revision of its last write; 0: there is no such key.
    pub mod_revision: i64,
    /// The last first.
    pub lives: Vec<Life>,
}

/// Something that has come.
#[derive(Clone, Debug)]
pub enum Input {
    /// Both keys were read.
    Keys {
        /// The revision of etcd that they were read at.
        revision: i64,
        /// `None`: there is no such key.
        held: Option<Held>,
        /// Those that have held.
        former: Former,
    },
    /// The watch tells that the key has changed.
    Held {
        /// The revision of the change.
        revision: i64,
        /// `None`: the key is gone.
        held: Option<Held>,
    },
    /// The watch tells that the other key has changed.
    Former {
        /// The revision of the change.
        revision: i64,
        /// Those that have held.
        former: Former,
    },
    /// To [`Output::Lease`].
    Granted {
        /// What was asked.
        question: u64,
        /// Its number, and until when it is held; `None`: there is none.
        lease: Option<(i64, Instant)>,
    },
    /// Until when the lease is surely held, as far as is known now; `None`: it is lost.
    LeaseUntil(Option<Instant>),
    /// To [`Output::Campaign`].
    Campaigned {
        /// What was asked.
        question: u64,
        /// What has come of it.
        answer: Campaigned,
    },
    /// To [`Output::CatchUp`].
    CaughtUp {
        /// What was asked.
        question: u64,
        /// The store has all that was written before; else it could not be read.
        is_done: bool,
    },
    /// To [`Output::Dial`]: the node is connected. [`Disconnected`](Self::Disconnected) follows.
    Connected {
        /// What was asked.
        question: u64,
        /// The creation of the node.
        creation: u32,
    },
    /// To [`Output::Dial`]: it could not be connected to.
    NotConnected {
        /// What was asked.
        question: u64,
        /// Nobody answers at its port, or its epmd does not know it. Else nothing is known of it.
        is_gone: bool,
    },
    /// The connection has ended.
    Disconnected {
        /// What was asked.
        question: u64,
    },
    /// To [`Output::GiveUp`]: it is done.
    GivenUp {
        /// What was asked.
        question: u64,
    },
    /// The process is about to end.
    Leave,
    /// Time has passed.
    Time,
}

/// The outcome of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Campaigned {
    /// The key is this candidate's.
    Won {
        /// The revision of the transaction.
        revision: i64,
    },
    /// Something has changed meanwhile.
    Lost {
        /// The revision of etcd that the keys were read at.
        revision: i64,
        /// The key.
        held: Option<Held>,
        /// The other key.
        former: Former,
    },
    /// It was not done, or it is not known.
    Failed,
}

/// A transaction that takes the key: where neither key was written since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// To be given back with the answer.
    pub question: u64,
    /// The lease that the key gets.
    pub lease: i64,
    /// The revision of the key's last write, which is compared; 0: it is not there.
    pub held_was: i64,
    /// The same of the other key.
    pub former_was: i64,
    /// What the other key gets: this candidate's life, and those before it.
    pub former: Vec<Life>,
}

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A lease is wanted. One of before is of no use any more.
    Lease {
        /// To be given back with the answer.
        question: u64,
    },
    /// The key is to be taken.
    Campaign(Campaign),
    /// The store is to read all that was written by now.
    CatchUp {
        /// To be given back with the answer.
        question: u64,
    },
    /// The names are to be registered, also over processes of these lives. Slaves are to be followed.
    Hold {
        /// Those that have held before.
        former: Vec<Life>,
    },
    /// The names are to be given up where they are this process's, and slaves are followed no more.
    GiveUp {
        /// To be given back when it is done.
        question: u64,
        /// Another that has the key.
        to: Option<Pid>,
        /// Its lease may end; else its key is gone, or another's.
        is_lease_over: bool,
        /// For so long a name is left to be registered by the other.
        patience: Duration,
    },
    /// Another process holds, or none.
    HeldBy(Option<Pid>),
    /// Another process that lives is of a node with this one's name: people are to be told. It is not known to be gone before its lease is.
    Namesake(Pid),
    /// The node is to be connected to, and watched until the connection ends. What was dialled before is not watched any more.
    Dial {
        /// To be given back with the answer, and with the end of the connection.
        question: u64,
        /// The node.
        node: Arc<str>,
    },
    /// The lease is to be revoked.
    Revoke,
    /// There is nothing more to be done.
    End,
}
