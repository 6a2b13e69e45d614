//! The messages of etcd's API, written by hand: no file of theirs is compiled, and there is no step of the build.
//!
//! Names, numbers and kinds of the fields are those of `api/etcdserverpb/rpc.proto` and `api/mvccpb/kv.proto` in etcd's
//! repository (v3.4 to v3.6), where their meaning is explained at length. A field that a server of another version adds is
//! skipped; one that it lacks has the value 0, empty or none.
//!
//! Keys and values are [`Bytes`]: parts of the message that they came in, which stays in memory as long as one of
//! them. Copy what is kept for long.
//!
//! ```no_run
//! use kvnode::etcd::message::{Bytes, PutRequest, RangeRequest};
//! use kvnode::etcd::{Config, Etcd, WatchEvent, WatchOptions};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let etcd = Etcd::connect(Config::new(["http://a:2379", "http://b:2379", "http://c:2379"]))?;
//! let key = Bytes::from_static(b"colour");
//! let put = PutRequest { key: key.clone(), value: Bytes::from_static(b"red"), ..PutRequest::default() };
//! let revision = etcd.call(&put).await?.header.map_or(0, |header| header.revision);
//! let found = etcd.call(&RangeRequest { key, ..RangeRequest::default() }).await?;
//! assert_eq!(found.kvs[0].value, "red");
//!
//! let mut watch = etcd.watch(WatchOptions::key("colour").from_revision(revision));
//! if let WatchEvent::Changes(events) = watch.next().await? {
//!     println!("{events:?}");
//! }
//! # Ok(())
//! # }
//! ```

/// Makes a message that answers a request of a struct: the header that all answers begin with is its first field.
macro_rules! answer {
    ($(#[$attribute:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        #[derive(Clone, PartialEq, prost::Message)]
        $(#[$attribute])*
        pub struct $name {
            /// See [`ResponseHeader`](super::ResponseHeader).
            #[prost(message, optional, tag = "1")]
            pub header: Option<super::ResponseHeader>,
            $($fields)*
        }
    };
}

mod call;
mod cluster;
mod kv;
mod lease;
mod shape;
mod watch;

pub use call::{Answer, Call, Effect};
pub use cluster::{
    AlarmAction, AlarmKind, AlarmMember, AlarmRequest, AlarmResponse, AuthenticateRequest,
    AuthenticateResponse, Member, MemberListRequest, MemberListResponse, StatusRequest, StatusResponse,
};
pub use kv::{
    CompactionRequest, CompactionResponse, Compare, CompareResult, CompareTarget, Compared,
    DeleteRangeRequest, DeleteRangeResponse, KeyValue, Op, OpResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseOp, SortOrder, SortTarget, TxnRequest, TxnResponse,
};
pub use lease::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
pub use prost::bytes::Bytes;
pub use shape::{ENTRIES_MAX, Shape};
pub(in crate::etcd) use shape::{Misshapen, WATCH};
pub use watch::{
    Event, EventKind, WatchAsk, WatchCancelRequest, WatchCreateRequest, WatchFilter, WatchProgressRequest,
    WatchRequest, WatchResponse,
};

/// `ResponseHeader`: what every answer begins with.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ResponseHeader {
    /// The cluster that answers.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The member that answers.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// The revision of the whole key space when the request was applied; 0 in answers that are not about keys.
    #[prost(int64, tag = "3")]
    pub revision: i64,
    /// The term of the leader.
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}

/// The end of the range of all keys that begin with `prefix`: the first key behind them. After a prefix of nothing, or of bytes
/// 0xff alone, come all keys: `[0]`, which etcd reads as that.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_does_not_begin_with_it() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), [0]);
        assert_eq!(prefix_end(b""), [0]);
    }
}
