//! Messages that were too large to be received, of which the beginning is there: what each of them meant is settled at its
//! place, so that nobody waits for it in vain.
//!
//! | what was skipped | what comes of it |
//! | --- | --- |
//! | a call of a process of ours, or a system message | its monitor ends it with `{:system_limit, text}` |
//! | a spawn request: `:erpc.call`, `:rpc.call` | it is refused, with `system_limit` |
//! | an answer to a call of ours, or to a function that we called | the wait ends, see [`Outcome::TooLarge`] |
//! | the reason of an exit, a `'DOWN'` or an `exit/2` | the signal takes effect, with `{:system_limit, text}` as its reason |
//! | a cast, or another message | it is dropped, and the process may say so ([`GenServer::handle_skipped`]) |
//!
//! [`GenServer::handle_skipped`]: super::super::GenServer::handle_skipped

use super::super::call_error::write_too_large;
use super::super::message::Beginning;
use super::super::{Effect, Outcome, SkippedMessage};
use super::signals::ExitSignal;
use super::{FoundProcess, Message, Peer, PeerError, Surroundings, payload, write_spawn_reply};
use crate::distribution::control::{ControlMessage, Reason};
use crate::distribution::{FrameForm, Outbound, Skipped};
use crate::etf::{Cursor, Pid, Reference, TermError, encode};

impl Peer {
    /// Settles a message that was skipped, as [`handle`](Self::handle) does with one that is here.
    ///
    /// # Errors
    /// The peer's: it has no beginning that says what it was. The connection is to be ended.
    #[cold]
    pub fn settle_skipped(
        &mut self,
        skipped: &Skipped,
        form: FrameForm,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let size = skipped.size;
        let malformed = |error| PeerError::Skipped(size, error);
        let mut cursor = Cursor::new(&skipped.head);
        let control = ControlMessage::parse_seldom(&mut cursor).map_err(malformed)?;
        let beginning = payload(cursor.rest(), form).map_err(malformed)?;
        let reason = encode(|w| write_too_large(w, &size));
        let settled = match control {
            ControlMessage::Send { to_pid } => match self.find_pid(&to_pid, around.registry) {
                Some(found) => self.settle_message(found, beginning, skipped, around, out, later),
                None => "a message to a process that is not there",
            },
            ControlMessage::RegSend { to_name, .. } => match self.find_name(to_name, around.registry) {
                Some(found) => self.settle_message(found, beginning, skipped, around, out, later),
                None => "a message to a name that is not there",
            },
            ControlMessage::AliasSend { .. } => {
                if around.waiters.reply_skipped(beginning, size, around.registry) {
                    "an answer to a call: the call has ended with this"
                } else {
                    "a message to an alias: dropped"
                }
            }
            ControlMessage::SpawnRequest { request_id, from, .. } => {
                if from.node != *self.name {
                    return Err(PeerError::ForeignSender);
                }
                let (request_id, owner) = (Reference::from(request_id), Pid::from(from));
                write_spawn_reply(&request_id, &owner, 0, out, |w| _ = w.atom("system_limit"));
                "a call by rpc, or another spawn request: refused with system_limit"
            }
            ControlMessage::MonitorPExit { reference, reason: Reason::Payload, .. } => {
                around.waiters.ended(&reference, &self.name, || Outcome::TooLarge(size));
                "the answer of a function, or the reason of an end: the caller that waits for it is told"
            }
            ControlMessage::Exit { from_pid, to_pid, reason: Reason::Payload } => {
                if self.unlink(from_pid, to_pid, around.registry) {
                    let signal = ExitSignal { from: &from_pid.into(), reason: &reason, linked: true };
                    self.exit_signal(&to_pid, signal, around, out, later)?;
                }
                "the reason of an exit signal: it is given as this"
            }
            ControlMessage::Exit2 { from_pid, to_pid, reason: Reason::Payload } => {
                let signal = ExitSignal { from: &from_pid.into(), reason: &reason, linked: false };
                self.exit_signal(&to_pid, signal, around, out, later)?;
                "the reason of an exit signal: it is given as this"
            }
            ControlMessage::Unknown { .. } => "an unknown signal: dropped",
            // None of the others has a payload.
            _ => return Err(malformed(TermError::TrailingBytes)),
        };
        tracing::warn!(peer = %self.name, skipped = settled, "{size}");
        Ok(())
    }

