//! All that is around a server under test: every other node is played by the test, at the end of a connection that has no
//! socket. What the server sends is taken out of the connection's output as the frames that a BEAM would read.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::seen::{Answer, Sent};
use crate::distribution::control::{ControlMessage, ProcessRef, Reason, op};
use crate::distribution::handshake::PeerNode;
use crate::distribution::{
    DistributionFlags, FrameForm, Inbound, NodeName, Outbound, RemoteProcess, ServerRef,
};
use crate::etf::tag::VERSION_MAGIC;
use crate::etf::{Cursor, OwnedTerm, Pid, Reference, TermError, TermView, TermWriter};
use crate::node::Node;
use crate::node::peers::events::NodeEvent;
use crate::node::peers::loopback::pour;
use crate::node::peers::{PeerDown, PeerHandle};
use crate::process::peer::Frame;
use crate::process::{Effect, Peer};

/// The node that the server under test is on.
pub(super) const OWN_NODE: &str = "server@localhost";
/// Where the processes of the test are that are given no other node.
pub(super) const TEST_NODE: &str = "test@localhost";
/// Where names in `global` have their processes.
const GLOBAL_NODE: &str = "global@localhost";
/// Where local names have their processes that no process of the server's node has.
const LOCAL_NODE: &str = "local@localhost";
/// The life of each of these nodes.
const CREATION: u32 = 4;
/// As OTP 25, the nodes are answered with a state as it is.
const RELEASE: u32 = 25;

/// The other nodes, and what they have seen of the server.
#[derive(Default)]
pub(in crate::node) struct World {
    scene: Mutex<Scene>,
}

#[derive(Default)]
struct Scene {
    /// What the test has each node send.
    lines: AHashMap<Arc<str>, Arc<Mutex<Outbound>>>,
    /// What was sent and not looked at; of a monitor with its reference, as it may be that of a call.
    sent: Vec<(Option<Reference>, Sent)>,
    /// Calls of the server that have no answer.
    asked: Vec<Asked>,
    /// Monitors that the server has set, those of its calls among them.
    monitors: Vec<Monitored>,
    /// Of a process of the server's node to one of another.
    links: Vec<(Pid, Pid)>,
    /// Calls of the test that have no answer, by their number.
    calls: AHashMap<u32, Arc<OnceLock<Answer>>>,
    /// Names in `global` that the server has used: the first has the pid with the number 1.
    globals: Vec<Arc<[u8]>>,
    numbered: u32,
}

struct Asked {
    to: ServerRef,
    from: Pid,
    node: Arc<str>,
    tag: OwnedTerm,
    reference: Reference,
    request: OwnedTerm,
}

struct Monitored {
    process: ServerRef,
    at: RemoteProcess,
    from: Pid,
    reference: Reference,
    is_call: bool,
}

impl Scene {
    fn number(&mut self) -> u32 {
        self.numbered += 1;
        self.numbered
    }

    /// A process, as the server has named it.
    fn named(&self, at: &RemoteProcess) -> ServerRef {
        match at {
            RemoteProcess::Pid(pid) if *pid.node == *GLOBAL_NODE => {
                let at = (pid.id as usize).checked_sub(1);
                let name = at.and_then(|at| self.globals.get(at));
                name.map_or_else(|| pid.clone().into(), |name| ServerRef::Global(Arc::clone(name)))
            }
            RemoteProcess::Name { name, node } if **node == *LOCAL_NODE => ServerRef::Local(Arc::clone(name)),
            at => at.clone().into(),
        }
    }

    fn note(&mut self, sent: Sent) {
        self.sent.push((None, sent));
    }

