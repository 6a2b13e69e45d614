//! The order in which frames leave a connection: small ones pass large ones, and large ones are mixed.
//!
//! ```text
//!   answers ---> fresh --.            .--> streams: one large message for each receiver --.
//!                         >-- sort --<      `- behind: what must wait for it              |  a fragment, or
//!   others' frames ------'            `--> ready  <--------------------------------------'  the whole, in turn
//!                                            |
//!                                            v  the socket
//! ```
//!
//! As long as nothing large is there, frames go from `fresh` to `ready` as they are, in order. A large message becomes a
//! *stream*. Streams take turns, each a fragment or, where [`Cut`] says so, the whole message as one frame; small frames,
//! ticks and signals go before the next fragment. The order between two processes is kept always: what may be of
//! the same pair as a stream waits behind that stream (`Course`), and so does what comes later and may be of one pair with
//! what waits there.
//!
//! Fragments (erl_dist_protocol, "Protocol for messages between Erlang nodes ... fragmentation"): the first has the whole
//! control message; all but the last are of one length; a sequence is numbered here, and is used for one message.
//!
//! What waits is counted by whose memory it is, in [`Outflow::room`]: a value that a store has anyway takes none.

mod course;
mod fragments;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use ahash::{AHashMap, AHashSet};

use super::AliasForm;
use super::frame::FrameForm;
use super::outbound::{KeptFrame, LARGE_BYTES, Outbound, ProcessNumber, Room, Segment, small_frames};
use course::{Course, Kind};
use fragments::Fragments;
use waiting::Waiting;

/// What a message that is kept by itself costs beside its bytes, about.
const KEPT_COST: usize = 512;
/// Streams are turned to when less than this is ready, in bytes: enough for a write.
const READY_BYTES: usize = 64 << 10;
/// Small frames that leave between two turns of the streams, in bytes, however many more there are.
const BETWEEN_BYTES: usize = 256 << 10;

/// Barriers of one stream that are told apart. Past them everything that comes later waits for the stream, so that what each
/// of very many frames is compared with is little.
const BARRIERS_MAX: usize = 64;

/// How large messages are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// A message of so many bytes at most goes as one frame.
    pub whole_bytes_max: usize,
    /// Bytes of a fragment.
    pub fragment_bytes: usize,
}

/// Whose memory frames take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Answers to what the peer has asked.
    Answers,
    /// What others have left for the peer.
    Others,
}

/// What waits for one peer. See the module.
#[derive(Debug)]
pub struct Outflow {
    form: FrameForm,
    bytes_max: usize,
    owned_bytes_max: usize,
    cut: Cut,
    /// Answers as they are written.
    fresh: Outbound,
    /// What leaves next, in order.
    ready: Outbound,
    /// By age: each has the number of its frame.
    streams: BTreeMap<u64, Stream>,
    /// The stream of each receiver that has one.
    receivers: AHashMap<ProcessNumber, u64>,
    /// What else has to wait for a stream: see [`Barrier`].
    barriers: BTreeMap<u64, Vec<Barrier>>,
    /// The number of the next frame that comes while there are streams.
    next: u64,
    /// The stream that had its turn last.
    turn: u64,
    /// Bytes that have left since.
    since_turn: usize,
    waiting: Waiting,
    /// Bytes of small frames of others among what is ready, about.
    ready_others: usize,
    /// Bytes of values that nothing but output holds, as they were counted when so many shared ones waited.
    exclusive: Exclusive,
}

#[derive(Clone, Copy, Debug, Default)]
struct Exclusive {
    bytes: usize,
    counted_at: usize,
}

/// What a stream keeps others from passing, beside those that are for its receiver: signals that may be of one pair with
/// the first of these, which waits there, or is the stream itself and does not tell its receiver.
#[derive(Clone, Copy, Debug)]
struct Barrier {
    course: Course,
    /// The first frame with this course. What came before it does not wait for it.
    number: u64,
}

#[derive(Debug)]
struct Stream {
    frame: KeptFrame,
    course: Course,
    origin: Origin,
    /// There once the first fragment has left.
    fragments: Option<Fragments>,
    behind: VecDeque<Behind>,
}

