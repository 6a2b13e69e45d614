//! What has changed lately, encoded once for all watchers: the backlog that each of them reads at its own pace.

use std::borrow::Cow;
use std::collections::VecDeque;

use ahash::RandomState;
use hashbrown::HashTable;

use super::watcher::Wants;
use crate::etf::tag::SMALL_TUPLE_EXT;
use crate::etf::{SharedBytes, TermView, TermWriter, Traits, key};
use crate::store::Value;

/// A value of so many bytes is not copied into the encoding, where the store shares it.
const SHARED_BYTES_MIN: usize = 4 << 10;

/// What an event takes beside its bytes, about.
const EVENT_BYTES: usize = 128;

/// What has become of a key.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) enum Happened<'a> {
    Put(Value<'a>),
    Delete,
    /// Its time is over.
    Expire,
    /// To all keys: they are gone.
    Clear,
}

/// An event, or an entry that is shown: what a watcher is told of a key, as it is sent.
#[derive(Debug)]
pub(in crate::kv) struct Told {
    seq: u64,
    /// The number, the word, the key and, of a put, the value, each a term: the elements of the tuple that is sent.
    elements: Box<[u8]>,
    /// Bytes of these without the value.
    without_value: usize,
    /// Bytes before the key, which goes on to there.
    before_key: usize,
    /// The value, where it is not among them.
    value: Option<SharedBytes>,
    has_value: bool,
    /// It is of all keys.
    is_clear: bool,
    /// The key in its canonical form, where that is another than what is sent.
    canonical: Option<Box<[u8]>>,
    /// Of all of it.
    traits: Traits,
    /// Of the key.
    key_traits: Traits,
}

impl Told {
    /// Of a key in its canonical form; of all keys none.
    pub(in crate::kv) fn new(seq: u64, key: &[u8], happened: Happened<'_>) -> Self {
        let sent = if key.is_empty() { Cow::Borrowed(key) } else { key::outgoing(key) };
        let value = match happened {
            Happened::Put(value) => Some(value),
            Happened::Delete | Happened::Expire | Happened::Clear => None,
        };
        let is_clear = matches!(happened, Happened::Clear);
        let shared = value.and_then(|value| value.shared).filter(|shared| shared.len() >= SHARED_BYTES_MIN);
        let copied = value.filter(|_| shared.is_none()).map_or(0, |value| value.bytes.len());
        let mut elements = Vec::with_capacity(24 + sent.len() + copied);
        let word = match happened {
            Happened::Put(_) => "put",
            Happened::Delete => "delete",
            Happened::Expire => "expire",
            Happened::Clear => "clear",
        };
        TermWriter::new(&mut elements).unsigned(seq).atom(word);
        let before_key = elements.len();
        elements.extend_from_slice(&sent);
        let without_value = elements.len();
        if let (Some(value), None) = (value, shared) {
            elements.extend_from_slice(value.bytes);
        }
        // What is not in the whole is not in the key.
        let traits_of = || TermView::parse(key).map_or(Traits::none(), TermView::traits);
        let key_traits = match value {
            Some(value) if value.traits == Traits::none() => Traits::none(),
            _ => traits_of(),
        };
        Self {
            seq,
            elements: elements.into(),
            without_value,
            value: shared.cloned(),
            has_value: value.is_some(),
            is_clear,
            canonical: matches!(sent, Cow::Owned(_)).then(|| key.into()),
            before_key,
            traits: value.map_or(key_traits, |value| value.traits.union(key_traits)),
            key_traits,
        }
    }

    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    /// The key in its canonical form.
    pub(in crate::kv) fn key(&self) -> &[u8] {
        let sent = || self.elements.get(self.before_key..self.without_value);
        self.canonical.as_deref().or_else(sent).unwrap_or_default()
    }

    /// Whether a watcher of these is told of it.
    pub(super) fn is_for(&self, wants: &Wants) -> bool {
        self.is_clear || wants.matches(self.key())
    }

    /// Bytes that it takes, about.
    pub(in crate::kv) fn bytes(&self) -> usize {
        let of = |bytes: Option<usize>| bytes.unwrap_or(0);
        let (value, canonical) =
            (self.value.as_ref().map(|v| v.len()), self.canonical.as_ref().map(|k| k.len()));
        EVENT_BYTES + self.elements.len() + of(value) + of(canonical)
    }

    /// What its receiver has to be able to decode.
    pub(super) const fn traits(&self, with_value: bool) -> Traits {
        if with_value { self.traits } else { self.key_traits }
    }

