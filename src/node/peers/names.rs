//! Our names in `global`, kept.
//!
//! A hidden node takes no part in `global`'s protocol, but any BEAM can register a pid of it: a visible one for the
//! whole cluster that it is in, a hidden one (Livebook's, a remote shell, a tool) for itself alone. So each connected
//! BEAM is asked, for as long as it is connected, for the holders of our names there; a name without a holder is registered,
//! a name with another holder is reported and tried again. That covers every way of losing a name: a restarted node, a
//! new cluster, a healed partition, a conflict that was decided against us.
//!
//! Which hidden nodes are BEAMs is told by their flags ([`PeerHandle::may_have_global`]) and by one question for each
//! connection; nothing is asked of the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::{AHashMap, AHashSet};
use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender, TrySendError};
use smol::future::FutureExt;

use crate::etf::{Pid, TermWriter, encode};
use crate::log::Once;
use crate::node::latch::{Latch, Opened};
use crate::node::peers::erpc::ErpcError;
use crate::node::peers::global_name::Registration;
use crate::node::peers::{PeerHandle, whereis};
use crate::node::server::held_names::{FormerHolder, Tenure};
use crate::node::{Node, now};
use crate::process::GlobalRegistration;
use crate::within::within;

/// How often a node is asked for the holders of our names.
const CHECK: Duration = Duration::from_secs(5);
/// The first two come sooner: at the beginning of a connection `global` may still know our names by the last connection,
/// and drops them as soon as it hears of the end of that.
const EARLY_CHECKS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];
/// So soon it is looked again behind a change of our names: a node that had them may have unregistered them meanwhile.
const CHANGED_CHECKS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];
/// How often it is looked whether another process has registered a name that is left to it.
const LEFT_CHECK: Duration = Duration::from_millis(20);
/// How long a ping is held back for the names of a new connection.
const PING_HELD_MAX: Duration = Duration::from_secs(1);
/// The arguments of `global:register_name/3` and `re_register_name/3`.
const REGISTER_ARITY: u64 = 3;
/// How long a registration may take: `global` takes a lock in the whole cluster for it.
const REGISTER_LIMIT: Duration = Duration::from_secs(30);

/// What is known of our names.
#[derive(Debug, Default)]
pub(in crate::node) struct Names {
    known: Mutex<AHashMap<Arc<str>, Name>>,
    /// Rung when a name has a new process: one for each node that knows names.
    bells: Mutex<Vec<Sender<()>>>,
    /// Names that are given up, until each node has been told.
    given_up: Mutex<Vec<GivenUp>>,
    /// Opened when more is known of a name. `None`: no task waits for that.
    news: Mutex<Option<Latch>>,
}

/// A name that a process of ours has given up.
#[derive(Debug)]
struct GivenUp {
    name: Arc<str>,
    pid: Pid,
    /// For so long it is left to another process that is about to register it.
    until: Instant,
    /// Nodes that may still know it.
    nodes: AHashSet<Arc<str>>,
    /// Opened when there are none.
    done: Latch,
}

#[derive(Debug)]
struct Name {
    /// Nodes that know us as its holder.
    held_at: AHashSet<Arc<str>>,
    /// Nodes whose `global` refuses the name, which was reported.
    refused_at: Once<Arc<str>>,
    /// The holders that nodes name instead of us. Each is reported once, however many of them do.
    rivals: AHashMap<Arc<str>, Pid>,
    /// Nodes whose processes are replaced.
    former: Arc<[FormerHolder]>,
    /// It is registered for so long only; `None`: as long as the process lives.
    tenure: Option<Arc<Tenure>>,
}

impl Default for Name {
    fn default() -> Self {
        // No more than nodes are connected: a node that goes is forgotten.
        Self {
            held_at: AHashSet::new(),
            refused_at: Once::new(usize::MAX),
            rivals: AHashMap::new(),
            former: Arc::default(),
            tenure: None,
        }
    }
}

