//! The requests that read.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use super::consistency::LateRead;
use super::keys::{Keys, Pieces, differ_by_zero};
use super::{BYTES_MAX, Consistency, Parts, Refusal, Request, Unserved, listed};
use crate::distribution::DistributionFlags;
use crate::etf::{TermView, TermWriter, Traits};
use crate::kv::KeyValueServer;
use crate::kv::clock::Clock;
use crate::kv::figures::Served;
use crate::kv::operations::operations;
use crate::kv::reason::write_error;
use crate::kv::server::{undecodable, with_canonical};
use crate::process::{Caller, OwnedCaller, Turn};
use crate::store::{ReadDone, ReadManyDone, Store, StoreError, Value};

/// A request that reads. (`{:get, k}` is [`Request::Get`](super::Request::Get).)
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// `{:get, k, options}`: the value, or `nil`.
    Get {
        /// The key.
        key: TermView<'a>,
    },
    /// `{:fetch, k}`: `{:ok, v}`, or `:error` where nothing is there.
    Fetch {
        /// The key.
        key: TermView<'a>,
    },
    /// `{:fetch_revision, k}`: `{:ok, v, revision}`, or `:error` where nothing is there.
    FetchRevision {
        /// The key.
        key: TermView<'a>,
    },
    /// `{:member, k}`: whether something is there.
    Member {
        /// The key.
        key: TermView<'a>,
    },
    /// `{:get_many, keys}`: a map of those that are there, as they are at one moment.
    GetMany {
        /// A list.
        keys: TermView<'a>,
    },
    /// `{:ttl, k}`: `{:ok, ms}` that it has from now on, `{:ok, :infinity}`, or `:error` where nothing is there.
    Ttl {
        /// The key.
        key: TermView<'a>,
    },
    /// `:count`: the number of keys.
    Count,
    /// `{:scan, options}`: `{entries, cursor}`, or `{entries, :done}`.
    Scan {
        /// A list.
        options: TermView<'a>,
    },
    /// `{:watch, options}`: `{:ok, ref, seq}`, and the caller is told of each change from there on.
    Watch {
        /// A list.
        options: TermView<'a>,
    },
    /// `{:unwatch, ref}`: `:ok`, or `{:error, :no_watch}`.
    Unwatch {
        /// As `{:watch, options}` has given it.
        reference: TermView<'a>,
    },
}

impl<'a> Lookup<'a> {
    operations! {
        pub(super) fn read<'a>(term, arity, operation, cursor) -> Request<'a>, KNOWN;
        (2, b"fetch") => Some(Self::Fetch { key: term.tail_at(cursor) }.plain()),
        (2, b"fetch_revision") => Some(Self::FetchRevision { key: term.tail_at(cursor) }.plain()),
        (2, b"ttl") => Some(Self::Ttl { key: term.tail_at(cursor) }.plain()),
        (2, b"member") => Some(Self::Member { key: term.tail_at(cursor) }.plain()),
        (2, b"watch") => Some(Self::Watch { options: term.tail_at(cursor) }.plain()),
        (2, b"unwatch") => Some(Self::Unwatch { reference: term.tail_at(cursor) }.plain()),
        (2, b"scan") => Some(Self::Scan { options: term.tail_at(cursor) }.plain()),
        (2, b"get_many") => Some(Self::GetMany { keys: term.tail_at(cursor) }.plain()),
        (3, b"get") => with_options(Parts::new(cursor, arity), |parts| Some(Self::Get { key: parts.next()? })),
        (3, b"fetch") => with_options(Parts::new(cursor, arity), |parts| Some(Self::Fetch { key: parts.next()? })),
        (3, b"fetch_revision") => with_options(Parts::new(cursor, arity), |parts| {
            Some(Self::FetchRevision { key: parts.next()? })
        }),
        (3, b"ttl") => with_options(Parts::new(cursor, arity), |parts| Some(Self::Ttl { key: parts.next()? })),
        (3, b"member") => with_options(Parts::new(cursor, arity), |parts| Some(Self::Member { key: parts.next()? })),
        (3, b"get_many") => with_options(Parts::new(cursor, arity), |parts| {
            Some(Self::GetMany { keys: parts.next()? })
        }),
        (2, b"count") => with_options(Parts::new(cursor, arity), |_| Some(Self::Count)),
        _ => None,
    }

