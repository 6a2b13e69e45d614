//! Calls, casts and messages with Rust values for terms: written once, in [`Addressed`]; the public methods are its fronts.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::distribution::ServerRef;
use crate::etf::{ConvertError, OwnedTerm, from_term, to_term};
use crate::node::Node;
use crate::node::server::client::Client;
use crate::process::CallError;

/// A value as a term.
pub(in crate::node) fn term_of(value: &(impl Serialize + ?Sized)) -> Result<OwnedTerm, ConvertError> {
    Ok(OwnedTerm::parse(to_term(value)?).expect("what is written from a value is one term"))
}

/// A value as a term, with its sender and its receiver. What [`Client`], [`Node`] and [`Context`](super::Context) send as Rust
/// values goes out here: it borrows neither the client nor the value, and sends nothing before it is awaited.
pub(super) struct Addressed {
    client: Client,
    to: ServerRef,
    term: Result<OwnedTerm, ConvertError>,
}

impl Addressed {
    pub(super) fn new(client: Client, to: &ServerRef, value: &(impl Serialize + ?Sized)) -> Self {
        Self { client, to: to.clone(), term: term_of(value) }
    }

    pub(super) async fn call<T: DeserializeOwned>(self, timeout: Duration) -> Result<T, CallError> {
        let request = self.term.map_err(CallError::Unwritable)?;
        let answer = self.client.call_term(&self.to, request.view(), timeout).await?;
        from_term(answer.view()).map_err(CallError::Unreadable)
    }

    pub(super) async fn cast(self) -> Result<(), CallError> {
        let request = self.term.map_err(CallError::Unwritable)?;
        self.client.cast(&self.to, |w| _ = w.term(request.view())).await
    }

    pub(super) async fn send(self) -> Result<(), CallError> {
        let message = self.term.map_err(CallError::Unwritable)?;
        self.client.send(&self.to, |w| _ = w.term(message.view())).await
    }
}

/// With Rust values for terms. What these give needs neither the client nor the values any more: it can be moved into
/// a task, and several can be waited for at once. Nothing is sent before it is awaited.
impl Client {
    /// Calls a server, as `GenServer.call/3` does, and reads the answer into `T`:
    /// `let found: Option<String> = client.call_as(&to, &(atom("get"), key), timeout).await?`. `timeout` covers
    /// everything, the setting up of a connection too; `Duration::MAX` is `:infinity`.
    ///
    /// # Errors
    /// See [`CallError`]. A name that nobody has and a process that ends are told at once.
    pub fn call_as<T, R>(
        &self,
        to: &ServerRef,
        request: &R,
        timeout: Duration,
    ) -> impl Future<Output = Result<T, CallError>> + Send + use<T, R>
    where
        T: DeserializeOwned,
        R: Serialize + ?Sized,
    {
        Addressed::new(self.clone(), to, request).call(timeout)
    }

    /// Casts to a server, as `GenServer.cast/2` does.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]. Whether it arrived is not known.
    pub fn cast_as<R>(
        &self,
        to: &ServerRef,
        request: &R,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<R>
    where
        R: Serialize + ?Sized,
    {
        Addressed::new(self.clone(), to, request).cast()
    }

    /// Sends a message to a process, as `send/2` does.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]. Whether it arrived is not known.
    pub fn send_as<M>(
        &self,
        to: &ServerRef,
        message: &M,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<M>
    where
        M: Serialize + ?Sized,
    {
        Addressed::new(self.clone(), to, message).send()
    }
}

/// Calls and messages that come from no process of the program's own: see [`Client`] for more.
impl Node {
    /// Calls a server on any node, as `GenServer.call/3` does: see [`Client::call_as`].
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use kvnode::{Node, ServerRef, block_on, etf::atom};
    /// let node = Node::builder("rust").connect("iex@myhost").start()?;
    /// // {KeyValueStore, :"iex@myhost"}
    /// let store = ServerRef::remote("Elixir.KeyValueStore", "iex@myhost");
    /// let limit = Duration::from_secs(5);
    /// let found: Option<String> = block_on(node.call(&store, &(atom("get"), atom("nombre")), limit))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call<T, R>(
        &self,
        to: &ServerRef,
        request: &R,
        timeout: Duration,
    ) -> impl Future<Output = Result<T, CallError>> + Send + use<T, R>
    where
        T: DeserializeOwned,
        R: Serialize + ?Sized,
    {
        Addressed::new(self.client(), to, request).call(timeout)
    }

    /// Casts to a server on any node, as `GenServer.cast/2` does.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]. Whether it arrived is not known.
    pub fn cast<R>(
        &self,
        to: &ServerRef,
        request: &R,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<R>
    where
        R: Serialize + ?Sized,
    {
        Addressed::new(self.client(), to, request).cast()
    }

    /// Sends a message to a process on any node, as `send/2` does.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]. Whether it arrived is not known.
    pub fn send_to<M>(
        &self,
        to: &ServerRef,
        message: &M,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<M>
    where
        M: Serialize + ?Sized,
    {
        Addressed::new(self.client(), to, message).send()
    }
}
