//! The table of functions, and what a function is given.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ahash::{AHashMap, AHashSet};
use parking_lot::{Mutex, RwLock};

use super::builtin::Builtin;
use super::deferred::{Deferred, ReturnTo, Task};
use super::exception::Exception;
use crate::distribution::DistributionFlags;
use crate::etf::{TermView, TermWriter, encode};
use crate::process::exits::guarded;
use crate::process::{Dispatch, Effect, Process, ProcessId, Registry};

/// Answers that one node may wait for at a time; a call past it fails with `system_limit`.
const DEFERRED_MAX: usize = 4096;

/// Functions that other nodes may call here.
///
/// They run inline, on the connection that the call came by: one that has to wait answers later
/// ([`Context::defer`]). A panic fails the call that it happened in, with the error `{:panic, text}`. With types for arguments
/// and values they are written by [`Node::module`](crate::Node::module).
///
/// ```no_run
/// use std::sync::Arc;
///
/// use kvnode::Node;
/// use kvnode::process::rpc::{Answer, Context, Exception, FunctionCall, Functions};
///
/// /// `:erpc.call(node, Echo, :echo, [term])` gives the term, whatever it is.
/// struct Echo;
///
/// impl Functions for Echo {
///     fn apply(&self, call: &FunctionCall<'_>, _context: &mut Context<'_>) -> Option<Answer> {
///         match (call.module, call.function, call.arguments) {
///             ("Elixir.Echo", "echo", [term]) => Some(Answer::value(|w| _ = w.term(*term))),
///             ("Elixir.Echo", "echo", _) => Some(Answer::raise(Exception::badarg(call))),
///             _ => None, // undef, unless others have it
///         }
///     }
/// }
///
/// let node = Node::builder("echo").start()?;
/// node.client().serve(Arc::new(Echo));
/// node.wait();
/// # Ok::<(), kvnode::StartError>(())
/// ```
pub trait Functions: Send + Sync + 'static {
    /// Calls the function; `None`: it is none of these, others are asked.
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer>;
}

/// What a function gives.
#[derive(Debug)]
pub enum Answer {
    /// Its value, encoded, or what it raised.
    Now(Result<Vec<u8>, Exception>),
    /// It was deferred; the value comes by its [`Deferred`]. The process lives until then.
    Later(Arc<Process>),
}

impl Answer {
    /// A value.
    pub fn value(write: impl FnOnce(&mut TermWriter<'_>)) -> Self {
        Self::Now(Ok(encode(write)))
    }

    /// An exception.
    pub const fn raise(exception: Exception) -> Self {
        Self::Now(Err(exception))
    }
}

/// A function that is called, with its arguments.
#[derive(Clone, Copy, Debug)]
pub struct FunctionCall<'a> {
    /// The module, an atom: `Elixir.KeyValueStore`, `erlang`.
    pub module: &'a str,
    /// The function's name.
    pub function: &'a str,
    /// The arguments.
    pub arguments: &'a [TermView<'a>],
    terms: (TermView<'a>, TermView<'a>, TermView<'a>),
}

impl<'a> FunctionCall<'a> {
    /// `terms`: the same, as they came.
    pub(super) const fn new(
        module: &'a str,
        function: &'a str,
        arguments: &'a [TermView<'a>],
        terms: (TermView<'a>, TermView<'a>, TermView<'a>),
    ) -> Self {
        Self { module, function, arguments, terms }
    }

    /// Module, function and the list of arguments, as they came.
    pub const fn terms(&self) -> (TermView<'a>, TermView<'a>, TermView<'a>) {
        self.terms
    }
}

/// What a function may touch.
pub struct Context<'a> {
    /// Our processes.
    pub registry: &'a Registry,
    /// The calling node.
    pub peer: &'a Arc<str>,
    /// The flags that it offered.
    pub flags: DistributionFlags,
    /// What is to happen elsewhere.
    pub later: &'a mut Vec<Effect>,
    /// How the call that is under way is answered.
    pub(super) return_to: Option<ReturnTo>,
    /// By which its answer comes, once it is put off.
    deferred: Option<Arc<Process>>,
}

impl<'a> Context<'a> {
    /// What a function called by `peer` may touch.
    pub(in crate::process) const fn new(
        registry: &'a Registry,
        peer: &'a Arc<str>,
        flags: DistributionFlags,
        later: &'a mut Vec<Effect>,
    ) -> Self {
        Self { registry, peer, flags, later, return_to: None, deferred: None }
    }