impl Name {
    /// What becomes of it, as far as nodes have said. Where they differ the name is not ours for all, so another holder counts;
    /// of several that of the first node, so that the same nodes always say the same.
    fn outcome(&self) -> Registration {
        let rival = self.rivals.iter().min_by_key(|(node, _)| *node);
        match rival {
            Some((_, by)) => Registration::Taken { by: by.clone() },
            None if self.held_at.is_empty() => Registration::Pending,
            None => Registration::Registered,
        }
    }
}

impl Names {
    /// What becomes of a name that a process of ours has.
    pub(in crate::node) fn outcome(&self, name: &str) -> Registration {
        self.known.lock().get(name).map_or(Registration::Pending, Name::outcome)
    }

    /// A wait until more is known of a name, whichever it is, from now on.
    pub(in crate::node) fn news(&self) -> Opened {
        self.news.lock().get_or_insert_with(Latch::new).opened()
    }

    /// More is known of a name.
    fn tell(&self) {
        // Dropped, it is opened.
        self.news.lock().take();
    }

    fn held(&self, name: &Arc<str>, peer: &PeerHandle) {
        let mut names = self.known.lock();
        let known = names.entry(Arc::clone(name)).or_default();
        let first = known.held_at.is_empty();
        if known.held_at.insert(Arc::clone(&peer.name)) {
            known.rivals.remove(&peer.name);
            known.refused_at.forget(&peer.name);
            if first {
                tracing::info!(name = %name, at = %peer.name, "global name registered");
            } else {
                tracing::debug!(name = %name, at = %peer.name, "global name known");
            }
            drop(names);
            self.tell();
        }
    }

    fn taken(&self, name: &Arc<str>, peer: &PeerHandle, rival: &Pid) {
        let mut names = self.known.lock();
        let known = names.entry(Arc::clone(name)).or_default();
        let lost = known.held_at.remove(&peer.name);
        if known.rivals.values().all(|known| known != rival) {
            let what = if lost { "global name lost to" } else { "global name taken by" };
            tracing::warn!(name = %name, at = %peer.name, "{what} {rival:?}; it is tried again every 5 s");
        }
        let before = known.rivals.insert(Arc::clone(&peer.name), rival.clone());
        drop(names);
        // It is asked for every 5 s, and is news once.
        if lost || before.as_ref() != Some(rival) {
            self.tell();
        }
    }

    /// `global` refuses the name though nobody holds it.
    fn refused(&self, name: &Arc<str>, peer: &PeerHandle) {
        let mut names = self.known.lock();
        let known = names.entry(Arc::clone(name)).or_default();
        if known.refused_at.first(Arc::clone(&peer.name)) {
            tracing::warn!(name = %name, at = %peer.name, "global name refused; it is tried again every 5 s");
        }
    }

    fn free(&self, name: &Arc<str>, peer: &PeerHandle) {
        let mut names = self.known.lock();
        let Some(known) = names.get_mut(name) else { return };
        let had_rival = known.rivals.remove(&peer.name).is_some();
        let lost = known.held_at.remove(&peer.name);
        drop(names);
        if lost {
            tracing::warn!(name = %name, at = %peer.name, "global name lost; registering it again");
        }
        if lost || had_rival {
            self.tell();
        }
    }

    /// The peer is gone: it holds no names for us any more. A tool that leaves is no loss, and where this node is `ending`,
    /// which leaves all peers, there is nothing to tell at all.
    pub(in crate::node) fn peer_down(&self, peer: &str, ending: bool) {
        self.given_up_there(peer, |_| true);
        let mut names = self.known.lock();
        for (name, known) in names.iter_mut() {
            known.refused_at.forget(peer);
            known.rivals.remove(peer);
            if known.held_at.remove(peer) && known.held_at.is_empty() && !ending {
                tracing::info!(
                    name = %name, last = %peer,
                    "global name known nowhere: the last node that knew it is gone; the next that connects is told it"
                );
            }
        }
        drop(names);
        self.tell();
    }