/// A frame that waits for a stream.
#[derive(Debug)]
struct Behind {
    /// In the order of arrival.
    number: u64,
    course: Course,
    origin: Origin,
    frame: BehindFrame,
}

#[derive(Debug)]
enum BehindFrame {
    Small(Box<[u8]>),
    Kept(KeptFrame),
}

impl Outflow {
    /// Nothing yet. `bytes_max`: bytes that may wait of answers, and as many of what others leave; one message more goes
    /// in where there is any room. `owned_bytes_max`: bytes of large answers in memory of their own past which small ones
    /// have no room either, as what is asked for by small requests, or only repeats a large one, asks for no room before it
    /// is written.
    pub fn new(form: FrameForm, alias_form: AliasForm, bytes_max: usize, owned_bytes_max: usize) -> Self {
        let (mut fresh, mut ready) = (Outbound::new(form, alias_form), Outbound::new(form, alias_form));
        fresh.set_addressed(false);
        ready.set_addressed(false);
        Self {
            form,
            bytes_max,
            owned_bytes_max: owned_bytes_max.max(bytes_max),
            cut: Cut { whole_bytes_max: usize::MAX, fragment_bytes: LARGE_BYTES },
            fresh,
            ready,
            streams: BTreeMap::new(),
            receivers: AHashMap::default(),
            barriers: BTreeMap::new(),
            next: 1,
            turn: 0,
            since_turn: 0,
            waiting: Waiting::default(),
            ready_others: 0,
            exclusive: Exclusive::default(),
        }
    }

    /// Where answers are written. [`settle`](Self::settle) is called behind them.
    #[inline]
    pub const fn fresh(&mut self) -> &mut Outbound {
        &mut self.fresh
    }

    /// Says how large messages are cut that have not begun to leave.
    pub const fn set_cut(&mut self, cut: Cut) {
        self.cut = cut;
    }

    /// Puts what was written into [`fresh`](Self::fresh) into the order.
    #[inline]
    pub fn settle(&mut self) {
        if self.streams.is_empty() && !self.fresh.has_large() {
            if !self.fresh.is_empty() {
                self.ready.append(&mut self.fresh);
            }
        } else {
            self.sort_fresh();
        }
    }

    #[cold]
    fn sort_fresh(&mut self) {
        let (segments, addressed) = self.fresh.take_segments();
        self.sort(segments, addressed, Origin::Answers);
    }

    /// Puts what others have left into the order; empties it.
    pub fn push(&mut self, frames: &mut Outbound) {
        if self.streams.is_empty() && !frames.has_large() {
            self.ready_others += frames.small_len();
            return self.ready.append(frames);
        }
        // Takes the form of this connection.
        let mut own = Outbound::new(self.form, self.ready.alias_form());
        own.append(frames);
        let (segments, addressed) = own.take_segments();
        self.sort(segments, addressed, Origin::Others);
    }

    /// A tick, before what waits of large messages.
    pub fn tick(&mut self) {
        self.ready.tick();
    }

    fn sort(&mut self, segments: VecDeque<Segment>, addressed: Vec<ProcessNumber>, origin: Origin) {
        // Those before the first that was noted were not.
        let answers = segments.iter().map(|segment| match segment {
            Segment::Run(frames) => self.answers_in(frames),
            Segment::Kept(_) => 0,
        });
        let unnoted = answers.sum::<usize>().saturating_sub(addressed.len());
        let mut addressed = std::iter::repeat_n(None, unnoted).chain(addressed.into_iter().map(Some));
        for segment in segments {
            match segment {
                // What was written before anything large was there passes as it is.
                Segment::Run(frames) if self.streams.is_empty() => {
                    let answers = self.answers_in(&frames);
                    addressed.by_ref().take(answers).for_each(drop);
                    self.push_ready(&frames, origin);
                }
                Segment::Run(frames) => {
                    for contents in small_frames(&frames) {
                        let mut frame = (contents.len() as u32).to_be_bytes().to_vec();
                        frame.extend_from_slice(contents);
                        let course = match self.kind_of(contents) {
                            Some(Kind::Between(course)) => course,
                            Some(Kind::ToAlias(course)) => {
                                Course { to: addressed.next().flatten(), ..course }
                            }
                            Some(Kind::ToNode) | None => {
                                self.push_ready(&frame, origin);
                                continue;
                            }
                        };
                        let number = self.number();
                        self.put(Behind { number, course, origin, frame: BehindFrame::Small(frame.into()) });
                    }
                }
                Segment::Kept(frame) => {
                    let course = self.course_of(&frame);
                    let number = self.number();
                    self.put(Behind { number, course, origin, frame: BehindFrame::Kept(frame) });
                }
            }
        }
        self.note_crowd();
    }

