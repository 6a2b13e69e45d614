//! Calls and casts to the servers of one name on many nodes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, from_term};
use crate::node::server::client::Client;
use crate::process::CallError;

/// What became of it on one node.
type Row<T> = (Arc<str>, Result<T, CallError>);

/// To the servers that have one name, each on its node.
impl Client {
    /// Calls the servers that are registered as `name` on each of these nodes, all at once, as `GenServer.multi_call/4` does. There is
    /// one row for each node, in the order of the nodes: its answer, or why there is none. It takes no longer than `timeout`, also
    /// where a node does not answer; `Duration::MAX` is `:infinity`. What this gives needs neither the client nor the request any more.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use kvnode::etf::atom;
    /// use kvnode::{Node, block_on};
    ///
    /// let node = Node::builder("sum").connect("a@myhost").connect("b@myhost").start()?;
    /// let limit = Duration::from_secs(5);
    /// // {:counter, :"a@myhost"} and {:counter, :"b@myhost"}
    /// let nodes = ["a@myhost", "b@myhost"];
    /// let values = block_on(node.client().multi_call::<i64, _, _>(&nodes, "counter", &atom("value"), limit));
    /// for (node, value) in &values {
    ///     match value {
    ///         Ok(value) => println!("{node}: {value}"),
    ///         Err(error) => println!("{node} has no answer: {error}"),
    ///     }
    /// }
    /// # Ok::<(), kvnode::StartError>(())
    /// ```
    ///
    /// Of all connected nodes: `&node.connected()`.
    ///
    /// # Errors
    /// See [`CallError`], of each node for itself.
    pub fn multi_call<T, R, N>(
        &self,
        nodes: &[N],
        name: &str,
        request: &R,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Row<T>>> + Send + use<T, R, N>
    where
        T: DeserializeOwned + Send,
        R: Serialize + ?Sized,
        N: AsRef<str>,
    {
        self.each(nodes, name, request, move |client, to, request| async move {
            let answer = client.call_term(&to, request.view(), timeout).await?;
            from_term(answer.view()).map_err(CallError::Unreadable)
        })
    }

    /// Casts to the servers that are registered as `name` on each of these nodes, all at once, as `GenServer.abcast/3` does. There is
    /// one row for each node, in the order of the nodes: whether it was sent. A node that does not read what it is sent takes
    /// [`output_stall_max`](crate::config::Limits::output_stall_max), and holds up no other.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`], of each node for itself. Whether it arrived is not known.
    pub fn abcast<R, N>(
        &self,
        nodes: &[N],
        name: &str,
        request: &R,
    ) -> impl Future<Output = Vec<Row<()>>> + Send + use<R, N>
    where
        R: Serialize + ?Sized,
        N: AsRef<str>,
    {
        self.each(nodes, name, request, |client, to, request| async move {
            client.cast(&to, |w| _ = w.term(request.view())).await
        })
    }

    /// Does something with the server of each node, all at once. The request is written once.
    fn each<T, R, N, F, W>(
        &self,
        nodes: &[N],
        name: &str,
        request: &R,
        work: W,
    ) -> impl Future<Output = Vec<Row<T>>> + Send + use<T, R, N, F, W>
    where
        W: Fn(Self, ServerRef, Arc<OwnedTerm>) -> F,
        T: Send,
        R: Serialize + ?Sized,
        N: AsRef<str>,
        F: Future<Output = Result<T, CallError>> + Send,
    {
        let request = OwnedTerm::from_value(request).map(Arc::new).map_err(CallError::Unwritable);
        let works = nodes.iter().map(|node| {
            let node: Arc<str> = node.as_ref().into();
            let to = ServerRef::remote(name, &node);
            let work = request.clone().map(|request| work(self.clone(), to, request));
            async move { (node, async { work?.await }.await) }
        });
        joined(works.collect())
    }
}

/// Does all of these at once, and gives what they give, in their order.
async fn joined<F: Future>(works: Vec<F>) -> Vec<F::Output> {
    let mut works: Vec<_> = works.into_iter().map(|work| (Box::pin(work), None)).collect();
    poll_fn(|cx| {
        let mut waits = false;
        for (work, output) in &mut works {
            if output.is_none() {
                match work.as_mut().poll(cx) {
                    Poll::Ready(done) => *output = Some(done),
                    Poll::Pending => waits = true,
                }
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    works.into_iter().filter_map(|(_, output)| output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::block_on;

    #[test]
    fn what_is_done_at_once_is_given_in_order() {
        let (tell, told) = smol::channel::bounded::<u8>(1);
        let work = |number: u8| {
            let (tell, told) = (tell.clone(), told.clone());
            async move {
                // The first waits for the last.
                match number {
                    0 => told.recv().await.expect("it is told"),
                    2 => tell.send(7).await.map(|()| 2).expect("there is room"),
                    other => other,
                }
            }
        };
        assert_eq!(block_on(joined(vec![work(0), work(1), work(2)])), [7, 1, 2]);
        assert!(block_on(joined(Vec::<std::future::Ready<u8>>::new())).is_empty());
    }
}