    /// Writes what is sent to a node that cannot decode the tuple: that something has happened.
    pub(super) fn write_undecodable(&self, w: &mut TermWriter<'_>) {
        w.tuple(2).unsigned(self.seq).atom("undecodable");
    }

    /// Writes the tuple that is sent. Gives what stands behind it, to end it.
    pub(super) fn write(&self, w: &mut TermWriter<'_>, with_value: bool) -> Option<SharedBytes> {
        let with_value = with_value && self.has_value;
        w.raw(&[SMALL_TUPLE_EXT, 3 + u8::from(with_value) - u8::from(self.is_clear)]);
        if with_value {
            w.raw(&self.elements);
            return self.value.clone();
        }
        w.raw(self.elements.get(..self.without_value).unwrap_or_default());
        None
    }
}

/// Where a watcher is in the backlog: behind so many events of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// What a reader of the backlog finds at a place.
pub(super) enum Found<'a> {
    Event(&'a Told),
    /// Nothing more has happened.
    End,
    /// What stood there is not kept any more.
    Gone,
}

/// What has changed lately.
#[derive(Debug)]
pub(in crate::kv) struct Log {
    events: VecDeque<Told>,
    /// Events before the first that is kept.
    before: u64,
    /// All events with higher numbers are kept.
    floor: u64,
    /// The number of the last event.
    last: u64,
    /// Where other stores give their changes the same numbers: what this store has counted to. Each change up to this number is there, or comes.
    counted: Option<u64>,
    bytes: usize,
    bounds: Bounds,
    /// Where each key stands last; only while a watcher is shown what is there.
    index: Option<Index>,
}

/// Of each key the place of its last event.
#[derive(Debug, Default)]
struct Index {
    places: HashTable<u64>,
    hasher: RandomState,
}

/// How much of it is kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) struct Bounds {
    pub events: usize,
    pub bytes: usize,
}

impl Log {
    pub(super) const fn new(bounds: Bounds) -> Self {
        let events = VecDeque::new();
        Self { events, before: 0, floor: 1, last: 1, counted: None, bytes: 0, bounds, index: None }
    }

    /// The number of the last event.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Nothing is kept, and what has happened up to this number is known.
    pub(super) fn begin_at(&mut self, seq: u64) {
        self.last = self.last.max(seq);
        self.clear();
    }

    /// Other stores give their changes the same numbers, and this one has counted to this by now.
    pub(super) fn count_to(&mut self, number: u64) {
        self.counted = self.counted.max(Some(number));
    }

    /// The next number is higher than this one. What is kept stays for its readers, and nobody begins before this number: what
    /// lies between is no number of this store.
    pub(super) fn raise(&mut self, seq: u64) {
        if seq > self.last {
            (self.last, self.floor) = (seq, seq);
        }
    }

    /// Notes that an event has a number; it is not kept.
    pub(super) fn pass(&mut self, seq: u64) {
        self.last = seq;
        self.floor = seq;
    }

    /// Adds an event, whose number is higher than the last. The oldest ones go where it is over the bounds.
    pub(super) fn push(&mut self, told: Told) {
        self.last = told.seq;
        self.bytes += told.bytes();
        self.events.push_back(told);
        if let Some(index) = &mut self.index {
            index.note(&self.events, self.before, self.events.len() - 1);
        }
        while self.events.len() > self.bounds.events
            || self.bytes > self.bounds.bytes && self.events.len() > 1
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let (Some(index), Some(told)) = (&mut self.index, self.events.front()) {
            index.forget(told.key(), self.before);
        }
        if let Some(told) = self.events.pop_front() {
            self.bytes -= told.bytes();
            self.before += 1;
            self.floor = self.floor.max(told.seq);
        }
    }

    /// Forgets all: readers find that what they want is gone.
    pub(super) fn cut(&mut self) {
        // As if an event had come and gone that nobody has read. A number that other stores give is not taken for it.
        self.last += u64::from(self.counted.is_none());
        self.before += 1;
        self.clear();
    }

    fn clear(&mut self) {
        self.before += self.events.len() as u64;
        self.events = VecDeque::new();
        (self.bytes, self.floor) = (0, self.last);
        self.index = None;
    }

    /// Behind all that has happened.
    pub(super) fn end(&self) -> Place {
        Place(self.before + self.events.len() as u64)
    }

