//! The threads of a node: some for its connections, others for the servers and tasks of the program.
//!
//! With one executor for both, as many handlers as there are cores kept every connection from ticking by a wait that they
//! should not have had, and peers took the node for dead. So what handlers do costs the program's own servers their
//! threads, and nobody else: connections, the registration with epmd and the end of the node go on beside them.
//! `watchdog` says which server it is.
//!
//! The threads of connections look after the sockets and timers of all. Those of servers wait for work and nothing else:
//! an event of a socket never wakes a thread that has no use for it.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use parking_lot::Mutex;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::{Executor, Task};

use crate::clock::is_stepped;
use crate::node::life::stop::Ending;
use crate::node::life::threads;
use crate::node::life::watchdog::{Busy, Seat, Whose, sit_at};
use crate::node::{Node, ProcessHandle};
use crate::process::exits::{guarded, text_of};

/// The fewest threads of servers, unless the program says how many: one handler that waits leaves room for another.
const WORKERS_MIN: usize = 2;

/// What the servers of a node run on, as far as its configuration does not say it: `Config` is a plain value.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Runtime {
    /// Threads of servers; `None`: one for each core, two at least.
    pub threads: Option<NonZeroUsize>,
    /// The runtime that the node's threads are inside of.
    #[cfg(feature = "tokio")]
    pub tokio: Option<tokio::runtime::Handle>,
}

impl Runtime {
    /// That of the thread that asks.
    pub(in crate::node) fn here() -> Self {
        Self::default().or_here()
    }

    /// With the tokio runtime that the calling thread is inside of, unless one was said.
    #[cfg(feature = "tokio")]
    pub(in crate::node) fn or_here(self) -> Self {
        Self { tokio: self.tokio.or_else(|| tokio::runtime::Handle::try_current().ok()), ..self }
    }

    /// There is none.
    #[cfg(not(feature = "tokio"))]
    pub(in crate::node) const fn or_here(self) -> Self {
        self
    }

    /// The calling thread is inside of the tokio runtime until what this gives is dropped. Without one nothing is done.
    #[cfg(feature = "tokio")]
    pub(in crate::node) fn enter(&self) -> impl Sized + '_ {
        self.tokio.as_ref().map(tokio::runtime::Handle::enter)
    }

    /// There is none.
    #[cfg(not(feature = "tokio"))]
    pub(in crate::node) const fn enter(&self) -> impl Sized + '_ {}
}

/// An executor that some of the node's threads run.
pub(in crate::node) struct Crew {
    executor: Executor<'static>,
    runtime: Runtime,
}

impl Crew {
    fn new(runtime: &Runtime) -> Arc<Self> {
        Arc::new(Self { executor: Executor::new(), runtime: runtime.clone() })
    }

    /// Has the calling thread go on with one task; `false`: none can go on.
    pub(in crate::node) fn step(&self) -> bool {
        let _entered = self.runtime.enter();
        self.executor.try_tick()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Mostly the last of its threads does this, and rarely one of the program's that has just spawned a task: the tasks
        // that are dropped find the runtime all the same.
        let _entered = self.runtime.enter();
        drop(mem::take(&mut self.executor));
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").finish_non_exhaustive()
    }
}

/// The threads of a node that has just been started.
pub(in crate::node) struct Threads {
    /// What the connections run on, and all that is the node's own.
    pub links: Arc<Crew>,
    /// What the servers and tasks of the program run on.
    pub work: Arc<Crew>,
    /// What the threads of servers are at.
    pub seats: Vec<Arc<Seat>>,
    pub ending: Ending,
}

/// Starts the threads. They alone hold the two crews, but for what is given here: when they end the tasks are dropped, and
/// with them sockets and the registration with epmd.
pub(in crate::node) fn start(runtime: &Runtime) -> io::Result<Threads> {
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let (alive, ended) = smol::channel::bounded::<()>(1);
    let (links, work) = (Crew::new(runtime), Crew::new(runtime));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for number in 1..=cores {
        run_on_thread(format!("kvnode-{number}"), &links, None, &stopped, &alive)?;
    }
    let workers = runtime.threads.map_or(cores.max(WORKERS_MIN), NonZeroUsize::get);
    let seats: Vec<_> = (0..workers).map(|_| Arc::new(Seat::default())).collect();
    for (number, seat) in (1..).zip(&seats) {
        run_on_thread(format!("kvnode-work-{number}"), &work, Some(seat), &stopped, &alive)?;
    }
    Ok(Threads { links, work, seats, ending: Ending { threads: Mutex::new(Some(stop)), ended } })
}

/// The crews of a node without threads, whose tasks go on where they are [stepped](Crew::step).
pub(in crate::node) fn unmanned(runtime: &Runtime) -> Threads {
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let (alive, ended) = smol::channel::bounded::<()>(1);
    let (links, work) = (Crew::new(runtime), Crew::new(runtime));
    let until_stopped = async move {
        until_closed(stopped).await;
        drop(alive);
    };
    links.executor.spawn(until_stopped).detach();
    Threads { links, work, seats: Vec::new(), ending: Ending { threads: Mutex::new(Some(stop)), ended } }
}

