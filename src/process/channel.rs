//! One connection without its socket: what is read goes in, what is to be written comes out.
//!
//! ```text
//!   read --> Inbound --> Peer --> processes --> fresh --.
//!               |          `- Held: what waits           >-- Outflow --> written
//!               `- ticks --> Ticker     others' frames --'      `- Pace
//! ```
//!
//! **Reading never waits for writing.** Two nodes that each wait for the other to read stand still for ever, and so do three
//! in a ring. So everything that comes is read and handled, whatever waits to be written: ticks, monitors, casts, answers
//! to our own calls, acknowledgements of slaves. Memory is bounded by other means:
//!
//! - A large answer in memory that the store has anyway is not counted ([`Outflow::room`]).
//! - A call whose answer has no room waits ([`Held`](super::Held)), with what comes behind it from that process to that
//!   process, and so do spawn requests.
//! - Large answers that ask for no room before they are written (a refusal that repeats its request, the value of a
//!   function) have a bound of their own, past which every call waits.
//! - Past the bound on what waits so, a call ends by its monitor, with `{:system_limit, …}`, and a spawn request is refused.
//! - A peer that takes none of this either, so that what is left, small frames and those refusals, piles up past
//!   [`ChannelLimits`], loses its connection, and so does one that takes nothing for `output_stall_max`.
//!
//! What others send to a peer (slaves' writes, later answers, relayed calls) has bounds where it is left for the
//! connection, since its senders can wait.
//!
//! **A peer lives** as long as something comes from it, or it takes something of what waits for it: the socket was full and
//! takes more, which only the other side's acknowledgements do.
//!
//! The order of calls: [`rooms`](Channel::rooms) and [`filled`](Channel::filled) around a read, [`step`](Channel::step)
//! until nothing is left to handle, then [`ready`](Channel::ready) and [`wrote`](Channel::wrote) around each write until
//! the socket is [`full`](Channel::full), [`tick`](Channel::tick) at each interval. Time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peer::{Frame, Surroundings};
use super::{Effect, Peer, PeerError};
use crate::distribution::{
    AliasForm, Arrival, FrameError, FrameForm, Inbound, Outbound, Outflow, Pace, TickAction, Ticker,
};

/// The bounds on what waits for one peer.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    /// Bytes of answers, past which calls wait; as many of small frames, past which every call does.
    pub outbound_bytes_max: usize,
    /// Bytes of large answers that were written without asking for room, such as a refusal that repeats the request: past it every call
    /// waits, and past twice as many the connection ends.
    pub owned_bytes_max: usize,
    /// For how long the peer may take nothing of what waits for it.
    pub output_stall_max: Duration,
}

impl ChannelLimits {
    /// Bytes of small frames past which the connection ends.
    const fn small_bytes_max(self) -> usize {
        self.outbound_bytes_max.saturating_mul(2)
    }

    /// Whether so much waits that the connection ends.
    fn are_passed_by(self, outflow: &Outflow) -> bool {
        outflow.small_answers_len() > self.small_bytes_max()
            || outflow.owned_answers_len() > self.owned_bytes_max.saturating_mul(2)
    }
}

/// Why a channel ends. Always the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelFault {
    /// Bytes that are no frames.
    #[error("{0}")]
    Frame(FrameError),
    /// A frame that breaks the protocol.
    #[error("{0}")]
    Peer(PeerError),
    /// Nothing came for the whole tick time, and nothing was taken.
    #[error("nothing was heard for the whole tick time")]
    Silent,
    /// The peer takes nothing of what waits for it.
    #[error("the peer reads nothing of what was sent to it")]
    NotReading,
    /// The peer asks for more than it takes.
    #[error("the peer asks for more than it reads")]
    Crowded,
}

