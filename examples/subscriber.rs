//! A subscriber: it asks the Elixir process `{:global, :publisher}` to be told of its events, watches it, and asks
//! again when it is back.

use std::time::Duration;

use kvnode::etf::{Atom, atom};
use kvnode::{CallError, Context, Down, Never, Node, ReplyTo, Server, ServerRef};
use serde::Deserialize;

#[derive(Default)]
struct Subscriber {
    events: Vec<String>,
    subscribed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Events, // :events
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Info {
    Event(String), // {:event, "text"}
    #[serde(skip)]
    Subscribe, // from our own timer; no message is read as this
}

impl Subscriber {
    async fn subscribe(&self, cx: &mut Context<Self>) -> Result<(), CallError> {
        let publisher = ServerRef::global("publisher");
        let request = (atom("subscribe"), cx.pid().clone());
        let _ok: Atom = cx.call(&publisher, &request, Duration::from_secs(5)).await?;
        cx.monitor(&publisher).await?;
        Ok(())
    }

    async fn subscribe_or_retry(&mut self, cx: &mut Context<Self>) {
        self.subscribed = self.subscribe(cx).await.is_ok();
        if !self.subscribed {
            cx.send_after(Duration::from_millis(200), Info::Subscribe);
        }
    }
}

impl Server for Subscriber {
    type Call = Call;
    type Cast = Never;
    type Info = Info;

    async fn init(&mut self, cx: &mut Context<Self>) {
        self.subscribe_or_retry(cx).await;
    }

    async fn handle_call(&mut self, call: Call, from: ReplyTo, _cx: &mut Context<Self>) {
        match call {
            Call::Events => from.reply(&(self.subscribed, &self.events)),
        }
    }

    async fn handle_info(&mut self, message: Info, cx: &mut Context<Self>) {
        match message {
            Info::Event(text) => self.events.push(text),
            Info::Subscribe => self.subscribe_or_retry(cx).await,
        }
    }

    async fn handle_down(&mut self, _down: Down, cx: &mut Context<Self>) {
        self.subscribe_or_retry(cx).await;
    }
}

/// Runs the node until it ends.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("subscriber").start()?;
    node.serve(Subscriber::default()).register("subscriber")?;
    node.wait();
    Ok(())
}