    /// How many answers to aliases are among small frames.
    fn answers_in(&self, frames: &[u8]) -> usize {
        let is_answer = |contents: &&[u8]| matches!(self.kind_of(contents), Some(Kind::ToAlias(_)));
        small_frames(frames).filter(is_answer).count()
    }

    /// `None`: a tick.
    fn kind_of(&self, contents: &[u8]) -> Option<Kind> {
        contents.strip_prefix(self.form.head()).map(course::kind)
    }

    fn course_of(&self, frame: &KeptFrame) -> Course {
        let in_head = frame.in_head(self.form);
        match course::kind(if in_head.is_empty() { &frame.body } else { in_head }) {
            Kind::Between(course) => course,
            Kind::ToAlias(course) => Course { to: frame.to, ..course },
            // It is mixed with others, and has an order with none.
            Kind::ToNode => {
                Course { from: Some((u32::MAX, u32::MAX)), to: Some((u32::MAX, self.next as u32)) }
            }
        }
    }

    const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Puts one frame where it belongs.
    fn put(&mut self, behind: Behind) {
        self.waiting.add(&behind);
        let first = self.first_before(behind.course, behind.number);
        if let Some((first, stream)) = first.and_then(|first| Some((first, self.streams.get_mut(&first)?))) {
            let is_for_receiver = stream.course.to.is_some() && stream.course.to == behind.course.to;
            let at = stream.behind.partition_point(|other| other.number < behind.number);
            let Behind { course, number, .. } = behind;
            stream.behind.insert(at, behind);
            if !is_for_receiver {
                self.bar(first, course, number);
            }
            return;
        }
        let Behind { number, course, origin, frame } = behind;
        match frame {
            BehindFrame::Small(frame) => {
                *self.waiting.small(origin) -= frame.len();
                self.push_ready(&frame, origin);
            }
            BehindFrame::Kept(frame) if !frame.is_large => {
                self.waiting.left(origin, &frame);
                self.waiting.kept -= 1;
                self.ready.push_kept(frame);
            }
            BehindFrame::Kept(frame) => {
                self.begin(
                    number,
                    Stream { frame, course, origin, fragments: None, behind: VecDeque::new() },
                );
            }
        }
    }

    /// What may be of one pair with a frame, and comes behind it, waits for a stream.
    fn bar(&mut self, stream: u64, course: Course, number: u64) {
        let barriers = self.barriers.entry(stream).or_default();
        if barriers.iter().any(|barrier| barrier.course == Course::UNKNOWN && barrier.number <= number) {
            return;
        }
        let course = if barriers.len() < BARRIERS_MAX { course } else { Course::UNKNOWN };
        match barriers.iter_mut().find(|barrier| barrier.course == course) {
            Some(barrier) => barrier.number = barrier.number.min(number),
            None => barriers.push(Barrier { course, number }),
        }
    }

