//! What a store's machines want done, carried out: replication between the nodes, as the program does it.

use std::sync::Arc;

use super::node::Read;
use super::world::{Item, Message, World};
use crate::elect::succession::Input;
use crate::etf::{OwnedTerm, Pid, TermView, Traits, encode};
use crate::replica::downstream::{
    Answer as DownAnswer, Input as DownInput, Output as DownOutput, PartRead, Siblings, Standpoint,
    Whereabouts,
};
use crate::replica::upstream::{Answer, Around, Asked, Greeting, Input as UpInput, Output as UpOutput, Take};
use crate::replica::{
    Acknowledge, CopyMark, Dialect, GreetingAnswer, KnownSlave, Pushed, Refusal, ReplicaWrite, Said,
    SlaveName,
};

/// What asks a slave: the node, its slave's number there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) node: usize,
    pub(super) number: u64,
    pub(super) mark: crate::replica::Mark,
}

fn refusal(code: &str) -> Refusal {
    Refusal::ALL.into_iter().find(|refusal| refusal.code() == code).expect("a refusal")
}

fn noconnection() -> OwnedTerm {
    OwnedTerm::atom("noconnection")
}

impl World {
    // The store as a slave.

    /// Hands an input in and carries out what follows; gives the answer. `asker`: of a question whose answer may come later.
    pub(super) fn up(&mut self, node: usize, input: UpInput, asker: Option<Asker>) -> Option<Answer> {
        self.nodes[node].upstream.handle(input);
        let mut reply = None;
        let upstream = &mut self.nodes[node].upstream;
        let outputs: Vec<UpOutput> = std::iter::from_fn(|| upstream.poll_output()).collect();
        for output in outputs {
            match output {
                UpOutput::Persist { then, .. } => {
                    let its = &mut self.nodes[node];
                    its.membership = its.upstream.durable().clone();
                    reply = reply.or(then);
                }
                UpOutput::Watch(pid) => {
                    let peer = self.node_of(&pid.node);
                    let is_there = self.sees[node][peer].is_some() && self.nodes[peer].me == pid;
                    self.nodes[node].watches.push(pid.clone());
                    if !is_there {
                        self.primary_down(node, &pid);
                    }
                }
                UpOutput::Leave { primary, session } => {
                    let peer = self.node_of(&primary.node);
                    self.link(node, peer, Item::Left { session });
                }
                UpOutput::HandUp { primary, superseded, .. } => {
                    let peer = self.node_of(&primary.node);
                    self.link(node, peer, Item::Superseded(superseded));
                }
                UpOutput::RemoveDownstreams { names, at } => {
                    for index in 0..self.nodes[node].downs.len() {
                        let machine = &self.nodes[node].downs[index].machine;
                        if names.contains(machine.name()) || machine.followed_at() == Some(&at) {
                            self.down(node, index, DownInput::Removed);
                        }
                    }
                }
                UpOutput::AddDownstream(slave) => {
                    let at = match &slave.name {
                        SlaveName::Remote { node, .. } => Arc::clone(node),
                        SlaveName::Pid(pid) => Arc::clone(&pid.node),
                        _ => continue,
                    };
                    let other = self.node_of(&at);
                    self.add_slave(node, other);
                }
                UpOutput::GiveUp => self.nodes[node].waiting.clear(),
                UpOutput::RenewAll => {
                    for index in 0..self.nodes[node].downs.len() {
                        self.down(node, index, DownInput::Renew);
                    }
                }
                UpOutput::ClaimName(_) | UpOutput::ReleaseNames(_) | UpOutput::Log(_) => {}
                UpOutput::Confirm(asked) => {
                    let its = &mut self.nodes[node];
                    its.membership = its.upstream.durable().clone();
                    let asker = asker.expect("a question is asked by somebody");
                    let after = self.random.millis(0, 12);
                    self.message_in(after, node, Message::Kept { asked, asker });
                }
                UpOutput::SwapIn { copy, .. } => {
                    let its = &mut self.nodes[node];
                    its.data = std::mem::take(&mut its.aside);
                    _ = self.up(node, UpInput::CopyIsIn { copy }, None);
                }
                UpOutput::Reply(answer) => reply = Some(answer),
                UpOutput::DeleteRest { copy, .. } => {
                    let its = &mut self.nodes[node];
                    let brought = &its.brought;
                    let keys = its.data.keys();
                    let rest: Vec<_> = keys.filter(|key| brought.get(*key) != Some(&copy)).cloned().collect();
                    for key in rest {
                        if let Some(ticket) = its.upstream.take_rest(copy) {
                            its.data.remove(&key);
                            its.upstream.stored(ticket, Ok(()));
                        }
                    }
                    _ = self.up(node, UpInput::CopyIsIn { copy }, None);
                }
                UpOutput::PutOff | UpOutput::ConfirmPutOff(_) | UpOutput::ReplyPutOff(_) => {
                    unreachable!("the rest is deleted at once")
                }
            }
        }
        reply
    }