    /// A message to a process; gives what came of it, for people.
    fn settle_message(
        &mut self,
        found: FoundProcess,
        beginning: &[u8],
        skipped: &Skipped,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> &'static str {
        let size = skipped.size;
        if let Beginning::Call(caller) = Beginning::read(beginning) {
            let process = &found.process;
            self.end_call_of(process, &caller, around, out, later, |w| write_too_large(w, &size));
            return "a call: it has ended with this";
        }
        // Nodes before OTP 24 answer to the caller's pid.
        if around.waiters.reply_skipped(beginning, size, around.registry) {
            return "an answer to a call: the call has ended with this";
        }
        let message = Message::Skipped(SkippedMessage { beginning, size });
        self.hand_over(found, message, None, around, out, later);
        "a cast or other message to a process: not received"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::super::super::rpc::Rex;
    use super::super::super::{Caller, ExitSignals, GenServer, Process, Registry, Turn, Waiters};
    use super::super::Frame;
    use super::*;
    use crate::distribution::control::op;
    use crate::distribution::{AliasForm, Bound, DistributionFlags, TooLarge};
    use crate::etf::{TermView, TermWriter};

    const SIZE: TooLarge = TooLarge { bytes: 200, bound: Bound::Frame(100) };
    const TEXT: &str =
        "{:system_limit, \"a message of 200 bytes is over the bound of 100 (--frame-bytes-max)\"}";

    /// Notes how messages begin that were skipped, and exit signals.
    #[derive(Default)]
    struct Noting(Mutex<Vec<String>>);

    impl GenServer for Noting {
        fn handle_call(&self, _: TermView<'_>, _: &Caller<'_>, _: &mut Turn<'_>) {}

        fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}

        fn handle_info(&self, message: TermView<'_>, _: &mut Turn<'_>) {
            let [_, _, reason] = message.as_tuple::<3>().expect("an exit signal");
            self.0.lock().push(format!("{reason:?}"));
        }

        fn handle_skipped(&self, message: SkippedMessage<'_>, _: &mut Turn<'_>) {
            let mut cursor = Cursor::new(message.beginning);
            let (arity, kind) = (cursor.tuple().expect("a tuple"), cursor.atom().expect("an atom"));
            self.0.lock().push(format!("{arity} {}, {}", kind.to_str(), message.size));
        }

        fn exit_signals(&self) -> ExitSignals {
            ExitSignals::Trap
        }
    }

    struct Scene {
        registry: Registry,
        waiters: Waiters,
        peer: Peer,
        noting: Arc<Noting>,
        process: Arc<Process>,
    }

    fn caller() -> Pid {
        Pid { node: "m@h".into(), id: 90, serial: 1, creation: 3 }
    }

    fn reference() -> Reference {
        Reference { node: "m@h".into(), creation: 3, words: vec![1, 2, 3] }
    }

    fn scene() -> Scene {
        let registry = Registry::new("k@h".into(), 5);
        let noting = Arc::new(Noting::default());
        let process = registry.spawn(Arc::clone(&noting) as Arc<dyn GenServer>);
        registry.register("noting", &process).expect("the name is free");
        let rex = registry.spawn(Arc::new(Rex));
        registry.register("rex", &rex).expect("the name is free");
        let peer = Peer::new("m@h".into(), DistributionFlags::OFFERED);
        Scene { registry, waiters: Waiters::default(), peer, noting, process }
    }

    /// What goes to the peer: the number of each signal, and its payload or, without one, the end of its control message.
    fn said(out: &Outbound) -> Vec<(u64, String)> {
        let mut slices = Vec::new();
        out.slices(&mut slices);
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let (mut rest, mut said) = (&bytes[..], Vec::new());
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let (frame, next) = behind.split_at(u32::from_be_bytes(*len) as usize);
            rest = next;
            let mut cursor = Cursor::new(&frame[2..]);
            let control = cursor.term().expect("a control message");
            let mut inside = control.cursor();
            let arity = inside.tuple().expect("a tuple");
            let operation = inside.unsigned().expect("an operation");
            let last = (1..arity).map(|_| inside.term().expect("its parts")).last().expect("some");
            let shown = match cursor.rest() {
                [] => format!("{last:?}"),
                payload => format!("{:?}", TermView::parse(&payload[1..]).expect("a term")),
            };
            said.push((operation, shown));
        }
        said
    }

    impl Scene {
        fn skips(&mut self, head: Vec<u8>) -> Result<Vec<(u64, String)>, PeerError> {
            let Self { registry, waiters, peer, .. } = self;
            let around = around(registry, waiters);
            let (mut out, mut later) =
                (Outbound::new(FrameForm::PassThrough, AliasForm::AliasSend), Vec::new());
            peer.settle_skipped(
                &Skipped { head, size: SIZE },
                FrameForm::PassThrough,
                around,
                &mut out,
                &mut later,
            )?;
            Ok(said(&out))
        }

