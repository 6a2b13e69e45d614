//! What an [`Upstream`](super::Upstream) is told, and what it wants done.

use super::{Event, Promotion, Ticket};
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid, TermWriter};
use crate::replica::{CopyMark, KnownSlave, Lineage, PrimaryStanding, Refusal};

/// What a primary says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The session that it begins.
    pub session: u64,
    /// The primary's identity.
    pub lineage: Lineage,
    /// The number of its last write.
    pub seq: u64,
    /// It was started without data, and this store not by hand as its slave: it may have lost what this one holds.
    pub started_empty: bool,
    /// What it is found by, again: its names.
    pub names: Vec<ServerRef>,
    /// All its slaves.
    pub slaves: Vec<KnownSlave>,
    /// The process.
    pub pid: Pid,
}

/// What a greeting is weighed against, beside what the machine knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    /// The store has slaves.
    pub has_slaves: bool,
    /// The greeting primary is one of them.
    pub is_greeted_by_slave: bool,
    /// The store holds nothing.
    pub is_empty: bool,
    /// Several processes have the store: it follows nobody.
    pub is_shared: bool,
    /// The greeting primary has a global name that this store has.
    pub shares_name: bool,
}

/// Something that has come.
#[derive(Debug)]
pub enum Input {
    /// A primary wants the store as its slave.
    Hello(Greeting, Around),
    /// The primary asks whether everything that came before is handled.
    Ask {
        /// The session.
        session: u64,
        /// The number of the primary's last write.
        seq: u64,
    },
    /// To [`Output::Confirm`]: everything that came before it is kept, or is not.
    Kept {
        /// What was asked.
        asked: Asked,
        /// What has come of it.
        result: Result<(), NotKept>,
    },
    /// A copy or a repair begins or ends.
    Mark {
        /// The session.
        session: u64,
        /// The number of the last write before.
        seq: u64,
        /// What begins or ends.
        mark: CopyMark,
        /// Of a copy that begins: there is a place beside the store for it.
        can_put_aside: bool,
    },
    /// To [`Output::SwapIn`] and [`Output::DeleteRest`]: it is done.
    CopyIsIn {
        /// The copy's number.
        copy: u32,
    },
    /// A copy that comes into the store itself cannot become whole: its number is not kept, or what it has not brought cannot be
    /// looked for.
    CopyFailed {
        /// The copy's number.
        copy: u32,
        /// Why.
        error: NotKept,
    },
    /// The primary's slaves are these now.
    Siblings {
        /// The session.
        session: u64,
        /// These.
        slaves: Vec<KnownSlave>,
    },
    /// The store is no slave any more.
    Bye {
        /// The session.
        session: u64,
    },
    /// The store is to be the primary.
    Promote {
        /// Whether the caller is to be told what that has done.
        reports: bool,
    },
    /// An election has chosen the store to be the primary, with this term: its fence. Whatever it was before, it is promoted, and
    /// answered as a promotion is.
    Lead {
        /// Above all terms that were.
        term: u64,
    },
    /// Elections choose the primary: from now on no greeting of a term below this is taken, and nothing that came in a session of one
    /// is acknowledged. It only rises, but from [`u64::MAX`]: with that a store begins that is not told yet.
    Seal {
        /// The lowest term that is taken; [`u64::MAX`]: none is.
        floor: u64,
    },
    /// A store that finds its global name with this one.
    Offer(Pid),
    /// A slave has refused this store, the primary of an older term.
    Superseded(KnownSlave),
    /// A primary that was [watched](Output::Watch) has ended, or its node is lost, for this reason.
    PrimaryDown(Pid, OwnedTerm),
    /// A caller has a write for a store that [minds it](super::Upstream::minds_writes): before it is with the store.
    OwnWrite,
    /// The store's own slaves are these now.
    SlavesAre(Vec<KnownSlave>),
}

/// What a primary has asked: to be given back with [`Input::Kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub(super) session: u64,
    pub(super) applied: u64,
    pub(super) caught_up: bool,
}

