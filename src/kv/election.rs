//! A store whose primary is elected: what the election tells the store's server, and asks it.
//!
//! The server decides nothing of that. It takes writes of callers while it is the primary and its lease lasts, by the clock, which is looked at
//! with each write, and with each that is confirmed: a process that was stopped takes and confirms none when it goes on. Writes are
//! confirmed by the slaves alone that the election [counts](KeyValueServer::count_only).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::ranked::{Ranked, rank};
use super::reason::Reason;
use super::slaves::TooManySlaves;
use super::upstream::Me;
use super::{Follow, KeyValueServer};
use crate::etf::{Pid, TermWriter};
use crate::process::{Caller, OwnedCaller, Turn};
use crate::replica::upstream::Input;
use crate::replica::{KnownSlave, SlaveName, Upstream};
use crate::store::Store;

/// How the store stands in an election, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ElectionState {
    /// Nothing is known yet: etcd has not answered.
    #[default]
    Waiting,
    /// The store is the primary.
    Primary,
    /// Another store is.
    Slave,
    /// There is none, and one is being elected.
    Electing,
    /// The store is elected, and about to be the primary.
    Promoting,
    /// The store was the primary, and its lease may have ended: it takes no writes until it is known who is.
    Unsure,
    /// Its node ends.
    Leaving,
}

impl ElectionState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Primary,
        Self::Slave,
        Self::Electing,
        Self::Promoting,
        Self::Unsure,
        Self::Leaving,
    ];

    /// Its word, for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Primary => "primary",
            Self::Slave => "slave",
            Self::Electing => "electing",
            Self::Promoting => "promoting",
            Self::Unsure => "unsure",
            Self::Leaving => "leaving",
        }
    }

    /// Reads [`code`](Self::code).
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

/// How an election stands, as one of its stores sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElectionFigures {
    /// How the store stands.
    pub state: ElectionState,
    /// The fence of the newest primary that is known; 0: of none.
    pub fence: u64,
    /// The primary's node; `None`: there is none, as far as is known.
    pub primary: Option<Arc<str>>,
    /// Of an election that is under way: how many reports count, and how many are needed.
    pub round: Option<(u64, u64)>,
    /// Since when it stands so, in milliseconds since 1970.
    pub since: u64,
    /// The nodes whose acknowledgements count for `confirm`.
    pub counted: Vec<Arc<str>>,
    /// Nodes that an election that is under way lacks: their data may be of matter, and they are not there, or have lost it.
    pub missing: Vec<Arc<str>>,
    /// How often another primary was elected since the store's process began.
    pub elections: u64,
}

/// Something that the server has to tell the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionNews {
    /// The store has taken the greeting of a primary with this fence.
    Follows {
        /// The fence.
        fence: u64,
    },
    /// A caller wants the store to be the primary, whatever is known of the others. It is answered when the store
    /// [leads](KeyValueServer::lead_until), or [does not](KeyValueServer::not_forced).
    Forced {
        /// The process that waits for the answer.
        caller: Pid,
    },
}

/// Told of news. From any thread; must not block.
pub type TellElection = Box<dyn Fn(ElectionNews) + Send + Sync>;

/// A slave of an elected primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectedSlave {
    /// Its name.
    pub name: SlaveName,
    /// It has every write up to this one.
    pub confirmed: u64,
    /// It is streamed to, and has acknowledged that it has everything but what is on its way.
    pub is_in_step: bool,
}

/// Until when the store is the primary.
struct Tenure {
    /// What times are told from.
    base: Instant,
    /// In nanoseconds since that; 0: it is not the primary.
    until: AtomicU64,
    clock: Arc<dyn Follow>,
}

impl Tenure {
    fn lasts(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until > 0 && self.clock.now().saturating_duration_since(self.base).as_nanos() < u128::from(until)
    }

    /// Gives whether there was one before, though its time may have been over.
    fn set(&self, until: Option<Instant>) -> bool {
        let since = |until: Instant| until.saturating_duration_since(self.base).as_nanos();
        let until = until.map_or(0, |until| u64::try_from(since(until)).unwrap_or(u64::MAX));
        self.until.swap(until, Ordering::AcqRel) > 0
    }
}

/// Which acknowledgements count.
pub(super) struct Counting {
    slaves: Ranked<rank::Alone, Arc<[SlaveName]>>,
    tenure: Arc<Tenure>,
}

impl Counting {
    /// Whether any counts now.
    pub(super) fn lasts(&self) -> bool {
        self.tenure.lasts()
    }

