//! The set-up of docs/cluster.md, pasted: three members of etcd and two kvnodes, each on an address of this machine, with the units for systemd.

#![cfg(feature = "program")]
#![allow(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by it, and shows what was said")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use support::kvnode::program;
use support::{BeamNode, COOKIE, Epmd, Otp, wait_until};

const PAGE: &str = include_str!("../docs/cluster.md");
const UNITS: [(&str, &str); 2] = [
    ("etcd.service", include_str!("../scripts/etcd.service")),
    ("kvnode.service", include_str!("../scripts/kvnode.service")),
];

/// The blocks for a shell below the heading.
fn blocks() -> Vec<&'static str> {
    let section =
        PAGE.split("## A set-up of three machines\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let blocks = section.expect("the section").split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split("```").next()).collect()
}

/// Takes the place of systemd: `enable --now UNIT` starts what the unit says, and waits until it says that it is ready.
const SYSTEMCTL: &str = r#"#!/bin/bash
[ "$1 $2" = "enable --now" ] || exit 0
command=$(sed -n 's/^ExecStart=//p' "ROOT/etc/systemd/system/$3.service" | sed 's|/etc/|ROOT/etc/|; s|/usr/local/|ROOT/|')
[ -n "$command" ] || exit 1
$command >"ROOT/$3.log" 2>&1 </dev/null &
echo $! >"ROOT/$3.pid"
for _ in $(seq 600); do
  grep -qE 'ready to serve client requests|the store is loaded from etcd' "ROOT/$3.log" && exit 0
  kill -0 $! 2>/dev/null || exit 1
  sleep 0.05
done
exit 1
"#;

/// One of the three: a folder in the place of its root, and an address.
struct Machine {
    name: &'static str,
    address: String,
    network: String,
    root: tempfile::TempDir,
}

impl Machine {
    fn new(name: &'static str, network: &str, number: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc/systemd/system", "bin", "home", "var/lib"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let stub = |name: &str, text: &str| {
            let path = root.path().join("bin").join(name);
            fs::write(&path, text.replace("ROOT", root.path().to_str().unwrap())).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        stub("systemctl", SYSTEMCTL);
        stub("apt-get", "#!/bin/sh\n");
        let cookie = root.path().join("home/.erlang.cookie");
        fs::write(&cookie, COOKIE).unwrap();
        fs::set_permissions(cookie, fs::Permissions::from_mode(0o400)).unwrap();
        Self { name, address: format!("{network}{number}"), network: network.to_owned(), root }
    }

    /// What the page says, as it is on this machine.
    fn typed(&self, block: &str, beam: &str) -> String {
        let root = self.root.path().display();
        let first = "NAME=a ADDRESS=10.0.0.1";
        assert!(block.starts_with(first) || !block.contains("ADDRESS"), "{block}");
        block
            .replace(first, &format!("NAME={} ADDRESS={}", self.name, self.address))
            .replace("10.0.0.", &self.network)
            .replace("/etc/", &format!("{root}/etc/"))
            .replace("/var/lib/", &format!("{root}/var/lib/"))
            .replace("/usr/local/", &format!("{root}/"))
            .replace("target/release/kvnode", &program().to_string_lossy())
            // All three have one name here, and one epmd.
            .replace("sname = \"kv\"", &format!("sname = \"kv_{}\"", self.name))
            .replace("--node kv ", &format!("--node kv_{} ", self.name))
            .replace("\"app@a\", \"app@b\"", &format!("\"{beam}\""))
    }

    fn types(&self, text: &str, epmd: &Epmd) -> Output {
        let path = format!("{}:{}", self.root.path().join("bin").display(), std::env::var("PATH").unwrap());
        Command::new("bash")
            .args(["-ec", text])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", path)
            .env("HOME", self.root.path().join("home"))
            .env("ERL_EPMD_PORT", epmd.port().to_string())
            .env("ETCDCTL_API", "3")
            .output()
            .unwrap()
    }

    fn log(&self, unit: &str) -> String {
        fs::read_to_string(self.root.path().join(format!("{unit}.log"))).unwrap_or_default()
    }

    fn pid(&self, unit: &str) -> Option<Pid> {
        let pid = fs::read_to_string(self.root.path().join(format!("{unit}.pid"))).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for unit in ["kvnode", "etcd-kvnode"] {
            let Some(pid) = self.pid(unit) else { continue };
            let _ = kill_process(pid, Signal::KILL);
            if std::thread::panicking() {
                eprintln!("=== {unit} on {} said:\n{}", self.name, self.log(unit));
            }
        }
    }
}

#[test]
fn the_set_up_of_the_page_serves_a_store_that_outlives_a_machine() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "app");
    let process = std::process::id();
    let network = format!("127.{}.{}.", 100 + process % 100, process / 100 % 250);
    let machines =
        ["a", "b", "c"].into_iter().zip(1..).map(|(name, number)| Machine::new(name, &network, number));
    let machines: Vec<Machine> = machines.collect();
    let blocks = blocks();
    let [of_etcd, of_kvnode] = blocks[..] else { panic!("{blocks:?}") };
    // The first waits for the second, as it does on the page.
    std::thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| machine.types(&machine.typed(of_etcd, beam.name()), &epmd));
        }
    });
    let status = of_etcd.lines().last().unwrap();
    assert!(status.starts_with("etcdctl "), "{status}");
    let status = machines[0].types(&machines[0].typed(status, beam.name()), &epmd);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(status.status.success() && text.matches("http://").count() == 3, "{text}");
    for machine in &machines[..2] {
        let output = machine.types(&machine.typed(of_kvnode, beam.name()), &epmd);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("etcd") && said.contains("following"), "{said}");
    }
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:put, :nombre, \"Mafalda\"})", ":ok");
    for machine in &machines[..2] {
        let node = support::at_host(&format!("kv_{}", machine.name));
        beam.check_soon(&format!("GenServer.call({{:kv, :\"{node}\"}}, {{:get, :nombre}})"), "\"Mafalda\"");
    }
    // The machine whose node has the name dies.
    let mut holder = None;
    wait_until("a node of these has the name", || {
        let node = beam.run("node(:global.whereis_name(:kv))");
        holder = machines.iter().find(|machine| node.contains(&format!("kv_{}@", machine.name)));
        holder.is_some()
    });
    let holder = holder.unwrap();
    for unit in ["kvnode", "etcd-kvnode"] {
        kill_process(holder.pid(unit).unwrap(), Signal::KILL).unwrap();
    }
    beam.check_soon(
        "try do GenServer.call({:global, :kv}, {:get, :nombre}) catch :exit, _ -> :not_yet end",
        "\"Mafalda\"",
    );
    beam.check_soon(
        "try do GenServer.call({:global, :kv}, {:put, :a, 1}) catch :exit, _ -> :not_yet end",
        ":ok",
    );
}

#[test]
fn the_units_are_good_ones() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-analyze");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (name, text) in UNITS {
        let path = folder.path().join(name);
        // What is installed here may be elsewhere.
        let text = text.replace("/usr/local/bin/kvnode", &absolute(&program()));
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let verify = |paths: &[PathBuf]| {
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).args(paths).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (right, said) = verify(&paths);
    assert!(right && said.is_empty(), "{said}");
    // It finds what is wrong.
    fs::write(&paths[0], "[Service]\nExecStart=/no/such/program\nUnknown=1\n").unwrap();
    let (right, said) = verify(&paths[..1]);
    assert!(!right && said.contains("Unknown"), "{said}");
}

fn absolute(program: &std::ffi::OsStr) -> String {
    let path = Path::new(program).canonicalize().unwrap_or_else(|_| Path::new(program).to_owned());
    path.display().to_string()
}
