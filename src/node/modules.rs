//! Functions of Rust that other nodes call by `:erpc` and `:rpc`, with the types of their arguments and values.

use std::any::Any;
use std::fmt::{self, Display};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use ahash::AHashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol::future::FutureExt;

use crate::etf::{ConvertError, OwnedTerm, TermView, encode, to_term};
use crate::node::Node;
use crate::process::exits::text_of;
use crate::process::rpc::{Answer, Context, Exception, FunctionCall, Functions};

impl Node {
    /// Begins a module of functions that other nodes call here: `name` is its atom, `Elixir.Prices` for `Prices`. See [`Module`].
    pub fn module(&self, name: &str) -> Module {
        Module { node: self.this.clone(), name: name.into(), functions: AHashMap::new() }
    }
}

/// A module of functions that any BEAM calls by `:erpc.call`, `:rpc.call` and what is made of them; had from [`Node::module`].
///
/// ```no_run
/// use kvnode::Node;
/// use kvnode::node::Raise;
///
/// # async fn price_of(item: &str) -> Option<u32> { item.is_empty().then_some(1) }
/// let node = Node::builder("shop").start()?;
/// node.module("Elixir.Prices")
///     .function("quote", |(item, count): (String, u32)| async move {
///         let price = price_of(&item).await.ok_or_else(|| Raise::argument("there is no such item"))?;
///         Ok(price * count)
///     })
///     .inline("currency", |()| Ok("EUR"))
///     .serve();
/// # Ok::<(), kvnode::StartError>(())
/// ```
///
/// ```text
/// iex> :erpc.call(:shop@myhost, Prices, :quote, ["pencil", 2])
/// 240
/// iex> :erpc.call(:shop@myhost, Prices, :quote, ["pencil", :two])
/// ** (ErlangError) Erlang error: {:exception, %ArgumentError{message: "argument 2: wanted u32, met the atom :two"}, …}
/// ```
///
/// The arguments are those of the caller's list: a tuple of as many values, `()` of none, `(T,)` of one. A function of the same
/// name may be there with another number of arguments. Where no function fits, others of the node are asked, and then the call
/// ends with `undef`, as on a BEAM. Arguments of other types raise `ArgumentError`, which names the argument, in a module of
/// Elixir, and `badarg` in any other.
///
/// A function that panics fails its call with the error `{:panic, text}`, and is logged.
#[must_use = "its functions are called once it is served"]
pub struct Module {
    node: Weak<Node>,
    name: Arc<str>,
    /// By name, with the number of arguments.
    functions: AHashMap<Box<str>, Vec<(usize, Body)>>,
}

type Body = Box<dyn Fn(&FunctionCall<'_>, &mut Context<'_>) -> Answer + Send + Sync>;

impl Module {
    /// Adds a function that may wait. It runs as a task on the node's threads; where the process that the caller sees is killed, or the
    /// caller's node is gone, it is dropped where it waits.
    ///
    /// At most 4,096 calls of one node run at a time; one more ends with `system_limit`.
    pub fn function<A, T, F, Run>(mut self, name: &str, function: F) -> Self
    where
        A: Arguments,
        T: Serialize,
        F: Fn(A) -> Run + Send + Sync + 'static,
        Run: Future<Output = Result<T, Raise>> + Send + 'static,
    {
        let (node, function) = (self.node.clone(), Arc::new(function));
        let of = Arc::new(Called::new(&self.name, name, A::COUNT));
        let body: Body = Box::new(move |call, context| {
            let arguments = match of.arguments(call) {
                Ok(arguments) => arguments,
                Err(exception) => return Answer::raise(exception),
            };
            let (deferred, answer) = match context.defer(call) {
                Ok(deferred) => deferred,
                Err(too_many) => return too_many,
            };
            // Else the caller's node is gone by now.
            if let Some(process) = node.upgrade().and_then(|node| node.process_at(deferred.pid())) {
                let (function, of) = (Arc::clone(&function), Arc::clone(&of));
                process.spawn(async move {
                    let run = AssertUnwindSafe(async move { written(function(arguments).await) });
                    deferred.answer(of.result(run.catch_unwind().await));
                });
            }
            answer
        });
        self.add(name, A::COUNT, body);
        self
    }