    pub(super) fn count_only(&self, slaves: impl IntoIterator<Item = SlaveName>) {
        *self.slaves.lock() = slaves.into_iter().collect();
    }

    /// Those of these slaves.
    pub(super) fn slaves(&self) -> Arc<[SlaveName]> {
        self.slaves.lock().clone()
    }
}

/// How the process stands to the election of its primary.
pub(super) struct Election {
    /// An election runs.
    is_on: AtomicBool,
    /// The store was [sealed](KeyValueServer::seal) once.
    is_sealed: AtomicBool,
    tenure: Arc<Tenure>,
    /// The process is to promote itself with this term.
    chosen: Mutex<Option<u64>>,
    tell: OnceLock<TellElection>,
    figures: Ranked<rank::Alone, ElectionFigures>,
    /// Callers that want the store to be the primary, each with its process.
    forcing: Mutex<Vec<(Pid, OwnedCaller)>>,
}

/// How many callers may wait for a forced promotion.
const FORCING_MAX: usize = 16;

impl Election {
    pub(super) fn new(follow: &Arc<dyn Follow>) -> Self {
        let tenure = Tenure { base: follow.now(), until: AtomicU64::new(0), clock: Arc::clone(follow) };
        Self {
            is_on: AtomicBool::new(false),
            is_sealed: AtomicBool::new(false),
            tenure: Arc::new(tenure),
            chosen: Mutex::default(),
            tell: OnceLock::new(),
            figures: Ranked::default(),
            forcing: Mutex::default(),
        }
    }

    /// Whether it is known which primaries the store may follow.
    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Ordering::Acquire)
    }

    fn tell(&self, news: ElectionNews) {
        if let Some(tell) = self.tell.get() {
            tell(news);
        }
    }
}

impl<S: Store> KeyValueServer<S> {
    /// The same, of a store whose primary is elected among several: it follows nobody, and takes no writes, until it is told more. Before it
    /// is [shared](Self::shared).
    pub fn elected(self) -> Self {
        self.election.is_on.store(true, Ordering::Relaxed);
        self.upstream.elect(false);
        let counting = Counting { slaves: Ranked::default(), tenure: Arc::clone(&self.election.tenure) };
        // The first counts, and is the same.
        _ = self.confirmations.counting.set(counting);
        self
    }

    /// Whether its primary is elected.
    pub(super) fn is_elected(&self) -> bool {
        self.election.is_on.load(Ordering::Relaxed)
    }

    /// What is told of news from now on; only the first of these counts.
    pub fn on_election_news(&self, tell: TellElection) {
        _ = self.election.tell.set(tell);
    }

    /// From now on the store takes greetings of this fence and above alone, and once this returns it acknowledges nothing to a primary
    /// with a lower one, nor takes anything from it. `look` is then shown its part as a slave.
    pub fn seal<R>(&self, floor: u64, me: &Pid, look: impl FnOnce(&Upstream) -> R) -> R {
        let outputs = self.hand_alone(Input::Seal { floor });
        self.carry_out_alone(outputs, &Me::at(me));
        self.election.is_sealed.store(true, Ordering::Release);
        self.upstream.with(|machine| look(machine))
    }

    /// The store is chosen: the next `{:promote}` of its process to itself is a promotion with this term.
    pub fn choose(&self, term: u64) {
        *self.election.chosen.lock() = Some(term);
    }

    /// Whether the store may be the first primary of all: it holds what it has of its own, and not as another's slave.
    pub fn may_found(&self) -> bool {
        self.upstream.with(|machine| !machine.minds_writes())
    }

    /// The store is the primary, and takes and confirms writes of callers, until then by the clock; `None`: it is not. A caller that
    /// waits for slaves is told then that its write is not confirmed.
    pub fn lead_until(&self, until: Option<Instant>) {
        let led = self.election.tenure.set(until);
        if until.is_some() != led {
            self.upstream.elect(until.is_some());
            if until.is_none() {
                return self.confirmations.give_up();
            }
            self.keep_numbers_apart(0);
            self.expiry.hurry();
        }
        // Also where it led before: its time may have been over when a caller came.
        if until.is_some() {
            for (_, caller) in self.take_forcing() {
                caller.reply(&*self.dispatch, |w| _ = w.atom("ok"));
            }
        }
    }

    /// The store is not made the primary by force, for a reason that has this word: the callers that want that are told.
    pub fn not_forced(&self, why: &str) {
        for (_, caller) in self.take_forcing() {
            self.watch.count_not_done(Reason::NotElected);
            caller.reply(&*self.dispatch, |w| {
                w.tuple(2).atom("error").tuple(2).atom(Reason::NotElected.code()).atom(why);
            });
        }
    }

