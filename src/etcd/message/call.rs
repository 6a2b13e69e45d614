//! Requests with their paths and answers, and what a lost answer means for each.

use prost::Message;

use super::shape::{ALARM, AUTH, DELETE, HEADER, LEASE_KEYS, MEMBERS, PUT, RANGE, STATUS, Shape, TXN};
use super::*;

/// What a request does: whether it can be sent again when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing: it is asked again as long as there is time.
    Reads,
    /// Done twice it is as done once, and what a later try says holds for the earlier ones: a lease that is not found is
    /// revoked. It is sent again.
    Idempotent,
    /// A transaction whose conditions can hold once alone. It is sent again; that its conditions do not hold may then come from
    /// a try that was done and not heard of, which the caller has to tell by what is there. Where a later try is refused,
    /// the outcome of such an earlier one stays unknown.
    Guarded,
    /// Done twice it may be another thing than done once, also where it seems not so: a write that is sent again may undo a
    /// later one. It is sent once, and again only where it surely was not done.
    Changes,
}

/// A request that has one answer.
pub trait Call: Message {
    /// What answers it.
    type Answer: Answer;
    /// Where it goes: `/package.Service/Method`.
    const PATH: &'static str;
    /// What it does.
    fn effect(&self) -> Effect;
}

/// What answers a [`Call`].
pub trait Answer: Message + Default {
    /// Where it has lists, so that they are bounded before they are read.
    const SHAPE: &'static Shape;
    /// What it begins with.
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! calls {
    ($($request:ident -> $answer:ident, $path:literal, $shape:ident, $effect:expr;)*) => {$(
        impl Call for $request {
            type Answer = $answer;
            const PATH: &'static str = concat!("/etcdserverpb.", $path);
            fn effect(&self) -> Effect {
                let effect: fn(&Self) -> Effect = $effect;
                effect(self)
            }
        }

        impl Answer for $answer {
            const SHAPE: &'static Shape = &$shape;
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        }
    )*};
}

calls! {
    RangeRequest -> RangeResponse, "KV/Range", RANGE, |_| Effect::Reads;
    PutRequest -> PutResponse, "KV/Put", PUT, |_| Effect::Changes;
    DeleteRangeRequest -> DeleteRangeResponse, "KV/DeleteRange", DELETE, |_| Effect::Changes;
    TxnRequest -> TxnResponse, "KV/Txn", TXN, |txn| {
        if txn.only_reads() { Effect::Reads } else { Effect::Changes }
    };
    // The second time it is refused, as compacted.
    CompactionRequest -> CompactionResponse, "KV/Compact", HEADER, |_| Effect::Idempotent;
    // A lease that is made and not heard of ends by itself, and no key is attached to it.
    LeaseGrantRequest -> LeaseGrantResponse, "Lease/LeaseGrant", HEADER, |_| Effect::Idempotent;
    // The second time it is refused, as not found.
    LeaseRevokeRequest -> LeaseRevokeResponse, "Lease/LeaseRevoke", HEADER, |_| Effect::Idempotent;
    LeaseKeepAliveRequest -> LeaseKeepAliveResponse, "Lease/LeaseKeepAlive", HEADER, |_| Effect::Idempotent;
    LeaseTimeToLiveRequest -> LeaseTimeToLiveResponse, "Lease/LeaseTimeToLive", LEASE_KEYS, |_| Effect::Reads;
    AuthenticateRequest -> AuthenticateResponse, "Auth/Authenticate", AUTH, |_| Effect::Idempotent;
    MemberListRequest -> MemberListResponse, "Cluster/MemberList", MEMBERS, |_| Effect::Reads;
    StatusRequest -> StatusResponse, "Maintenance/Status", STATUS, |_| Effect::Reads;
    AlarmRequest -> AlarmResponse, "Maintenance/Alarm", ALARM, |alarm| {
        if alarm.action == AlarmAction::Get as i32 { Effect::Reads } else { Effect::Idempotent }
    };
}