    pub(super) fn primary_down(&mut self, node: usize, pid: &Pid) {
        let its = &mut self.nodes[node];
        if its.watches.contains(pid) {
            its.watches.retain(|watched| watched != pid);
            self.up(node, UpInput::PrimaryDown(pid.clone(), noconnection()), None);
        }
    }

    pub(super) fn kept(&mut self, node: usize, asked: Asked, asker: Asker) {
        let answer = self.up(node, UpInput::Kept { asked, result: Ok(()) }, None);
        self.answer(node, asker, answer);
    }

    fn answer(&mut self, node: usize, asker: Asker, answer: Option<Answer>) {
        let kept = match answer {
            // It comes later.
            None => return,
            Some(Answer::Error(code)) => Err(refusal(code)),
            Some(_) => Ok(()),
        };
        let Asker { node: to, number, mark } = asker;
        self.link(node, to, Item::Acknowledged { number, mark, kept });
    }

    /// Something has come over the connection from a node.
    pub(super) fn arrive(&mut self, node: usize, from: usize, item: Item) {
        match item {
            Item::Cast(message) => self.cast(node, &message),
            Item::Ask { session, seq, asker } => {
                let answer = self.up(node, UpInput::Ask { session, seq }, Some(asker));
                self.answer(node, asker, answer);
            }
            Item::Hello { greeting, number, question } => {
                let (pid, term) = (greeting.pid.clone(), greeting.lineage.term);
                let incarnation = Some(greeting.lineage.incarnation());
                let its = &self.nodes[node];
                let mut downs = its.downs.iter().filter(|down| !down.machine.is_over());
                let around = Around {
                    has_slaves: downs.clone().next().is_some(),
                    is_greeted_by_slave: downs.any(|down| down.machine.as_sibling().is_at(&pid, incarnation)),
                    is_empty: its.data.is_empty(),
                    is_shared: false,
                    shares_name: false,
                };
                let answer = match self.up(node, UpInput::Hello(greeting, around), None) {
                    Some(Answer::Greeted { incarnation, had, applied, stepped_down }) => {
                        self.hand(node, Input::Fence(term));
                        GreetingAnswer::Taken(Said { incarnation, had, applied, stepped_down })
                    }
                    Some(Answer::Error(code)) => GreetingAnswer::Refused(refusal(code)),
                    other => unreachable!("{other:?}"),
                };
                self.link(node, from, Item::Greeted { number, question, answer });
            }
            Item::Siblings { session, slaves } => {
                _ = self.up(node, UpInput::Siblings { session, slaves }, None);
            }
            Item::Bye { session } => _ = self.up(node, UpInput::Bye { session }, None),
            Item::Left { session } => {
                let is_in =
                    |down: &super::node::Down| down.machine.dialect() == Some(Dialect::Kvnode { session });
                for index in 0..self.nodes[node].downs.len() {
                    if is_in(&self.nodes[node].downs[index]) {
                        self.down(node, index, DownInput::Renew);
                    }
                }
            }
            Item::Superseded(slave) => _ = self.up(node, UpInput::Superseded(slave), None),
            Item::Acknowledged { number, mark, kept } => {
                if let Some(index) = self.down_of(node, number) {
                    self.down(node, index, DownInput::Acknowledged { mark, kept });
                }
            }
            Item::Greeted { number, question, answer } => {
                if let Some(index) = self.down_of(node, number) {
                    let answer = DownAnswer::Greeting(answer);
                    let store = self.standpoint(node, index);
                    self.down(node, index, DownInput::Answered { question, answer, store });
                }
            }
        }
    }

