//! The requests that decide by what their keys have what these get.

use std::sync::Arc;

use super::clear::Clear;
use super::expected::Expected;
use super::many::Many;
use super::outcome::{Outcome, Reader};
use super::single::{Given, Single};
use super::transact::Transact;
use super::{BYTES_MAX, INTEGER_BYTES_MAX, KEYS_MAX, Options, Parts, Refusal, Takes, Ttl, Unserved, listed};
use crate::etf::tag::{INTEGER_EXT, LARGE_BIG_EXT, MAP_EXT, SMALL_BIG_EXT, SMALL_INTEGER_EXT};
use crate::etf::{Integer, TermView, encode};
use crate::kv::Request;
use crate::kv::clock::Clock;
use crate::kv::figures::Served;
use crate::kv::operations::operations;
use crate::kv::write::{Stamp, check_value};
use crate::process::Turn;
use crate::store::Value;

/// A request that changes keys by what is there, or several at once, or all. Each takes [options](super::WriteOptions) at its end.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'a> {
    /// `{:put_new, k, v}`: `true`, or `false` where something is there.
    PutNew {
        /// The key.
        key: TermView<'a>,
        /// The value.
        value: TermView<'a>,
    },
    /// `{:replace, k, v}`: `true`, or `false` where nothing is there.
    Replace {
        /// The key.
        key: TermView<'a>,
        /// The value.
        value: TermView<'a>,
    },
    /// `{:pop, k}`: the value that was there, which goes, or `nil`.
    Pop {
        /// The key.
        key: TermView<'a>,
    },
    /// `{:get_and_put, k, v}`: the value that was there, or `nil`.
    GetAndPut {
        /// The key.
        key: TermView<'a>,
        /// The value that comes in its place.
        value: TermView<'a>,
    },
    /// `{:update_counter, k, n}`, `{:update_counter, k, n, initial}`: the sum, which is the value now.
    UpdateCounter {
        /// The key.
        key: TermView<'a>,
        /// What is added.
        by: TermView<'a>,
        /// What it is added to where nothing is there; `None`: 0.
        initial: Option<TermView<'a>>,
    },
    /// `{:compare_and_put, k, expected, new}`: `:ok` where the key has what is expected, or `{:error, {:conflict, present}}`.
    CompareAndPut {
        /// The key.
        key: TermView<'a>,
        /// `{:value, v}`, `{:revision, r}` or `:absent`.
        expected: TermView<'a>,
        /// The value that comes in its place.
        value: TermView<'a>,
    },
    /// `{:compare_and_delete, k, expected}`: the same, and the key goes.
    CompareAndDelete {
        /// The key.
        key: TermView<'a>,
        /// As in [`CompareAndPut`](Self::CompareAndPut).
        expected: TermView<'a>,
    },
    /// `{:touch, k, ms}`: `true` where something is there, which ends so many milliseconds from now on; else `false`.
    /// `{:persist, k}`: the same, and it does not end.
    Touch {
        /// The key.
        key: TermView<'a>,
        /// How long it has.
        ttl: Ttl,
    },
    /// `{:put_many, pairs}`: `:ok`.
    PutMany {
        /// A map, or a list of `{k, v}`, of which the last counts where a key comes twice.
        pairs: TermView<'a>,
    },
    /// `{:delete_many, keys}`: `:ok`.
    DeleteMany {
        /// A list.
        keys: TermView<'a>,
    },
    /// `:clear`, `{:clear, options}`: `:ok`, and nothing is there.
    Clear,
    /// `{:transact, guards, changes}`: `{:ok, results}`, or `{:error, {:failed, guard}}`.
    Transact {
        /// What has to be so, as a list.
        guards: TermView<'a>,
        /// What is changed then, as a list.
        changes: TermView<'a>,
    },
}