    /// Adds a function that answers at once. It runs on the thread of the caller's connection, and several calls at a time: it must not
    /// wait, nor take long.
    pub fn inline<A, T, F>(mut self, name: &str, function: F) -> Self
    where
        A: Arguments,
        T: Serialize,
        F: Fn(A) -> Result<T, Raise> + Send + Sync + 'static,
    {
        let of = Called::new(&self.name, name, A::COUNT);
        let body: Body = Box::new(move |call, _| {
            // A panic is caught where the function is called.
            Answer::Now(of.arguments(call).and_then(|arguments| of.result(Ok(written(function(arguments))))))
        });
        self.add(name, A::COUNT, body);
        self
    }

    /// Has the functions called from now on. They are asked before those that the node has by itself, and stay as long as the
    /// node.
    pub fn serve(self) {
        if let Some(node) = self.node.upgrade() {
            node.registry.functions.add(Arc::new(self));
        }
    }

    fn add(&mut self, name: &str, count: usize, body: Body) {
        let same = self.functions.entry(name.into()).or_default();
        same.retain(|(other, _)| *other != count);
        same.push((count, body));
    }
}

impl Functions for Module {
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer> {
        if call.module != &*self.name {
            return None;
        }
        let same = self.functions.get(call.function)?;
        let (_, body) = same.iter().find(|(count, _)| *count == call.arguments.len())?;
        Some(body(call, context))
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.name)
            .field("functions", &self.functions.keys())
            .finish_non_exhaustive()
    }
}

/// What a function of a [`Module`] raises in the place of a value: the caller sees it as an exception of a function of Elixir.
///
/// ```
/// use kvnode::etf::atom;
/// use kvnode::node::Raise;
///
/// fn halved(number: &str) -> Result<f64, Raise> {
///     let number: f64 = number.parse().map_err(Raise::argument)?; // %ArgumentError{message: "invalid float literal"}
///     if number < 0.0 {
///         return Err(Raise::error(&(atom("negative"), number))); // {:negative, -1.0}
///     }
///     Ok(number / 2.0)
/// }
/// assert_eq!(halved("3").ok(), Some(1.5));
/// assert!(matches!(halved("x"), Err(Raise::Argument(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Raise {
    /// `error`, with the reason.
    Error(OwnedTerm),
    /// `exit`, with the reason.
    Exit(OwnedTerm),
    /// `throw`, with the value.
    Throw(OwnedTerm),
    /// An argument does not do, for this reason: `ArgumentError` in a module of Elixir, in any other `badarg`, without the text.
    Argument(String),
}

impl Raise {
    /// `error`, as `:erlang.error/1`.
    pub fn error(reason: &(impl Serialize + ?Sized)) -> Self {
        Self::Error(term_or_why(reason))
    }

    /// `exit`, as `exit/1`.
    pub fn exit(reason: &(impl Serialize + ?Sized)) -> Self {
        Self::Exit(term_or_why(reason))
    }

    /// `throw`, as `throw/1`.
    pub fn throw(value: &(impl Serialize + ?Sized)) -> Self {
        Self::Throw(term_or_why(value))
    }

    /// An argument does not do: `.map_err(Raise::argument)`.
    pub fn argument(why: impl Display) -> Self {
        Self::Argument(why.to_string())
    }

    /// Elixir's `RuntimeError` with a message, as `raise/1`: `.map_err(Raise::runtime)`.
    pub fn runtime(message: impl Display) -> Self {
        let message = message.to_string();
        let exception = encode(|w| {
            w.map(3).atom("__struct__").atom("Elixir.RuntimeError").atom("__exception__").atom("true");
            w.atom("message").binary(message.as_bytes());
        });
        Self::Error(OwnedTerm::parse(exception).expect("it was written here as one term"))
    }
}

/// The term of a value; of a value that is none `{:unwritable, text}`, which its author will want to see.
fn term_or_why(value: &(impl Serialize + ?Sized)) -> OwnedTerm {
    OwnedTerm::from_value(value).unwrap_or_else(|error| {
        let why = encode(|w| {
            w.tuple(2).atom("unwritable").binary(error.to_string().as_bytes());
        });
        OwnedTerm::parse(why).expect("it was written here as one term")
    })
}

/// A value, encoded. A value that cannot be a term is an error of the function.
fn written(outcome: Result<impl Serialize, Raise>) -> Result<Vec<u8>, Raise> {
    let value = outcome?;
    to_term(&value).map_err(|_| Raise::error(&value))
}

