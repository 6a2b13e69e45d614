//! `{:scan, options}`: the entries of a store, page by page. How far a caller has come is in the caller's hands alone.

use std::collections::VecDeque;
use std::sync::Arc;

use super::consistency::LateRead;
use super::keywords::{Keyword, Unread, keywords, pattern, prefix};
use super::{Consistency, Refusal, Unserved};
use crate::distribution::DistributionFlags;
use crate::etf::order::TermRange;
use crate::etf::pattern::Pattern;
use crate::etf::tag::NIL_EXT;
use crate::etf::{Pid, TermView, TermWriter, Traits, key};
use crate::kv::clock::Clock;
use crate::kv::figures::StoreWatch;
use crate::kv::ranked::{Ranked, rank};
use crate::kv::reason::Reason;
use crate::kv::reason::write_error;
use crate::kv::server::{KeyValueServer, undecodable};
use crate::kv::{Work, requests};
use crate::process::{Caller, OwnedCaller, Turn};
use crate::store::{Order, Owed, Page, Shows, Store, StoreError, Value, Visit};

/// Entries of a page where nothing else is said.
const ENTRIES: usize = 1000;
/// Bytes of a page where nothing else is said.
const BYTES: usize = 1 << 20;
/// Bytes of a page at most, but for one entry.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a pattern at most, of either end of a range and of a prefix: each key may be held against all of it.
pub const PATTERN_BYTES_MAX: usize = 64 << 10;
/// Bytes of a place to go on behind at most: no store gives a longer one.
const CURSOR_BYTES_MAX: usize = 64 << 10;
/// Pages that wait for a store that answers later.
const WAITING_MAX: usize = 64;

/// Pages that wait until the one before is read.
#[derive(Default)]
pub(in crate::kv) struct Pages(Ranked<rank::Alone, Waiting>);

#[derive(Default)]
struct Waiting {
    asked: VecDeque<Later>,
    /// A thread reads them at present.
    is_read: bool,
}

/// A page that is read later.
struct Later {
    asked: Asked,
    caller: OwnedCaller,
    /// Those of the caller's node, where the call came from there.
    flags: Option<DistributionFlags>,
}

/// What a caller wants to have.
struct Asked {
    entries_max: usize,
    bytes_max: usize,
    keys_only: bool,
    /// With each the time that it has left.
    shows_ttl: bool,
    pattern: Option<Pattern>,
    order: Option<Ordered>,
    consistency: Option<Consistency>,
    /// Where the page before has ended.
    cursor: Option<Box<[u8]>>,
}

/// Erlang's order of terms, and the keys of it.
struct Ordered {
    range: TermRange,
    reverse: bool,
}

/// The options of an order, as they are read.
#[derive(Default)]
struct OrderOptions<'a> {
    from: Option<TermView<'a>>,
    to: Option<TermView<'a>>,
    prefix: Option<TermRange>,
    /// Given, also as `false`: the caller wants the order.
    reverse: Option<bool>,
}

impl OrderOptions<'_> {
    /// `None`: no order is asked for.
    fn ordered(self) -> Result<Option<Ordered>, Unserved> {
        let Self { from, to, prefix, reverse } = self;
        let mut range = match prefix {
            Some(_) if from.is_some() || to.is_some() => return Err(Refusal::PrefixAndRange.into()),
            Some(range) => range,
            None if from.is_none() && to.is_none() && reverse.is_none() => return Ok(None),
            None => TermRange::default(),
        };
        if let Some(from) = from {
            range = range.from(from)?;
        }
        if let Some(to) = to {
            range = range.to(to)?;
        }
        Ok(Some(Ordered { range, reverse: reverse.unwrap_or(false) }))
    }
}

/// The time that a key has left.
#[derive(Clone, Copy)]
enum Left {
    Infinity,
    Milliseconds(u64),
}

/// What a page has.
#[derive(Default)]
struct Shown {
    entries: Vec<u8>,
    count: usize,
    traits: Traits,
}