    /// Behind the event with this number; `None`: not all that has happened since is known, or there was none with it. Where
    /// other stores give the same numbers it may be one that was given there alone.
    pub(super) fn behind(&self, seq: u64) -> Option<Place> {
        if seq < self.floor {
            return None;
        }
        let seen = self.events.partition_point(|event| event.seq <= seq);
        let is_seen =
            seen.checked_sub(1).and_then(|at| self.events.get(at)).is_some_and(|event| event.seq == seq);
        let is_counted = self.counted.is_some_and(|counted| seq <= counted.max(self.last));
        let is_known = is_seen || seq == self.floor || seq == self.last || is_counted;
        is_known.then(|| Place(self.before + seen as u64))
    }

    /// What stands at a place.
    pub(super) fn at(&self, place: Place) -> Found<'_> {
        match place.0.checked_sub(self.before) {
            None => Found::Gone,
            Some(at) => match usize::try_from(at).ok().and_then(|at| self.events.get(at)) {
                Some(told) => Found::Event(told),
                None => Found::End,
            },
        }
    }

    /// Whether a key has an event behind a place, as far as that is kept. All keys are put into an index for it, at the first time.
    pub(super) fn has_changed(&mut self, key: &[u8], since: Place) -> bool {
        let Self { events, before, index, .. } = self;
        let index = index.get_or_insert_with(|| {
            let mut index = Index::default();
            (0..events.len()).for_each(|at| index.note(events, *before, at));
            index
        });
        index.last(key, events, *before).is_some_and(|place| place >= since.0)
    }

    /// Nobody is shown what is there any more.
    pub(super) fn forget_index(&mut self) {
        self.index = None;
    }

    /// Events and bytes that are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.events.len(), self.bytes)
    }
}

impl Index {
    /// The key of an event that is kept.
    fn key(events: &VecDeque<Told>, before: u64, place: u64) -> &[u8] {
        let at = usize::try_from(place - before).unwrap_or(usize::MAX);
        events.get(at).map(Told::key).unwrap_or_default()
    }

    /// A key has its last event at this one of those that are kept.
    fn note(&mut self, events: &VecDeque<Told>, before: u64, at: usize) {
        let Self { places, hasher } = self;
        let place = before + at as u64;
        let key = Self::key(events, before, place);
        let hash = hasher.hash_one(key);
        match places.find_mut(hash, |known| Self::key(events, before, *known) == key) {
            Some(known) => *known = place,
            None => {
                places.insert_unique(hash, place, |known| hasher.hash_one(Self::key(events, before, *known)));
            }
        }
    }

    /// The event at this place is let go.
    fn forget(&mut self, key: &[u8], place: u64) {
        if let Ok(last) = self.places.find_entry(self.hasher.hash_one(key), |known| *known == place) {
            last.remove();
        }
    }

    fn last(&self, key: &[u8], events: &VecDeque<Told>, before: u64) -> Option<u64> {
        let is_it = |known: &u64| Self::key(events, before, *known) == key;
        self.places.find(self.hasher.hash_one(key), is_it).copied()
    }
}

impl Place {
    /// Behind the event that stands there.
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    fn key(number: u64) -> Vec<u8> {
        encode(|w| _ = w.unsigned(number))
    }

    fn log(events: usize, bytes: usize) -> Log {
        let mut log = Log::new(Bounds { events, bytes });
        log.begin_at(10);
        log
    }

    fn push(log: &mut Log, seq: u64) {
        log.push(Told::new(seq, &key(seq), Happened::Delete));
    }

    fn numbers(log: &Log, mut place: Place) -> Result<Vec<u64>, ()> {
        let mut numbers = Vec::new();
        loop {
            match log.at(place) {
                Found::Event(told) => numbers.push(told.seq),
                Found::End => return Ok(numbers),
                Found::Gone => return Err(()),
            }
            place = place.next();
        }
    }

    #[test]
    fn what_is_known_since_a_number_is_shown_and_no_number_else_is_taken() {
        let mut log = log(3, usize::MAX);
        assert_eq!((log.behind(9), log.behind(11)), (None, None));
        let begin = log.behind(10).expect("nothing has happened since");
        for seq in [11, 15, 16] {
            push(&mut log, seq);
        }
        assert_eq!(numbers(&log, begin), Ok(vec![11, 15, 16]));
        let since = |log: &Log, seq| log.behind(seq).map(|place| numbers(log, place).expect("it is kept"));
        assert_eq!(since(&log, 11), Some(vec![15, 16]));
        assert_eq!(since(&log, 12), None, "it has given no such number");
        assert_eq!(since(&log, 16), Some(vec![]));
        push(&mut log, 17);
        assert_eq!(numbers(&log, begin), Err(()), "the oldest is gone");
        assert_eq!((since(&log, 10), since(&log, 11)), (None, Some(vec![15, 16, 17])));
        let end = log.end();
        log.cut();
        assert_eq!(numbers(&log, end), Err(()), "a reader of all that there was is told, too");
        assert_eq!((since(&log, 17), since(&log, 18)), (None, Some(vec![])));
    }

