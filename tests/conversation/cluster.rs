//! A node with a store, to which the peer speaks.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvnode::distribution::control::op;
use kvnode::distribution::{DistributionFlags, Outbound};
use kvnode::etf::Pid;
use kvnode::kv::{Follow, FollowSlave, KeyValueFunctions, KeyValueServer, Offer, Work};
use kvnode::process::effect::EndedCall;
use kvnode::process::net_kernel::NetKernel;
use kvnode::process::rpc::Rex;
use kvnode::process::rpc::calls::Calls;
use kvnode::process::{Dispatch, GenServer, NoRoom, PeerError, Process, ProcessId, WakeRequest};
use kvnode::store::{MemoryStore, Store};
use parking_lot::Mutex;

use crate::conversation::{Conversation, control, frame, frames_of, gen_call, reply, send};
use crate::deferred::{Deferred, Manner};
use crate::term::{Term, term_with};

/// The tag of a call for which no other is named.
pub const TAG: &str = "#Reference<0.3.2.1>";

/// What was sent by the way for answers that come later, whether processes may end by it too, the slaves that are to be
/// followed, the calls that ended without an answer, what is to be done step by step, and the clock.
#[derive(Default)]
pub struct Sent(
    pub Mutex<Vec<(String, Outbound)>>,
    pub AtomicBool,
    pub Mutex<Vec<FollowSlave>>,
    pub Mutex<Vec<EndedCall>>,
    pub Mutex<Vec<Work>>,
    pub Clock,
);

/// A clock that is set by hand.
pub struct Clock {
    from: Instant,
    /// Since then.
    passed: Mutex<Duration>,
    /// What is to be done again and again.
    wakes: Mutex<Vec<WakeRequest>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { from: now(), passed: Mutex::default(), wakes: Mutex::default() }
    }
}

/// What every store's clock says at its start, in milliseconds.
pub const STARTED_MS: u64 = 1_000_000;

impl Dispatch for Sent {
    fn send(&self, node: &str, frames: &mut Outbound) -> Result<(), NoRoom> {
        self.0.lock().push((node.to_owned(), std::mem::take(frames)));
        Ok(())
    }

    fn end_call(&self, call: EndedCall) {
        self.3.lock().push(call);
    }

    fn exit(&self, process: ProcessId, reason: &[u8]) {
        let expected = self.1.load(Ordering::Relaxed);
        assert!(expected, "{process:?} was to end for {reason:?}: nothing here ends");
    }
}

impl Follow for Sent {
    fn follow(&self, slave: FollowSlave) {
        self.2.lock().push(slave);
    }

    fn offer(&self, offer: Offer) {
        panic!("nobody else has a name: {offer:?}");
    }

    fn work(&self, work: Work) {
        self.4.lock().push(work);
    }

    fn wake(&self, _store: Pid, request: WakeRequest) {
        self.5.wakes.lock().push(request);
    }

    fn now(&self) -> Instant {
        self.5.from + *self.5.passed.lock()
    }