    fn cast(&mut self, node: usize, message: &[u8]) {
        let term = TermView::parse(message).expect("a term");
        let [cast, request] = term.as_tuple::<2>().expect("a cast");
        assert!(cast.is_atom("$gen_cast"));
        let its = &mut self.nodes[node];
        if let Some([name, session, seq, revision, key, _]) = request.as_tuple::<6>() {
            assert!(name.is_atom("replica_put"));
            let number = |term: TermView<'_>| term.as_unsigned().expect("a number");
            let (session, seq, revision) = (number(session), number(seq), number(revision));
            let key: Box<[u8]> = encode(|w| _ = w.unsigned(key.as_unsigned().expect("a key"))).into();
            match its.upstream.take(session, seq) {
                Take::Nowhere => {}
                Take::Store(ticket) | Take::Exporting(ticket) => {
                    its.brought.insert(key.clone(), its.upstream.copy());
                    its.data.insert(key, revision);
                    its.upstream.stored(ticket, Ok(()));
                }
                Take::Aside => {
                    its.aside.insert(key, revision);
                    its.upstream.put_aside(Ok(()));
                }
            }
        } else if let Some([name, session, seq, rest]) = request.as_tuple::<4>() {
            let (session, seq) = (session.as_unsigned().expect("one"), seq.as_unsigned().expect("one"));
            if name.is_atom("replica_delete") {
                let key: Box<[u8]> = encode(|w| _ = w.unsigned(rest.as_unsigned().expect("a key"))).into();
                if let Take::Store(ticket) | Take::Exporting(ticket) = its.upstream.take(session, seq) {
                    its.data.remove(&key);
                    its.upstream.stored(ticket, Ok(()));
                }
                return;
            }
            let mark = rest.as_atom().and_then(CopyMark::read).expect("a mark");
            if mark == CopyMark::Begin && its.upstream.is_in(session) {
                its.aside.clear();
            }
            let can_put_aside = its.puts_aside;
            _ = self.up(node, UpInput::Mark { session, seq, mark, can_put_aside }, None);
        } else {
            unreachable!("{request:?}");
        }
    }

    // The store as a primary.

    fn down_of(&self, node: usize, number: u64) -> Option<usize> {
        self.nodes[node].downs.iter().position(|down| down.number == number)
    }

    pub(super) fn add_slave(&mut self, node: usize, other: usize) {
        if node == other {
            return;
        }
        let (name, now, pause) = (self.name(other), self.local(node), self.random.next());
        if let Some(index) = self.nodes[node].add(other, &name, now, pause) {
            let slaves = self.known_slaves(node);
            self.up(node, UpInput::SlavesAre(slaves), None);
            self.carry_out_down(node, index);
        }
    }

    fn known_slaves(&self, node: usize) -> Vec<KnownSlave> {
        let downs = self.nodes[node].downs.iter().filter(|down| !down.machine.is_over());
        downs
            .map(|down| KnownSlave { name: down.machine.name().clone(), node: Some(self.name(down.node)) })
            .collect()
    }

    fn standpoint(&self, node: usize, index: usize) -> Standpoint {
        let its = &self.nodes[node];
        let others = its.downs.iter().enumerate().filter(|(at, _)| *at != index);
        Standpoint {
            lineage: its.upstream.lineage(),
            seq: its.seq,
            clock: 0,
            started_empty: its.upstream.started_empty(),
            slaves: self.known_slaves(node),
            siblings: Siblings(others.map(|(_, down)| down.machine.as_sibling()).collect()),
        }
    }

    pub(super) fn down(&mut self, node: usize, index: usize, input: DownInput) {
        let now = self.local(node);
        self.nodes[node].downs[index].machine.handle(input, now);
        self.carry_out_down(node, index);
    }

