//! A BEAM and kvnodes that it calls: what the tests of replication begin with.

use std::path::Path;

use super::{BeamNode, Epmd, KvNode, Otp, Scripted};

/// Calls a store by its global name.
pub fn call(name: &str, request: &str) -> String {
    format!("GenServer.call({{:global, :{name}}}, {request})")
}

/// The states of a store's slaves, in the order of their addition.
pub fn states(name: &str) -> String {
    format!("(for s <- {}.slaves, do: s.state)", call(name, ":status"))
}

/// `true` once both hold the same.
pub fn same(one: &str, other: &str) -> String {
    format!(":sys.get_state({{:global, :{one}}}).data == :sys.get_state({{:global, :{other}}}).data")
}

/// `true` once two names are of one node.
pub fn same_node(one: &str, other: &str) -> String {
    format!("is_pid(p = :global.whereis_name(:{one})) and node(p) == node(:global.whereis_name(:{other}))")
}

/// Roles of stores.
pub fn roles(names: &[String]) -> String {
    let roles = names.iter().map(|name| format!("{}.role", call(name, ":status")));
    format!("Enum.sort([{}])", roles.collect::<Vec<_>>().join(", "))
}

/// A BEAM, and kvnodes that are connected to it, each with a store of its name.
pub struct Cluster {
    pub epmd: Epmd,
    pub beam: BeamNode,
}

impl Cluster {
    pub fn new(otp: &Otp) -> Self {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "caller");
        Self { epmd, beam }
    }

    pub fn node(&self, name: &str, args: &str) -> KvNode {
        let node = KvNode::start(&self.epmd, name, &format!("--connect {} {args}", self.beam.name()));
        self.beam.wait_for_global(name);
        node
    }

    /// The same, with files that it makes where it is started in this folder.
    pub fn node_in(&self, dir: &Path, name: &str, args: &str) -> KvNode {
        let args = format!("--connect {} {args}", self.beam.name());
        let node = KvNode::start_with(&self.epmd, name, &args, |command| _ = command.current_dir(dir));
        self.beam.wait_for_global(name);
        node
    }

    /// Ends the connection between two kvnodes: whoever connects as one of them takes its place.
    pub fn cut(&self, one: &KvNode, other: &KvNode) {
        let name = one.name().split('@').next().unwrap_or_default();
        let port = self.epmd.port_of(name).expect("it is registered");
        drop(Scripted::connect(port, other.name(), one.name()));
    }

    pub fn add(&self, primary: &str, slave: &str, answer: &str) {
        self.beam.check(&call(primary, &format!("{{:add_slave, {{:global, :{slave}}}}}")), answer);
    }

    pub fn follows(&self, slave: &str, primary: &str) {
        self.beam.check_soon(&format!("{}.role", call(slave, ":status")), ":slave");
        self.beam.check_soon(&same(primary, slave), "true");
    }
}