impl From<FrameError> for ChannelFault {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<PeerError> for ChannelFault {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

/// What one step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is nothing left to handle.
    Nothing,
    /// Something was handled, and answered where that is said.
    Handled {
        /// Whether there is more to write than before.
        answered: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Channel {
    peer: Peer,
    inbound: Inbound,
    outflow: Outflow,
    ticker: Ticker,
    interval: Duration,
    pace: Pace,
    limits: ChannelLimits,
    /// The socket takes no more for now.
    is_full: bool,
    /// How long the peer has taken nothing of what waits for it.
    stuck: Duration,
}

impl Channel {
    /// A connection that has just been set up. `inbound`: with what came together with the end of the handshake.
    pub fn new(
        peer: Peer,
        inbound: Inbound,
        alias_form: AliasForm,
        net_ticktime_secs: u32,
        pace: Pace,
        limits: ChannelLimits,
    ) -> Self {
        let (ticker, interval) = Ticker::new(net_ticktime_secs);
        let ChannelLimits { outbound_bytes_max, owned_bytes_max, .. } = limits;
        let mut outflow = Outflow::new(inbound.form(), alias_form, outbound_bytes_max, owned_bytes_max);
        outflow.set_cut(pace.cut());
        Self { peer, inbound, outflow, ticker, interval, pace, limits, is_full: false, stuck: Duration::ZERO }
    }

    /// How often [`tick`](Self::tick) is to be called.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Room for the next read: see [`Inbound::rooms`].
    #[inline]
    pub fn rooms(&mut self) -> [&mut [u8]; 2] {
        self.inbound.rooms()
    }

    /// That a read has put `len` bytes there.
    #[inline]
    pub fn filled(&mut self, len: usize) {
        self.ticker.received();
        self.inbound.filled(len);
    }

    /// Handles the next thing that can be: a message that has waited, or one that was read.
    ///
    /// # Errors
    /// The peer's: the connection ends.
    #[inline(always)]
    pub fn step(&mut self, around: Surroundings<'_>, later: &mut Vec<Effect>) -> Result<Step, ChannelFault> {
        let Self { peer, inbound, outflow, ticker, .. } = self;
        let queued = outflow.fresh_len();
        if !peer.deliver_held(around, outflow.fresh(), later)? {
            let form: FrameForm = inbound.form();
            match inbound.next_arrival()? {
                None => {
                    outflow.settle();
                    if self.limits.are_passed_by(outflow) {
                        return Err(ChannelFault::Crowded);
                    }
                    return Ok(Step::Nothing);
                }
                Some(Arrival::Tick) => {
                    if ticker.tick_received() && outflow.is_empty() {
                        outflow.tick();
                    }
                }
                Some(Arrival::Frame(range)) => {
                    let frame = Frame::small(inbound.slice(range), form);
                    peer.handle(frame, around, outflow.fresh(), later)?;
                }
                Some(Arrival::Large(frame)) => {
                    peer.handle(Frame::large(&frame, form), around, outflow.fresh(), later)?;
                }
                Some(Arrival::Skipped(skipped)) => {
                    peer.settle_skipped(&skipped, form, around, outflow.fresh(), later)?;
                }
            }
        }
        let answered = outflow.fresh_len() > queued;
        outflow.note_fresh();
        Ok(Step::Handled { answered })
    }

    /// The connected node, and where frames to it are written: for what happens elsewhere. [`settle`](Self::settle) is
    /// called behind it.
    pub const fn peer(&mut self) -> (&mut Peer, &mut Outbound) {
        (&mut self.peer, self.outflow.fresh())
    }

    /// What was written by [`peer`](Self::peer) goes out.
    pub fn settle(&mut self) {
        self.outflow.settle();
    }

    /// Frames that others have left for the peer go out; empties them.
    pub fn push(&mut self, frames: &mut Outbound) {
        self.outflow.push(frames);
    }

    /// What is to be written next. `None`: nothing waits.
    #[inline]
    pub fn ready(&mut self) -> Option<&Outbound> {
        self.outflow.ready()
    }

    /// That the socket has taken `len` bytes of it. `now` is asked where the rate is measured.
    #[inline]
    pub fn wrote(&mut self, len: usize, now: impl FnOnce() -> Instant) {
        self.outflow.advance(len);
        self.ticker.sent();
        self.stuck = Duration::ZERO;
        if self.is_full {
            // Only what the peer has taken has made room.
            self.is_full = false;
            self.ticker.progressed();
        }
        if self.pace.is_measuring() {
            self.measure(len, now());
        }
    }

    #[cold]
    fn measure(&mut self, len: usize, now: Instant) {
        if self.pace.took(len, now) {
            self.outflow.set_cut(self.pace.cut());
        }
        if self.outflow.is_empty() {
            self.pace.idle();
        }
    }

    /// That the socket takes no more for now.
    pub fn full(&mut self, now: Instant) {
        self.is_full = true;
        self.pace.full(now);
    }

    /// An interval has passed.
    ///
    /// # Errors
    /// The peer is taken for dead: the connection ends.
    pub fn tick(&mut self) -> Result<(), ChannelFault> {
        match self.ticker.interval() {
            TickAction::Down => return Err(ChannelFault::Silent),
            TickAction::SendTick if self.outflow.is_empty() => self.outflow.tick(),
            TickAction::SendTick | TickAction::Idle => {}
        }
        // A write that took something has set it back.
        self.stuck = if self.outflow.is_empty() { Duration::ZERO } else { self.stuck + self.interval };
        if self.stuck > self.limits.output_stall_max {
            return Err(ChannelFault::NotReading);
        }
        Ok(())
    }

    /// Gives memory back that a quiet connection does not need.
    pub fn rest(&mut self) {
        self.inbound.rest();
        self.outflow.rest();
    }

    /// Whether nothing waits to be written.
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.outflow.is_empty()
    }

    /// Whether messages have waited that can be handled now: [`step`](Self::step) does.
    #[inline]
    pub fn may_go_on(&mut self) -> bool {
        self.peer.holds_messages() && self.peer.may_deliver_held(self.outflow.room())
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.outflow.len()
    }

    /// Bytes of it that others have left, about.
    pub fn others_bytes(&self) -> usize {
        self.outflow.others_len()
    }

    /// The connection is lost: see [`Peer::connection_lost`].
    pub fn lost(&mut self, around: Surroundings<'_>, later: &mut Vec<Effect>) {
        self.peer.connection_lost(around, later);
    }

    /// The name of the connected node.
    pub const fn name(&self) -> &Arc<str> {
        self.peer.name()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Caller, GenServer, Registry, Turn, Waiters};
    use super::*;
    use crate::distribution::control::op;
    use crate::distribution::{DistributionFlags, FrameForm};
    use crate::etf::{Pid, TermView, TermWriter, encode};

    /// Repeats what it is sent, and does not ask for room.
    struct Echo;

    impl GenServer for Echo {
        fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
            turn.reply(caller, |w| _ = w.term(request));
        }

        fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}

