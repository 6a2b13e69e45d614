//! Conversations of a peer with our processes, without a socket: frames in, exact frames out.

#[path = "support/around.rs"]
mod around;
#[path = "conversation/cluster.rs"]
mod cluster;
#[path = "support/conversation.rs"]
mod conversation;
#[path = "conversation/copies.rs"]
mod copies;
#[path = "support/deferred.rs"]
mod deferred;
#[path = "support/dropped.rs"]
mod dropped;
#[path = "conversation/ends.rs"]
mod ends;
#[path = "conversation/figures.rs"]
mod figures;
#[path = "conversation/functions.rs"]
mod functions;
#[path = "conversation/late.rs"]
mod late;
#[path = "conversation/model.rs"]
mod model;
#[cfg(feature = "etcd")]
#[path = "conversation/on_etcd.rs"]
mod on_etcd;
#[path = "conversation/primaries.rs"]
mod primaries;
#[path = "conversation/requests.rs"]
mod requests;
#[path = "conversation/revisions.rs"]
mod revisions;
#[path = "conversation/scan.rs"]
mod scan;
#[path = "conversation/signals.rs"]
mod signals;
#[path = "conversation/store.rs"]
mod store;
mod support;
#[path = "conversation/transact.rs"]
mod transact;
#[path = "conversation/watch.rs"]
mod watch;

use support::term;
