//! Of the services `etcdserverpb.Auth`, `Cluster` and `Maintenance` (rpc.proto) what a client needs.

use std::fmt;

/// Asks for a token by name and password.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct AuthenticateRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub password: String,
}

impl fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

answer! {
    /// Answers [`AuthenticateRequest`].
    #[prost(skip_debug)]
    pub struct AuthenticateResponse {
        /// The token, which goes with each request.
        #[prost(string, tag = "2")]
        pub token: String,
    }
}

impl fmt::Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateResponse").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Asks for the members of the cluster.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct MemberListRequest {
    /// With all that was committed before (from 3.5 on; before, a member always says what it knows).
    #[prost(bool, tag = "1")]
    pub linearizable: bool,
}

answer! {
    /// Answers [`MemberListRequest`].
    pub struct MemberListResponse {
        /// The members.
        #[prost(message, repeated, tag = "2")]
        pub members: Vec<Member>,
    }
}

/// A member of the cluster.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Member {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name; empty: it has not started yet.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where other members find it.
    #[prost(string, repeated, tag = "3")]
    pub peer_urls: Vec<String>,
    /// Where clients find it.
    #[prost(string, repeated, tag = "4")]
    pub client_urls: Vec<String>,
    /// It has no vote yet.
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
}

/// Asks a member how it is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StatusRequest {}

answer! {
    /// Answers [`StatusRequest`].
    pub struct StatusResponse {
        /// Its version.
        #[prost(string, tag = "2")]
        pub version: String,
        /// Bytes of its file.
        #[prost(int64, tag = "3")]
        pub db_size: i64,
        /// The leader, as it sees it; 0: none.
        #[prost(uint64, tag = "4")]
        pub leader: u64,
        /// The last entry of its log.
        #[prost(uint64, tag = "5")]
        pub raft_index: u64,
        /// Its term.
        #[prost(uint64, tag = "6")]
        pub raft_term: u64,
        /// The last entry that it has applied.
        #[prost(uint64, tag = "7")]
        pub raft_applied_index: u64,
        /// What is wrong with it: alarms, and that it has no leader.
        #[prost(string, repeated, tag = "8")]
        pub errors: Vec<String>,
        /// Bytes of its file that are in use.
        #[prost(int64, tag = "9")]
        pub db_size_in_use: i64,
        /// It has no vote yet.
        #[prost(bool, tag = "10")]
        pub is_learner: bool,
        /// The version of its file's layout (from 3.6 on).
        #[prost(string, tag = "11")]
        pub storage_version: String,
        /// The bound of its file in bytes (from 3.6 on).
        #[prost(int64, tag = "12")]
        pub db_size_quota: i64,
    }
}

/// Asks for alarms, or changes them.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct AlarmRequest {
    /// What is to be done.
    #[prost(enumeration = "AlarmAction", tag = "1")]
    pub action: i32,
    /// Of which member; 0: of all.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// Which.
    #[prost(enumeration = "AlarmKind", tag = "3")]
    pub alarm: i32,
}

/// What is done with alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmAction {
    /// They are listed.
    Get = 0,
    /// It is given.
    Activate = 1,
    /// It is taken back.
    Deactivate = 2,
}

/// The alarms that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmKind {
    /// None; in a request: any.
    None = 0,
    /// The bound of the file is reached: nothing can be written.
    NoSpace = 1,
    /// A member's data differ from those of the others.
    Corrupt = 2,
}

/// An alarm.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct AlarmMember {
    /// Of which member.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// Which.
    #[prost(enumeration = "AlarmKind", tag = "2")]
    pub alarm: i32,
}

answer! {
    /// Answers [`AlarmRequest`].
    pub struct AlarmResponse {
        /// Those that are asked for.
        #[prost(message, repeated, tag = "2")]
        pub alarms: Vec<AlarmMember>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_not_shown() {
        let request = AuthenticateRequest { name: "root".to_owned(), password: "geheim".to_owned() };
        assert!(format!("{request:?}").contains("root") && !format!("{request:?}").contains("geheim"));
        let answer = AuthenticateResponse { token: "geheim".to_owned(), header: None };
        assert!(!format!("{answer:?}").contains("geheim"));
    }
}