    fn take_forcing(&self) -> Vec<(Pid, OwnedCaller)> {
        std::mem::take(&mut *self.election.forcing.lock())
    }

    /// A process that wants the store to be the primary has ended. Gives whether another one still wants that.
    pub fn forget_forcing(&self, caller: &Pid) -> bool {
        let mut forcing = self.election.forcing.lock();
        forcing.retain(|(pid, _)| pid != caller);
        !forcing.is_empty()
    }

    /// A write counts as confirmed by these slaves alone from now on.
    pub fn count_only(&self, slaves: impl IntoIterator<Item = SlaveName>) {
        if let Some(counting) = self.confirmations.counting.get() {
            counting.count_only(slaves);
            self.confirmations.acknowledged();
        }
    }

    /// Whether there is such a slave.
    pub fn has_slave(&self, name: &SlaveName) -> bool {
        self.slaves().iter().any(|slave| slave.name() == name)
    }

    /// The number of the last write, and how the slaves that are kvnodes stand.
    pub fn elected_slaves(&self) -> (u64, Vec<ElectedSlave>) {
        let slaves = self.slaves();
        let kvnodes = slaves.iter().filter_map(|slave| {
            let machine = slave.machine();
            let is_known = machine.dialect().is_some() && !machine.is_unnumbered();
            is_known.then(|| ElectedSlave {
                name: slave.name().clone(),
                confirmed: machine.confirmed(),
                is_in_step: machine.is_whole(),
            })
        });
        let kvnodes = kvnodes.collect();
        (self.last_seq(), kvnodes)
    }

    /// Adds slaves of the elected primary, and follows them; those that it has stay as they are. Where it has as many slaves as it may have, one
    /// of those that are `gone` makes room, of those that are not in step. Gives those for which there was no room.
    pub fn follow_elected(
        &self,
        slaves: impl IntoIterator<Item = KnownSlave>,
        gone: impl Fn(&SlaveName) -> bool,
        me: &Pid,
    ) -> Vec<KnownSlave> {
        let (mut is_more, mut without_room) = (false, Vec::new());
        for KnownSlave { name, node } in slaves {
            let mut added = self.add_slave(name.clone());
            if added.is_err() && self.make_room(&gone, me) {
                (added, is_more) = (self.add_slave(name.clone()), true);
            }
            match added {
                Ok(Some(slave)) => {
                    if let Some(node) = node {
                        slave.expect_at(node);
                    }
                    slave.protect_data();
                    is_more = true;
                    tracing::info!(store = ?me, slave = %name, "slave added: it takes part in the election");
                    self.follow_slave(slave, me, None);
                }
                Ok(None) => {}
                Err(TooManySlaves) => without_room.push(KnownSlave { name, node }),
            }
        }
        if is_more {
            self.note_slaves_quietly();
        }
        without_room
    }

    /// Removes a slave that is gone, and gives whether there is one.
    fn make_room(&self, gone: impl Fn(&SlaveName) -> bool, me: &Pid) -> bool {
        let slaves = self.slaves();
        let makes_room = slaves.iter().find(|slave| gone(slave.name()) && !slave.machine().is_whole());
        let Some(slave) = makes_room else { return false };
        tracing::warn!(store = ?me, slave = %slave.name(), "slave removed: its node is gone, and another one needs the room");
        self.remove_slave(slave.name())
    }

    /// How the election stands, for people. Since when is noted here.
    pub fn show_election(&self, figures: ElectionFigures) {
        let now = self.follow.unix_ms();
        let mut shown = self.election.figures.lock();
        let stands = |of: &ElectionFigures| (of.state, of.fence, of.primary.clone());
        let is_same = shown.since > 0 && stands(&shown) == stands(&figures);
        *shown = ElectionFigures { since: if is_same { shown.since } else { now }, ..figures };
    }

    /// How the election stands; `None`: there is none.
    pub fn election(&self) -> Option<ElectionFigures> {
        if !self.is_elected() {
            return None;
        }
        let mut figures = self.election.figures.lock().clone();
        if figures.state == ElectionState::Primary && !self.election.tenure.lasts() {
            figures.state = ElectionState::Unsure;
        }
        Some(figures)
    }

    /// Whether the store is the primary, and its lease lasts.
    pub(super) fn is_elected_primary(&self) -> bool {
        !self.upstream.minds_writes() && self.election.tenure.lasts()
    }