impl Asked {
    fn read(options: TermView<'_>) -> Result<Self, Unread<'_>> {
        let mut asked = Self {
            entries_max: ENTRIES,
            bytes_max: BYTES,
            keys_only: false,
            shows_ttl: false,
            pattern: None,
            order: None,
            consistency: None,
            cursor: None,
        };
        let mut order = OrderOptions::default();
        for Keyword { name, word, value } in keywords(options)? {
            match word.as_bytes() {
                b"limit" => asked.entries_max = number(value, requests::KEYS_MAX, Refusal::TooMany)?,
                b"bytes" => asked.bytes_max = number(value, PAGE_BYTES_MAX, Refusal::TooLarge)?,
                b"keys" if value.is_atom("true") || value.is_atom("false") => {
                    asked.keys_only = value.is_atom("true");
                }
                b"ttl" if value.is_atom("true") || value.is_atom("false") => {
                    asked.shows_ttl = value.is_atom("true");
                }
                b"from" | b"to" if value.bytes().len() > PATTERN_BYTES_MAX => {
                    return Err(Refusal::TooLarge(PATTERN_BYTES_MAX).into());
                }
                b"match" => asked.pattern = Some(pattern(value)?),
                b"cursor" => {
                    let cursor = value.cursor().binary().map_err(|_| Unserved::Shape)?;
                    if cursor.len() > CURSOR_BYTES_MAX {
                        return Err(Refusal::BadCursor.into());
                    }
                    asked.cursor = Some(cursor.into());
                }
                b"consistency" => {
                    asked.consistency = Some(Consistency::read(value).ok_or(Unserved::Shape)?);
                }
                b"from" => order.from = Some(value),
                b"to" => order.to = Some(value),
                b"prefix" => order.prefix = Some(prefix(value)?),
                b"reverse" if value.is_atom("true") || value.is_atom("false") => {
                    order.reverse = Some(value.is_atom("true"));
                }
                b"keys" | b"ttl" | b"reverse" => return Err(Unserved::Shape.into()),
                _ => return Err(Unread::Option(name)),
            }
        }
        asked.order = order.ordered()?;
        Ok(asked)
    }

    fn order(&self) -> Order<'_> {
        match &self.order {
            None => Order::Any,
            Some(Ordered { range, reverse }) => Order::OfTerms { range, reverse: *reverse },
        }
    }

    /// Reads a page. It waits for a store that answers later.
    fn page(&self, store: &impl Store, clock: &Clock) -> Result<(Shown, Page), StoreError> {
        // The deadline of a key is read with its value. (Keys that are looked at just now, as they may be due, are counted alone.)
        let has_ends = || store.deadlines() > 0 || store.next_due().is_some();
        if self.keys_only && !self.shows_ttl && !has_ends() {
            let page = self.page_of(store, clock, Shows::Keys)?;
            if !has_ends() {
                return Ok(page);
            }
        }
        self.page_of(store, clock, Shows::Pairs)
    }

    fn page_of(&self, store: &impl Store, clock: &Clock, shows: Shows) -> Result<(Shown, Page), StoreError> {
        let mut shown = Shown::default();
        let page = store.page(self.order(), self.cursor.as_deref(), shows, &mut |key, value| {
            let is_past = value.is_some_and(|value| clock.is_past(value.deadline));
            if is_past || self.pattern.as_ref().is_some_and(|pattern| !pattern.matches(key)) {
                return Visit::Next;
            }
            let left = value.filter(|_| self.shows_ttl).map(|value| match value.deadline {
                0 => Left::Infinity,
                deadline => Left::Milliseconds(clock.left(deadline)),
            });
            let value = value.filter(|_| !self.keys_only);
            let len = key.len() + value.map_or(0, |value| value.bytes.len());
            if shown.count > 0 && shown.entries.len() + len > self.bytes_max {
                return Visit::Back;
            }
            shown.add(key, value, left);
            if shown.count >= self.entries_max { Visit::Enough } else { Visit::Next }
        })?;
        Ok((shown, page))
    }
}

/// A positive integer up to a bound.
fn number(term: TermView<'_>, max: usize, above: fn(usize) -> Refusal) -> Result<usize, Unserved> {
    let number = term.as_unsigned().filter(|number| *number > 0).ok_or(Unserved::Shape)?;
    usize::try_from(number).ok().filter(|number| *number <= max).ok_or_else(|| above(max).into())
}

impl Shown {
    /// Adds an entry; `None`: its value, or the time that it has left, is not wanted.
    fn add(&mut self, key: &[u8], value: Option<Value<'_>>, left: Option<Left>) {
        let traits = match value {
            Some(value) => value.traits,
            None => TermView::parse(key).map_or(Traits::none(), TermView::traits),
        };
        // As it was put, for the caller's own maps.
        let sent = key::outgoing(key);
        let mut w = TermWriter::new(&mut self.entries);
        let parts = 1 + usize::from(value.is_some()) + usize::from(left.is_some());
        if parts > 1 {
            w.tuple(parts);
        }
        w.raw(&sent);
        if let Some(value) = value {
            w.raw(value.bytes);
        }
        match left {
            Some(Left::Infinity) => _ = w.atom("infinity"),
            Some(Left::Milliseconds(left)) => _ = w.unsigned(left),
            None => {}
        }
        self.traits = self.traits.union(traits);
        self.count += 1;
    }
}

/// Writes `{entries, cursor}`, or `{entries, :done}`.
fn write_page(w: &mut TermWriter<'_>, shown: &Shown, page: &Page) {
    w.tuple(2);
    if shown.count == 0 {
        w.nil();
    } else {
        w.list(shown.count).raw(&shown.entries).raw(&[NIL_EXT]);
    }
    match page {
        Page::Behind(place) => w.binary(place),
        Page::Last | Page::Foreign | Page::Unordered => w.atom("done"),
    };
}