    #[test]
    fn a_number_that_another_store_gave_is_taken_where_all_behind_it_is_kept() {
        let mut log = log(3, usize::MAX);
        log.count_to(20);
        let since = |log: &Log, seq| log.behind(seq).map(|place| numbers(log, place).expect("it is kept"));
        for seq in [12, 15, 18] {
            push(&mut log, seq);
        }
        assert_eq!([9, 21].map(|seq| since(&log, seq)), [None, None], "one is too old, and one not counted");
        assert_eq!([10, 11].map(|seq| since(&log, seq)), [(); 2].map(|()| Some(vec![12, 15, 18])));
        assert_eq!([13, 16].map(|seq| since(&log, seq)), [Some(vec![15, 18]), Some(vec![18])]);
        assert_eq!([18, 20].map(|seq| since(&log, seq)), [Some(vec![]), Some(vec![])]);
        push(&mut log, 25);
        assert_eq!(
            (since(&log, 11), since(&log, 12), since(&log, 23)),
            (None, Some(vec![15, 18, 25]), Some(vec![25]))
        );
        log.cut();
        assert_eq!(
            (log.last(), since(&log, 24)),
            (25, None),
            "no number is taken that another store may give"
        );
    }

    #[test]
    fn the_last_event_of_each_key_is_known_while_it_is_kept() {
        let mut log = log(4, usize::MAX);
        let begin = log.end();
        let happened = |log: &mut Log, seq, number| log.push(Told::new(seq, &key(number), Happened::Delete));
        happened(&mut log, 11, 1);
        happened(&mut log, 12, 2);
        let between = log.end();
        let changed = |log: &mut Log, since| [1, 2, 3].map(|number| log.has_changed(&key(number), since));
        assert_eq!(changed(&mut log, begin), [true, true, false]);
        assert_eq!(changed(&mut log, between), [false; 3]);
        happened(&mut log, 13, 1);
        happened(&mut log, 14, 3);
        assert_eq!(changed(&mut log, between), [true, false, true]);
        for seq in 15..18 {
            happened(&mut log, seq, 9);
        }
        assert_eq!(log.kept().0, 4);
        assert_eq!(changed(&mut log, begin), [false, false, true], "the others are not kept");
        log.forget_index();
        assert_eq!(changed(&mut log, begin), [false, false, true]);
        log.cut();
        assert_eq!(changed(&mut log, begin), [false; 3]);
    }

    #[test]
    fn it_is_bounded_in_bytes_but_for_one_event() {
        let large = encode(|w| _ = w.binary(&[7; 1000]));
        let mut log = log(usize::MAX, 3000);
        for seq in 11..20 {
            log.push(Told::new(seq, &key(seq), Happened::Put(Value::of(&large, Traits::none()))));
            assert!(log.kept().1 <= 3000);
        }
        assert_eq!(log.kept().0, 2);
        let larger = encode(|w| _ = w.binary(&[7; 5000]));
        log.push(Told::new(20, &key(20), Happened::Put(Value::of(&larger, Traits::none()))));
        assert_eq!(log.kept().0, 1);
    }

    #[test]
    fn a_put_is_encoded_once_and_sent_with_its_value_or_without() {
        let value = SharedBytes::from(encode(|w| _ = w.binary(&[7; SHARED_BYTES_MIN])));
        let shared = Value { shared: Some(&value), ..Value::of(&value, Traits::none()) };
        for value in [shared, Value::of(&key(7), Traits::none())] {
            let told = Told::new(12, &key(1), Happened::Put(value));
            assert_eq!(told.key(), key(1));
            let mut bytes = Vec::new();
            let ending = told.write(&mut TermWriter::new(&mut bytes), true);
            assert_eq!(ending.is_some(), value.shared.is_some());
            bytes.extend_from_slice(ending.as_deref().unwrap_or_default());
            let expected = encode(|w| _ = w.tuple(4).unsigned(12).atom("put").unsigned(1).raw(value.bytes));
            assert_eq!(bytes, expected);
            let mut bytes = Vec::new();
            assert!(told.write(&mut TermWriter::new(&mut bytes), false).is_none());
            assert_eq!(bytes, encode(|w| _ = w.tuple(3).unsigned(12).atom("put").unsigned(1)));
        }
    }
}