    fn unix_ms(&self) -> u64 {
        STARTED_MS
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant")]
pub fn now() -> Instant {
    Instant::now()
}

pub struct Cluster {
    pub conversation: Conversation,
    pub net_kernel: Arc<NetKernel>,
    pub store: Arc<Process>,
    pub sent: Arc<Sent>,
    /// The store, where it answers later.
    pub deferred: Option<Deferred>,
    /// Waits until the store has done and told all that it was asked for, where its own thread does that.
    pub settle: Option<Box<dyn Fn()>>,
}

impl Deref for Cluster {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut Conversation {
        &mut self.conversation
    }
}

/// Has every engine answer: memory, and the deferred one in several orders. In the run of `on_etcd.rs`: a store in etcd, and no other.
pub fn on_each_engine(test: impl Fn(Cluster)) {
    #[cfg(feature = "etcd")]
    if let Some(cluster) = crate::on_etcd::cluster() {
        return test(cluster);
    }
    test(cluster());
    for seed in 0..16 {
        test(cluster_on(Deferred::new(Manner::wild(seed))));
    }
}

/// A store that answers later, and has done so when the next frame is said.
pub fn cluster_on(store: Deferred) -> Cluster {
    let cluster = cluster_with(store.clone(), DistributionFlags::OFFERED);
    Cluster { deferred: Some(store), ..cluster }
}

/// A store in memory, or in etcd where `on_etcd.rs` has the tests run so.
pub fn cluster() -> Cluster {
    #[cfg(feature = "etcd")]
    if let Some(cluster) = crate::on_etcd::cluster() {
        return cluster;
    }
    cluster_with(MemoryStore::default(), DistributionFlags::OFFERED)
}

pub fn cluster_with(store: impl Store, flags: DistributionFlags) -> Cluster {
    let sent = Arc::new(Sent::default());
    let (dispatch, follow) = (Arc::clone(&sent) as Arc<dyn Dispatch>, Arc::clone(&sent) as Arc<dyn Follow>);
    let server = KeyValueServer::new(store, dispatch, follow, 1 << 20).shared();
    let cluster = cluster_of(Arc::clone(&server) as Arc<_>, sent, flags);
    server.serve_as(&cluster.store.pid);
    cluster
}

pub fn cluster_of(server: Arc<dyn GenServer>, sent: Arc<Sent>, flags: DistributionFlags) -> Cluster {
    let conversation = Conversation::offering(flags);
    let registry = &conversation.registry;
    let store = registry.spawn(server);
    registry.register("kv", &store).expect("the name is free");
    registry.claim_global("kv_global", &store).expect("the name is free");
    let net_kernel = Arc::new(NetKernel::default());
    let net_kernel_process = registry.spawn(Arc::clone(&net_kernel) as Arc<dyn GenServer>);
    registry.register("net_kernel", &net_kernel_process).expect("the name is free");
    let rex = registry.spawn(Arc::new(Rex));
    registry.register("rex", &rex).expect("the name is free");
    Cluster { conversation, net_kernel, store, sent, deferred: None, settle: None }
}

/// A node with all functions that need no clock.
pub fn cluster_with_functions() -> Cluster {
    let cluster = cluster();
    cluster.sent.1.store(true, Ordering::Relaxed);
    let dispatch = Arc::clone(&cluster.sent) as Arc<dyn Dispatch>;
    let follow = Arc::clone(&cluster.sent) as Arc<dyn Follow>;
    cluster.registry.functions.connect(Arc::clone(&dispatch));
    cluster.registry.functions.add(Arc::new(Calls));
    cluster.registry.functions.add(Arc::new(KeyValueFunctions::new(dispatch, follow, 1 << 20)));
    cluster
}

impl Cluster {
    /// Handles one frame; gives the answering frames, also those of a store that answers later.
    #[track_caller]
    pub fn say(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.try_say(frame).expect("a good frame")
    }

    pub fn try_say(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>, PeerError> {
        let mut answers = self.conversation.try_say(frame)?;
        answers.extend(self.answered_later());
        Ok(answers)
    }

    /// What a store that answers later answers in the end.
    pub fn answered_later(&mut self) -> Vec<Vec<u8>> {
        match (&self.deferred, &self.settle) {
            (Some(store), _) => while store.step() {},
            (None, Some(settle)) => loop {
                settle();
                // What that has brought to be done step by step.
                let Some(mut work) = self.sent.4.lock().pop() else { break };
                while work.step() {}
            },
            (None, None) => return Vec::new(),
        }
        let ended = self.sent.3.lock();
        assert!(ended.is_empty(), "{ended:?} were to end: there is room here");
        let sent = std::mem::take(&mut *self.sent.0.lock());
        sent.iter().flat_map(|(_, frames)| frames_of(frames)).collect()
    }

    /// A call to the registered store.
    #[track_caller]
    pub fn call(&mut self, request: impl Term) -> Vec<Vec<u8>> {
        self.call_by(TAG, request)
    }

    /// The same with another tag.
    #[track_caller]
    pub fn call_by(&mut self, tag: impl Term, request: impl Term) -> Vec<Vec<u8>> {
        self.say(&send("kv", gen_call(tag, request)))
    }

    /// A put that must be answered by `:ok`.
    #[track_caller]
    pub fn put(&mut self, key: &str, value: &str) {
        assert_eq!(self.call(format!("{{:put, {key}, {value}}}")), [answer(":ok")]);
    }
}

impl Cluster {
    /// The clock goes on.
    pub fn pass(&self, millis: u64) {
        *self.sent.5.passed.lock() += Duration::from_millis(millis);
    }

    /// What is done again and again is done once; gives how much is to be done again.
    pub fn wake(&mut self) -> usize {
        let wakes = std::mem::take(&mut *self.sent.5.wakes.lock());
        let again: Vec<WakeRequest> =
            wakes.into_iter().filter_map(|mut request| (request.wake)().then_some(request)).collect();
        self.sent.5.wakes.lock().extend(again);
        self.steps();
        self.sent.5.wakes.lock().len()
    }

    /// What is done step by step is done.
    pub fn steps(&mut self) {
        loop {
            assert!(self.answered_later().is_empty());
            let Some(mut work) = self.sent.4.lock().pop() else { return };
            while work.step() {}
        }
    }
}

/// The answer to [`Cluster::call`].
pub fn answer(answer: impl Term) -> Vec<u8> {
    reply(TAG, answer)
}

/// A spawn request of the peer's process.
#[track_caller]
pub fn spawn_request(mfa: impl Term, options: impl Term, arguments: impl Term) -> Vec<u8> {
    let rest = "#Reference<0.3.2.1>, #PID<0.90.1>, #PID<0.90.1>, $1, $2";
    frame(control(op::SPAWN_REQUEST, rest, &[&mfa, &options]), arguments)
}

/// A call by `:erpc`, by the reference 9; `arguments` is a list.
#[track_caller]
pub fn erpc(module: &str, function: &str, arguments: impl Term) -> Vec<u8> {
    let call = format!("[#Reference<0.3.2.9>, :\"{module}\", :\"{function}\", $1]");
    spawn_request("{:erpc, :execute_call, 4}", "[:monitor]", term_with(&call, &[&arguments]))
}
