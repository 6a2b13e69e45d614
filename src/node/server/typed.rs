//! Calls, casts and messages with Rust values for terms: written once, in [`Addressed`]; the public methods are its fronts.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::distribution::ServerRef;
use crate::etf::{ConvertError, Cursor, OwnedTerm, TermView, TermWriter, from_term, to_term};
use crate::node::Node;
use crate::node::peers::erpc::ErpcError;
use crate::node::server::client::Client;
use crate::process::CallError;
use crate::within::within;

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

    async fn try_cast(self) -> Result<(), CallError> {
        let request = self.term.map_err(CallError::Unwritable)?;
        self.client.try_send(&self.to, |w| _ = w.tuple(2).atom("$gen_cast").term(request.view())).await
    }

    async fn try_send(self) -> Result<(), CallError> {
        let message = self.term.map_err(CallError::Unwritable)?;
        self.client.try_send(&self.to, |w| _ = w.term(message.view())).await
    }
}

/// The arguments that a value stands for: the elements of a tuple or of a list, and none for `nil`, which `()` is.
fn arguments(value: &OwnedTerm) -> Result<Vec<TermView<'_>>, ConvertError> {
    let value = value.view();
    let mut cursor = Cursor::new(value.bytes());
    if let Ok(arity) = cursor.tuple() {
        return (0..arity).map(|_| Ok(cursor.term()?)).collect();
    }
    if value.is_atom("nil") {
        return Ok(Vec::new());
    }
    let no_list =
        || serde::ser::Error::custom(format_args!("wanted a tuple or a list of arguments, met {value:?}"));
    value.elements(usize::MAX).ok_or_else(no_list)
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

    /// As [`cast_as`](Self::cast_as), without the wait for room.
    ///
    /// # Errors
    /// As [`cast_as`](Self::cast_as); [`CallError::Busy`] at once where there is no room.
    pub fn try_cast_as<R>(
        &self,
        to: &ServerRef,
        request: &R,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<R>
    where
        R: Serialize + ?Sized,
    {
        Addressed::new(self.clone(), to, request).try_cast()
    }

    /// As [`send_as`](Self::send_as), without the wait for room: for what is better left out than sent late.
    ///
    /// ```no_run
    /// # use kvnode::{CallError, Client, ServerRef, etf::atom};
    /// # async fn show(client: &Client, screen: &ServerRef, watts: f64) -> Result<(), CallError> {
    /// match client.try_send_as(screen, &(atom("watts"), watts)).await {
    ///     Err(CallError::Busy { .. }) => Ok(()), // the next one is newer
    ///     sent => sent,
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send_as`](Self::send_as); [`CallError::Busy`] at once where there is no room.
    pub fn try_send_as<M>(
        &self,
        to: &ServerRef,
        message: &M,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<M>
    where
        M: Serialize + ?Sized,
    {
        Addressed::new(self.clone(), to, message).try_send()
    }

    /// Calls `module:function` on a node, as `:erpc.call/5` does, and reads its value into `T`. `arguments` is a tuple of
    /// them, `(x,)` for one and `()` for none; a list counts as its elements. `timeout` covers everything, the setting up of a connection
    /// too; `Duration::MAX` is `:infinity`. The modules of Elixir are written out: `Elixir.String`.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use kvnode::{Node, block_on};
    ///
    /// let node = Node::builder("rust").start()?;
    /// let (client, limit) = (node.client(), Duration::from_secs(5));
    /// // String.duplicate("ha", 3), and node()
    /// let duplicate = ("Elixir.String", "duplicate");
    /// let laugh: String = block_on(client.erpc_as("beam@myhost", duplicate, &("ha", 3), limit))?;
    /// let name: kvnode::etf::Atom = block_on(client.erpc_as("beam@myhost", ("erlang", "node"), &(), limit))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`ErpcError`].
    pub fn erpc_as<T, A>(
        &self,
        node: &str,
        function: (&str, &str),
        arguments: &A,
        timeout: Duration,
    ) -> impl Future<Output = Result<T, ErpcError>> + Send + use<T, A>
    where
        T: DeserializeOwned,
        A: Serialize + ?Sized,
    {
        let (this, from) = (Arc::clone(self.node()), Arc::<str>::from(node));
        let (module, name) = (function.0.to_owned(), function.1.to_owned());
        let value = OwnedTerm::from_value(arguments);
        async move {
            let value = value.map_err(ErpcError::Unwritable)?;
            let arguments = self::arguments(&value).map_err(ErpcError::Unwritable)?;
            let called = async {
                let peer = this.connect(&from).await.map_err(|_| ErpcError::NoConnection)?;
                if !peer.offered.can_decode(value.view().traits()) {
                    return Err(ErpcError::Undecodable);
                }
                let write =
                    |w: &mut TermWriter<'_>| arguments.iter().for_each(|argument| _ = w.term(*argument));
                this.erpc(&peer, (&module, &name), arguments.len(), write, timeout).await
            };
            let given = within(timeout, called).await.unwrap_or(Err(ErpcError::Timeout))?;
            from_term(given.view()).map_err(ErpcError::Unreadable)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_the_elements_of_a_tuple_or_of_a_list() {
        let read = |value: Result<OwnedTerm, ConvertError>| {
            let value = value.expect("a term");
            let read = arguments(&value);
            read.map(|all| all.iter().map(|term| format!("{term:?}")).collect::<Vec<_>>().join(" "))
        };
        let text = |value| read(value).expect("arguments");
        assert_eq!(text(OwnedTerm::from_value(&("a", 1))), "\"a\" 1");
        assert_eq!(text(OwnedTerm::from_value(&(1,))), "1");
        assert_eq!(text(OwnedTerm::from_value(&())), "");
        assert_eq!(text(OwnedTerm::from_value(&[(); 0])), "");
        assert_eq!(text(OwnedTerm::from_value(&vec![1_u8, 2])), "1 2");
        assert_eq!(text(OwnedTerm::from_value(&vec!["a", "b"])), "\"a\" \"b\"");
        let error = read(OwnedTerm::from_value(&7)).expect_err("it is none");
        assert_eq!(error.to_string(), "wanted a tuple or a list of arguments, met 7");
    }
}