    /// Puts the answer off: it is given later, from any thread, by what this returns. The function then gives the
    /// [`Answer::Later`] that comes with it.
    ///
    /// # Errors
    /// Our bound: as many answers are owed to this node as may be. The exception is what the function gives.
    pub fn defer(&mut self, call: &FunctionCall<'_>) -> Result<(Deferred, Answer), Answer> {
        let limit = || Answer::raise(Exception::system_limit(call));
        let functions = &self.registry.functions;
        let Some(dispatch) = functions.dispatch.get() else { return Err(limit()) };
        if functions.owed_to(self.peer) >= DEFERRED_MAX {
            return Err(limit());
        }
        let Some(return_to) = self.return_to.take() else { return Err(limit()) };
        let process = self.registry.spawn(Arc::new(Task));
        // The process may end before the request that spawns it is handled: the caller is told even so.
        process.attach(self.peer);
        functions.owe(self.peer, process.id);
        self.deferred = Some(Arc::clone(&process));
        let deferred = Deferred::new(Arc::clone(&process), Arc::clone(dispatch), return_to, self.flags);
        Ok((deferred, Answer::Later(process)))
    }

    /// A value that the caller's node cannot decode would cost the connection: it is an error in its place.
    pub(super) fn decodable(&self, result: Result<Vec<u8>, Exception>) -> Result<Vec<u8>, Exception> {
        decodable(result, self.flags)
    }
}

pub(super) fn decodable(
    result: Result<Vec<u8>, Exception>,
    flags: DistributionFlags,
) -> Result<Vec<u8>, Exception> {
    let value = result?;
    match TermView::parse(&value) {
        Ok(term) if flags.can_decode(term.traits()) => Ok(value),
        _ => Err(Exception::exit(|w| _ = w.atom("system_limit"))),
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// All functions of a node, asked in order, and the answers that it owes.
pub struct FunctionTable {
    all: RwLock<Arc<[Arc<dyn Functions>]>>,
    dispatch: OnceLock<Arc<dyn Dispatch>>,
    owed: Mutex<Owed>,
}

/// Answers that come later, by the processes that give them and by the nodes that wait.
#[derive(Default)]
struct Owed {
    to: AHashMap<ProcessId, Arc<str>>,
    by: AHashMap<Arc<str>, AHashSet<ProcessId>>,
}

impl Default for FunctionTable {
    fn default() -> Self {
        let builtin: Arc<dyn Functions> = Arc::new(Builtin);
        Self { all: RwLock::new(Arc::new([builtin])), dispatch: OnceLock::new(), owed: Mutex::default() }
    }
}

impl FunctionTable {
    /// Adds functions; they are asked before those that were there, so that a function may be replaced.
    pub fn add(&self, functions: Arc<dyn Functions>) {
        let mut all = self.all.write();
        *all = std::iter::once(functions).chain(all.iter().cloned()).collect();
    }

    /// By what answers that come later go out; until this was said nothing is deferred.
    pub fn connect(&self, dispatch: Arc<dyn Dispatch>) {
        // The second node of a table would be a bug of ours, and the first one is as good.
        let _first = self.dispatch.set(dispatch);
    }

    pub(super) fn apply(
        &self,
        call: &FunctionCall<'_>,
        to: &ReturnTo,
        context: &mut Context<'_>,
    ) -> Option<Answer> {
        // Not under the lock: a function may add functions.
        let all = Arc::clone(&self.all.read());
        context.return_to = Some(to.clone());
        context.deferred = None;
        let mut answer = None;
        let called = guarded(|| answer = all.iter().find_map(|functions| functions.apply(call, context)));
        let Err(text) = called else { return answer };
        let FunctionCall { module, function, arguments, .. } = call;
        tracing::error!(
            function = %format_args!("{module}:{function}/{}", arguments.len()),
            panic = text,
            "a function panicked (a bug of the program): its call fails"
        );
        Some(match context.deferred.take() {
            // It has answered by now, or will: a second answer would be one to another question.
            Some(process) => Answer::Later(process),
            None => Answer::raise(Exception::error(call, |w| {
                w.tuple(2).atom("panic").binary(text.as_bytes());
            })),
        })
    }

    /// Answers that are owed to a node.
    pub fn owed_to(&self, peer: &str) -> usize {
        self.owed.lock().by.get(peer).map_or(0, |owed| owed.len())
    }

    fn owe(&self, peer: &Arc<str>, process: ProcessId) {
        let mut owed = self.owed.lock();
        owed.to.insert(process, Arc::clone(peer));
        owed.by.entry(Arc::clone(peer)).or_default().insert(process);
    }

    /// A process has ended: if an answer came by it, it is owed no more.
    pub(in crate::process) fn ended(&self, process: ProcessId) {
        let mut owed = self.owed.lock();
        let Some(peer) = owed.to.remove(&process) else { return };
        if let Some(processes) = owed.by.get_mut(&peer) {
            processes.remove(&process);
            if processes.is_empty() {
                owed.by.remove(&peer);
            }
        }
    }

    /// A node is gone: the processes whose answers it waited for, to be ended.
    pub fn peer_down(&self, peer: &str) -> Vec<ProcessId> {
        let mut owed = self.owed.lock();
        let processes = owed.by.remove(peer).unwrap_or_default();
        for process in &processes {
            owed.to.remove(process);
        }
        processes.into_iter().collect()
    }
}

impl fmt::Debug for FunctionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionTable").field("modules", &self.all.read().len()).finish_non_exhaustive()
    }
}
