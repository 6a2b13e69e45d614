//! Real etcds: one member or several, each with its data in a scratch folder, ended by its process id.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::etcd_versions;
use super::netns::{Host, Seat};
use super::output::Output;
use super::ports::Port;
use super::wait::wait_until;

/// A cluster. It ends with this value.
pub struct EtcdCluster {
    members: Vec<Member>,
    /// Flags for etcdctl, behind the flags that name the members.
    ctl_flags: Vec<String>,
    /// Where etcdctl runs; `None`: on this machine's own network.
    ctl_seat: Option<Seat>,
}

struct Member {
    /// Where clients find it.
    client: String,
    /// Where it runs; `None`: as [`EtcdCluster::ctl_seat`].
    seat: Option<Seat>,
    _ports: Option<[Port; 2]>,
    /// Its data.
    folder: tempfile::TempDir,
    flags: Vec<String>,
    child: Option<Child>,
    output: Option<Output>,
}

/// Where a member is to be.
struct Place {
    client: String,
    peer: String,
    seat: Option<Seat>,
    ports: Option<[Port; 2]>,
}

fn around(seat: Option<&Seat>, command: Command) -> Command {
    if let Some(seat) = seat { seat.around(&command) } else { command }
}

impl EtcdCluster {
    /// So many members, with all as it is by default.
    #[track_caller]
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// The same with these flags for each.
    #[track_caller]
    pub fn start_with(count: usize, flags: &[&str]) -> Self {
        Self::start_as(count, "http", flags, &[])
    }

    /// The same with its data in the machine's memory: where durability is no subject, a write takes no sync of a disk.
    #[track_caller]
    pub fn start_in_memory(count: usize) -> Self {
        Self::start_among(count, "http", &[], &[], etcd_versions::scratch_in_memory)
    }

    /// The same with TLS for clients: a certificate and key for the server, and what etcdctl is told.
    #[track_caller]
    pub fn start_as(count: usize, scheme: &'static str, flags: &[&str], ctl_flags: &[&str]) -> Self {
        Self::start_among(count, scheme, flags, ctl_flags, etcd_versions::scratch)
    }

    #[track_caller]
    fn start_among(
        count: usize,
        scheme: &'static str,
        flags: &[&str],
        ctl_flags: &[&str],
        folder: impl Fn() -> tempfile::TempDir,
    ) -> Self {
        let at = |_| {
            let ports = [Port::take(), Port::take()];
            let [client, peer] = ports.each_ref().map(Port::number);
            let client = format!("{scheme}://127.0.0.1:{client}");
            Place { client, peer: format!("http://127.0.0.1:{peer}"), seat: None, ports: Some(ports) }
        };
        let ctl_flags = ctl_flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_at((0..count).map(at).collect(), flags, ctl_flags, None, folder)
    }

    /// A member on each of these hosts, with its data in the machine's memory. etcdctl runs on another host.
    #[track_caller]
    pub fn start_on(hosts: &[&Host], ctl: &Host) -> Self {
        let at = |host: &&Host| {
            let address = host.node("m").split_off(2);
            let [client, peer] = [2379, 2380].map(|port| format!("http://{address}:{port}"));
            Place { client, peer, seat: Some(host.seat().clone()), ports: None }
        };
        let seat = Some(ctl.seat().clone());
        Self::start_at(
            hosts.iter().map(at).collect(),
            &[],
            Vec::new(),
            seat,
            etcd_versions::scratch_in_memory,
        )
    }

    #[track_caller]
    fn start_at(
        places: Vec<Place>,
        flags: &[&str],
        ctl_flags: Vec<String>,
        ctl_seat: Option<Seat>,
        folder: impl Fn() -> tempfile::TempDir,
    ) -> Self {
        let peers: Vec<String> =
            places.iter().enumerate().map(|(at, place)| format!("m{at}={}", place.peer)).collect();
        let token = format!("t{}", places[0].peer);
        let members = places.into_iter().enumerate().map(|(at, place)| {
            let Place { client, peer, seat, ports } = place;
            let folder = folder();
            let named = [
                ("--name", format!("m{at}")),
                ("--data-dir", etcd_versions::inside(folder.path()).display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client.clone()),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", peers.join(",")),
                ("--initial-cluster-token", token.clone()),
            ];
            let its = named.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
            let flags = its.chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
            Member { client, seat, _ports: ports, folder, flags, child: None, output: None }
        });
        let mut cluster = Self { members: members.collect(), ctl_flags, ctl_seat };
        let count = cluster.members.len();
        (0..count).for_each(|at| cluster.run(at));
        for at in 0..count {
            cluster.wait_until_healthy(at);
        }
        cluster
    }