        /// `{pid, term}`
        fn handle_info(&self, message: TermView<'_>, turn: &mut Turn<'_>) {
            if let Some([to, term]) = message.as_tuple() {
                turn.send(to, |w| _ = w.term(term));
            }
        }

        fn waits_for_room(&self) -> bool {
            true
        }
    }

    const LEN: usize = 100 << 10;
    const LIMITS: ChannelLimits = ChannelLimits {
        outbound_bytes_max: 200 << 10,
        owned_bytes_max: 1 << 20,
        output_stall_max: Duration::from_secs(30),
    };

    fn from(number: u32) -> Pid {
        Pid { node: "m@h".into(), id: number, serial: 0, creation: 1 }
    }

    /// What it was asked, in order. It asks for no room, and so is asked only when there is room for a large answer.
    #[derive(Default)]
    struct Noting(parking_lot::Mutex<Vec<u64>>);

    impl GenServer for Noting {
        fn handle_call(&self, request: TermView<'_>, _: &Caller<'_>, _: &mut Turn<'_>) {
            self.0.lock().extend(request.as_unsigned());
        }

        fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}
    }

    struct Scene {
        registry: Registry,
        waiters: Waiters,
        noting: Arc<Noting>,
        channel: Channel,
    }

    impl Scene {
        fn new() -> Self {
            let (registry, noting) = (Registry::new("k@h".into(), 5), Arc::new(Noting::default()));
            let server = Arc::clone(&noting) as Arc<dyn GenServer>;
            registry.register("noting", &registry.spawn(server)).expect("the name is free");
            registry.register("echo", &registry.spawn(Arc::new(Echo))).expect("the name is free");
            let channel = Channel::new(
                Peer::new("m@h".into(), DistributionFlags::OFFERED),
                Inbound::new(&[], FrameForm::PassThrough, 1 << 30),
                AliasForm::AliasSend,
                60,
                Pace::new(true),
                LIMITS,
            );
            Self { registry, waiters: Waiters::default(), noting, channel }
        }

        fn step(&mut self) -> Result<(), ChannelFault> {
            let around = Surroundings {
                registry: &self.registry,
                waiters: &self.waiters,
                inflated_bytes_max: 100,
                watches_max: 100,
                held_bytes_max: 1 << 20,
                state_bytes_max: 100,
                timed: None,
            };
            while self.channel.step(around, &mut Vec::new())? != Step::Nothing {}
            Ok(())
        }

        /// A message from a process of the peer, which reads nothing.
        fn sends(
            &mut self,
            from: &Pid,
            name: &str,
            message: impl FnOnce(&mut TermWriter<'_>),
        ) -> Result<(), ChannelFault> {
            let mut frame = vec![0, 0, 0, 0, 112, 131];
            frame.extend(encode(|w| _ = w.tuple(4).unsigned(op::REG_SEND).pid(from).atom("").atom(name)));
            frame.push(131);
            frame.extend(encode(message));
            let len = (frame.len() - 4) as u32;
            frame[..4].copy_from_slice(&len.to_be_bytes());
            let mut rest = &frame[..];
            while !rest.is_empty() {
                let mut taken = 0;
                for room in self.channel.rooms() {
                    let here = room.len().min(rest.len());
                    room[..here].copy_from_slice(&rest[..here]);
                    (rest, taken) = (&rest[here..], taken + here);
                }
                self.channel.filled(taken);
                self.step()?;
            }
            // The socket takes none of it.
            let _waits = self.channel.ready();
            Ok(())
        }

        fn reads_all(&mut self) {
            while let Some(ready) = self.channel.ready() {
                let len = ready.len();
                self.channel.wrote(len, || unreachable!("nothing is measured"));
            }
        }
    }

    fn call(caller: &Pid, request: impl FnOnce(&mut TermWriter<'_>)) -> impl FnOnce(&mut TermWriter<'_>) {
        move |w| request(w.tuple(3).atom("$gen_call").tuple(2).pid(caller).atom("tag"))
    }

    /// A peer sends so many messages, each from a process of its own: what waits for it then.
    fn unread(count: u32, message: impl Fn(&Pid, &mut TermWriter<'_>)) -> Result<usize, ChannelFault> {
        let mut scene = Scene::new();
        for number in 0..count {
            scene.sends(&from(number), "echo", |w| message(&from(number), w))?;
        }
        Ok(scene.channel.waiting_bytes())
    }

    #[test]
    fn answers_that_ask_for_no_room_have_a_bound_all_the_same() {
        let calls = |from: &Pid, w: &mut TermWriter<'_>| call(from, |w| _ = w.binary(&[7; LEN]))(w);
        let waits = unread(500, calls).expect("calls wait, and the others end");
        assert!(waits < LIMITS.owned_bytes_max + 3 * LEN, "{waits}");
        // What cannot wait costs the connection.
        let message = |from: &Pid, w: &mut TermWriter<'_>| _ = w.tuple(2).pid(from).binary(&[7; LEN]);
        assert_eq!(unread(500, message), Err(ChannelFault::Crowded));
        assert!(unread(15, message).is_ok());
        // They are as many where all are for one process, and leave one behind the other.
        let message = |_: &Pid, w: &mut TermWriter<'_>| _ = w.tuple(2).pid(&from(1)).binary(&[7; LEN]);
        assert_eq!(unread(500, message), Err(ChannelFault::Crowded));
        // One may be as large as it is.
        let large = |from: &Pid, w: &mut TermWriter<'_>| _ = w.tuple(2).pid(from).binary(&[7; 30 * LEN]);
        assert!(unread(2, large).is_ok());
    }

    #[test]
    fn what_waits_is_in_the_order_of_its_sender_also_where_that_passes_a_call_on() {
        let mut scene = Scene::new();
        for number in 10..14 {
            let sender = from(number);
            scene.sends(&sender, "echo", call(&sender, |w| _ = w.binary(&[7; LEN]))).expect("it waits");
        }
        let (sender, other) = (from(1), from(2));
        for (request, caller) in [(1, &sender), (2, &sender), (3, &other), (4, &sender)] {
            scene.sends(&sender, "noting", call(caller, |w| _ = w.unsigned(request))).expect("it waits");
        }
        assert!(scene.noting.0.lock().is_empty(), "there is no room for an answer");
        scene.reads_all();
        scene.step().expect("there is room");
        assert_eq!(*scene.noting.0.lock(), [1, 2, 3, 4]);
    }
}