    /// Names whose process has ended have a new one: they are registered for it at once.
    pub(in crate::node) fn started_again<'a>(&self, names: impl Iterator<Item = &'a str>) {
        {
            let mut known = self.known.lock();
            for name in names {
                known.remove(name);
            }
        }
        self.tell();
        // A bell that rings already is heard once, which is enough; a bell without a listener is thrown away.
        self.bells.lock().retain(|bell| !matches!(bell.try_send(()), Err(TrySendError::Closed(()))));
    }

    /// Has all names looked after now: one of them may have become free.
    pub(in crate::node) fn check_now(&self) {
        self.started_again(std::iter::empty());
    }

    /// A process of ours has the name from now on, also where one of these has it.
    pub(in crate::node) fn take(&self, name: &Arc<str>, former: &Arc<[FormerHolder]>, tenure: &Arc<Tenure>) {
        self.given_up.lock().retain(|given_up| given_up.name != *name);
        let tenure = Some(Arc::clone(tenure));
        let taken = Name { former: Arc::clone(former), tenure, ..Name::default() };
        self.known.lock().insert(Arc::clone(name), taken);
        self.tell();
    }

    /// Whether nodes may be told the name now.
    fn may_register(&self, name: &str) -> bool {
        let known = self.known.lock();
        known.get(name).is_none_or(|known| known.tenure.as_ref().is_none_or(|tenure| tenure.lasts()))
    }

    /// Whether a process may be replaced as the holder of a name of ours.
    fn may_replace(&self, name: &str, holder: &Pid) -> bool {
        let known = self.known.lock();
        known.get(name).is_some_and(|known| known.former.iter().any(|former| former.has(holder)))
    }

    /// The process with this pid does not have the name any more, and these nodes are to be told.
    pub(in crate::node) fn give_up(
        &self,
        name: &Arc<str>,
        pid: &Pid,
        until: Instant,
        nodes: AHashSet<Arc<str>>,
    ) -> Opened {
        self.known.lock().remove(name);
        self.tell();
        let done = Latch::new();
        let opened = done.opened();
        let mut given_up = self.given_up.lock();
        given_up.retain(|before| before.name != *name);
        if !nodes.is_empty() {
            given_up.push(GivenUp { name: Arc::clone(name), pid: pid.clone(), until, nodes, done });
        }
        opened
    }

    /// What a node is to be told is given up.
    fn given_up_at(&self, node: &str) -> Vec<(Arc<str>, Pid, Instant)> {
        let given_up = self.given_up.lock();
        let at = given_up.iter().filter(|given_up| given_up.nodes.contains(node));
        at.map(|given_up| (Arc::clone(&given_up.name), given_up.pid.clone(), given_up.until)).collect()
    }

    /// The node does not know these names by processes of ours any more.
    fn given_up_there(&self, node: &str, is_it: impl Fn(&str) -> bool) {
        self.given_up.lock().retain_mut(|given_up| {
            if is_it(&given_up.name) {
                given_up.nodes.remove(node);
            }
            if given_up.nodes.is_empty() {
                given_up.done.open();
            }
            !given_up.nodes.is_empty()
        });
    }

    fn bell(&self) -> Receiver<()> {
        let (bell, ringing) = smol::channel::bounded(1);
        let mut bells = self.bells.lock();
        // Tools come and go, and a bell that is never rung would outlive its node.
        bells.retain(|bell| !bell.is_closed());
        bells.push(bell);
        ringing
    }

    /// `global` has decided a conflict against us.
    pub(in crate::node) fn conflict_lost(&self, name: &str) {
        tracing::warn!(name, "global name lost in a conflict; it is tried again when it is free");
    }
}

/// Keeps our names at one node while it is connected, where `global` runs there.
pub(in crate::node) async fn keep(node: Arc<Node>, peer: Arc<PeerHandle>) {
    let ringing = node.names.bell();
    let work = async {
        let mut soon = EARLY_CHECKS.iter();
        loop {
            let release = async {
                Timer::after(PING_HELD_MAX).await;
                node.net_kernel.release(&peer.name, &*node);
                smol::future::pending().await
            };
            let checked = async { (give_up_at(&node, &peer).await, check(&node, &peer).await) };
            let (left, has_global) = checked.or(release).await;
            node.net_kernel.release(&peer.name, &*node);
            if !has_global {
                node.names.given_up_there(&peer.name, |_| true);
                return;
            }
            let rung = async {
                // The bell is as old as this task: it cannot be gone.
                let _closed = ringing.recv().await;
            };
            let pause = soon.next().copied().unwrap_or(CHECK);
            if within(left.unwrap_or(pause).min(pause), rung).await.is_some() {
                soon = CHANGED_CHECKS.iter();
            }
        }
    };
    work.or(peer.ended()).await;
    node.net_kernel.release(&peer.name, &*node);
}

