//! Real nodes for the interop tests: BEAMs of every OTP version present, epmd, and kvnode itself.
//!
//! A test gets an epmd port of its own, and with it a cluster of its own: node names need to be unique
//! within one test only, and tests run side by side. Every process is ended by its handle's drop.
//!
//! Tests without nodes take single files of this folder by `#[path]`: `term.rs`, `around.rs`, `conversation.rs`, `deferred.rs`,
//! `linear.rs`.
//!
//! | environment | says |
//! | --- | --- |
//! | `KVNODE_OTP_CACHE` | where `scripts/otp` put the root folders with other OTP versions |
//! | `KVNODE_REQUIRE_OTP` | releases, like `25,27,29`, without which the tests fail |
//! | `KVNODE_REQUIRE_ETCD` | versions of etcd, like `3.3.25,3.5.16`, without which the tests fail |
//! | `KVNODE_ETCD_ROOT` | the root folder whose etcd is started in place of the system's: `etcd_versions` sets it |
//! | `KVNODE_REQUIRE_JAVA` | that the test of a Java client fails where there is no Java compiler or no Jinterface |
//! | `KVNODE_REQUIRE_CHROMIUM`, `KVNODE_REQUIRE_TMUX` | the same of the tests of the page and of `kvnode top` |
//! | `KVNODE_REQUIRE_NETNS` | that tests between hosts fail where there are no network namespaces, or no `tc` |
//! | `KVNODE_BIN` | another kvnode than the one that cargo has just built |

#![allow(dead_code, reason = "each test file is a crate of its own and uses what it needs")]
#![allow(unused_imports, reason = "likewise")]
#![allow(clippy::print_stderr, reason = "what the nodes said is shown when a test fails")]
#![allow(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]

pub mod beam;
#[cfg(feature = "program")]
pub mod cluster;
pub mod epmd;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "etcd")]
pub mod etcd_versions;
#[cfg(feature = "program")]
pub mod http;
pub mod judge;
#[cfg(feature = "program")]
pub mod kvnode;
pub mod netns;
pub mod not_on_etcd;
pub mod otp;
pub mod output;
#[cfg(feature = "program")]
pub mod person;
pub mod ports;
pub mod proxy;
pub mod running;
pub mod scripted;
pub mod tap;
pub mod term;
pub mod tls;
pub mod wait;

pub use beam::{BeamNode, BeamOptions, EvalError};
pub use epmd::Epmd;
#[cfg(feature = "etcd")]
pub use etcd::{EtcdCluster, EtcdOn};
#[cfg(feature = "program")]
pub use kvnode::KvNode;
pub use netns::{Cut, Host, Network, Rate};
pub use otp::{Otp, at_once_on_every_otp, at_once_on_oldest_and_newest, on_every_otp, on_every_otp_from};
pub use proxy::Proxy;
pub use running::Running;
pub use scripted::Scripted;
pub use tap::{Heard, Tap};
pub use term::{Term, binary, term, term_with};
pub use wait::wait_until;

/// The cookie of every node that is not told another.
pub const COOKIE: &str = "interop";

/// This machine's name as `-sname` appends it.
pub fn short_hostname() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    host.split('.').next().unwrap_or(&host).to_owned()
}

/// `name@host` with this machine's short name.
pub fn at_host(name: &str) -> String {
    format!("{name}@{}", short_hostname())
}

/// What shows a program another time than the machine's; `None`: there is none here, and none is required.
pub fn libfaketime() -> Option<String> {
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::fs::exists(path).unwrap_or(false));
    if library.is_none() {
        assert!(std::env::var_os("KVNODE_REQUIRE_FAKETIME").is_none(), "there is no libfaketime");
        eprintln!("skipped: there is no libfaketime");
    }
    library
}
