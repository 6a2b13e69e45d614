//! The service `etcdserverpb.KV` (rpc.proto), and `mvccpb.KeyValue` (kv.proto).

use prost::bytes::Bytes;

/// An entry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The revision of the write that made the key, after it was deleted the last time.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The revision of its last write.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// How often it was written since it was made; 0 of a deletion.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease that it ends with; 0: none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// Reads keys.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    /// The key, or the first of the range.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The first key behind the range; empty: the key alone; `[0]`: all from the key on.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Entries at most; 0: no bound.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// As it was at this revision; 0: as it is now.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// In which order.
    #[prost(enumeration = "SortOrder", tag = "5")]
    pub sort_order: i32,
    /// Ordered by what.
    #[prost(enumeration = "SortTarget", tag = "6")]
    pub sort_target: i32,
    /// The member answers by itself, and may be behind. Else the answer has all that was committed before the request.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    /// Without values.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    /// Their number alone.
    #[prost(bool, tag = "9")]
    pub count_only: bool,
    /// Only those last written at this revision or later.
    #[prost(int64, tag = "10")]
    pub min_mod_revision: i64,
    /// Only those last written at this revision or before; 0: no bound.
    #[prost(int64, tag = "11")]
    pub max_mod_revision: i64,
    /// Only those made at this revision or later.
    #[prost(int64, tag = "12")]
    pub min_create_revision: i64,
    /// Only those made at this revision or before; 0: no bound.
    #[prost(int64, tag = "13")]
    pub max_create_revision: i64,
}

/// The order of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// As the server has them, which is by key.
    None = 0,
    /// The lowest first.
    Ascend = 1,
    /// The highest first.
    Descend = 2,
}

/// What a range is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// By key.
    Key = 0,
    /// By version.
    Version = 1,
    /// By the revision that made it.
    Create = 2,
    /// By the revision of its last write.
    Mod = 3,
    /// By value.
    Value = 4,
}

answer! {
    /// Answers [`RangeRequest`].
    pub struct RangeResponse {
        /// The entries.
        #[prost(message, repeated, tag = "2")]
        pub kvs: Vec<KeyValue>,
        /// There are more than the limit.
        #[prost(bool, tag = "3")]
        pub more: bool,
        /// Entries in the range, whatever the limit.
        #[prost(int64, tag = "4")]
        pub count: i64,
    }
}

/// Writes a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    /// The key; not empty.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// The lease that it ends with; 0: none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// The entry of before is wanted.
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    /// The value stays, and only the lease changes.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    /// The lease stays.
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

answer! {
    /// Answers [`PutRequest`].
    pub struct PutResponse {
        /// The entry of before, where it was wanted and there was one.
        #[prost(message, optional, tag = "2")]
        pub prev_kv: Option<KeyValue>,
    }
}

/// Deletes keys.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeRequest {
    /// The key, or the first of the range.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// As in [`RangeRequest`].
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// The entries of before are wanted.
    #[prost(bool, tag = "3")]
    pub prev_kv: bool,
}

answer! {
    /// Answers [`DeleteRangeRequest`].
    pub struct DeleteRangeResponse {
        /// How many there were.
        #[prost(int64, tag = "2")]
        pub deleted: i64,
        /// The entries of before, where they were wanted.
        #[prost(message, repeated, tag = "3")]
        pub prev_kvs: Vec<KeyValue>,
    }
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestOp {
    /// Which.
    #[prost(oneof = "Op", tags = "1, 2, 3, 4")]
    pub request: Option<Op>,
}

/// The operations that there are.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Reads.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Writes.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Deletes.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    /// A transaction in it.
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

impl From<Op> for RequestOp {
    fn from(op: Op) -> Self {
        Self { request: Some(op) }
    }
}

/// What an operation of a transaction gave.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseOp {
    /// Which.
    #[prost(oneof = "OpResponse", tags = "1, 2, 3, 4")]
    pub response: Option<OpResponse>,
}

/// What the operations give.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OpResponse {
    /// Of [`Op::Range`].
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// Of [`Op::Put`].
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// Of [`Op::DeleteRange`].
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
    /// Of [`Op::Txn`].
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

