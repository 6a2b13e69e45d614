//! The functions of the Elixir modules `KeyValueStore`, `KeyValueStoreReplicated` and `KeyValueStoreDistributed`, as other
//! nodes call them here by rpc.
//!
//! The clients (`put`, `get`, `delete`, `add_slave`) call the server that the Elixir module calls, wherever that lives. Where that is
//! one of this node, each other request of a store is a function too, with the same name.
//! `start_link` starts a store here. Unlike on a BEAM it is linked to nobody: the process that an rpc runs in ends with
//! it, and a store that ended then too would be of no use to the caller that had it started.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::requests::is_request;
use super::{Follow, KeyValueServer, StateShape};
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid, TermView, TermWriter, encode};
use crate::process::rpc::calls::{DEFAULT_TIMEOUT, call_server};
use crate::process::rpc::{Answer, Context, Exception, FunctionCall, Functions, elements};
use crate::process::{Dispatch, Effect, GenServer, GlobalRegistration, Process, Registry};
use crate::replica::dialect;
use crate::store::{MemoryStore, Room};

/// Stores that were started by others and live; one more is refused with `system_limit`. A cluster's supervisors start a few.
const STARTED_MAX: usize = 1024;

/// The module, as the text of its atom.
const PLAIN: &str = "Elixir.KeyValueStore";
const REPLICATED: &str = "Elixir.KeyValueStoreReplicated";
const DISTRIBUTED: &str = "Elixir.KeyValueStoreDistributed";
/// The primary that the clients of the last two call.
const PRIMARY: &str = "master";

/// The functions of the three modules.
pub struct KeyValueFunctions {
    dispatch: Arc<dyn Dispatch>,
    follow: Arc<dyn Follow>,
    slave_buffer_bytes_max: usize,
    started: Mutex<Vec<Weak<KeyValueServer<MemoryStore>>>>,
    room: Arc<Room>,
}

/// What a store is to be known by.
enum Name {
    Nothing,
    Local(Arc<str>),
    Global(Arc<str>),
}

impl Name {
    /// The process of ours that has it.
    fn holder(&self, registry: &Registry) -> Option<Arc<Process>> {
        match self {
            Self::Nothing => None,
            Self::Local(name) => registry.by_name(name).map(|(_, process)| process),
            Self::Global(name) => registry.by_global_name(name),
        }
    }
}

impl KeyValueFunctions {
    /// Stores that are started get `dispatch`, what follows their slaves, and the bound on what they keep for each of these.
    pub fn new(dispatch: Arc<dyn Dispatch>, follow: Arc<dyn Follow>, slave_buffer_bytes_max: usize) -> Self {
        Self { dispatch, follow, slave_buffer_bytes_max, started: Mutex::default(), room: Arc::default() }
    }

    /// Stores that are started share this room with the others of the node.
    pub fn within(self, room: Arc<Room>) -> Self {
        Self { room, ..self }
    }

    fn start(
        &self,
        call: &FunctionCall<'_>,
        name: Option<Name>,
        initial: Option<TermView<'_>>,
        context: &mut Context<'_>,
    ) -> Answer {
        let Some(name) = name else {
            // elixir, gen_server.ex, do_start/4
            let message = "expected :name option to be one of the following: nil, atom, {:global, atom}";
            return Answer::raise(Exception::argument_error(call, message));
        };
        if let Some(process) = name.holder(context.registry) {
            return already_started(&process.pid);
        }
        let module = if call.module == PLAIN { PLAIN } else { REPLICATED };
        let server = match self.server(call, module, initial) {
            Ok(server) => server,
            Err(exception) => return Answer::raise(exception),
        };
        let process = context.registry.spawn(Arc::clone(&server) as Arc<dyn GenServer>);
        let named = match &name {
            Name::Nothing => Ok(()),
            Name::Local(name) => context.registry.register(name, &process),
            Name::Global(name) => context.registry.claim_global(name, &process),
        };
        if named.is_err() {
            // Another start was faster, since the look above.
            self.dispatch.exit(process.id, &OwnedTerm::atom("normal").into_bytes());
            return match name.holder(context.registry) {
                Some(process) => already_started(&process.pid),
                None => Answer::raise(Exception::system_limit(call)),
            };
        }
        self.started.lock().push(Arc::downgrade(&server));
        tracing::info!(store = ?process, by = %context.peer, "store started");
        match name {
            Name::Nothing | Name::Local(_) => started(&process),
            Name::Global(name) => self.register_global(call, name, process, context),
        }
    }