        /// What is sent for a message that was skipped, of which only this beginning is there.
        #[track_caller]
        fn settled(&mut self, head: Vec<u8>) -> Vec<(u64, String)> {
            self.skips(head).expect("it has a good beginning")
        }

        fn handles(&mut self, frame: &[u8]) {
            let around = around(&self.registry, &self.waiters);
            let mut out = Outbound::new(FrameForm::PassThrough, AliasForm::AliasSend);
            let frame = Frame::small(frame, FrameForm::PassThrough);
            self.peer.handle(frame, around, &mut out, &mut Vec::new()).expect("a good frame");
        }

        fn monitor(&mut self) {
            let frame = encode(|w| {
                w.tuple(4).unsigned(op::MONITOR_P).pid(&caller()).atom("noting").reference(&reference());
            });
            self.handles(&frame);
        }

        fn noted(&self) -> Vec<String> {
            std::mem::take(&mut self.noting.0.lock())
        }
    }

    fn around<'a>(registry: &'a Registry, waiters: &'a Waiters) -> Surroundings<'a> {
        Surroundings {
            registry,
            waiters,
            inflated_bytes_max: 100,
            watches_max: 100,
            held_bytes_max: 100,
            state_bytes_max: 100,
            timed: None,
        }
    }

    /// A control message and a payload, of which the end is not there.
    fn begun(
        control: impl FnOnce(&mut TermWriter<'_>),
        payload: impl FnOnce(&mut TermWriter<'_>),
    ) -> Vec<u8> {
        let mut bytes = encode(control);
        bytes.push(131);
        bytes.extend(encode(payload));
        bytes.extend([109, 0, 255, 0, 0, 1, 2, 3]);
        bytes
    }

    fn to_name(name: &str) -> impl FnOnce(&mut TermWriter<'_>) {
        move |w| _ = w.tuple(4).unsigned(op::REG_SEND).pid(&caller()).atom("").atom(name)
    }

    fn call(kind: &'static str) -> impl Fn(&mut TermWriter<'_>) {
        move |w| {
            w.tuple(3).atom(kind).tuple(2).pid(&caller()).list(1).atom("alias").reference(&reference());
        }
    }

    #[test]
    fn a_call_ends_at_once_by_its_monitor_also_where_the_process_is_suspended() {
        for kind in ["$gen_call", "system"] {
            for suspended in [false, true] {
                let mut scene = scene();
                scene.monitor();
                scene.process.set_suspended(suspended);
                let said = scene.settled(begun(to_name("noting"), call(kind)));
                assert_eq!(said, [(op::PAYLOAD_MONITOR_P_EXIT, TEXT.to_owned())]);
                assert!(scene.noted().is_empty());
            }
        }
        let mut scene = scene();
        assert!(
            scene.settled(begun(to_name("nobody"), call("$gen_call"))).is_empty(),
            "its monitor has fired"
        );
    }

    #[test]
    fn a_cast_and_any_other_message_are_shown_to_the_server_and_dropped() {
        let mut scene = scene();
        let said = scene.settled(begun(to_name("noting"), |w| _ = w.tuple(2).atom("$gen_cast")));
        assert!(said.is_empty());
        let size = SIZE.to_string();
        assert_eq!(scene.noted(), [format!("2 $gen_cast, {size}")]);
        // What only begins like a call.
        scene.settled(begun(to_name("noting"), |w| _ = w.tuple(3).atom("$gen_call").atom("x")));
        assert_eq!(scene.noted(), [format!("3 $gen_call, {size}")]);
    }

    #[test]
    fn functions_are_refused_in_the_way_in_which_they_were_called() {
        let mut scene = scene();
        let spawn = |w: &mut TermWriter<'_>| {
            w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference()).pid(&caller()).pid(&caller());
            w.tuple(3).atom("erpc").atom("execute_call").integer(4).list(1).atom("monitor").nil();
        };
        let said = scene.settled(begun(spawn, |w| _ = w.list(4).reference(&reference())));
        assert_eq!(said, [(op::SPAWN_REPLY, ":system_limit".to_owned())]);
        let erl_call = |w: &mut TermWriter<'_>| _ = w.tuple(2).pid(&caller()).tuple(5).atom("call").atom("m");
        assert_eq!(
            scene.settled(begun(to_name("rex"), erl_call)),
            [(op::SEND, format!("{{:rex, {{:badrpc, {TEXT}}}}}"))]
        );
        let other = |w: &mut TermWriter<'_>| _ = w.tuple(2).pid(&caller()).tuple(3).atom("sbcast").atom("m");
        assert!(scene.settled(begun(to_name("rex"), other)).is_empty());
    }

