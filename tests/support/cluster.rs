//! A BEAM and kvnodes that it calls: what the tests of replication begin with.

use std::path::Path;

use super::{BeamNode, BeamOptions, Epmd, KvNode, Otp, Scripted};

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
    format!(":sys.get_state({{:global, :{one}}}).data === :sys.get_state({{:global, :{other}}}).data")
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

/// `true` once a slave of the store `master` has all but for writes that are on their way.
pub fn in_step(slave: &str) -> String {
    format!(
        "Enum.any?({}.slaves, &(&1.name == {{:global, :{slave}}} and match?({{:in_step, _}}, &1.state)))",
        call("master", ":status")
    )
}

/// Which keys of a server differ from what the writer that has `ended` was answered.
pub fn differences(server: &str) -> String {
    format!("KvNodeTest.Writer.differences(ended, :sys.get_state({server}).data)")
}

/// A BEAM with a store of the Elixir modules that has the node's name, begins with these pairs, and survives
/// the process that started it.
pub fn elixir_store(otp: &Otp, epmd: &Epmd, options: impl Into<BeamOptions>, pairs: &str) -> BeamNode {
    let beam = BeamNode::start(otp, epmd, options);
    let name = beam.name().split('@').next().unwrap_or_default();
    beam.run(&format!(
        "{{:ok, store}} = KeyValueStoreDistributed.start_link(:{name}, {pairs}); Process.unlink(store)"
    ));
    beam
}

/// A BEAM, and kvnodes that are connected to it, each with a store of its name.
pub struct Cluster {
    pub epmd: Epmd,
    pub beam: BeamNode,
}

impl Cluster {
    pub fn new(otp: &Otp) -> Self {
        Self::with(otp, "caller")
    }

    /// The same with more said about the BEAM.
    pub fn with(otp: &Otp, options: impl Into<BeamOptions>) -> Self {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, options);
        Self { epmd, beam }
    }

    /// A kvnode with a store of its name, which the BEAM knows.
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

    /// Ends the connection between two kvnodes: a peer that connects as one of them takes its place.
    pub fn cut(&self, one: &KvNode, other: &KvNode) {
        let name = one.name().split('@').next().unwrap_or_default();
        let port = self.epmd.port_of(name).expect("it is registered");
        drop(Scripted::connect(port, other.name(), one.name()));
    }

    /// An [`elixir_store`], which the BEAM knows.
    pub fn elixir(&self, otp: &Otp, name: &str, pairs: &str) -> BeamNode {
        let store = elixir_store(otp, &self.epmd, name, pairs);
        store.ping(self.beam.name());
        self.beam.wait_for_global(name);
        store
    }

    pub fn add(&self, primary: &str, slave: &str, answer: &str) {
        self.beam.check(&call(primary, &format!("{{:add_slave, {{:global, :{slave}}}}}")), answer);
    }

    pub fn follows(&self, slave: &str, primary: &str) {
        self.beam.check_soon(&format!("{}.role", call(slave, ":status")), ":slave");
        self.beam.check_soon(&same(primary, slave), "true");
    }
}