/// Starts a thread of a crew; one with a seat is a thread of servers.
fn run_on_thread(
    name: String,
    crew: &Arc<Crew>,
    seat: Option<&Arc<Seat>>,
    stopped: &Receiver<()>,
    alive: &Sender<()>,
) -> io::Result<()> {
    let (crew, seat) = (Arc::clone(crew), seat.cloned());
    let (stopped, alive) = (stopped.clone(), alive.clone());
    let run = move || {
        threads::mark_ours();
        let runtime = crew.runtime.clone();
        {
            let _entered = runtime.enter();
            let tasks = crew.executor.run(until_closed(stopped));
            match seat {
                Some(seat) => {
                    sit_at(seat);
                    smol::future::block_on(tasks);
                }
                None => smol::block_on(tasks),
            }
            // In this order: a caller that waits for the end finds that everything is gone.
            drop(crew);
        }
        drop(alive);
    };
    thread::Builder::new().name(name).spawn(run).map(drop)
}

async fn until_closed(stopped: Receiver<()>) {
    while stopped.recv().await.is_ok() {}
}

/// Runs work that blocks its thread, on a thread that is for that, and gives its result: what reads files, computes for
/// long, or waits by a library that knows no futures. A handler that awaits it leaves its thread to others.
///
/// It begins at once. Dropped before it has begun it is not done; what has begun goes on to its end, and its result is
/// lost. A panic of the work is one of the future. The threads come as they are needed and go when they are idle; there
/// are 500 at most, or as many as `BLOCKING_MAX_THREADS` in the environment says, and then work waits. With the
/// feature `tokio` the work is inside of the same runtime as the caller.
///
/// ```
/// # use kvnode::{block_on, unblock};
/// let text = block_on(unblock(|| std::fs::read_to_string("Cargo.toml")))?;
/// # assert!(text.contains("kvnode"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let here = Runtime::here();
    let work = move || {
        let _entered = here.enter();
        work()
    };
    // Of a test kit the thread that steps it does the work: what comes of it comes in an order.
    let (own, elsewhere) = if is_stepped() { (Some(work), None) } else { (None, Some(smol::unblock(work))) };
    async move {
        match (own, elsewhere) {
            (Some(work), _) => work(),
            (None, Some(task)) => task.await,
            (None, None) => unreachable!("it is one of the two"),
        }
    }
}

/// A future of the program's on the node's threads. A panic ends it alone, and is logged; one of its drop too, which would
/// end the whole program: `async_task` aborts at it.
struct Job {
    /// Gone when it is done.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    whose: Whose,
}

impl Job {
    fn new(whose: Whose, future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { future: Some(Box::pin(future)), whose }
    }

    fn end(&mut self) {
        if let Some(future) = self.future.take()
            && let Err(text) = guarded(|| drop(future))
        {
            self.say(&text, "a task of the program panicked when it was dropped");
        }
    }

    fn say(&self, panic: &str, what: &str) {
        match self.whose {
            // A server's own code is looked after in `server::run`.
            Whose::Server(_) => tracing::error!(panic, "a task panicked (a bug: please report it)"),
            Whose::TaskOf(_) | Whose::Task => tracing::error!(panic, "{what}"),
        }
    }
}

impl Future for Job {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _busy = Busy::with(self.whose);
        let Some(future) = &mut self.future else { return Poll::Ready(()) };
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => {}
            Err(panic) => self.say(&text_of(&*panic), "a task of the program panicked"),
        }
        self.end();
        Poll::Ready(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end();
    }
}

impl Node {
    /// Runs a task on the node's threads, beside its servers: it must not block them ([`unblock`] is for that). It ends with
    /// the node, wherever it is; a panic ends it alone, and is logged. Once the node has ended nothing is run.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(task) = self.job(Whose::Task, task) {
            task.detach();
        }
    }

    /// Runs a server.
    pub(in crate::node) fn spawn_server(
        &self,
        process: &ProcessHandle,
        server: impl Future<Output = ()> + Send + 'static,
    ) {
        if let Some(task) = self.job(Whose::Server(process.process.id), server) {
            task.detach();
        }
    }

    /// A task of the program's that ends when what is given is dropped. `None`: the node has ended, and its tasks with it.
    pub(in crate::node) fn job(
        &self,
        whose: Whose,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Task<()>> {
        Some(self.work.upgrade()?.executor.spawn(Job::new(whose, task)))
    }

    /// Runs a task of the node's own, beside its connections.
    pub(in crate::node) fn spawn_link(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A task that panics must not take the executor's thread with it.
        let task = AssertUnwindSafe(task).catch_unwind();
        self.spawn_at_links(async { say_bug(task.await) });
    }

    /// Does there what code of the program's belongs to that may not wait: what an inline server has asked for.
    pub(in crate::node) fn spawn_inline(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_at_links(Job::new(Whose::Task, task));
    }

    fn spawn_at_links(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(links) = self.links.upgrade() {
            links.executor.spawn(task).detach();
        }
    }

    /// Spawns a task of the node's own that needs the node, unless that ends.
    pub(in crate::node) fn spawn_with<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: impl FnOnce(Arc<Self>) -> F,
    ) {
        if let Some(node) = self.this.upgrade() {
            self.spawn_link(task(node));
        }
    }
}

fn say_bug(done: Result<(), Box<dyn Any + Send>>) {
    if let Err(panic) = done {
        tracing::error!(panic = text_of(&*panic), "a task panicked (a bug: please report it)");
    }
}