/// Why something was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotKept {
    /// As the primary is told.
    pub why: Refusal,
    /// As people are told.
    pub error: String,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// [`Upstream::durable`](super::Upstream::durable) is to be kept, as it is when it is written; the caller that waits is
    /// answered when it is.
    Persist {
        /// What has changed.
        changed: Changed,
        /// The answer then.
        then: Option<Answer>,
    },
    /// A primary is to be watched, until it is down.
    Watch(Pid),
    /// A primary that is there is to be told that the store is in its session no more.
    Leave {
        /// The primary.
        primary: Pid,
        /// The session.
        session: u64,
    },
    /// The primary is to be told that it supersedes a store, which greeted this one: [`Input::Superseded`] there.
    HandUp {
        /// The primary.
        primary: Pid,
        /// The session in which this store is its slave.
        session: u64,
        /// The store.
        superseded: KnownSlave,
    },
    /// Slaves that have one of these names, on whatever node, or are this process, are left to the primary.
    RemoveDownstreams {
        /// The names.
        names: Vec<ServerRef>,
        /// The process.
        at: Pid,
    },
    /// The store gets a slave, unless that is itself: it is greeted once all outputs are carried out.
    AddDownstream(KnownSlave),
    /// The store follows a primary, or is copied to by one, which drops what it had itself: a caller that waits for slaves to
    /// have a write of it is told that they have not.
    GiveUp,
    /// All slaves are to be greeted anew: what they were told of the store has changed.
    RenewAll,
    /// A global name is to be the store's, now and whenever it is free.
    ClaimName(ServerRef),
    /// Global names that the primary says are its own are given up.
    ReleaseNames(Vec<ServerRef>),
    /// Everything that came before is to be kept, and [`Input::Kept`] told then: by keeping the record behind it, where
    /// there is one.
    Confirm(Asked),
    /// The question is answered later: the primary that asks is to be kept, until one of the next two comes.
    PutOff,
    /// As [`Confirm`](Self::Confirm), for a question that was put off.
    ConfirmPutOff(Asked),
    /// A question that was put off is answered.
    ReplyPutOff(Answer),
    /// What was put aside takes the place of the store's entries: then [`Input::CopyIsIn`].
    SwapIn {
        /// The copy's number.
        copy: u32,
        /// What is dropped is to be kept elsewhere.
        export: bool,
    },
    /// What the copy has not brought is to be deleted, as [`take_rest`](super::Upstream::take_rest) says: what carries another
    /// number, or none. Then [`Input::CopyIsIn`].
    DeleteRest {
        /// The copy's number.
        copy: u32,
        /// What is dropped is to be kept elsewhere.
        export: bool,
    },
    /// The caller that asked is answered.
    Reply(Answer),
    /// To be told to people.
    Log(Event),
}

/// What has changed in what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The promotion, or how the store stands to it.
    Promotion,
    /// How far a copy has come.
    Progress,
}

/// An answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `:ok`
    Ok,
    /// `{:error, reason}`
    Error(&'static str),
    /// To a greeting.
    Greeted {
        /// The store's own incarnation.
        incarnation: u64,
        /// Whose writes it has had.
        had: Option<u64>,
        /// The last of these.
        applied: u64,
        /// It was a primary with slaves until now.
        stepped_down: bool,
    },
    /// To a primary that asks: everything up to this number.
    Applied(u64),
    /// `{:ok, report}`: what a promotion has done.
    Promoted(Promotion),
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal.code())
    }
}

impl Answer {
    /// Writes it.
    pub fn write(&self, w: &mut TermWriter<'_>) {
        match self {
            Self::Ok => _ = w.atom("ok"),
            Self::Error(reason) => _ = w.tuple(2).atom("error").atom(reason),
            Self::Greeted { incarnation, had, applied, stepped_down } => {
                w.tuple(if *stepped_down { 5 } else { 4 }).atom("ok").unsigned(*incarnation);
                match had {
                    Some(incarnation) => w.unsigned(*incarnation),
                    None => w.atom("none"),
                };
                w.unsigned(*applied);
                if *stepped_down {
                    w.atom("stepped_down");
                }
            }
            Self::Applied(applied) => _ = w.tuple(2).atom("ok").unsigned(*applied),
            Self::Promoted(promotion) => {
                w.tuple(2).atom("ok");
                promotion.write(w);
            }
        }
    }
}

/// Where a write of the primary goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Nowhere: it is of no use.
    Nowhere,
    /// Into the store.
    Store(Ticket),
    /// Into what is put aside.
    Aside,
    /// Into the store, and what is there under its key, where it carries another number than the copy's and is not the same, is
    /// to be kept elsewhere.
    Exporting(Ticket),
}

/// The primary, as it is shown to people and callers.
#[derive(Clone, Copy, Debug)]
pub struct PrimaryView<'a> {
    /// What it has said of itself.
    pub greeting: &'a Greeting,
    /// How the store stands to it.
    pub standing: PrimaryStanding,
    /// The store has what the primary had after this write.
    pub applied: u64,
    /// Writes that it has taken and this store has not.
    pub lag: u64,
    /// The connection to it stands.
    pub is_there: bool,
}

impl PrimaryView<'_> {
    /// How callers get to it: by a global name where it has one.
    pub fn known_as(&self) -> ServerRef {
        let names = &self.greeting.names;
        let global = names.iter().find(|name| matches!(name, ServerRef::Global(_)));
        global.cloned().unwrap_or_else(|| ServerRef::Pid(self.greeting.pid.clone()))
    }
}
