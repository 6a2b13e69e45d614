//! The service `etcdserverpb.Lease` (rpc.proto).

use prost::bytes::Bytes;

/// Makes a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseGrantRequest {
    /// Seconds. The server may give more: no less than one and a half of its election time-outs, 2 s by default.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    /// Its number; 0: the server gives one.
    #[prost(int64, tag = "2")]
    pub id: i64,
}

answer! {
    /// Answers [`LeaseGrantRequest`].
    pub struct LeaseGrantResponse {
        /// Its number.
        #[prost(int64, tag = "2")]
        pub id: i64,
        /// Seconds that it was given.
        #[prost(int64, tag = "3")]
        pub ttl: i64,
        /// Not empty: why there is none.
        #[prost(string, tag = "4")]
        pub error: String,
    }
}

/// Ends a lease, and the keys that are attached to it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseRevokeRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

answer! {
    /// Answers [`LeaseRevokeRequest`].
    pub struct LeaseRevokeResponse {}
}

/// Lets a lease begin anew. On etcd's side a stream of such requests, of which a [`Call`](super::Call) has one.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseKeepAliveRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

answer! {
    /// Answers [`LeaseKeepAliveRequest`].
    pub struct LeaseKeepAliveResponse {
        /// Its number.
        #[prost(int64, tag = "2")]
        pub id: i64,
        /// Seconds that it has from now on; 0: there is no such lease.
        #[prost(int64, tag = "3")]
        pub ttl: i64,
    }
}

/// Asks how long a lease has.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseTimeToLiveRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// The keys that are attached to it are wanted.
    #[prost(bool, tag = "2")]
    pub keys: bool,
}

answer! {
    /// Answers [`LeaseTimeToLiveRequest`].
    pub struct LeaseTimeToLiveResponse {
        /// Its number.
        #[prost(int64, tag = "2")]
        pub id: i64,
        /// Seconds that are left; -1: there is no such lease.
        #[prost(int64, tag = "3")]
        pub ttl: i64,
        /// Seconds that it was given.
        #[prost(int64, tag = "4")]
        pub granted_ttl: i64,
        /// The keys that are attached to it.
        #[prost(bytes = "bytes", repeated, tag = "5")]
        pub keys: Vec<Bytes>,
    }
}