    /// A store with the pairs of a map.
    fn server(
        &self,
        call: &FunctionCall<'_>,
        module: &str,
        initial: Option<TermView<'_>>,
    ) -> Result<Arc<KeyValueServer<MemoryStore>>, Exception> {
        {
            let mut started = self.started.lock();
            started.retain(|server| server.strong_count() > 0);
            if started.len() >= STARTED_MAX {
                return Err(Exception::system_limit(call));
            }
        }
        let (dispatch, follow) = (Arc::clone(&self.dispatch), Arc::clone(&self.follow));
        let shape = if module == PLAIN { StateShape::Plain } else { StateShape::Replicated };
        let store = MemoryStore::within(Arc::clone(&self.room));
        let server = KeyValueServer::new(store, dispatch, follow, self.slave_buffer_bytes_max);
        let server = server.shown_as(shape);
        if let Some(pairs) = initial {
            server.load(pairs).map_err(|error| {
                tracing::debug!(%error, "no store started with this state");
                // What init/1 of the module fails with takes the process with it that had started the server.
                Exception::Signal(encode(|w| {
                    w.tuple(2).atom("function_clause").list(1);
                    w.tuple(4).atom(module).atom("init").list(1).term(pairs).nil().nil().nil();
                }))
            })?;
        }
        Ok(server.shared())
    }

    /// The answer waits for `global`: when the caller has it, the name works.
    fn register_global(
        &self,
        call: &FunctionCall<'_>,
        name: Arc<str>,
        process: Arc<Process>,
        context: &mut Context<'_>,
    ) -> Answer {
        let (deferred, answer) = match context.defer(call) {
            Ok(deferred) => deferred,
            Err(answer) => {
                self.dispatch.exit(process.id, &OwnedTerm::atom("normal").into_bytes());
                return answer;
            }
        };
        let (store, dispatch) = (Arc::clone(&process), Arc::clone(&self.dispatch));
        let done = move |rival: Option<Pid>| match rival {
            None => deferred.answer(Ok(encode(|w| write_started(w, &store)))),
            Some(rival) => {
                dispatch.exit(store.id, &OwnedTerm::atom("normal").into_bytes());
                deferred.answer(Ok(encode(|w| write_already_started(w, &rival))));
            }
        };
        let registration = GlobalRegistration { name, process, done: Box::new(done) };
        context.later.push(Effect::RegisterGlobal(Box::new(registration)));
        answer
    }
}

/// The function by which other kvnodes tell that a node is one too, and has stores that speak their dialect.
#[derive(Clone, Copy, Debug)]
pub struct DialectFunctions;

impl Functions for DialectFunctions {
    fn apply(&self, call: &FunctionCall<'_>, _context: &mut Context<'_>) -> Option<Answer> {
        let is_asked = (call.module, call.function) == dialect::REPLICATION && call.arguments.is_empty();
        is_asked.then(|| Answer::value(|w| _ = w.unsigned(dialect::VERSION)))
    }
}