    /// The oldest stream that a frame must not pass.
    fn first_before(&self, course: Course, number: u64) -> Option<u64> {
        let stops = |barrier: &Barrier| barrier.number < number && barrier.course.may_be_of_one_pair(course);
        let barred = self.barriers.iter().find(|(_, barriers)| barriers.iter().any(stops));
        let barred = barred.map(|(stream, _)| *stream);
        let of_pair = match course.to {
            Some(to) => self.receivers.get(&to).copied().filter(|stream| *stream < number),
            None => {
                let mut before = self.streams.range(..number);
                before.find(|(_, stream)| stream.course.may_be_of_one_pair(course)).map(|(stream, _)| *stream)
            }
        };
        match (barred, of_pair) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn push_ready(&mut self, frames: &[u8], origin: Origin) {
        if origin == Origin::Others {
            self.ready_others += frames.len();
        }
        self.ready.push_small(frames);
    }

    /// What is to be written next. `None`: nothing waits.
    #[inline]
    pub fn ready(&mut self) -> Option<&Outbound> {
        if !self.streams.is_empty() || !self.fresh.room().large {
            self.fill();
        }
        if self.ready.is_empty() { None } else { Some(&self.ready) }
    }

    /// That `len` bytes of it have been written.
    #[inline]
    pub fn advance(&mut self, len: usize) {
        if self.ready_others > 0 {
            self.advance_others(len);
        }
        self.ready.advance(len);
        self.since_turn = self.since_turn.saturating_add(len);
    }

    /// What is written is of others as much as what waits is: small frames that are ready are not kept apart by their origin.
    #[cold]
    fn advance_others(&mut self, len: usize) {
        let all = self.ready.len().max(1);
        let left = (all - len.min(all)) as u128 * self.ready_others as u128 / all as u128;
        self.ready_others = left as usize;
    }

    #[cold]
    fn fill(&mut self) {
        if self.since_turn >= BETWEEN_BYTES && self.ready.large_len() == 0 {
            self.turn();
        }
        while self.ready.len() < READY_BYTES && !self.streams.is_empty() {
            self.turn();
        }
        self.note_crowd();
    }

    /// The next stream has its turn.
    fn turn(&mut self) {
        let after = self.streams.range(self.turn + 1..).next().map(|(number, _)| *number);
        let Some(number) = after.or_else(|| self.streams.keys().next().copied()) else { return };
        self.turn = number;
        self.since_turn = 0;
        let (form, cut) = (self.form, self.cut);
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let Some(fragments) = stream.fragments.or_else(|| Fragments::of(&stream.frame, form, cut)) else {
            return self.whole(number);
        };
        let (frame, rest) = fragments.next(&stream.frame, number, form);
        stream.fragments = rest;
        self.waiting.left(stream.origin, &frame);
        self.ready.push_kept(frame);
        if rest.is_none() {
            self.done(number);
        }
    }

    /// A message leaves as one frame.
    fn whole(&mut self, number: u64) {
        if let Some(Stream { frame, origin, .. }) = self.streams.get_mut(&number) {
            let body = frame.body.part(0..frame.body.len());
            let frame = KeptFrame { head: mem::take(&mut frame.head), body, ..*frame };
            self.waiting.left(*origin, &frame);
            self.ready.push_kept(frame);
        }
        self.done(number);
    }

    /// A message has left: what waited for it goes on.
    fn done(&mut self, number: u64) {
        let Some(mut stream) = self.streams.remove(&number) else { return };
        self.waiting.kept -= 1;
        let barriers = self.barriers.remove(&number);
        if let Some(to) = stream.course.to {
            self.receivers.remove(&to);
        }
        while let Some(next) = stream.behind.pop_front() {
            match next {
                // The next large one for that receiver has all the others behind it: they need not be looked at again.
                Behind { number, course, origin, frame: BehindFrame::Kept(frame) }
                    if frame.is_large
                        && course.to.is_some()
                        && course.to == stream.course.to
                        && self.first_before(course, number).is_none() =>
                {
                    let behind = mem::take(&mut stream.behind);
                    self.begin(number, Stream { frame, course, origin, fragments: None, behind });
                    if let Some(barriers) = barriers {
                        self.barriers.insert(number, barriers);
                    }
                    return;
                }
                next => {
                    self.waiting.remove(&next);
                    self.put(next);
                }
            }
        }
        if self.streams.is_empty() {
            self.exclusive = Exclusive::default();
        }
    }

    fn begin(&mut self, number: u64, stream: Stream) {
        match stream.course.to {
            Some(to) => _ = self.receivers.insert(to, number),
            None => self.bar(number, stream.course, number),
        }
        self.streams.insert(number, stream);
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        let Waiting { small_answers, small_others, owned, shared, others, kept: _ } = self.waiting;
        self.ready.len() + self.fresh.len() + small_answers + small_others + owned + shared + others
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.fresh.is_empty() && self.streams.is_empty()
    }

    /// Bytes of small answers that wait, about, with what large ones cost beside their bytes: what a peer that reads nothing can make grow
    /// by small requests alone.
    #[inline]
    pub fn small_answers_len(&self) -> usize {
        let ready = self.ready.small_len().saturating_sub(self.ready_others);
        ready + self.fresh.small_len() + self.waiting.small_answers + self.waiting.kept * KEPT_COST
    }

    /// Bytes of large answers in memory of their own that wait, but for the oldest message: a single one may be as large
    /// as it is.
    #[inline]
    pub fn owned_answers_len(&self) -> usize {
        let oldest = self.streams.values().next();
        self.waiting.owned.saturating_sub(oldest.map_or(0, |stream| stream.frame.body.len()))
    }

    /// Bytes that wait of what others have left, about.
    #[inline]
    pub fn others_len(&self) -> usize {
        self.ready_others + self.waiting.small_others + self.waiting.others
    }

    /// Bytes that were written into [`fresh`](Self::fresh) since it was settled.
    #[inline]
    pub fn fresh_len(&self) -> usize {
        self.fresh.len()
    }

    /// What may still be put in of answers: small ones while `bytes_max` bytes of small frames do not wait, nor
    /// `owned_bytes_max` of large ones that are nowhere else; large ones while the memory that answers take is below
    /// `bytes_max`. A value that a store has anyway takes none.
    pub fn room(&mut self) -> Room {
        let small = self.small_answers_len();
        // The message that is leaving does not count: it may be a value that the store has.
        let taken = small + self.waiting.owned;
        let mut large = taken + self.waiting.shared < self.bytes_max;
        if !large && taken < self.bytes_max {
            large = taken + self.exclusive_bytes() < self.bytes_max;
        }
        Room { small: small < self.bytes_max && self.owned_answers_len() < self.owned_bytes_max, large }
    }

    /// Notes whether there is room where answers are written.
    fn note_crowd(&mut self) {
        let room = self.room();
        self.fresh.set_room(room);
        self.fresh.set_addressed(!self.streams.is_empty());
    }

    /// Whether there is room now, where the frames written since [`settle`](Self::settle) count too.
    #[inline]
    pub fn note_fresh(&mut self) {
        if !self.streams.is_empty()
            || self.fresh.has_large()
            || self.fresh.len() + self.ready.len() >= self.bytes_max
        {
            self.note_much();
        }
    }

    #[cold]
    fn note_much(&mut self) {
        if self.fresh.has_large() {
            self.settle();
        }
        self.note_crowd();
    }

    fn exclusive_bytes(&mut self) -> usize {
        let shared = self.waiting.shared;
        let Exclusive { bytes, counted_at } = self.exclusive;
        // Counted again when an eighth of what is allowed has come or gone.
        if counted_at == 0 || counted_at.abs_diff(shared) >= self.bytes_max / 8 {
            let bytes = self.count_exclusive();
            self.exclusive = Exclusive { bytes, counted_at: shared.max(1) };
            return bytes;
        }
        bytes
    }

    fn count_exclusive(&self) -> usize {
        let mut seen = AHashSet::default();
        let behind = self.streams.values().flat_map(|stream| &stream.behind);
        let behind = behind.filter_map(|behind| match &behind.frame {
            BehindFrame::Kept(frame) => Some(frame),
            BehindFrame::Small(_) => None,
        });
        let frames = self.streams.values().map(|stream| &stream.frame).chain(behind);
        let exclusive = frames.filter(|frame| frame.is_shared && frame.body.is_held_by_output_alone());
        exclusive
            .filter(|frame| seen.insert(frame.body.memory()))
            .map(|frame| frame.body.memory_bytes())
            .sum()
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        self.fresh.rest();
        self.ready.rest();
    }
}

#[cfg(test)]
mod tests;
