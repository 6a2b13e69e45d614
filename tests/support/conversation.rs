//! A peer's conversation with our processes, without a socket: frames in, exact frames out; and the words that such tests are
//! written with.
//!
//! Frames are of the pass-through form, from the version of their control message on. The peer has one process that calls,
//! `#PID<0.90.1>`, and references of three words, of which tests choose the first: `#Reference<0.3.2.1>` is [`reference`]`(1)`,
//! and the tag of a call for which no other is named.

#![allow(dead_code, reason = "not every test uses all of it")]

use kvnode::distribution::control::op;
use kvnode::distribution::inbound::{Arrival, Inbound};
use kvnode::distribution::{AliasForm, DistributionFlags, FrameForm, Outbound, Room};
use kvnode::etf::{Cursor, Pid, Reference};
use kvnode::process::peer::{Frame, Surroundings};
use kvnode::process::{Effect, Peer, PeerError, Registry, Waiters};

use crate::around::around;
use crate::term::{CREATION, PEER, Term, term_with};

/// A connection without its socket, and the processes that it meets.
pub struct Conversation {
    pub registry: Registry,
    pub waiters: Waiters,
    pub peer: Peer,
    /// What is to be done elsewhere.
    pub later: Vec<Effect>,
    /// What has room in the output.
    pub room: Room,
    /// How much may wait for processes that are suspended.
    pub held_bytes_max: usize,
    alias_form: AliasForm,
}

impl Conversation {
    /// Of the peer, which has offered these flags, with `k@h`.
    pub fn offering(flags: DistributionFlags) -> Self {
        Self {
            registry: Registry::new("k@h".into(), 5),
            waiters: Waiters::default(),
            peer: Peer::new(PEER.into(), flags),
            later: Vec::new(),
            room: Room::FREE,
            held_bytes_max: 4 << 10,
            alias_form: AliasForm::in_force(flags),
        }
    }

    /// An output with the room that there is.
    pub fn out(&self) -> Outbound {
        let mut out = Outbound::new(FrameForm::PassThrough, self.alias_form);
        out.set_room(self.room);
        out
    }

    /// Does what a connection does; gives what it said to that, and the frames that go out.
    pub fn with<R>(
        &mut self,
        act: impl FnOnce(&mut Peer, Surroundings<'_>, &mut Outbound, &mut Vec<Effect>) -> R,
    ) -> (R, Vec<Vec<u8>>) {
        let mut out = self.out();
        let result = self.with_out(&mut out, act);
        (result, frames_of(&out))
    }

    fn with_out<R>(
        &mut self,
        out: &mut Outbound,
        act: impl FnOnce(&mut Peer, Surroundings<'_>, &mut Outbound, &mut Vec<Effect>) -> R,
    ) -> R {
        let around = Surroundings {
            watches_max: 100,
            held_bytes_max: self.held_bytes_max,
            state_bytes_max: 1 << 10,
            ..around(&self.registry, &self.waiters)
        };
        act(&mut self.peer, around, out, &mut self.later)
    }

    /// Handles one frame.
    pub fn handle(&mut self, frame: &[u8], out: &mut Outbound) -> Result<(), PeerError> {
        let frame = Frame::small(frame.get(1..).unwrap_or_default(), FrameForm::PassThrough);
        self.with_out(out, |peer, around, out, later| peer.handle(frame, around, out, later))
    }

    /// Handles one frame; gives the answering frames, each as its control message and payload.
    pub fn try_say(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>, PeerError> {
        let mut out = self.out();
        self.handle(frame, &mut out)?;
        Ok(frames_of(&out))
    }

    /// The same where the frame must be a good one.
    #[track_caller]
    pub fn say(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.try_say(frame).expect("a good frame")
    }

    /// Handles one message that has waited and can be handled now: whether there was one, and the answering frames.
    #[track_caller]
    pub fn deliver_held(&mut self) -> (bool, Vec<Vec<u8>>) {
        let (result, frames) = self.with(|peer, around, out, later| peer.deliver_held(around, out, later));
        (result.expect("good messages"), frames)
    }

    /// Handles all that has waited and can be handled now; gives the answering frames.
    #[track_caller]
    pub fn go_on(&mut self) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        while let (true, frames) = self.deliver_held() {
            answers.extend(frames);
        }
        answers
    }
}

/// The frames that are to be sent.
pub fn frames_of(out: &Outbound) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    out.slices(&mut slices);
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
    let mut inbound = Inbound::new(&bytes, FrameForm::PassThrough, 1 << 20);
    let mut frames = Vec::new();
    while let Some(arrival) = inbound.next_arrival().expect("good frames") {
        let Arrival::Frame(range) = arrival else { panic!("a tick") };
        frames.push([&[131], inbound.slice(range)].concat());
    }
    frames
}

/// The peer's process.
pub fn caller() -> Pid {
    Pid { node: PEER.into(), id: 90, serial: 1, creation: CREATION }
}

/// A reference of the peer.
pub fn reference(first: u32) -> Reference {
    Reference { node: PEER.into(), creation: CREATION, words: vec![first, 2, 3] }
}

/// A control message: an operation, and what stands behind it in the tuple, with commas. For [`term_with`].
#[track_caller]
pub fn control(operation: u64, rest: &str, parts: &[&dyn Term]) -> Vec<u8> {
    term_with(&format!("{{{operation}, {rest}}}"), parts)
}

/// A frame without a payload.
#[track_caller]
pub fn signal(operation: u64, rest: &str, parts: &[&dyn Term]) -> Vec<u8> {
    [&[131], &control(operation, rest, parts)[..]].concat()
}

/// A frame: a control message and a payload.
pub fn frame(control: impl Term, payload: impl Term) -> Vec<u8> {
    [&[131], &control.encoded()[..], &[131], &payload.encoded()].concat()
}

/// A message to a registered process.
pub fn send(name: &str, message: impl Term) -> Vec<u8> {
    frame(control(op::REG_SEND, &format!("#PID<0.90.1>, :\"\", :{name}"), &[]), message)
}

/// The message of a call.
pub fn gen_call(tag: impl Term, request: impl Term) -> Vec<u8> {
    term_with("{:\"$gen_call\", {#PID<0.90.1>, $1}, $2}", &[&tag, &request])
}

/// A message to the peer's process.
pub fn to_caller(message: impl Term) -> Vec<u8> {
    frame(control(op::SEND, ":\"\", #PID<0.90.1>", &[]), message)
}

/// The answer to a call.
pub fn reply(tag: impl Term, answer: impl Term) -> Vec<u8> {
    to_caller(term_with("{$1, $2}", &[&tag, &answer]))
}

/// Sets a monitor.
pub fn monitor(to: impl Term, number: u32) -> Vec<u8> {
    signal(op::MONITOR_P, "#PID<0.90.1>, $1, $2", &[&to, &reference(number)])
}

/// Tells of what a monitor was set for.
pub fn monitor_exit(from: impl Term, number: u32, reason: impl Term) -> Vec<u8> {
    frame(control(op::PAYLOAD_MONITOR_P_EXIT, "$1, #PID<0.90.1>, $2", &[&from, &reference(number)]), reason)
}

/// The payload of a frame.
pub fn payload_of(frame: &[u8]) -> &[u8] {
    let control = Cursor::new(&frame[1..]).term().expect("a control message");
    &frame[1 + control.bytes().len() + 1..]
}
