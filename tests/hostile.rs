//! Peers that mean harm: each case is followed by a good peer's call and a look at the process's memory.
//!
//! kvnode runs as a program of its own, so that an abort, a stall or bloat of it is seen as what it is.

#![cfg(feature = "program")]
#![allow(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]

#[path = "hostile/before_the_cookie.rs"]
mod before_the_cookie;
#[path = "hostile/malformed.rs"]
mod malformed;
#[path = "hostile/requests.rs"]
mod requests;
#[path = "hostile/scene.rs"]
mod scene;
mod support;
#[path = "hostile/too_much.rs"]
mod too_much;
