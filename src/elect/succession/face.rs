//! What a [`Succession`](super::Succession) is told, and what it wants done.

use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::force::NotForced;
use super::keys::{Holds, Key};
use crate::elect::Life;
use crate::etf::Pid;

/// What does not change in the life of a store's process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The process.
    pub me: Pid,
    /// How many slaves have a write before it is confirmed: the store's `--confirm`. A caller that asks for fewer is confirmed by fewer,
    /// and an election does not wait for such a write. 0: nothing is confirmed.
    pub confirm: u32,
    /// An election does not wait for as many reports as a confirmed write needs to be surely among them.
    pub is_lossy: bool,
    /// Where no store was ever the primary it may be the first: it was configured with slaves.
    pub founds: bool,
}

/// A key as it stands in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which one.
    pub key: Key,
    /// Its value, as bytes.
    pub value: Vec<u8>,
    /// The revision of its last write.
    pub mod_revision: i64,
    /// The lease that it ends with; 0: none.
    pub lease: i64,
}

/// A key has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put(Entry),
    /// It is gone.
    Gone {
        /// Which one.
        key: Key,
        /// The revision of that.
        revision: i64,
    },
}

/// A slave of the store, as the primary's side of it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slave {
    /// Its node.
    pub node: Arc<str>,
    /// It has every write up to this one, of those that this life of the store has numbered.
    pub confirmed: u64,
    /// It lacks nothing but what is on its way: [`Downstream::is_whole`](crate::replica::Downstream::is_whole).
    pub is_in_step: bool,
}

/// Something that has come.
#[derive(Clone, Debug)]
pub enum Input {
    /// All keys were read, by a linearizable read. Comes first, and whenever the watch had to begin anew.
    Keys {
        /// The revision of etcd that they were read at.
        revision: i64,
        /// Those that are there.
        entries: Vec<Entry>,
    },
    /// etcd was wiped, or restored from an older copy: nothing that was known of the keys holds any more. They are told anew.
    RolledBack,
    /// The watch tells of changes, in their order; all of one revision come together.
    Changed(Vec<Change>),
    /// To [`Output::Lease`].
    Granted {
        /// What was asked.
        question: u64,
        /// Its number, and until when it is held; `None`: there is none.
        lease: Option<(i64, Instant)>,
    },
    /// Until when the lease is surely held, as far as is known now; `None`: it is lost.
    LeaseUntil(Option<Instant>),
    /// To [`Output::Transact`].
    Transacted {
        /// What was asked.
        question: u64,
        /// What has come of it.
        answer: Transacted,
    },
    /// To [`Output::Seal`]: nothing is acknowledged below the fence any more, and no greeting below it is taken.
    Sealed {
        /// What was asked.
        question: u64,
        /// What the store holds, looked at after that.
        holds: Holds,
        /// The term that the store knows.
        term: u64,
    },
    /// To [`Output::Lead`]: the promotion is kept, with its term; or could not be.
    Led {
        /// What was asked.
        question: u64,
        /// Else the store is not fit to be the primary now.
        is_done: bool,
    },
    /// How the store's slaves stand, whenever that has changed, and once behind each [`Output::Count`] and [`Output::StepDown`]. Of no
    /// matter where it does not lead, nor is leaving.
    Slaves {
        /// The number of the store's last write.
        seq: u64,
        /// The slaves that are kvnodes.
        slaves: Vec<Slave>,
    },
    /// A greeting, or a refusal, has told of this fence, and the store has accepted it.
    Fence(u64),
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
    /// A person wants this store to be the primary, whatever else is there and may be lost: within 4 s, or not at all. It leads then, or
    /// [`Output::NotForced`] says why it does not.
    Force,
    /// Nobody wants that any more.
    ForceWithdrawn,
    /// The process is about to end.
    Leave,
    /// Time has passed.
    Time,
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transacted {
    /// It is done.
    Done {
        /// The revision of it.
        revision: i64,
    },
    /// Something is not as it was compared: nothing was done, and the watch tells what has changed.
    Lost,
    /// It was not done, or it is not known whether it was.
    Failed,
    /// etcd does not do it: it has no space, or does not allow it.
    Refused,
}

/// A transaction: where all keys are as compared, all of it is done at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// To be given back with the answer.
    pub question: u64,
    /// Keys, and the revisions of their last writes; 0: the key is not there.
    pub compare: Vec<(Key, i64)>,
    /// What is written, in this order: key, value, and the lease that it ends with (0: none).
    pub puts: Vec<(Key, Vec<u8>, i64)>,
    /// Keys that are deleted.
    pub deletes: Vec<Key>,
}

