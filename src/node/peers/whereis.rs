//! The holder of a name, asked of other nodes.

use std::sync::Arc;
use std::time::Duration;

use crate::etf::{Pid, TermView, TermWriter};
use crate::node::Node;
use crate::node::peers::PeerHandle;
use crate::node::peers::erpc::{self, ErpcError};
use crate::within::within;

/// How long one node may take to say where a name is: as long as `GenServer.call/2` waits for anything.
pub(in crate::node) const LIMIT: Duration = Duration::from_secs(5);
/// The same for a hidden BEAM, where others wait for what we make of it: a tool that is suspended must not have them run into
/// their own time-outs.
pub(in crate::node) const HIDDEN_LIMIT: Duration = Duration::from_secs(1);

impl Node {
    /// The pid that holds a name in `global` (an encoded term), asked at one node.
    pub(in crate::node) async fn global_whereis(
        &self,
        peer: &PeerHandle,
        name: &[u8],
        limit: Duration,
    ) -> Result<Option<Pid>, ErpcError> {
        let argument = |w: &mut TermWriter<'_>| {
            w.raw(name);
        };
        let answer = self.erpc(peer, ("global", "whereis_name"), 1, argument, limit).await?;
        Ok(answer.view().as_pid().map(Into::into))
    }

    /// The pid that holds a name in `global` (an encoded term): asked at all connected nodes that take part in
    /// `global`, at once; where none of them knows it, at those that may hold names themselves, and here.
    pub(in crate::node) async fn whereis_global(&self, name: &[u8], limit: Duration) -> Option<Pid> {
        if let Some(world) = &self.world {
            return Some(self.own_global(name).unwrap_or_else(|| world.global(name)));
        }
        let mut peers: Vec<Arc<PeerHandle>> = self.peers.all();
        peers.retain(|peer| peer.name != self.registry.node);
        let (visible, hidden): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| peer.is_visible());
        if let Some(pid) = self.first_that_knows(&visible, name, limit).await {
            return Some(pid);
        }
        if let Some(pid) = self.first_that_knows(&hidden, name, limit).await {
            return Some(pid);
        }
        self.own_global(name)
    }

    /// The pid of a process of this node that has a name in `global` (an encoded term), or is to have it.
    fn own_global(&self, name: &[u8]) -> Option<Pid> {
        let name = TermView::parse(name).ok()?.as_atom()?.to_str();
        self.registry.by_global_name(&name).map(|process| process.pid.clone())
    }

    /// All pids that hold a name in `global` (an encoded term), as [`whereis_global`](Self::whereis_global) asks for them: in
    /// one cluster it is one.
    pub(in crate::node) async fn global_holders(&self, name: &[u8], limit: Duration) -> Vec<Pid> {
        let mut peers: Vec<Arc<PeerHandle>> = self.peers.all();
        peers.retain(|peer| peer.name != self.registry.node);
        let (visible, hidden): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| peer.is_visible());
        for peers in [visible, hidden] {
            let mut holders = Vec::new();
            self.ask_all(&peers, name, limit, |pid| {
                if !holders.contains(&pid) {
                    holders.push(pid);
                }
                false
            })
            .await;
            if !holders.is_empty() {
                return holders;
            }
        }
        let name = TermView::parse(name).ok().and_then(TermView::as_atom);
        let own = name.and_then(|name| self.registry.by_global_name(&name.to_str()));
        own.into_iter().map(|process| process.pid.clone()).collect()
    }

    /// Asks all of them at once: the first that knows the name is believed.
    pub(in crate::node) async fn first_that_knows(
        &self,
        peers: &[Arc<PeerHandle>],
        name: &[u8],
        limit: Duration,
    ) -> Option<Pid> {
        let mut first = None;
        self.ask_all(peers, name, limit, |pid| {
            first = Some(pid);
            true
        })
        .await;
        first
    }

    /// Asks all of them at once, until `enough` says so of an answer.
    async fn ask_all(
        &self,
        peers: &[Arc<PeerHandle>],
        name: &[u8],
        limit: Duration,
        mut enough: impl FnMut(Pid) -> bool,
    ) {
        let (tell, told) = smol::channel::unbounded();
        let mut asked = Vec::new();
        for peer in peers {
            let argument = |w: &mut TermWriter<'_>| {
                w.raw(name);
            };
            let tell = tell.clone();
            let done = move |outcome| {
                // The caller that asks may have its answer by now.
                let _gone = tell.try_send(outcome);
            };
            match self.begin_erpc(peer, ("global", "whereis_name"), 1, argument, done) {
                Ok(wait) => asked.push(wait),
                Err(error) => tracing::debug!(peer = %peer.name, %error, "global name not looked up"),
            }
        }
        drop(tell);
        let answers = async {
            for _ in 0..asked.len() {
                let Ok(outcome) = told.recv().await else { return };
                match erpc::value_of(outcome) {
                    Ok(answer) => {
                        if let Some(pid) = answer.view().as_pid()
                            && enough(pid.into())
                        {
                            return;
                        }
                    }
                    Err(error) => tracing::debug!(%error, "global name not looked up"),
                }
            }
        };
        if within(limit, answers).await.is_none() {
            tracing::debug!("global name not looked up: not all nodes answered in time");
        }
    }
}