/// Unregisters at one node what is given up, where it is ours there. Gives when to look again for what is left to others.
async fn give_up_at(node: &Node, peer: &PeerHandle) -> Option<Duration> {
    let given_up = node.names.given_up_at(&peer.name);
    if given_up.is_empty() {
        return None;
    }
    if !has_global(node, peer).await {
        node.names.given_up_there(&peer.name, |_| true);
        return None;
    }
    let mut again = None;
    for (name, pid, until) in given_up {
        let encoded = encode(|w| _ = w.atom(&name));
        let told = match node.global_whereis(peer, &encoded, whereis::LIMIT).await {
            Ok(Some(holder)) if holder == pid && now() < until => {
                again = Some(LEFT_CHECK);
                continue;
            }
            Ok(Some(holder)) if holder == pid => unregister(node, peer, &name).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => node.names.given_up_there(&peer.name, |given_up| *given_up == *name),
            Err(error) => {
                tracing::debug!(name = %name, at = %peer.name, %error, "global name not given up there")
            }
        }
    }
    again
}

/// Looks after all our names at one node; `false`: `global` does not run there.
async fn check(node: &Node, peer: &PeerHandle) -> bool {
    let names = node.registry.global_names();
    if names.is_empty() {
        return true;
    }
    if !has_global(node, peer).await {
        tracing::debug!(peer = %peer.name, "a hidden node without global: it is told no names");
        return false;
    }
    for (name, process) in names {
        if let Err(error) = keep_one(node, peer, &name, &process.pid).await {
            tracing::debug!(name = %name, at = %peer.name, %error, "global name not checked");
        }
    }
    true
}

/// Whether `global` runs on a node. A hidden one is asked once, and waited for as long as it is connected: a BEAM that is
/// suspended, say in its break menu, answers when it goes on, and a node of another kind that never answers is left alone.
async fn has_global(node: &Node, peer: &PeerHandle) -> bool {
    if peer.is_visible() {
        return true;
    }
    if let Some(known) = peer.global.get() {
        return *known;
    }
    let arguments =
        |w: &mut TermWriter<'_>| _ = w.atom("global").atom("register_name").unsigned(REGISTER_ARITY);
    let exported = ("erlang", "function_exported");
    let answer = node.erpc(peer, exported, 3, arguments, Duration::MAX).await;
    let has_global = answer.is_ok_and(|answer| answer.view().is_atom("true"));
    *peer.global.get_or_init(|| has_global)
}

/// Registers a name wherever we are connected now, instead of at the next check; tells the other holder, if there is one.
pub(in crate::node) async fn register_now(node: Arc<Node>, registration: GlobalRegistration) {
    let GlobalRegistration { name, process, done } = registration;
    let mut rival = None;
    for peer in with_global(&node) {
        if within(whereis::LIMIT, has_global(&node, &peer)).await != Some(true) {
            continue;
        }
        match keep_one(&node, &peer, &name, &process.pid).await {
            Ok(None) => {}
            Ok(Some(holder)) => rival = rival.or(Some(holder)),
            Err(error) => {
                tracing::debug!(name = %name, at = %peer.name, %error, "global name not registered")
            }
        }
    }
    done(rival);
}

