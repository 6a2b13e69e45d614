//! A counter: `GenServer.cast({:global, :counter}, {:add, 1})`, `GenServer.call({:global, :counter}, :value)`.

use kvnode::etf::Atom;
use kvnode::{Context, Never, Node, ReplyTo, Server};

struct Counter(i64);

impl Server for Counter {
    type Call = Atom; // :value
    type Cast = (Atom, i64); // {:add, n}
    type Info = Never;

    async fn handle_call(&mut self, _value: Atom, from: ReplyTo, _: &mut Context<Self>) {
        from.reply(&self.0);
    }

    async fn handle_cast(&mut self, (_add, n): (Atom, i64), _: &mut Context<Self>) {
        self.0 += n;
    }
}

/// Runs the node until it ends.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("counter").start()?;
    node.serve(Counter(0)).register_global("counter")?;
    node.wait();
    Ok(())
}