    fn carry_out_down(&mut self, node: usize, index: usize) {
        while let Some(output) = self.nodes[node].downs[index].machine.poll_output() {
            let now = self.local(node);
            let to = self.nodes[node].downs[index].node;
            let down = &mut self.nodes[node].downs[index];
            let input = match output {
                DownOutput::Locate { question } => {
                    let found = if self.connect(node, to) {
                        Ok(Whereabouts::At(self.nodes[to].me.clone()))
                    } else {
                        Err("not reached".to_owned())
                    };
                    DownInput::Located { question, found }
                }
                DownOutput::Watch { question, at } => {
                    if self.connect(node, to) {
                        let is_it = self.nodes[to].me == at;
                        let down = &mut self.nodes[node].downs[index];
                        down.watched = Some((at, question));
                        down.machine.handle(DownInput::Watched { question, watched: Ok(()) }, now);
                        if is_it {
                            continue;
                        }
                        DownInput::Down { question, reason: OwnedTerm::atom("noproc") }
                    } else {
                        DownInput::Watched { question, watched: Err("not reached".to_owned()) }
                    }
                }
                DownOutput::Unwatch => {
                    down.watched = None;
                    continue;
                }
                DownOutput::Greeting(is_under_way) => {
                    self.nodes[node].upstream.greeting(is_under_way);
                    continue;
                }
                DownOutput::AskDialect { question, .. } => {
                    let (answer, store) = (DownAnswer::Dialect(Ok(true)), self.standpoint(node, index));
                    DownInput::Answered { question, answer, store }
                }
                DownOutput::Greet { question, hello, .. } => {
                    let number = down.number;
                    let greeting = Greeting {
                        session: hello.session,
                        lineage: hello.lineage,
                        seq: hello.seq,
                        started_empty: hello.started_empty,
                        names: vec![SlaveName::remote("kv", &self.name(node))],
                        slaves: hello.slaves,
                        pid: self.nodes[node].me.clone(),
                    };
                    self.link(node, to, Item::Hello { greeting, number, question });
                    continue;
                }
                DownOutput::Look { question } => {
                    DownInput::Holders { question, holders: vec![self.nodes[to].me.clone()] }
                }
                DownOutput::Feed { .. } => {
                    self.feed(node, index);
                    continue;
                }
                DownOutput::ReadPart { scan, part, .. } => {
                    let keys: Vec<Box<[u8]>> = self.nodes[node].data.keys().cloned().collect();
                    let total = keys.len() as u64;
                    let read = PartRead::Keys { keys, parts: 1, total, is_damaged: false };
                    DownInput::PartRead { scan, part, read }
                }
                DownOutput::Repair => {
                    let its = &mut self.nodes[node];
                    let read = Read { data: &its.data, seq: its.seq, lineage: its.upstream.lineage() };
                    its.downs[index].machine.repair(&read);
                    continue;
                }
                DownOutput::TellSiblings { session, .. } => {
                    let slaves = self.known_slaves(node);
                    self.link(node, to, Item::Siblings { session, slaves });
                    continue;
                }
                DownOutput::Bye { sessions, .. } | DownOutput::Part { sessions, .. } => {
                    sessions.into_iter().for_each(|session| self.link(node, to, Item::Bye { session }));
                    continue;
                }
                DownOutput::AskKind { .. } | DownOutput::ReadKeys { .. } | DownOutput::Drop { .. } => {
                    unreachable!("{output:?}")
                }
                DownOutput::Forget { .. }
                | DownOutput::CopyOthers
                | DownOutput::Moved
                | DownOutput::SlavesChanged
                | DownOutput::Settle(_)
                | DownOutput::UpToDate
                | DownOutput::Log(_) => continue,
            };
            self.nodes[node].downs[index].machine.handle(input, now);
        }
    }

    /// Sends a slave what waits for it.
    pub(super) fn feed(&mut self, node: usize, index: usize) {
        let now = self.local(node);
        let (me, seq) = (node, self.nodes[node].seq);
        loop {
            let to = self.nodes[node].downs[index].node;
            let name = self.name(to);
            let down = &mut self.nodes[node].downs[index];
            let mut messages = Vec::new();
            let taken = down.machine.take(
                &name,
                now,
                |_| true,
                |_, message| {
                    messages.push(message.to_vec());
                    messages.len() < 16
                },
            );
            let number = down.number;
            messages.into_iter().for_each(|message| self.link(node, to, Item::Cast(message)));
            if let (Acknowledge::Now(mark), Some((_, Dialect::Kvnode { session }))) =
                (taken.acknowledge, taken.at)
            {
                let asker = Asker { node: me, number, mark };
                self.link(node, to, Item::Ask { session, seq, asker });
            }
            if !taken.more {
                return;
            }
        }
    }

    /// The store takes a write of a caller.
    pub(super) fn put(&mut self, node: usize, write: u64) -> u64 {
        let key = encode(|w| _ = w.unsigned(write));
        let its = &mut self.nodes[node];
        if its.upstream.minds_writes() {
            self.up(node, UpInput::OwnWrite, None);
        }
        let its = &mut self.nodes[node];
        its.seq += 1;
        let seq = its.seq;
        its.data.insert(key.clone().into(), write);
        for index in 0..self.nodes[node].downs.len() {
            let put = ReplicaWrite::Put {
                key: &key,
                value: &key,
                traits: Traits::none(),
                revision: write,
                deadline: 0,
            };
            let machine = &mut self.nodes[node].downs[index].machine;
            machine.want(seq);
            match machine.push(seq, put) {
                Pushed::Kept => {}
                Pushed::Ready => self.feed(node, index),
                Pushed::Behind => self.carry_out_down(node, index),
            }
        }
        seq
    }
}
