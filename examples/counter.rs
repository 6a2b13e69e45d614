//! A counter: `GenServer.cast({:global, :counter}, {:add, 1})`, `GenServer.call({:global, :counter}, :value)`.

use kvnode::{Context, Never, Node, ReplyTo, Server};
use serde::Deserialize;

struct Counter(i64);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Value, // :value
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cast {
    Add(i64), // {:add, n}
}

impl Server for Counter {
    type Call = Call;
    type Cast = Cast;
    type Info = Never;

    async fn handle_call(&mut self, call: Call, from: ReplyTo, _: &mut Context<Self>) {
        match call {
            Call::Value => from.reply(&self.0),
        }
    }

    async fn handle_cast(&mut self, cast: Cast, _: &mut Context<Self>) {
        match cast {
            Cast::Add(n) => self.0 += n,
        }
    }
}

/// Runs the node until it ends.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let node = Node::builder("counter").start()?;
    node.serve(Counter(0)).register_global("counter")?;
    node.wait();
    Ok(())
}