impl<'a> Edit<'a> {
    operations! {
        pub(super) fn read<'a>(term, arity, operation, cursor) -> Request<'a>, KNOWN;
        (3 | 4, b"put_new") => with_options(Parts::new(cursor, arity), Takes::Ttl, |parts| {
            Some(Self::PutNew { key: parts.next()?, value: parts.next()? })
        }),
        (3 | 4, b"replace") => with_options(Parts::new(cursor, arity), Takes::Ttl, |parts| {
            Some(Self::Replace { key: parts.next()?, value: parts.next()? })
        }),
        (2 | 3, b"pop") => with_options(Parts::new(cursor, arity), Takes::NoTtl, |parts| {
            Some(Self::Pop { key: parts.next()? })
        }),
        (3 | 4, b"get_and_put") => with_options(Parts::new(cursor, arity), Takes::Ttl, |parts| {
            Some(Self::GetAndPut { key: parts.next()?, value: parts.next()? })
        }),
        (3 | 4 | 5, b"update_counter") => with_options(Parts::new(cursor, arity), Takes::Ttl, |parts| {
            let (key, by) = (parts.next()?, parts.next()?);
            Some(Self::UpdateCounter { key, by, initial: parts.next_unless_list() })
        }),
        (4 | 5, b"compare_and_put") => with_options(Parts::new(cursor, arity), Takes::Ttl, |parts| {
            let (key, expected) = (parts.next()?, parts.next()?);
            Some(Self::CompareAndPut { key, expected, value: parts.next()? })
        }),
        (3 | 4, b"compare_and_delete") => with_options(Parts::new(cursor, arity), Takes::NoTtl, |parts| {
            Some(Self::CompareAndDelete { key: parts.next()?, expected: parts.next()? })
        }),
        (2 | 3, b"put_many") => with_options(Parts::new(cursor, arity), Takes::Ttl, |parts| {
            Some(Self::PutMany { pairs: parts.next()? })
        }),
        (2 | 3, b"delete_many") => with_options(Parts::new(cursor, arity), Takes::NoTtl, |parts| {
            Some(Self::DeleteMany { keys: parts.next()? })
        }),
        (2, b"clear") => with_options(Parts::new(cursor, arity), Takes::NoTtl, |_| Some(Self::Clear)),
        (3 | 4, b"transact") => with_options(Parts::new(cursor, arity), Takes::Ttl, |parts| {
            Some(Self::Transact { guards: parts.next()?, changes: parts.next()? })
        }),
        (3 | 4, b"touch") => with_options(Parts::new(cursor, arity), Takes::NoTtl, |parts| {
            Some(Self::Touch { key: parts.next()?, ttl: Ttl::read(parts.next()?)? })
        }),
        (2 | 3, b"persist") => with_options(Parts::new(cursor, arity), Takes::NoTtl, |parts| {
            Some(Self::Touch { key: parts.next()?, ttl: Ttl::Infinity })
        }),
        _ => None,
    }

    /// What it is counted as.
    pub(super) const fn served(self) -> Served {
        match self {
            Self::PutNew { .. }
            | Self::Replace { .. }
            | Self::GetAndPut { .. }
            | Self::UpdateCounter { .. }
            | Self::CompareAndPut { .. }
            | Self::Touch { .. }
            | Self::PutMany { .. }
            | Self::Transact { .. } => Served::Put,
            Self::Pop { .. } | Self::CompareAndDelete { .. } | Self::DeleteMany { .. } | Self::Clear => {
                Served::Delete
            }
        }
    }

