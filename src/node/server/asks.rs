//! Requests that name the type of their answer.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::distribution::ServerRef;
use crate::node::Node;
use crate::node::server::Server;
use crate::node::server::client::Client;
use crate::node::server::context::Context;
use crate::node::server::typed::Addressed;
use crate::process::CallError;

/// A request that names the type of its answer, so that caller and server cannot mean different ones: the caller
/// asks by [`Node::ask`], [`Context::ask`] or [`Client::ask`], the server answers by
/// [`ReplyTo::answer`](crate::ReplyTo::answer). On the wire it is a call as any other, whose request is the value.
///
/// ```
/// use std::collections::HashMap;
/// use std::time::Duration;
///
/// use kvnode::{Ask, CallError, Context, Never, Node, ReplyTo, Server, ServerRef};
/// use serde::{Deserialize, Serialize};
///
/// /// `{:price, item}`, answered by a float or `nil`.
/// #[derive(Serialize, Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Price {
///     Price(String),
/// }
///
/// impl Ask for Price {
///     type Answer = Option<f64>;
/// }
///
/// struct Prices(HashMap<String, f64>);
///
/// impl Server for Prices {
///     type Call = Price;
///     type Cast = Never;
///     type Info = Never;
///
///     async fn handle_call(&mut self, Price::Price(item): Price, from: ReplyTo, _cx: &mut Context<Self>) {
///         from.answer::<Price>(&self.0.get(&item).copied());
///     }
/// }
///
/// async fn price_of_tea(node: &Node, prices: &ServerRef) -> Result<Option<f64>, CallError> {
///     node.ask(prices, &Price::Price("tea".into()), Duration::from_secs(5)).await
/// }
/// ```
///
/// A server with several requests has them all as variants of its [`Server::Call`], beside a type for each that has the
/// same name and contents and is asked with: `{:price, item}` is read by the one as by the other.
pub trait Ask: Serialize {
    /// What it is answered with.
    type Answer: Serialize + DeserializeOwned;
}

impl Client {
    /// Asks a server on any node, as [`call_as`](Self::call_as) calls it, and reads the answer into the type that the request
    /// names.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Unreadable`] where the server has answered with something else.
    pub fn ask<Q: Ask>(
        &self,
        to: &ServerRef,
        request: &Q,
        timeout: Duration,
    ) -> impl Future<Output = Result<Q::Answer, CallError>> + Send + use<Q> {
        Addressed::new(self.clone(), to, request).call(timeout)
    }
}

impl Node {
    /// Asks a server on any node, and reads the answer into the type that the request names: see [`Ask`].
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Unreadable`] where the server has answered with something else.
    pub fn ask<Q: Ask>(
        &self,
        to: &ServerRef,
        request: &Q,
        timeout: Duration,
    ) -> impl Future<Output = Result<Q::Answer, CallError>> + Send + use<Q> {
        self.client().ask(to, request, timeout)
    }
}

impl<S: Server> Context<S> {
    /// Asks a server on any node, as [`call`](Self::call) calls it, and reads the answer into the type that the request names:
    /// see [`Ask`].
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Unreadable`] where the server has answered with something else.
    pub fn ask<Q: Ask>(
        &self,
        to: &ServerRef,
        request: &Q,
        timeout: Duration,
    ) -> impl Future<Output = Result<Q::Answer, CallError>> + Send + use<Q, S> {
        self.client().ask(to, request, timeout)
    }
}