    /// Without options.
    const fn plain(self) -> Request<'a> {
        Request::Lookup { lookup: self, consistency: None }
    }

    /// What it is counted as.
    pub(super) const fn served(self) -> Served {
        match self {
            Self::Get { .. }
            | Self::Fetch { .. }
            | Self::FetchRevision { .. }
            | Self::Member { .. }
            | Self::Ttl { .. }
            | Self::GetMany { .. } => Served::Get,
            Self::Count | Self::Scan { .. } | Self::Watch { .. } | Self::Unwatch { .. } => Served::Other,
        }
    }
}

/// Reads a request with options at its end.
fn with_options<'a>(
    mut parts: Parts<'a>,
    read: impl FnOnce(&mut Parts<'a>) -> Option<Lookup<'a>>,
) -> Option<Request<'a>> {
    let lookup = read(&mut parts)?;
    Some(match parts.consistency()? {
        Ok(consistency) => Request::Lookup { lookup, consistency },
        Err(option) => Request::UnknownOption { option },
    })
}

/// How it is answered what a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kv) enum Shape {
    /// The value, or `nil`.
    Get,
    Fetch,
    FetchRevision,
    Member,
    Ttl,
}

impl Shape {
    /// What stands before the value in the answer.
    fn begin(self, w: &mut TermWriter<'_>) {
        match self {
            Self::Get | Self::Member => {}
            Self::Fetch | Self::Ttl => _ = w.tuple(2).atom("ok"),
            Self::FetchRevision => _ = w.tuple(3).atom("ok"),
        }
    }

    /// Whether the value is a part of the answer.
    const fn has_value(self) -> bool {
        !matches!(self, Self::Member | Self::Ttl)
    }

    /// Whether that is the last of it.
    fn ends_with_value(self) -> bool {
        self != Self::FetchRevision
    }

    fn write(self, w: &mut TermWriter<'_>, value: Option<Value<'_>>, clock: &Clock) {
        match (self, value) {
            (Self::Member, value) => w.atom(if value.is_some() { "true" } else { "false" }),
            (Self::Get, None) => w.atom("nil"),
            (Self::Fetch | Self::FetchRevision | Self::Ttl, None) => w.atom("error"),
            (Self::Ttl, Some(value)) => {
                self.begin(w);
                match value.deadline {
                    0 => w.atom("infinity"),
                    deadline => w.unsigned(clock.left(deadline)),
                }
            }
            (_, Some(value)) => {
                self.begin(w);
                w.raw(value.bytes);
                match self {
                    Self::FetchRevision => w.unsigned(value.revision),
                    _ => w,
                }
            }
        };
    }
}

/// Writes a map of the keys that have something, as the caller has named them.
fn write_found(w: &mut TermWriter<'_>, named: &Pieces, found: &[Option<Value<'_>>]) {
    w.map(found.iter().flatten().count());
    for (key, value) in named.iter().zip(found) {
        if let Some(value) = value {
            w.raw(key).raw(value.bytes);
        }
    }
}