    /// Looks at it before the store does. `copy`: the number that what is written carries.
    pub(super) fn prepare(
        self,
        copy: u32,
        ttl: Ttl,
        clock: &Arc<Clock>,
        turn: &Turn<'_>,
    ) -> Result<Prepared<'a>, Unserved> {
        let ttl = if let Self::Touch { ttl, .. } = self { ttl } else { ttl };
        let stamp = Stamp { copy, revision: 0, deadline: clock.deadline(ttl) };
        let given = |key, value| check_value(key, value).map(|value| Given::new(value, stamp, turn));
        let (key, act) = match self {
            Self::PutNew { key, value } => (key, Act::PutNew(given(key, value)?)),
            Self::Replace { key, value } => (key, Act::Replace(given(key, value)?)),
            Self::Pop { key } => (key, Act::Pop),
            Self::GetAndPut { key, value } => (key, Act::GetAndPut(given(key, value)?)),
            Self::UpdateCounter { key, by, initial } => {
                let initial = initial.map_or(Ok(Integer::from(0)), |initial| integer(initial.bytes()))?;
                (key, Act::Add { by: integer(by.bytes())?, initial, keeps_end: ttl == Ttl::Unsaid })
            }
            Self::CompareAndPut { key, expected, value } => {
                let expected = Expected::read(expected)?;
                (key, Act::Compare { expected, then: Some(given(key, value)?) })
            }
            Self::CompareAndDelete { key, expected } => {
                (key, Act::Compare { expected: Expected::read(expected)?, then: None })
            }
            Self::Touch { key, .. } => (key, Act::Touch),
            Self::PutMany { pairs } => {
                return Ok(Prepared::Many(Many::putting(pairs, pairs_of(pairs)?, stamp)?, stamp));
            }
            Self::DeleteMany { keys } => {
                return Ok(Prepared::Many(Many::deleting(listed(keys)?)?, stamp));
            }
            Self::Clear => return Ok(Prepared::Clear(Clear::default())),
            Self::Transact { guards, changes } => {
                let with = (stamp, ttl == Ttl::Unsaid);
                return Ok(Prepared::Transact(Transact::read(guards, changes, with, clock, turn)?, stamp));
            }
        };
        let (clock, reader) = (Arc::clone(clock), Reader::of(turn));
        Ok(Prepared::Single(key, Single::new(act, key.traits(), stamp, clock, reader), stamp))
    }
}

fn with_options<'a>(
    mut parts: Parts<'a>,
    takes: Takes,
    read: impl FnOnce(&mut Parts<'a>) -> Option<Edit<'a>>,
) -> Option<Request<'a>> {
    let edit = read(&mut parts)?;
    Some(match parts.options(takes)? {
        Options::Known(options) => Request::Edit { edit, options },
        Options::Unknown(option) => Request::UnknownOption { option },
    })
}

/// What a store is asked for, with the numbers that what is written gets.
pub(super) enum Prepared<'a> {
    /// Of one key.
    Single(TermView<'a>, Single<'a>, Stamp),
    Many(Many<'a>, Stamp),
    Transact(Transact<'a>, Stamp),
    Clear(Clear),
}

/// What is done to one key.
pub(super) enum Act<'a> {
    PutNew(Given<'a>),
    Replace(Given<'a>),
    Pop,
    GetAndPut(Given<'a>),
    Add {
        by: Integer,
        initial: Integer,
        /// What is there ends when it did.
        keeps_end: bool,
    },
    /// What is there ends at another time.
    Touch,
    /// Where what is there is expected it gets the value, or goes where there is none.
    Compare {
        expected: Expected,
        then: Option<Given<'a>>,
    },
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Keep,
    /// It gets what the request has given.
    PutGiven,
    /// It gets what the request is answered.
    PutAnswer,
    /// It gets what it has, with another end.
    PutPresent,
    Delete,
}

impl Act<'_> {
    /// Decides by what is there. Gives what the caller is answered once that is done, too.
    pub(super) fn decide(&self, present: Option<Value<'_>>, reader: Reader) -> (Decision, Outcome) {
        let done = |is: bool| (if is { Decision::PutGiven } else { Decision::Keep }, Outcome::bool(is));
        let give = |decision| match reader.give(present) {
            Ok(value) => (decision, value),
            Err(outcome) => (Decision::Keep, outcome),
        };
        match self {
            Self::PutNew(_) => done(present.is_none()),
            Self::Replace(_) => done(present.is_some()),
            Self::Pop if present.is_none() => give(Decision::Keep),
            Self::Pop => give(Decision::Delete),
            Self::GetAndPut(_) => give(Decision::PutGiven),
            Self::Touch => match present {
                Some(_) => (Decision::PutPresent, Outcome::bool(true)),
                None => (Decision::Keep, Outcome::bool(false)),
            },
            Self::Add { by, initial, .. } => match sum(present.map(|value| value.bytes), by, initial) {
                Ok(sum) => (Decision::PutAnswer, Outcome::Term(sum)),
                Err(refusal) => (Decision::Keep, Outcome::Refused(refusal)),
            },
            Self::Compare { expected, .. } if !expected.is_met(present) => {
                (Decision::Keep, reader.conflict(present))
            }
            Self::Compare { then: Some(_), .. } => (Decision::PutGiven, Outcome::OK),
            Self::Compare { then: None, .. } if present.is_none() => (Decision::Keep, Outcome::OK),
            Self::Compare { then: None, .. } => (Decision::Delete, Outcome::OK),
        }
    }

    /// The value that the request has given.
    pub(super) const fn given(&self) -> Option<&Given<'_>> {
        match self {
            Self::PutNew(given) | Self::Replace(given) | Self::GetAndPut(given) => Some(given),
            Self::Compare { then, .. } => then.as_ref(),
            Self::Pop | Self::Add { .. } | Self::Touch => None,
        }
    }

    /// The same, for a store that carries it out later.
    pub(super) fn kept(&self) -> Act<'static> {
        match self {
            Self::PutNew(given) => Act::PutNew(given.kept()),
            Self::Replace(given) => Act::Replace(given.kept()),
            Self::Pop => Act::Pop,
            Self::GetAndPut(given) => Act::GetAndPut(given.kept()),
            Self::Add { by, initial, keeps_end } => {
                Act::Add { by: by.clone(), initial: initial.clone(), keeps_end: *keeps_end }
            }
            Self::Touch => Act::Touch,
            Self::Compare { expected, then } => {
                Act::Compare { expected: expected.clone(), then: then.as_ref().map(Given::kept) }
            }
        }
    }

    /// Whether what it puts in the place of what is there ends when that did.
    pub(super) const fn keeps_end(&self) -> bool {
        matches!(self, Self::Add { keeps_end: true, .. })
    }

    /// Whether nothing of it is left in the key.
    pub(super) const fn deletes(&self) -> bool {
        matches!(self, Self::Pop | Self::Compare { then: None, .. })
    }
}