impl Functions for KeyValueFunctions {
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer> {
        let server = match call.module {
            PLAIN => ServerRef::local(PLAIN),
            REPLICATED => ServerRef::local(PRIMARY),
            DISTRIBUTED => ServerRef::global(PRIMARY),
            _ => return DialectFunctions.apply(call, context),
        };
        Some(match (call.module, call.function, call.arguments) {
            (PLAIN, "start_link", []) => self.start(call, Some(Name::Local(PLAIN.into())), None, context),
            (PLAIN, "start_link", [initial]) => {
                self.start(call, Some(Name::Local(PLAIN.into())), Some(*initial), context)
            }
            (PLAIN, "start_link", [initial, options]) => match option_name(*options) {
                Ok(None) => self.start(call, Some(Name::Local(PLAIN.into())), Some(*initial), context),
                Ok(Some(name)) => self.start(call, read_name(name), Some(*initial), context),
                Err(NotOptions) => Answer::raise(Exception::function_clause(call)),
            },
            (_, "start_link", arguments @ ([] | [_] | [_, _] | [_, _, _])) => {
                if arguments.get(2).is_some_and(|options| option_name(*options).is_err()) {
                    return Some(Answer::raise(Exception::function_clause(call)));
                }
                let name = match (call.module, arguments.first()) {
                    (REPLICATED, None) => Some(Name::Local(PRIMARY.into())),
                    (REPLICATED, Some(name)) => read_name(*name),
                    (_, None) => Some(Name::Global(PRIMARY.into())),
                    (_, Some(name)) => name.as_atom().map(|name| Name::Global(name.to_str().into())),
                };
                self.start(call, name, arguments.get(1).copied(), context)
            }
            (_, "get", [key]) => request(call, server, context, |w| _ = w.tuple(2).atom("get").term(*key)),
            (_, "put", [key, value]) => {
                request(call, server, context, |w| _ = w.tuple(3).atom("put").term(*key).term(*value))
            }
            (_, "delete", [key]) => {
                request(call, server, context, |w| _ = w.tuple(2).atom("delete").term(*key))
            }
            // A server of ours, which goes on whatever it is asked.
            (PLAIN | REPLICATED, function, elements) if is_request(function, elements.len()) => {
                request(call, server, context, |w| match elements {
                    [] => _ = w.atom(function),
                    elements => {
                        w.tuple(elements.len() + 1).atom(function);
                        elements.iter().for_each(|element| _ = w.term(*element));
                    }
                })
            }
            (REPLICATED, "add_slave", [slave]) => {
                request(call, server, context, |w| _ = w.tuple(2).atom("add_slave").term(*slave))
            }
            (DISTRIBUTED, "add_slave", [name]) => request(call, server, context, |w| {
                w.tuple(2).atom("add_slave").tuple(2).atom("global").term(*name);
            }),
            _ => return None,
        })
    }
}

impl std::fmt::Debug for KeyValueFunctions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyValueFunctions").field("started", &self.started.lock().len()).finish()
    }
}

/// A call of a client function: `GenServer.call(server, request)`.
fn request(
    call: &FunctionCall<'_>,
    server: ServerRef,
    context: &mut Context<'_>,
    request: impl FnOnce(&mut TermWriter<'_>),
) -> Answer {
    let Ok(request) = OwnedTerm::write(request) else { return Answer::raise(Exception::system_limit(call)) };
    let mfa = encode(|w| {
        w.tuple(3).atom("Elixir.GenServer").atom("call").list(3);
        server.write(w);
        w.term(request.view()).unsigned(DEFAULT_TIMEOUT.as_millis() as u64).nil();
    });
    call_server(call, server, request, DEFAULT_TIMEOUT, |w| _ = w.raw(&mfa), context)
}

struct NotOptions;

/// `:name` in a keyword list.
fn option_name(options: TermView<'_>) -> Result<Option<TermView<'_>>, NotOptions> {
    let mut name = None;
    for option in elements(options).ok_or(NotOptions)? {
        let [key, value] = option.as_tuple::<2>().ok_or(NotOptions)?;
        if key.as_atom().ok_or(NotOptions)? == "name" {
            name = name.or(Some(value));
        }
    }
    Ok(name)
}

/// What `GenServer.start_link` takes as a name, and this node can give.
fn read_name(name: TermView<'_>) -> Option<Name> {
    if let Some(name) = name.as_atom() {
        return match &*name.to_str() {
            "nil" => Some(Name::Nothing),
            "undefined" => None,
            name => Some(Name::Local(name.into())),
        };
    }
    let [kind, name] = name.as_tuple::<2>()?;
    (kind.is_atom("global")).then(|| name.as_atom().map(|name| Name::Global(name.to_str().into())))?
}

fn started(process: &Process) -> Answer {
    Answer::value(|w| write_started(w, process))
}

fn write_started(w: &mut TermWriter<'_>, process: &Process) {
    w.tuple(2).atom("ok").pid(&process.pid);
}

fn already_started(pid: &Pid) -> Answer {
    Answer::value(|w| write_already_started(w, pid))
}

fn write_already_started(w: &mut TermWriter<'_>, pid: &Pid) {
    w.tuple(2).atom("error").tuple(2).atom("already_started").pid(pid);
}