/// The bytes of an answer, and whether a node that offers these flags can decode it.
fn measure(
    named: &Pieces,
    found: &[Option<Value<'_>>],
    flags: Option<DistributionFlags>,
) -> Result<(usize, bool), Refusal> {
    let (mut bytes, mut traits) = (named.bytes(), Traits::none());
    for value in found.iter().flatten() {
        bytes += value.bytes.len();
        traits = traits.union(value.traits);
    }
    if bytes > BYTES_MAX {
        return Err(Refusal::TooLarge(BYTES_MAX));
    }
    let keys = named.iter().zip(found).filter_map(|(key, value)| value.map(|_| key));
    let decodes = flags.is_none_or(|flags| {
        // What tells OTP 27 from 26 is no flag.
        flags.can_decode(traits) && (flags.contains(DistributionFlags::ALTACT_SIG) || !differ_by_zero(keys))
    });
    Ok((bytes, decodes))
}

impl<S: Store> KeyValueServer<S> {
    /// Answers a call with what a read finds later. `flags`: those of the caller's node, where the call came from there.
    pub(in crate::kv) fn answer_later(
        &self,
        caller: OwnedCaller,
        flags: Option<DistributionFlags>,
        shape: Shape,
    ) -> ReadDone {
        let (dispatch, clock) = (Arc::clone(&self.dispatch), Arc::clone(&self.clock));
        let figures = Arc::clone(&self.watch);
        Box::new(move |found: Result<Option<Value<'_>>, StoreError>| {
            let found = found.map(|value| clock.shown(value));
            if let (Ok(Some(value)), Some(flags)) = (&found, flags)
                && shape.has_value()
                && !flags.can_decode(value.traits)
            {
                return caller.end_call(&*dispatch, |w| undecodable(w, &figures));
            }
            caller.reply(&*dispatch, |w| match found {
                Ok(value) => shape.write(w, value, &clock),
                Err(error) => write_error(w, &error, &figures),
            });
        })
    }

    pub(super) fn look_up(
        &self,
        lookup: Lookup<'_>,
        consistency: Option<Consistency>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Unserved> {
        let (key, shape) = match lookup {
            Lookup::Get { key } => (key, Shape::Get),
            Lookup::Fetch { key } => (key, Shape::Fetch),
            Lookup::FetchRevision { key } => (key, Shape::FetchRevision),
            Lookup::Ttl { key } => (key, Shape::Ttl),
            Lookup::Member { key } => (key, Shape::Member),
            Lookup::GetMany { keys } => return self.look_up_many(keys, consistency, caller, turn),
            Lookup::Count => return self.count(consistency, caller, turn),
            Lookup::Scan { options } => return self.scan(options, caller, turn),
            Lookup::Watch { options } => return self.watch(options, caller, turn),
            Lookup::Unwatch { reference } => return self.unwatch(reference, caller, turn),
        };
        self.look_up_one(key, shape, consistency, caller, turn)
    }

    fn count(
        &self,
        consistency: Option<Consistency>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Unserved> {
        let late = || -> LateRead<S> {
            Box::new(|server, caller, _| {
                caller.reply(&*server.dispatch, |w| _ = w.unsigned(server.store().len() as u64));
            })
        };
        if !self.is_linearizable(consistency) || self.has_caught_up(0, caller, turn, late) {
            turn.reply(caller, |w| _ = w.unsigned(self.store().len() as u64));
        }
        Ok(())
    }

    fn look_up_one(
        &self,
        key: TermView<'_>,
        shape: Shape,
        consistency: Option<Consistency>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Unserved> {
        with_canonical(key, |key| {
            let late = || -> LateRead<S> {
                let key: Box<[u8]> = key.into();
                Box::new(move |server, caller, flags| {
                    let done = Cell::new(Some(server.answer_later(caller, flags, shape)));
                    let done = || done.take().unwrap_or_else(|| Box::new(|_| {}));
                    server.store().get_caught_up(&key, |value| done()(Ok(value)), done);
                })
            };
            if self.is_linearizable(consistency) && !self.has_caught_up(key.len(), caller, turn, late) {
                return;
            }
            let (me, flags) = (turn.me, (caller.node() == *turn.peer).then_some(turn.flags));
            let later = || self.answer_later(caller.to_owned(&me.pid), flags, shape);
            self.store().get(key, |value| reply_one(shape, value, self, caller, turn), later);
        })?;
        Ok(())
    }

    fn look_up_many(
        &self,
        keys: TermView<'_>,
        consistency: Option<Consistency>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Unserved> {
        // A map has a key once; and its keys are to be those that the caller has said, not ours.
        let (mut named, mut gathered) = (Pieces::default(), Keys::default());
        for key in listed(keys)? {
            if let (_, true) = gathered.insert(key)? {
                named.push(key.bytes());
            }
        }
        let keys = gathered.into_pieces();
        let late = || -> LateRead<S> {
            let (named, keys) = (named.clone(), keys.clone());
            Box::new(move |server, caller, flags| {
                let done = Cell::new(Some(server.answer_many_later(named, caller, flags)));
                let done = || done.take().unwrap_or_else(|| Box::new(|_| {}));
                server.store().get_many_caught_up(&keys.slices(), |found| done()(Ok(found)), done);
            })
        };
        let held = named.held() + keys.held();
        if self.is_linearizable(consistency) && !self.has_caught_up(held, caller, turn, late) {
            return Ok(());
        }
        let (me, flags) = (turn.me, (caller.node() == *turn.peer).then_some(turn.flags));
        let later = || self.answer_many_later(named.clone(), caller.to_owned(&me.pid), flags);
        let now = |found: &[Option<Value<'_>>]| {
            let found = &shown(found, &self.clock);
            match measure(&named, found, Some(turn.flags)) {
                Err(refusal) => turn.reply(caller, |w| refusal.write(w, &self.watch)),
                Ok((_, false)) => turn.end_call(caller, |w| undecodable(w, &self.watch)),
                Ok((bytes, _)) if !turn.has_room(bytes) => turn.wait_for_room(),
                Ok(_) => turn.reply(caller, |w| write_found(w, &named, found)),
            }
        };
        self.store().get_many(&keys.slices(), now, later);
        Ok(())
    }

    fn answer_many_later(
        &self,
        named: Pieces,
        caller: OwnedCaller,
        flags: Option<DistributionFlags>,
    ) -> ReadManyDone {
        let (dispatch, clock) = (Arc::clone(&self.dispatch), Arc::clone(&self.clock));
        let figures = Arc::clone(&self.watch);
        Box::new(move |found: Result<&[Option<Value<'_>>], StoreError>| {
            let found = &match found {
                Ok(found) => shown(found, &clock),
                Err(error) => return caller.reply(&*dispatch, |w| write_error(w, &error, &figures)),
            };
            match measure(&named, found, flags) {
                Err(refusal) => caller.reply(&*dispatch, |w| refusal.write(w, &figures)),
                Ok((_, false)) => caller.end_call(&*dispatch, |w| undecodable(w, &figures)),
                Ok(_) => caller.reply(&*dispatch, |w| write_found(w, &named, found)),
            }
        })
    }
}

/// What a reader finds of several keys.
pub(super) fn shown<'f, 'v>(found: &'f [Option<Value<'v>>], clock: &Clock) -> Cow<'f, [Option<Value<'v>>]> {
    if found.iter().flatten().all(|value| value.deadline == 0) {
        return Cow::Borrowed(found);
    }
    // At one moment: of what ends together all is there, or nothing.
    let now = clock.now();
    let is_past = |value: &Value<'_>| value.deadline != 0 && value.deadline <= now;
    found.iter().map(|value| value.filter(|value| !is_past(value))).collect()
}

fn reply_one<S: Store>(
    shape: Shape,
    value: Option<Value<'_>>,
    server: &KeyValueServer<S>,
    caller: &Caller<'_>,
    turn: &mut Turn<'_>,
) {
    let clock = &server.clock;
    let value = clock.shown(value);
    match value.filter(|_| shape.has_value()) {
        Some(value) if !turn.can_decode(value.traits) => {
            turn.end_call(caller, |w| undecodable(w, &server.watch));
        }
        Some(value) if !turn.has_room(value.bytes.len()) => turn.wait_for_room(),
        Some(Value { shared: Some(shared), .. }) if shape.ends_with_value() => {
            turn.reply_ending(caller, |w| shape.begin(w), shared.clone());
        }
        _ => turn.reply(caller, |w| shape.write(w, value, clock)),
    }
}
