//! Nodes that come up and go down, told to a server.

use std::sync::Arc;

use crate::node::NodeEvent;
use crate::node::server::Server;
use crate::node::server::context::Context;
use crate::node::server::own::Own;
use crate::process::mailbox::Envelope;

impl<S: Server> Context<S> {
    /// Has the server told of each node that comes up and goes down from now on, as `:net_kernel.monitor_nodes/2` does:
    /// [`Server::handle_info`] gets what `then` makes of it, which the server calls when it takes the event. It is told until it ends.
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use std::sync::Arc;
    ///
    /// use kvnode::{Context, Never, NodeEvent, ReplyTo, Server};
    /// use serde::Deserialize;
    ///
    /// #[derive(Default)]
    /// struct Nodes(HashSet<Arc<str>>);
    ///
    /// #[derive(Deserialize)]
    /// #[serde(rename_all = "snake_case")]
    /// enum Call {
    ///     Count, // :count
    /// }
    ///
    /// #[derive(Deserialize)]
    /// enum Info {
    ///     #[serde(skip)]
    ///     Node(NodeEvent),
    /// }
    ///
    /// impl Server for Nodes {
    ///     type Call = Call;
    ///     type Cast = Never;
    ///     type Info = Info;
    ///
    ///     async fn init(&mut self, cx: &mut Context<Self>) {
    ///         cx.watch_nodes(Info::Node);
    ///         self.0.extend(cx.node().connected().iter().map(|name| name.as_str().into()));
    ///     }
    ///
    ///     async fn handle_call(&mut self, Call::Count: Call, from: ReplyTo, _cx: &mut Context<Self>) {
    ///         from.reply(&self.0.len());
    ///     }
    ///
    ///     async fn handle_info(&mut self, Info::Node(event): Info, _cx: &mut Context<Self>) {
    ///         match event {
    ///             NodeEvent::Up(node) => _ = self.0.insert(node.name),
    ///             NodeEvent::Down { node, .. } => _ = self.0.remove(&node.name),
    ///             _ => {}
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// Events wait beside the mailbox, one of them in it at a time: [`NodeEvent::Missed`] says what happens to too many.
    pub fn watch_nodes(&self, then: impl FnMut(NodeEvent) -> S::Info + Send + 'static) {
        let mut events = self.node().events();
        let mailbox = Arc::clone(self.process().mailbox.as_ref().expect("a server has a mailbox"));
        self.process().spawn(async move {
            let mut then = then;
            while let Some(event) = events.next_event().await {
                // It goes to the server with the event, and comes back when the server has taken it.
                let (give_back, given_back) = smol::channel::bounded(1);
                let make = move || {
                    let message = then(event);
                    // Nobody waits for it any more where the process has ended.
                    let _gone = give_back.try_send(then);
                    message
                };
                mailbox.push(Envelope::Own(Box::new(Own::<S::Info>::Made(Box::new(make)))));
                let Ok(back) = given_back.recv().await else { return };
                then = back;
            }
        });
    }
}