/// Looks after one name; gives the other holder, if there is one.
async fn keep_one(
    node: &Node,
    peer: &PeerHandle,
    name: &Arc<str>,
    ours: &Pid,
) -> Result<Option<Pid>, ErpcError> {
    // A second look after a refused registration tells which node was faster.
    let encoded = encode(|w| {
        w.atom(name);
    });
    for _ in 0..2 {
        let holder = node.global_whereis(peer, &encoded, whereis::LIMIT).await?;
        if node.is_stopping() || !has(node, name, ours) {
            // The process may have ended since, or have given the name up: it is then missing as it should be.
            return Ok(None);
        }
        match holder {
            Some(holder) if holder == *ours => {
                node.names.held(name, peer);
                return Ok(None);
            }
            Some(former) if is_former(node, &former) || node.names.may_replace(name, &former) => {
                // `global` may not have heard yet that it has ended; or its node is stopped or cut off.
                match register(node, peer, "re_register_name", name, ours).await? {
                    Told::Yes => {
                        node.names.held(name, peer);
                        return Ok(None);
                    }
                    Told::No => continue,
                    Told::NotOurs => return Ok(None),
                }
            }
            Some(rival) => {
                node.names.taken(name, peer, &rival);
                if let Some(process) = node.registry.by_owned_pid(ours) {
                    process.server.global_name_taken(&process, name, &rival);
                }
                return Ok(Some(rival));
            }
            None => node.names.free(name, peer),
        }
        match register(node, peer, "register_name", name, ours).await? {
            Told::Yes => {
                node.names.held(name, peer);
                return Ok(None);
            }
            Told::No => {}
            Told::NotOurs => return Ok(None),
        }
    }
    node.names.refused(name, peer);
    Ok(None)
}

/// Gives a name up: for this node, and in the clusters that it is connected to where it is ours.
pub(in crate::node) async fn release(node: Arc<Node>, name: Arc<str>) {
    let Some(process) = node.registry.release_global(&name) else { return };
    node.names.known.lock().remove(&name);
    node.names.tell();
    tracing::warn!(name = %name, "global name given up");
    let encoded = encode(|w| {
        w.atom(&name);
    });
    for peer in with_global(&node) {
        if node.global_whereis(&peer, &encoded, whereis::LIMIT).await == Ok(Some(process.pid.clone()))
            && let Err(error) = unregister(&node, &peer, &name).await
        {
            tracing::warn!(name = %name, at = %peer.name, %error, "global name not given up there");
        }
    }
}

/// The connected nodes that names can be registered at: visible ones, and hidden BEAMs.
pub(in crate::node) fn with_global(node: &Node) -> Vec<Arc<PeerHandle>> {
    let mut peers = node.peers.all();
    peers.retain(|peer| peer.name != node.registry.node && peer.may_have_global());
    peers
}

/// Whether the process with this pid has the name still.
fn has(node: &Node, name: &str, pid: &Pid) -> bool {
    node.registry.by_global_name(name).is_some_and(|process| process.pid == *pid)
}

/// What a registration has come to.
enum Told {
    Yes,
    /// `global` said no.
    No,
    /// The name was given up, or may not be registered now.
    NotOurs,
}

/// Whether a pid is of a process of this node that has ended.
fn is_former(node: &Node, pid: &Pid) -> bool {
    *pid.node == *node.registry.node && node.registry.by_owned_pid(pid).is_none()
}

/// Unregisters a name by one node.
async fn unregister(node: &Node, peer: &PeerHandle, name: &Arc<str>) -> Result<(), ErpcError> {
    let arguments = |w: &mut TermWriter<'_>| _ = w.atom(name);
    node.erpc(peer, ("global", "unregister_name"), 1, arguments, REGISTER_LIMIT).await.map(drop)
}

/// Registers a name by one node, with a function of `global`, where that may be.
async fn register(
    node: &Node,
    peer: &PeerHandle,
    function: &str,
    name: &Arc<str>,
    ours: &Pid,
) -> Result<Told, ErpcError> {
    let arguments = |w: &mut TermWriter<'_>| {
        // With the default method a conflict would kill one of the two holders.
        w.atom(name).pid(ours).tuple(2).atom("global").atom("random_notify_name");
    };
    if !node.names.may_register(name) {
        return Ok(Told::NotOurs);
    }
    let answer =
        node.erpc(peer, ("global", function), REGISTER_ARITY as usize, arguments, REGISTER_LIMIT).await?;
    let is_told = answer.view().is_atom("yes");
    if is_told && !has(node, name, ours) {
        // It was given up meanwhile, and is nobody's then: it is not left to a successor, whom it may have been taken from.
        unregister(node, peer, name).await?;
        return Ok(Told::NotOurs);
    }
    Ok(if is_told { Told::Yes } else { Told::No })
}