/// A function of a module, as its exceptions name it.
struct Called {
    module: Arc<str>,
    name: Box<str>,
    count: usize,
}

impl Called {
    fn new(module: &Arc<str>, name: &str, count: usize) -> Self {
        Self { module: Arc::clone(module), name: name.into(), count }
    }

    fn is_of_elixir(&self) -> bool {
        self.module.starts_with("Elixir.")
    }

    fn arguments<A: Arguments>(&self, call: &FunctionCall<'_>) -> Result<A, Exception> {
        A::read(call.arguments).map_err(|(at, error)| {
            if self.is_of_elixir() {
                Exception::argument_error(call, &format!("argument {at}: {error}"))
            } else {
                Exception::error(call, |w| _ = w.atom("badarg"))
            }
        })
    }

    fn result(
        &self,
        outcome: Result<Result<Vec<u8>, Raise>, Box<dyn Any + Send>>,
    ) -> Result<Vec<u8>, Exception> {
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Raise::Error(reason))) => Err(self.error(reason)),
            Ok(Err(Raise::Exit(reason))) => Err(Exception::Exit(reason.into_bytes())),
            Ok(Err(Raise::Throw(value))) => Err(Exception::Throw(value.into_bytes())),
            Ok(Err(Raise::Argument(_))) if !self.is_of_elixir() => Err(self.error(OwnedTerm::atom("badarg"))),
            Ok(Err(Raise::Argument(why))) => {
                let reason = encode(|w| Exception::write_argument_error(w, &why));
                Err(self.error(OwnedTerm::parse(reason).expect("it was written here as one term")))
            }
            Err(panic) => {
                let text = text_of(&*panic);
                let Self { module, name, count } = self;
                tracing::error!(
                    function = %format_args!("{module}:{name}/{count}"),
                    panic = text,
                    "a function panicked (a bug of the program): its call fails"
                );
                let reason = encode(|w| _ = w.tuple(2).atom("panic").binary(text.as_bytes()));
                Err(self.error(OwnedTerm::parse(reason).expect("it was written here as one term")))
            }
        }
    }

    /// Raised in the function: a stacktrace has the number of its arguments, as that of a BEAM.
    fn error(&self, reason: OwnedTerm) -> Exception {
        let stack = encode(|w| {
            w.list(1).tuple(4).atom(&self.module).atom(&self.name).unsigned(self.count as u64).nil().nil();
        });
        Exception::Error { reason: reason.into_bytes(), stack }
    }
}

/// The arguments of a function of a [`Module`]: `()`, or a tuple of one to eight types that terms are read as.
pub trait Arguments: Sized + Send + sealed::Sealed + 'static {
    /// How many there are.
    const COUNT: usize;

    /// Reads the arguments. The error names the place, counted from 1, of an argument that is not what its type asks for.
    #[doc(hidden)]
    fn read(terms: &[TermView<'_>]) -> Result<Self, (usize, ConvertError)>;
}

mod sealed {
    /// Keeps the trait to the tuples here.
    pub trait Sealed {}
}

/// The next argument.
fn next<T: DeserializeOwned>(
    terms: &mut dyn Iterator<Item = (usize, TermView<'_>)>,
) -> Result<T, (usize, ConvertError)> {
    let (at, term) = terms.next().expect("a function is called with as many arguments as it has");
    term.to().map_err(|error| (at + 1, error))
}

macro_rules! arguments {
    ($($type:ident)*) => {
        impl<$($type: DeserializeOwned + Send + 'static),*> sealed::Sealed for ($($type,)*) {}

        impl<$($type: DeserializeOwned + Send + 'static),*> Arguments for ($($type,)*) {
            const COUNT: usize = <[&str]>::len(&[$(stringify!($type)),*]);

            fn read(terms: &[TermView<'_>]) -> Result<Self, (usize, ConvertError)> {
                let mut _terms = terms.iter().copied().enumerate();
                Ok(($(next::<$type>(&mut _terms)?,)*))
            }
        }
    };
}

arguments!();
arguments!(A);
arguments!(A B);
arguments!(A B C);
arguments!(A B C D);
arguments!(A B C D E);
arguments!(A B C D E F);
arguments!(A B C D E F G);
arguments!(A B C D E F G H);