    fn message(&mut self, at: &RemoteProcess, message: TermView<'_>) {
        let to = self.named(at);
        if let Some([label, from, request]) = message.as_tuple::<3>()
            && label.is_atom("$gen_call")
            && let Some([from, tag]) = from.as_tuple::<2>()
            && let (Some(from), Some(reference)) = (from.as_pid(), reference_in(tag))
        {
            // A call's monitor is a part of it.
            self.sent.retain(|(monitor, _)| monitor.as_ref() != Some(&reference));
            self.monitors
                .iter_mut()
                .filter(|set| set.reference == reference)
                .for_each(|set| set.is_call = true);
            let request = OwnedTerm::from(request);
            self.note(Sent::Call { to: to.clone(), request: request.clone() });
            let (from, tag, node) = (from.into(), tag.into(), Arc::clone(at.node()));
            self.asked.push(Asked { to, from, node, tag, reference, request });
        } else if let Some([label, request]) = message.as_tuple::<2>()
            && label.is_atom("$gen_cast")
        {
            self.note(Sent::Cast { to, request: request.into() });
        } else {
            self.note(Sent::Message { to, message: message.into() });
        }
    }

    /// A call of the test is over.
    fn over(&mut self, number: u32, answer: Answer) -> bool {
        let call = self.calls.remove(&number);
        call.is_some_and(|call| call.set(answer).is_ok())
    }

    fn forget(&mut self, reference: &Reference) -> Option<Monitored> {
        self.asked.retain(|asked| asked.reference != *reference);
        let at = self.monitors.iter().position(|set| set.reference == *reference)?;
        Some(self.monitors.remove(at))
    }

    /// What one of the nodes reads; `back` goes out from there.
    fn read(&mut self, node: &Arc<str>, frame: &[u8], back: &mut Outbound) -> Result<(), TermError> {
        let mut cursor = Cursor::new(frame);
        let control = ControlMessage::parse_seldom(&mut cursor)?;
        let payload = cursor.rest().strip_prefix(&[VERSION_MAGIC]).unwrap_or_default();
        let reason = |reason: Reason<'_>| match reason {
            Reason::Inline(reason) => Ok(OwnedTerm::from(reason)),
            Reason::Payload => OwnedTerm::parse(payload.to_vec()),
        };
        let at = |process: ProcessRef<'_>| match process {
            ProcessRef::Pid(pid) => RemoteProcess::Pid(pid.into()),
            ProcessRef::Name(name) => {
                RemoteProcess::Name { name: name.to_str().into(), node: Arc::clone(node) }
            }
        };
        match control {
            ControlMessage::Send { to_pid } => {
                let message = TermView::parse(payload)?;
                let answer =
                    message.as_tuple::<2>().and_then(|[tag, value]| Some((reference_in(tag)?, value)));
                if let Some((reference, value)) = answer
                    && reference.node == *node
                    && let Some(&number) = reference.words.first()
                    && self.over(number, Answer::Reply(value.into()))
                {
                    // The caller takes its monitor back, as `gen:call` does; the reference is all that counts of it.
                    back.demonitor(
                        &to_pid.into(),
                        &RemoteProcess::Name { name: "".into(), node: OWN_NODE.into() },
                        &reference,
                    );
                    return Ok(());
                }
                self.message(&RemoteProcess::Pid(to_pid.into()), message);
            }
            ControlMessage::RegSend { to_name, .. } => {
                self.message(&at(ProcessRef::Name(to_name)), TermView::parse(payload)?);
            }
            ControlMessage::MonitorP { from_pid, to_proc, reference } => {
                let (at, reference) = (at(to_proc), Reference::from(reference));
                let process = self.named(&at);
                self.sent.push((Some(reference.clone()), Sent::Monitor(process.clone())));
                self.monitors.push(Monitored {
                    process,
                    at,
                    from: from_pid.into(),
                    reference,
                    is_call: false,
                });
            }
            ControlMessage::DemonitorP { reference, .. } => {
                if let Some(set) = self.forget(&reference.into())
                    && !set.is_call
                {
                    self.note(Sent::Demonitor(set.process));
                }
            }
            ControlMessage::MonitorPExit { reference, reason: why, .. } => {
                if let Some(&number) = reference.words().first() {
                    self.over(number, Answer::Exit(reason(why)?));
                }
            }
            ControlMessage::Link { from_pid, to_pid } => {
                let to = Pid::from(to_pid);
                self.links.push((from_pid.into(), to.clone()));
                self.note(Sent::Link(to));
            }
            ControlMessage::UnlinkId { id, from_pid, to_pid } => {
                let (from, to) = (Pid::from(from_pid), Pid::from(to_pid));
                let open = back.begin();
                back.term().tuple(4).unsigned(op::UNLINK_ID_ACK).unsigned(id).pid(&to).pid(&from);
                back.finish(open);
                self.links.retain(|link| *link != (from.clone(), to.clone()));
                self.note(Sent::Unlink(to));
            }
            ControlMessage::Exit { to_pid, reason: why, .. }
            | ControlMessage::Exit2 { to_pid, reason: why, .. } => {
                self.links.retain(|(_, to)| *to != Pid::from(to_pid));
                self.note(Sent::Exit { to: to_pid.into(), reason: reason(why)? });
            }
            // Nothing else is sent by what a server can do.
            _ => {}
        }
        Ok(())
    }
}