/// The integer that encoded bytes are.
pub(super) fn integer(bytes: &[u8]) -> Result<Integer, Refusal> {
    // What is none is not walked: it may be long.
    let (Some(&tag), len) = (bytes.first(), bytes.len()) else { return Err(Refusal::NotAnInteger) };
    match tag {
        SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT => {}
        // The length, and the sign.
        LARGE_BIG_EXT if len > INTEGER_BYTES_MAX + 6 => return Err(Refusal::TooLarge(INTEGER_BYTES_MAX)),
        LARGE_BIG_EXT => {}
        _ => return Err(Refusal::NotAnInteger),
    }
    let integer = TermView::parse(bytes).ok().and_then(Integer::read);
    integer.ok_or(Refusal::NotAnInteger)
}

/// Whether a term is an integer, of any size.
pub(super) fn is_integer(term: TermView<'_>) -> bool {
    matches!(term.tag(), SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT | LARGE_BIG_EXT)
}

/// The sum of an integer and of what is there, which is `initial` where nothing is.
pub(super) fn sum(present: Option<&[u8]>, by: &Integer, initial: &Integer) -> Result<Vec<u8>, Refusal> {
    let sum = match present {
        None => initial.plus(by),
        Some(bytes) => integer(bytes)?.plus(by),
    };
    if sum.magnitude_bytes() > INTEGER_BYTES_MAX {
        return Err(Refusal::TooLarge(INTEGER_BYTES_MAX));
    }
    Ok(encode(|w| sum.write(w)))
}

/// The pairs of a map, or of a list of them.
fn pairs_of(pairs: TermView<'_>) -> Result<Vec<(TermView<'_>, TermView<'_>)>, Unserved> {
    if pairs.bytes().len() > BYTES_MAX {
        return Err(Refusal::TooLarge(BYTES_MAX).into());
    }
    if pairs.tag() != MAP_EXT {
        return listed(pairs)?.into_iter().map(pair_of).collect();
    }
    let mut cursor = pairs.cursor();
    let len = cursor.map()?;
    if len > KEYS_MAX {
        return Err(Refusal::TooMany(KEYS_MAX).into());
    }
    (0..len).map(|_| Ok((cursor.term()?, cursor.term()?))).collect()
}

fn pair_of(pair: TermView<'_>) -> Result<(TermView<'_>, TermView<'_>), Unserved> {
    let mut cursor = pair.cursor();
    if cursor.tuple() != Ok(2) {
        return Err(Unserved::Shape);
    }
    Ok((cursor.term()?, cursor.term()?))
}

#[cfg(test)]
mod tests;
