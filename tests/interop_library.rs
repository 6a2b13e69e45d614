//! The library, used as its documentation shows, against real nodes.

#[path = "interop_library/callers.rs"]
mod callers;
#[path = "interop_library/cluster.rs"]
mod cluster;
#[path = "interop_library/figures.rs"]
mod figures;
#[path = "interop_library/functions.rs"]
mod functions;
#[path = "interop_library/groups.rs"]
mod groups;
#[path = "interop_library/inline.rs"]
mod inline;
#[path = "interop_library/own.rs"]
mod own;
#[path = "interop_library/server.rs"]
mod server;
mod support;