/// The reference of a call's tag: the tag itself, or the alias in `[alias | reference]`.
fn reference_in(tag: TermView<'_>) -> Option<Reference> {
    let mut cursor = tag.cursor();
    if let Ok(reference) = cursor.reference() {
        return Some(reference.into());
    }
    let is_alias = cursor.list() == Ok(1) && cursor.atom().is_ok_and(|atom| atom == "alias");
    is_alias.then(|| cursor.reference().ok()).flatten().map(Reference::from)
}

impl World {
    /// A process of the test's.
    pub(super) fn new_pid(&self, node: &str) -> Pid {
        Pid { node: node.into(), id: self.scene.lock().number(), serial: 0, creation: CREATION }
    }

    /// The process that has a name in `global`, which is an encoded term.
    pub(in crate::node) fn global(&self, name: &[u8]) -> Pid {
        let mut scene = self.scene.lock();
        let known = scene.globals.iter().position(|known| **known == *name);
        let at = known.unwrap_or_else(|| {
            scene.globals.push(name.into());
            scene.globals.len() - 1
        });
        let id = u32::try_from(at + 1).expect("a test uses few names");
        Pid { node: GLOBAL_NODE.into(), id, serial: 0, creation: CREATION }
    }

    /// The process that has a name which no process of the server's node has.
    pub(in crate::node) fn local(name: &Arc<str>) -> RemoteProcess {
        RemoteProcess::Name { name: Arc::clone(name), node: LOCAL_NODE.into() }
    }

    /// Connects the server's node to another.
    pub(in crate::node) fn connect(self: &Arc<Self>, node: &Arc<Node>, name: NodeName) {
        let flags = DistributionFlags::OFFERED;
        let handle = Arc::new(PeerHandle::new(&PeerNode {
            name,
            creation: CREATION,
            offered: flags,
            // What never leaves the process needs no fragments.
            in_force: flags.difference(DistributionFlags::FRAGMENTS),
        }));
        handle.release.get_or_init(|| Some(RELEASE));
        if node.peers.install(&handle).is_ok() {
            node.peers.listeners.tell(|| NodeEvent::Up(handle.connected()));
            node.spawn_link(Arc::clone(self).run(Arc::clone(node), handle));
        }
    }

    fn line(&self, node: &Arc<str>) -> Arc<Mutex<Outbound>> {
        Arc::clone(self.scene.lock().lines.entry(Arc::clone(node)).or_default())
    }