    #[test]
    fn waits_of_ours_end_by_answers_and_reasons_that_were_skipped() {
        let mut scene = scene();
        let wait = |scene: &Scene, is_call: bool| {
            let (reference, outcome) = (scene.registry.new_reference(), Arc::new(Mutex::new(None)));
            let told = Arc::clone(&outcome);
            let done = move |how| *told.lock() = Some(how);
            match is_call {
                true => scene.waiters.expect_reply(&reference, &"m@h".into(), done),
                false => scene.waiters.expect(&reference, &"m@h".into(), done),
            }
            (reference, outcome)
        };
        let pid = scene.process.pid.clone();
        let (alias, outcome) = wait(&scene, true);
        let to_alias = |w: &mut TermWriter<'_>| {
            w.tuple(3).unsigned(op::ALIAS_SEND).pid(&caller()).reference(&alias);
        };
        scene.settled(begun(to_alias, |w| _ = w.tuple(2).list(1).atom("alias").reference(&alias)));
        assert_eq!(outcome.lock().take(), Some(Outcome::TooLarge(SIZE)));
        let (tag, outcome) = wait(&scene, true);
        let to_pid = |w: &mut TermWriter<'_>| _ = w.tuple(3).unsigned(op::SEND).atom("").pid(&pid);
        scene.settled(begun(to_pid, |w| _ = w.tuple(2).reference(&tag)));
        assert_eq!((outcome.lock().take(), scene.noted().len()), (Some(Outcome::TooLarge(SIZE)), 0));
        let (monitor, outcome) = wait(&scene, false);
        let down = |w: &mut TermWriter<'_>| {
            w.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT).pid(&caller()).pid(&pid).reference(&monitor);
        };
        scene.settled(begun(down, |w| _ = w.tuple(3)));
        assert_eq!(outcome.lock().take(), Some(Outcome::TooLarge(SIZE)));
        assert!(scene.waiters.is_empty());
    }

    #[test]
    fn exit_signals_take_effect_with_another_reason() {
        let mut scene = scene();
        let pid = scene.process.pid.clone();
        let to_pid = |operation: u64| {
            let pid = pid.clone();
            move |w: &mut TermWriter<'_>| _ = w.tuple(3).unsigned(operation).pid(&caller()).pid(&pid)
        };
        let exit = || begun(to_pid(op::PAYLOAD_EXIT), |w| _ = w.tuple(2));
        scene.settled(exit());
        assert!(scene.noted().is_empty(), "there was no link");
        scene.handles(&encode(to_pid(op::LINK)));
        scene.settled(exit());
        assert_eq!((scene.noted(), scene.peer.watches()), (vec![TEXT.to_owned()], 0));
        scene.settled(begun(to_pid(op::PAYLOAD_EXIT2), |w| _ = w.tuple(2)));
        assert_eq!(scene.noted(), [TEXT]);
    }

    #[test]
    fn what_says_nothing_at_its_beginning_ends_the_connection() {
        let mut scene = scene();
        for head in [vec![], vec![131; 50], [encode(to_name("noting")), vec![7]].concat()] {
            assert!(matches!(scene.skips(head), Err(PeerError::Skipped(SIZE, _))));
        }
        // What has no payload is none that can be so large.
        let link = |w: &mut TermWriter<'_>| {
            w.tuple(3).unsigned(op::LINK).pid(&caller()).pid(&caller());
        };
        assert!(scene.skips(begun(link, |w| _ = w.nil())).is_err());
        let foreign = |w: &mut TermWriter<'_>| {
            let pid = Pid { node: "x@h".into(), ..caller() };
            w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference()).pid(&pid).pid(&pid);
            w.tuple(3).atom("erpc").atom("execute_call").integer(4).nil();
        };
        let ended = scene.skips(begun(foreign, |w| _ = w.nil()));
        assert!(matches!(ended, Err(PeerError::ForeignSender)));
    }

    #[test]
    fn no_cut_and_no_change_of_a_beginning_panics() {
        let heads = [
            begun(to_name("noting"), call("$gen_call")),
            begun(to_name("rex"), |w| _ = w.tuple(2).pid(&caller()).tuple(5).atom("call").atom("m")),
            begun(to_name("noting"), |w| _ = w.tuple(2).list(1).atom("alias").reference(&reference())),
        ];
        let mut scene = scene();
        scene.monitor();
        for head in heads {
            for at in 0..head.len() {
                let _settled = scene.skips(head[..at].to_vec());
                for byte in [0, 1, 97, 104, 108, 131, 255] {
                    let mut changed = head.clone();
                    changed[at] = byte;
                    let _settled = scene.skips(changed);
                }
            }
        }
    }
}