impl<S: Store> KeyValueServer<S> {
    pub(super) fn scan(
        &self,
        options: TermView<'_>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Unserved> {
        let asked = match Asked::read(options) {
            Ok(asked) => asked,
            Err(Unread::Unserved(unserved)) => return Err(unserved),
            Err(Unread::Option(name)) => {
                turn.reply(caller, |w| write_unknown_option(w, name, &self.watch));
                return Ok(());
            }
        };
        // One entry is shown whatever its size.
        if !turn.has_room(usize::MAX) {
            turn.wait_for_room();
            return Ok(());
        }
        let (is_linearizable, mut waits) = (self.is_linearizable(asked.consistency), Some(asked));
        let me = turn.me;
        let late = || -> LateRead<S> {
            let (asked, store) = (waits.take(), me.pid.clone());
            Box::new(move |server, caller, flags| {
                let Some(asked) = asked else { return };
                if let Some(Later { caller, .. }) = server.read_later(Later { asked, caller, flags }, store) {
                    caller.reply(&*server.dispatch, |w| Refusal::Busy.write(w, &server.watch));
                }
            })
        };
        if is_linearizable && !self.has_caught_up(options.bytes().len(), caller, turn, late) {
            return Ok(());
        }
        let Some(asked) = waits else { return Ok(()) };
        if !S::AT_ONCE {
            let flags = (caller.node() == *turn.peer).then_some(turn.flags);
            let later = Later { asked, caller: caller.to_owned(&turn.me.pid), flags };
            return match self.read_later(later, turn.me.pid.clone()) {
                None => Ok(()),
                Some(_) => Err(Refusal::Busy.into()),
            };
        }
        match asked.page(self.store(), &self.clock) {
            Err(error) => turn.reply(caller, |w| write_error(w, &error, &self.watch)),
            Ok((_, Page::Foreign)) => return Err(Refusal::BadCursor.into()),
            Ok((_, Page::Unordered)) => return Err(Refusal::Unordered.into()),
            Ok((shown, _)) if !turn.can_decode(shown.traits) => {
                turn.end_call(caller, |w| undecodable(w, &self.watch));
            }
            Ok((shown, page)) => turn.reply(caller, |w| write_page(w, &shown, &page)),
        }
        Ok(())
    }

    /// Has a page read by the process of this pid behind those that wait; gives it back where as many wait as may.
    fn read_later(&self, later: Later, store: Pid) -> Option<Later> {
        let begins = {
            let mut waiting = self.pages.0.lock();
            if waiting.asked.len() >= WAITING_MAX {
                return Some(later);
            }
            waiting.asked.push_back(later);
            !std::mem::replace(&mut waiting.is_read, true)
        };
        if begins && let Some(this) = self.this.upgrade() {
            self.follow.work(Work { store, step: Box::new(move || this.read_next()) });
        }
        None
    }

    /// Reads the next page that waits; gives whether there was one.
    fn read_next(&self) -> bool {
        let next = {
            let mut waiting = self.pages.0.lock();
            let next = waiting.asked.pop_front();
            waiting.is_read = next.is_some();
            next
        };
        let Some(Later { asked, caller, flags }) = next else { return false };
        let (dispatch, figures) = (Arc::clone(&self.dispatch), Arc::clone(&self.watch));
        // Where this ends by a fault of ours the call is answered, and the others are read by the next that is asked for.
        let _over = Over(&self.pages);
        let read = Owed::new(move |page: Result<(Shown, Page), StoreError>| match page {
            Err(error) => caller.reply(&*dispatch, |w| write_error(w, &error, &figures)),
            Ok((_, Page::Foreign)) => caller.reply(&*dispatch, |w| Refusal::BadCursor.write(w, &figures)),
            Ok((_, Page::Unordered)) => caller.reply(&*dispatch, |w| Refusal::Unordered.write(w, &figures)),
            Ok((shown, _)) if flags.is_some_and(|flags| !flags.can_decode(shown.traits)) => {
                caller.end_call(&*dispatch, |w| undecodable(w, &figures));
            }
            Ok((shown, page)) => caller.reply(&*dispatch, |w| write_page(w, &shown, &page)),
        });
        read.tell(asked.page(self.store(), &self.clock));
        true
    }
}

/// A reader that ends early leaves what waits to another.
struct Over<'a>(&'a Pages);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.lock().is_read = false;
        }
    }
}

/// Writes `{:error, {:unknown_option, name}}`.
pub(in crate::kv) fn write_unknown_option(w: &mut TermWriter<'_>, name: TermView<'_>, figures: &StoreWatch) {
    figures.count_not_done(Reason::UnknownOption);
    w.tuple(2).atom("error").tuple(2).atom(Reason::UnknownOption.code()).term(name);
}