    /// Carries signals between the server's node and another, until the connection is lost.
    async fn run(self: Arc<Self>, node: Arc<Node>, handle: Arc<PeerHandle>) {
        let line = self.line(&handle.name);
        let mut peer = Peer::new(Arc::clone(&handle.name), handle.offered);
        let inbound = || Inbound::new(&[], FrameForm::PassThrough, usize::MAX);
        let (mut out_going, mut in_coming) = (inbound(), inbound());
        let mut later: Vec<Effect> = Vec::new();
        loop {
            let (mut sent, events, down) = poll_fn(|cx| {
                handle.collect(cx.waker(), |outbox| {
                    let idle =
                        outbox.frames.is_empty() && outbox.events.is_empty() && outbox.closing.is_none();
                    if idle && line.lock().is_empty() {
                        return Poll::Pending;
                    }
                    let frames = std::mem::take(&mut outbox.frames);
                    Poll::Ready((frames, std::mem::take(&mut outbox.events), outbox.closing.take()))
                })
            })
            .await;
            let (mut out, mut come) = (Outbound::default(), std::mem::take(&mut *line.lock()));
            for event in events {
                peer.on(event, node.surroundings(), &mut out);
            }
            while peer
                .deliver_held(node.surroundings(), &mut out, &mut later)
                .expect("what is held was checked")
            {}
            pour(&mut come, &mut in_coming, |frame| {
                let handled = peer.handle(frame, node.surroundings(), &mut out, &mut later);
                handled.expect("the test's nodes send what a BEAM does");
            });
            sent.append(&mut out);
            let mut back = Outbound::default();
            pour(&mut sent, &mut out_going, |frame: Frame<'_>| {
                let read = self.scene.lock().read(&handle.name, frame.bytes, &mut back);
                read.expect("what the node sends is well-formed");
            });
            line.lock().append(&mut back);
            node.carry_out(&mut later);
            if let Some(down) = down {
                peer.connection_lost(node.surroundings(), &mut later);
                self.scene.lock().lost(&handle.name);
                node.ended(&handle, &down);
                node.carry_out(&mut later);
                return;
            }
            for feed in handle.make_room() {
                node.feed_at(&handle, &feed);
            }
        }
    }

    /// Has a node send something to the server's.
    fn bring(self: &Arc<Self>, node: &Arc<Node>, from: &Arc<str>, write: impl FnOnce(&mut Outbound)) {
        if node.peers.get(from).is_none() {
            let name =
                NodeName::new(from).unwrap_or_else(|error| panic!("{from} is not a node's name: {error}"));
            self.connect(node, name);
        }
        write(&mut self.line(from).lock());
        if let Some(peer) = node.peers.get(from) {
            peer.leave(|_| {});
        }
    }

    /// A call of the test's, with a label: `$gen_call`, or `system`.
    pub(super) fn call(
        self: &Arc<Self>,
        node: &Arc<Node>,
        label: &str,
        (from, to): (&Pid, &Pid),
        request: TermView<'_>,
    ) -> Arc<OnceLock<Answer>> {
        let answer = Arc::new(OnceLock::new());
        let number = self.scene.lock().number();
        self.scene.lock().calls.insert(number, Arc::clone(&answer));
        let reference =
            Reference { node: Arc::clone(&from.node), creation: CREATION, words: vec![number, 0, 0] };
        self.bring(node, &from.node, |out| {
            out.monitor(from, &RemoteProcess::Pid(to.clone()), &reference);
            out.send(to, |w| {
                w.tuple(3).atom(label).tuple(2).pid(from).reference(&reference).term(request);
            });
        });
        answer
    }

    /// A monitor of the test's.
    pub(super) fn monitor(self: &Arc<Self>, node: &Arc<Node>, process: &Pid) -> Arc<OnceLock<Answer>> {
        let ended = Arc::new(OnceLock::new());
        let number = self.scene.lock().number();
        self.scene.lock().calls.insert(number, Arc::clone(&ended));
        let from = self.new_pid(TEST_NODE);
        let reference = Reference { node: TEST_NODE.into(), creation: CREATION, words: vec![number, 0, 0] };
        self.bring(node, &from.node, |out| {
            out.monitor(&from, &RemoteProcess::Pid(process.clone()), &reference)
        });
        ended
    }

    /// A message of the test's.
    pub(super) fn send(
        self: &Arc<Self>,
        node: &Arc<Node>,
        to: &Pid,
        message: impl FnOnce(&mut TermWriter<'_>),
    ) {
        self.bring(node, &TEST_NODE.into(), |out| out.send(to, message));
    }

    /// An exit signal, as of `Process.exit(to, reason)` in a process of the test's.
    pub(super) fn exit(self: &Arc<Self>, node: &Arc<Node>, (from, to): (&Pid, &Pid), reason: TermView<'_>) {
        self.bring(node, &from.node, |out| {
            let open = out.begin();
            out.term().tuple(4).unsigned(op::EXIT2).pid(from).pid(to).term(reason);
            out.finish(open);
        });
    }

    /// A process of the test's has ended: gives how many monitors, calls and links are told.
    pub(super) fn down(
        self: &Arc<Self>,
        node: &Arc<Node>,
        process: &ServerRef,
        reason: TermView<'_>,
    ) -> usize {
        let (monitors, links) = {
            let mut scene = self.scene.lock();
            let monitors: Vec<_> = scene.monitors.extract_if(.., |set| set.process == *process).collect();
            scene.asked.retain(|asked| asked.to != *process);
            let links: Vec<_> = match process {
                ServerRef::Pid(pid) => scene.links.extract_if(.., |(_, to)| to == pid).collect(),
                _ => Vec::new(),
            };
            (monitors, links)
        };
        for Monitored { at, from, reference, .. } in &monitors {
            self.bring(node, at.node(), |out| {
                let open = out.begin();
                let mut term = out.term();
                term.tuple(5).unsigned(op::MONITOR_P_EXIT);
                match at {
                    RemoteProcess::Pid(pid) => term.pid(pid),
                    RemoteProcess::Name { name, .. } => term.atom(name),
                };
                term.pid(from).reference(reference).term(reason);
                out.finish(open);
            });
        }
        for (ours, theirs) in &links {
            self.bring(node, &theirs.node, |out| {
                let open = out.begin();
                out.term().tuple(4).unsigned(op::EXIT).pid(theirs).pid(ours).term(reason);
                out.finish(open);
            });
        }
        monitors.len() + links.len()
    }

    /// The connection to a node is lost; `false`: there is none.
    pub(super) fn node_down(node: &Node, name: &str) -> bool {
        let peer = node.peers.get(name);
        peer.map(|peer| peer.close(PeerDown::Closed)).is_some()
    }

    /// Answers the oldest call of the server's to a process, and gives the request; `None`: there is none.
    pub(super) fn answer(
        self: &Arc<Self>,
        node: &Arc<Node>,
        to: &ServerRef,
        value: TermView<'_>,
    ) -> Option<OwnedTerm> {
        let asked = {
            let mut scene = self.scene.lock();
            let at = scene.asked.iter().position(|asked| asked.to == *to)?;
            scene.asked.remove(at)
        };
        self.bring(node, &asked.node, |out| {
            out.send(&asked.from, |w| _ = w.tuple(2).term(asked.tag.view()).term(value));
        });
        Some(asked.request)
    }

    /// Calls of the server that have no answer, for the text of an assertion.
    pub(super) fn asked(&self) -> Vec<(ServerRef, OwnedTerm)> {
        self.scene.lock().asked.iter().map(|asked| (asked.to.clone(), asked.request.clone())).collect()
    }

    /// What was sent since this was asked last.
    pub(super) fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.scene.lock().sent).into_iter().map(|(_, sent)| sent).collect()
    }

    /// Whether something was sent that has not been looked at, for the text of an assertion.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.scene.lock().sent.iter().map(|(_, sent)| sent.clone()).collect()
    }
}

impl Scene {
    fn lost(&mut self, node: &str) {
        self.monitors.retain(|set| **set.at.node() != *node);
        self.asked.retain(|asked| *asked.node != *node);
        self.links.retain(|(_, to)| *to.node != *node);
        self.lines.remove(node);
    }
}