    /// What a client is told.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|at| self.endpoint(at)).collect()
    }

    /// Of one member.
    pub fn endpoint(&self, at: usize) -> String {
        self.members[at].client.clone()
    }

    /// Starts a member that does not run.
    pub fn run(&mut self, at: usize) {
        let member = &mut self.members[at];
        let mut etcd = etcd_versions::etcd();
        etcd.args(&member.flags);
        let mut etcd = around(member.seat.as_ref(), etcd);
        let mut child = etcd
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcd is installed (package etcd-server)");
        member.output = Some(Output::of(child.stderr.take().expect("it is a pipe")));
        member.child = Some(child);
    }

    /// Ends a member as a power cut does (SIGKILL).
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// Has a member lose all its data. It does not run, and has the same cluster and name when it is run again, as long as it is the only one.
    pub fn wipe(&self, at: usize) {
        let data = self.members[at].folder.path().join("member");
        std::fs::remove_dir_all(data).expect("it has run");
    }

    /// Stops a member: its sockets stay, and nothing answers (SIGSTOP).
    pub fn stop(&self, at: usize) {
        self.signal(at, Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self, at: usize) {
        self.signal(at, Signal::CONT);
    }

    fn signal(&self, at: usize, signal: Signal) {
        let child = self.members[at].child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it is ours");
    }

    /// What etcdctl prints, asked at all members or at one.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.ctl_output(&self.endpoints().join(","), args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "etcdctl {args:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    fn ctl_output(&self, endpoints: &str, args: &[&str]) -> std::process::Output {
        let mut ctl = Command::new("etcdctl");
        ctl.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}")).args(&self.ctl_flags).args(args);
        around(self.ctl_seat.as_ref(), ctl).output().expect("etcdctl is installed (package etcd-client)")
    }

    /// Further flags for etcdctl from now on.
    pub fn set_ctl_flags(&mut self, flags: &[&str]) {
        self.ctl_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Waits until a member serves.
    #[track_caller]
    pub fn wait_until_healthy(&self, at: usize) {
        let is_healthy = || self.ctl_output(&self.endpoint(at), &["endpoint", "health"]).status.success();
        wait_until(&format!("etcd {at} is healthy"), is_healthy);
    }

    /// The member that leads, by what the members say.
    #[track_caller]
    pub fn leader(&self) -> usize {
        self.leader_but(None)
    }

    /// The same, and another than this one, which is not asked.
    #[track_caller]
    pub fn leader_but(&self, before: Option<usize>) -> usize {
        let mut found = None;
        wait_until("etcd has a leader", || {
            found = (0..self.members.len()).filter(|at| Some(*at) != before).find(|at| {
                let output = self.ctl_output(&self.endpoint(*at), &["endpoint", "status"]);
                // endpoint, ID, version, size, is leader, is learner, …
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.split(", ").nth(4) == Some("true")
            });
            found.is_some()
        });
        found.expect("it was found")
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
            if std::thread::panicking()
                && let Some(output) = &self.members[at].output
            {
                let text = output.text();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("etcd {at} said:\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
            }
        }
    }
}

/// An etcd on a host of a network: the one of [`EtcdCluster`] is on this machine.
pub struct EtcdOn {
    child: Child,
    _folder: tempfile::TempDir,
}

impl EtcdOn {
    /// Starts it, and gives it with what a client is told.
    #[track_caller]
    pub fn start(host: &Host) -> (Self, String) {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let address = host.node("x").split_off(2);
        let (client, peer) = (format!("http://{address}:2379"), format!("http://{address}:2380"));
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", "m0", "--data-dir", &folder.path().display().to_string()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")]);
        let mut etcd = host.seat().around(&etcd);
        let child = etcd.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("etcd is installed");
        let mut its = Self { child, _folder: folder };
        let said = its.child.stderr.take().expect("it is a pipe");
        let mut lines = std::io::BufReader::new(said).lines();
        let is_up =
            lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready to serve client requests"));
        assert!(is_up, "etcd ended");
        // What it says is to be read: else it waits.
        std::thread::spawn(move || lines.for_each(drop));
        (its, client)
    }
}

impl Drop for EtcdOn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
