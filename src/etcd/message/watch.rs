//! The service `etcdserverpb.Watch` (rpc.proto), and `mvccpb.Event` (kv.proto).

use prost::bytes::Bytes;

use super::KeyValue;

/// What is said on the stream of watches.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchRequest {
    /// Which.
    #[prost(oneof = "WatchAsk", tags = "1, 2, 3")]
    pub request: Option<WatchAsk>,
}

/// What can be said there.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum WatchAsk {
    /// Begins a watch.
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    /// Ends a watch.
    #[prost(message, tag = "2")]
    Cancel(WatchCancelRequest),
    /// Asks how far the watches of the stream have come. (Before 3.4.25 and 3.5.8 the answer may overtake events; later ones
    /// do not answer while a watch of the stream begins at a revision that is not there yet.)
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

/// Begins a watch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchCreateRequest {
    /// The key, or the first of the range.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// As in [`RangeRequest`](super::RangeRequest).
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// The first revision whose changes are wanted; 0: from now on.
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// How far it has come is told from time to time, also when nothing changes (every ten minutes, unless the server was told
    /// otherwise).
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    /// What is not wanted.
    #[prost(enumeration = "WatchFilter", repeated, tag = "5")]
    pub filters: Vec<i32>,
    /// The entries of before are wanted.
    #[prost(bool, tag = "6")]
    pub prev_kv: bool,
    /// Its number; 0: the server gives one.
    #[prost(int64, tag = "7")]
    pub watch_id: i64,
    /// What is larger than a request may be comes in parts.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

/// What a watch may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum WatchFilter {
    /// Writes.
    NoPut = 0,
    /// Deletions.
    NoDelete = 1,
}

/// Ends a watch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchCancelRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub watch_id: i64,
}

/// See [`WatchAsk::Progress`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct WatchProgressRequest {}

answer! {
    /// What comes on the stream of watches.
    pub struct WatchResponse {
        /// Of which watch; -1: answers [`WatchAsk::Progress`].
        #[prost(int64, tag = "2")]
        pub watch_id: i64,
        /// The watch has begun.
        #[prost(bool, tag = "3")]
        pub created: bool,
        /// The watch is over.
        #[prost(bool, tag = "4")]
        pub canceled: bool,
        /// Not 0: it was to begin before this revision, which is the oldest that there is.
        #[prost(int64, tag = "5")]
        pub compact_revision: i64,
        /// Why it is over.
        #[prost(string, tag = "6")]
        pub cancel_reason: String,
        /// More of the same message follows.
        #[prost(bool, tag = "7")]
        pub fragment: bool,
        /// The changes, in the order of their revisions.
        #[prost(message, repeated, tag = "11")]
        pub events: Vec<Event>,
    }
}

/// A change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// Which.
    #[prost(enumeration = "EventKind", tag = "1")]
    pub r#type: i32,
    /// The entry after it; of a deletion its key and, as `mod_revision`, the deletion's revision.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
    /// The entry before it, where it was wanted, there was one, and it is not compacted.
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}

impl Event {
    /// The revision of the write that it is of; 0 of an event that has no entry, which no etcd sends.
    pub fn revision(&self) -> i64 {
        self.kv.as_ref().map_or(0, |kv| kv.mod_revision)
    }
}

/// The kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum EventKind {
    /// It was written.
    Put = 0,
    /// It was deleted, or ended with its lease.
    Delete = 1,
}
