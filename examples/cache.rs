//! A server that calls Elixir: what the store `{:global, :master}` has is asked for once, and kept.

use std::collections::HashMap;
use std::time::Duration;

use kvnode::etf::{OwnedTerm, atom};
use kvnode::{CallError, Context, Node, ReplyTo, Server, ServerRef};
use serde::Deserialize;

#[derive(Default)]
struct Cache(HashMap<String, OwnedTerm>);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Get(String), // {:get, "key"}
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cast {
    Forget(String), // {:forget, "key"}
    Clear,          // :clear
}

impl Server for Cache {
    type Call = Call;
    type Cast = Cast;
    type Info = OwnedTerm;

    async fn handle_call(&mut self, Call::Get(key): Call, from: ReplyTo, cx: &mut Context<Self>) {
        if let Some(value) = self.0.get(&key) {
            return from.reply(value);
        }
        let master = ServerRef::global("master");
        let answer: Result<OwnedTerm, CallError> =
            cx.call(&master, &(atom("get"), &key), Duration::from_secs(5)).await;
        match answer {
            Ok(value) => {
                from.reply(&value);
                self.0.insert(key, value);
            }
            // The caller's call ends for the reason for which ours has.
            Err(error) => from.end_call(&(atom("no_master"), error.to_string())),
        }
    }

    async fn handle_cast(&mut self, cast: Cast, _cx: &mut Context<Self>) {
        match cast {
            Cast::Forget(key) => _ = self.0.remove(&key),
            Cast::Clear => self.0.clear(),
        }
    }
}

/// Runs the node until it ends.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("cache").start()?;
    node.serve(Cache::default()).register("cache")?;
    node.wait();
    Ok(())
}

#[cfg(test)]
mod tests {
    use kvnode::test::{Sent, TestServer};

    use super::*;

    #[test]
    fn what_the_master_has_said_is_kept_until_it_is_forgotten() {
        let (mut cache, master) = (TestServer::start(Cache::default()), ServerRef::global("master"));
        let get = (atom("get"), "key");
        let call = cache.call(&get);
        assert_eq!(cache.sent(), [Sent::call(&master, &get)]);
        cache.answer(&master, &42);
        assert_eq!(call.reply::<i64>(), 42);
        assert_eq!(cache.call(&get).reply::<i64>(), 42);
        assert_eq!(cache.sent(), [], "it is not asked for again");
        cache.cast(&(atom("forget"), "key"));
        cache.call(&get);
        assert_eq!(cache.sent(), [Sent::call(&master, &get)]);
    }

    #[test]
    fn a_call_ends_where_the_master_ends_or_does_not_answer() {
        let (mut cache, master) = (TestServer::start(Cache::default()), ServerRef::global("master"));
        let call = cache.call(&(atom("get"), "key"));
        cache.advance(Duration::from_millis(4_999));
        assert_eq!(call.answer(), None);
        cache.advance(Duration::from_millis(1));
        let [tag, _] =
            call.exit().view().as_tuple::<2>().map(|pair| pair.map(OwnedTerm::from)).expect("a pair");
        assert_eq!(tag, OwnedTerm::atom("no_master"));
        let call = cache.call(&(atom("get"), "key"));
        cache.down(&master, &atom("killed"));
        assert!(format!("{:?}", call.exit()).contains("killed"));
    }
}