    /// A greeting of this term was taken.
    pub(super) fn follows_elected(&self, term: u64) {
        if self.is_elected() {
            // At once: what it has written of its own goes.
            self.lead_until(None);
            self.election.tell(ElectionNews::Follows { fence: term });
        }
    }

    /// What a promotion that is asked for is to be: with the term of the election, or with one of its own. `None`: it is answered, as it is none
    /// of the election's. A forced one is told to the election, and answered when the store is the primary.
    pub(super) fn promotion(
        &self,
        is_forced: bool,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Option<Option<u64>> {
        if !self.is_elected() {
            return Some(None);
        }
        if Pid::from(caller.pid()) == turn.me.pid
            && let Some(term) = self.election.chosen.lock().take()
        {
            return Some(Some(term));
        }
        if !is_forced {
            tracing::warn!(store = ?turn.me, peer = turn.peer, "not promoted by hand: an election decides (--elect)");
            turn.reply(caller, |w| self.watch.refused(Reason::Elected, w));
            return None;
        }
        if self.is_elected_primary() {
            turn.reply(caller, |w| _ = w.atom("ok"));
            return None;
        }
        tracing::warn!(store = ?turn.me, peer = turn.peer, "to be the primary by force: writes that others have may be lost");
        let mut forcing = self.election.forcing.lock();
        if forcing.len() >= FORCING_MAX {
            drop(forcing);
            turn.reply(caller, |w| self.watch.refused(Reason::Busy, w));
            return None;
        }
        let pid = Pid::from(caller.pid());
        forcing.push((pid.clone(), caller.to_owned(&turn.me.pid)));
        drop(forcing);
        self.election.tell(ElectionNews::Forced { caller: pid });
        None
    }
}

/// Writes `%{state: s, fence: n, primary: node, round: {counted, needed}, missing: [node], since: t, counted: [node], elections: n}`.
pub(super) fn write(w: &mut TermWriter<'_>, figures: &ElectionFigures) {
    let ElectionFigures { state, fence, primary, round, since, counted, missing, elections } = figures;
    w.map(8).atom("state").atom(state.code()).atom("fence").unsigned(*fence);
    w.atom("primary").atom(primary.as_deref().unwrap_or("nil"));
    w.atom("round");
    match round {
        Some((counted, needed)) => w.tuple(2).unsigned(*counted).unsigned(*needed),
        None => w.atom("nil"),
    };
    w.atom("missing");
    write_nodes(missing, w);
    w.atom("since").unsigned(*since).atom("counted");
    write_nodes(counted, w);
    w.atom("elections").unsigned(*elections);
}

fn write_nodes(nodes: &[Arc<str>], w: &mut TermWriter<'_>) {
    w.list(nodes.len());
    nodes.iter().for_each(|node| _ = w.atom(node));
    w.nil();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::distribution::Outbound;
    use crate::etf::text::{InspectLimits, inspect};
    use crate::etf::{Cursor, Reference, TermView, encode};
    use crate::kv::follow::tests::nobody;
    use crate::kv::slaves::SLAVES_MAX;
    use crate::process::effect::EndedCall;
    use crate::process::{Dispatch, NoRoom, ProcessId};
    use crate::store::MemoryStore;

    /// Counts what is sent.
    #[derive(Default)]
    struct Sent(Mutex<usize>);

    impl Dispatch for Sent {
        fn send(&self, _node: &str, _frames: &mut Outbound) -> Result<(), NoRoom> {
            *self.0.lock() += 1;
            Ok(())
        }

        fn end_call(&self, _call: EndedCall) {}

        fn exit(&self, _process: ProcessId, _reason: &[u8]) {}
    }

    fn pid(node: &str, id: u32) -> Pid {
        Pid { node: node.into(), id, serial: 0, creation: 1 }
    }

    fn elected() -> (Arc<KeyValueServer<MemoryStore>>, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        let dispatch = Arc::clone(&sent) as Arc<dyn Dispatch>;
        let server = KeyValueServer::new(MemoryStore::default(), dispatch, nobody(), 1 << 20);
        (server.elected().shared(), sent)
    }

    /// Callers that want the store to be the primary.
    fn force(server: &KeyValueServer<MemoryStore>, ids: &[u32]) {
        for id in ids {
            let (caller, tag) =
                (pid("c@h", *id), Reference { node: "c@h".into(), creation: 1, words: vec![1, 2, *id] });
            let from = encode(|w| _ = w.tuple(2).pid(&caller).reference(&tag));
            let from = Caller::parse(&mut Cursor::new(&from)).expect("a caller").to_owned(&pid("a@h", 9));
            server.election.forcing.lock().push((caller, from));
        }
    }

    #[test]
    fn callers_that_force_are_answered_when_it_ends_and_go_when_their_processes_are_gone() {
        let (server, sent) = elected();
        let counted = || {
            let refused = server.watch.not_done();
            let at = Reason::ALL
                .iter()
                .position(|reason| *reason == Reason::NotElected)
                .expect("it is one of them");
            (*sent.0.lock(), refused[at])
        };
        force(&server, &[1, 2, 3]);
        assert!(server.forget_forcing(&pid("c@h", 2)), "others wait");
        server.not_forced("late");
        assert_eq!(counted(), (2, 2));
        server.not_forced("late");
        assert_eq!(counted(), (2, 2), "nobody waits");
        force(&server, &[4]);
        assert!(!server.forget_forcing(&pid("c@h", 4)));
        // It is the primary; and is it already.
        let until = server.election.tenure.clock.now() + Duration::from_secs(60);
        for sent in [3, 4] {
            force(&server, &[5]);
            server.lead_until(Some(until));
            assert_eq!(counted(), (sent, 2));
        }
    }

    #[test]
    fn a_slave_that_is_gone_makes_room_for_one_that_is_there() {
        let (server, _) = elected();
        let me = pid("a@h", 9);
        let slave = |n: usize| KnownSlave { name: SlaveName::remote("kv", &format!("s{n}@h")), node: None };
        let is_gone =
            |gone: &'static [usize]| move |name: &SlaveName| gone.iter().any(|n| slave(*n).name == *name);
        let follow = |n: usize, gone| server.follow_elected([slave(n)], is_gone(gone), &me);
        assert!((0..SLAVES_MAX).all(|n| follow(n, &[1]).is_empty()));
        assert_eq!(follow(100, &[]), [slave(100)], "all are there");
        assert_eq!(follow(100, &[3, 4]), [], "one that is gone makes room");
        let has = |n: usize| server.slaves().iter().any(|known| *known.name() == slave(n).name);
        assert_eq!((has(100), has(3), has(4), server.slaves().len()), (true, false, true, SLAVES_MAX));
        assert_eq!(follow(100, &[4]), [], "it is one already");
        assert!(has(4));
    }

    impl Counting {
        /// Of a store that is not the primary, whose slaves do not count.
        pub(in crate::kv) fn of_tests() -> Self {
            let tenure = Arc::clone(&Election::new(&nobody()).tenure);
            Self { slaves: Ranked::default(), tenure }
        }

        /// The store is the primary for so long from now on.
        pub(in crate::kv) fn lead_for(&self, time: Duration) {
            self.tenure.set(Some(self.tenure.clock.now() + time));
        }
    }

    #[test]
    fn a_store_is_the_primary_until_its_time_is_over() {
        let election = Election::new(&nobody());
        assert!(!election.tenure.lasts());
        let now = election.tenure.clock.now();
        assert!(!election.tenure.set(Some(now + Duration::from_secs(60))) && election.tenure.lasts());
        assert!(election.tenure.set(Some(now)) && !election.tenure.lasts(), "its time is over");
        assert!(election.tenure.set(None) && !election.tenure.lasts());
    }

    #[test]
    fn each_state_is_read_by_its_word_and_an_election_is_shown() {
        for state in ElectionState::ALL {
            assert_eq!(ElectionState::of_code(state.code()), Some(state));
        }
        let figures = ElectionFigures {
            state: ElectionState::Electing,
            fence: 7,
            primary: None,
            round: Some((1, 2)),
            since: 9,
            counted: vec!["a@h".into()],
            missing: vec!["b@h".into(), "c@h".into()],
            elections: 3,
        };
        let shown = |figures: &ElectionFigures| {
            let term = encode(|w| write(w, figures));
            inspect(TermView::parse(&term).expect("a term"), InspectLimits { text_bytes_max: usize::MAX })
        };
        assert_eq!(
            shown(&figures),
            "%{state: :electing, fence: 7, primary: nil, round: {1, 2}, missing: [:b@h, :c@h], since: 9, counted: [:a@h], elections: 3}"
        );
        let led = ElectionFigures {
            primary: Some("b@h".into()),
            round: None,
            counted: Vec::new(),
            missing: Vec::new(),
            ..figures
        };
        assert!(shown(&led).contains("primary: :b@h, round: nil, missing: []"), "{}", shown(&led));
    }
}
