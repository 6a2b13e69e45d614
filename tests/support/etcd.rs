//! Real etcds: one member or several, each with its data in a scratch folder, ended by its process id.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::etcd_versions;
use super::output::Output;
use super::ports::Port;
use super::wait::wait_until;

/// A cluster. It ends with this value.
pub struct EtcdCluster {
    members: Vec<Member>,
    /// Flags for etcdctl, behind the flags that name the members.
    ctl_flags: Vec<String>,
    scheme: &'static str,
}

struct Member {
    client: Port,
    peer: Port,
    folder: tempfile::TempDir,
    flags: Vec<String>,
    child: Option<Child>,
    output: Option<Output>,
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

    /// The same with TLS for clients: a certificate and key for the server, and what etcdctl is told.
    #[track_caller]
    pub fn start_as(count: usize, scheme: &'static str, flags: &[&str], ctl_flags: &[&str]) -> Self {
        let ports: Vec<(Port, Port)> = (0..count).map(|_| (Port::take(), Port::take())).collect();
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{}", peer.number()))
            .collect();
        let token = format!("t{}", ports[0].1.number());
        let members = ports.into_iter().enumerate().map(|(at, (client, peer))| {
            let peer_url = format!("http://127.0.0.1:{}", peer.number());
            let client_url = format!("{scheme}://127.0.0.1:{}", client.number());
            let folder = etcd_versions::scratch();
            let named = [
                ("--name", format!("m{at}")),
                ("--data-dir", etcd_versions::inside(folder.path()).display().to_string()),
                ("--listen-client-urls", client_url.clone()),
                ("--advertise-client-urls", client_url),
                ("--listen-peer-urls", peer_url.clone()),
                ("--initial-advertise-peer-urls", peer_url),
                ("--initial-cluster", peers.join(",")),
                ("--initial-cluster-token", token.clone()),
            ];
            let its = named.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
            let flags = its.chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
            Member { client, peer, folder, flags, child: None, output: None }
        });
        let ctl_flags = ctl_flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Self { members: members.collect(), ctl_flags, scheme };
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
        format!("{}://127.0.0.1:{}", self.scheme, self.members[at].client.number())
    }

    /// Starts a member that does not run.
    pub fn run(&mut self, at: usize) {
        let member = &mut self.members[at];
        let mut child = etcd_versions::etcd()
            .args(&member.flags)
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
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoints}"))
            .args(&self.ctl_flags)
            .args(args)
            .output()
            .expect("etcdctl is installed (package etcd-client)")
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
        let mut found = None;
        wait_until("etcd has a leader", || {
            found = (0..self.members.len()).find(|at| {
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