/// The primary, as the key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The process.
    pub pid: Pid,
    /// Its fence.
    pub fence: u64,
}

/// Something that is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A lease is wanted. One of before is of no use any more.
    Lease {
        /// To be given back with the answer.
        question: u64,
    },
    /// A transaction of etcd. At most one is under way.
    Transact(Transaction),
    /// From now on the store takes greetings of this fence and above alone, and acknowledges nothing to a primary below it
    /// ([`upstream::Input::Seal`](crate::replica::upstream::Input::Seal)). Then it is looked at what the store holds
    /// ([`Holds::of`](Holds::of)). A store that has just started takes no greeting before the first of these.
    Seal {
        /// To be given back with the answer.
        question: u64,
        /// The lowest fence that is taken.
        floor: u64,
    },
    /// The store is to be the primary: it is promoted with this term
    /// ([`upstream::Input::Lead`](crate::replica::upstream::Input::Lead)), its names are registered, also over processes of `former`, and `others` are made its
    /// slaves. Writes of callers are taken once [`Succession::leads_until`](super::Succession::leads_until) says so, and none of the slaves' acknowledgements counts before
    /// [`Count`](Self::Count).
    Lead {
        /// To be given back with the answer.
        question: u64,
        /// The fence: the term of the promotion.
        fence: u64,
        /// Those that have led before.
        former: Vec<Life>,
        /// The other processes of the store that are there.
        others: Vec<Pid>,
    },
    /// Another process of the store is there while this one leads: it is to be a slave.
    Follow(Pid),
    /// The acknowledgements of the slaves on these nodes, and of no others, count for confirmed writes from now on. [`Input::Slaves`] is to be handed in
    /// behind it.
    Count(Vec<Arc<str>>),
    /// The store takes no writes of callers any more, and confirms none: callers that wait are told that theirs are not confirmed. The names are given up.
    StepDown {
        /// Another that has the key.
        to: Option<Leader>,
    },
    /// The store is not to be the primary by force any more ([`Input::Force`]), and was not made it.
    NotForced(NotForced),
    /// Another process is the primary, or none: for callers that ask.
    LedBy(Option<Leader>),
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
    /// To be told to people.
    Log(Event),
}

/// How a store stands in all this, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What it is.
    pub role: Role,
    /// Since when.
    pub since: Instant,
    /// The last fence that is known; 0: there was none.
    pub fence: u64,
    /// The process that has the key.
    pub leader: Option<Leader>,
    /// Nodes of slaves that count, as etcd has them.
    pub members: Vec<Arc<str>>,
    /// Of a choice that is under way: how many reports count, and how many are needed.
    pub round: Option<(usize, usize)>,
    /// Nodes that the choice lacks: their data may be of matter, and they are not there, or have lost it.
    pub missing: Vec<Arc<str>>,
}

/// What a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// etcd was not read yet, or nobody was ever the primary.
    Starting,
    /// Another is the primary.
    Slave,
    /// None is: the next is chosen.
    Choosing,
    /// It has the key, and is promoted.
    Promoting,
    /// It is the primary.
    Primary,
    /// It ends.
    Leaving,
}
