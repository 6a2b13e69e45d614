//! A BEAM and kvnodes that it calls: what the tests of replication begin with.

use std::path::Path;

use tempfile::TempDir;

use super::{BeamNode, BeamOptions, Epmd, EtcdCluster, KvNode, Otp, Scripted};

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

/// The arguments of a kvnode that keeps its stores in this folder.
pub fn on_disk(folder: &Path) -> String {
    format!("--data-dir {}", folder.display())
}

/// A store on disk before its node is killed, and after the node was started again on the same folder.
pub fn around_a_kill(
    otp: &Otp,
    name: &str,
    args: &str,
    before: impl FnOnce(&BeamNode),
    after: impl FnOnce(&BeamNode),
) {
    let folder = tempfile::tempdir().expect("a folder");
    around_a_kill_with(otp, name, &format!("{args} {}", on_disk(folder.path())), before, after);
}

/// The same of a store wherever these arguments have it kept.
pub fn around_a_kill_with(
    otp: &Otp,
    name: &str,
    args: &str,
    before: impl FnOnce(&BeamNode),
    after: impl FnOnce(&BeamNode),
) {
    let cluster = Cluster::new(otp);
    let node = cluster.node(name, args);
    before(&cluster.beam);
    node.kill(&cluster.epmd);
    let _node = cluster.node(name, args);
    after(&cluster.beam);
}

/// The arguments of a kvnode that keeps its stores in this etcd.
pub fn in_etcd(etcd: &EtcdCluster) -> String {
    format!("--engine etcd --etcd {}", etcd.endpoints().join(","))
}

/// The store `master` on disk, which is started with the slave `one`, on disk too.
pub struct PairOnDisk {
    pub master: KvNode,
    pub one: KvNode,
    /// The folders of `master` and `one`.
    pub folders: [TempDir; 2],
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

    /// Adds a slave of the store `master`, and waits until that is in step.
    #[track_caller]
    pub fn add_in_step(&self, slave: &str) {
        self.add("master", slave, ":ok");
        self.beam.check_soon(&in_step(slave), "true");
    }

    /// The store `master` with a slave of each kind, `rust` and `elixir`, which are in step.
    #[track_caller]
    pub fn with_slaves_of_both_kinds(&self, otp: &Otp, args: &str) -> (KvNode, KvNode, BeamNode) {
        let rust = self.node("rust", "");
        let elixir = self.elixir(otp, "elixir", "%{}");
        let master = self.node("master", args);
        for slave in ["rust", "elixir"] {
            self.add("master", slave, ":ok");
        }
        for slave in ["rust", "elixir"] {
            self.beam.check_soon(&in_step(slave), "true");
        }
        (master, rust, elixir)
    }

    /// The store `master` with these arguments and slaves that are kvnodes: `memory`, which has the slave `below`, and `disk` in
    /// this folder. All hold the same.
    #[track_caller]
    pub fn chain(&self, args: &str, folder: &Path) -> [KvNode; 4] {
        let nodes = [("master", args), ("memory", ""), ("disk", &*on_disk(folder)), ("below", "")];
        let nodes = nodes.map(|(name, args)| self.node(name, args));
        for (primary, slave) in [("master", "memory"), ("master", "disk"), ("memory", "below")] {
            self.add(primary, slave, ":ok");
            self.follows(slave, primary);
        }
        nodes
    }

    /// See [`PairOnDisk`].
    pub fn pair_on_disk(&self) -> PairOnDisk {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let one = self.node("one", &on_disk(folders[1].path()));
        let master = self.node("master", &format!("{} --slave global:one", on_disk(folders[0].path())));
        PairOnDisk { master, one, folders }
    }

    pub fn follows(&self, slave: &str, primary: &str) {
        self.beam.check_soon(&format!("{}.role", call(slave, ":status")), ":slave");
        self.beam.check_soon(&same(primary, slave), "true");
    }
}