/// A condition of a transaction: `key`'s target stands in `result` to what it is compared with.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// How.
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub result: i32,
    /// What of the entry. It has to be that of [`with`](Self::with).
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub target: i32,
    /// The key.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// With what.
    #[prost(oneof = "Compared", tags = "4, 5, 6, 7, 8")]
    pub with: Option<Compared>,
    /// All entries of the range; empty: the key alone.
    #[prost(bytes = "bytes", tag = "64")]
    pub range_end: Bytes,
}

impl Compare {
    /// A condition on one key. (With its value: it is false where there is no such key.)
    pub fn new(key: impl Into<Bytes>, result: CompareResult, with: Compared) -> Self {
        let target = match with {
            Compared::Version(_) => CompareTarget::Version,
            Compared::CreateRevision(_) => CompareTarget::Create,
            Compared::ModRevision(_) => CompareTarget::Mod,
            Compared::Value(_) => CompareTarget::Value,
            Compared::Lease(_) => CompareTarget::Lease,
        };
        Self {
            result: result.into(),
            target: target.into(),
            key: key.into(),
            with: Some(with),
            range_end: Bytes::new(),
        }
    }

    /// There is no such key.
    pub fn is_absent(key: impl Into<Bytes>) -> Self {
        Self::new(key, CompareResult::Equal, Compared::CreateRevision(0))
    }
}

/// With what is compared.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Compared {
    /// [`KeyValue::version`]; 0: there is no such key.
    #[prost(int64, tag = "4")]
    Version(i64),
    /// [`KeyValue::create_revision`]; 0: there is no such key.
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    /// [`KeyValue::mod_revision`]; 0: there is no such key.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    /// [`KeyValue::value`].
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
    /// [`KeyValue::lease`].
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// How is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// The same.
    Equal = 0,
    /// The entry's is greater.
    Greater = 1,
    /// The entry's is less.
    Less = 2,
    /// Another.
    NotEqual = 3,
}

/// What of an entry is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CompareTarget {
    /// Its version.
    Version = 0,
    /// The revision that made it.
    Create = 1,
    /// The revision of its last write.
    Mod = 2,
    /// Its value.
    Value = 3,
    /// Its lease.
    Lease = 4,
}

/// Does one of two lists of operations at once. A key may be written once; 128 operations are the most, unless the server was
/// told otherwise.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRequest {
    /// The conditions.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What is done where all of them hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// What is done else.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether nothing in it writes.
    pub fn only_reads(&self) -> bool {
        let mut lists = vec![&self.success, &self.failure];
        while let Some(list) = lists.pop() {
            for op in list {
                match &op.request {
                    Some(Op::Put(_) | Op::DeleteRange(_)) => return false,
                    Some(Op::Txn(inner)) => lists.extend([&inner.success, &inner.failure]),
                    Some(Op::Range(_)) | None => {}
                }
            }
        }
        true
    }
}

answer! {
    /// Answers [`TxnRequest`]. Its header's revision is that of all its writes.
    pub struct TxnResponse {
        /// Whether all conditions held.
        #[prost(bool, tag = "2")]
        pub succeeded: bool,
        /// What the operations gave, in their order.
        #[prost(message, repeated, tag = "3")]
        pub responses: Vec<ResponseOp>,
    }
}

/// Lets go of the history before a revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompactionRequest {
    /// The oldest revision that can be read and watched from afterwards.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Answered once it is done on the disk of the member, which takes its time.
    #[prost(bool, tag = "2")]
    pub physical: bool,
}

answer! {
    /// Answers [`CompactionRequest`].
    pub struct CompactionResponse {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_only_reads_is_told_from_others_however_deep() {
        let read = Op::Range(RangeRequest::default());
        let txn = |op: Op| TxnRequest { success: vec![op.into()], ..TxnRequest::default() };
        assert!(txn(read.clone()).only_reads() && TxnRequest::default().only_reads());
        assert!(txn(Op::Txn(txn(read))).only_reads());
        assert!(!txn(Op::Put(PutRequest::default())).only_reads());
        let deep = txn(Op::Txn(txn(Op::DeleteRange(DeleteRangeRequest::default()))));
        assert!(!deep.only_reads());
        assert!(!TxnRequest { failure: deep.success, ..TxnRequest::default() }.only_reads());
    }
}
