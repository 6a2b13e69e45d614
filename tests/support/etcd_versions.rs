//! The etcds of this machine: the system's, and those that `scripts/otp` has put into its root folders.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that says in which root folder the etcd is that tests start.
const ROOT: &str = "KVNODE_ETCD_ROOT";

fn root() -> Option<PathBuf> {
    std::env::var_os(ROOT).map(PathBuf::from)
}

/// The etcd that tests start, to be given arguments.
pub fn etcd() -> Command {
    etcd_in(root().as_deref())
}

fn etcd_in(root: Option<&Path>) -> Command {
    let Some(root) = root else { return Command::new("etcd") };
    let mut command = Command::new("chroot");
    command.arg(root).arg("etcd");
    command
}

/// A new folder that it can see.
pub fn scratch() -> tempfile::TempDir {
    let parent = root().map_or_else(std::env::temp_dir, |root| root.join("tmp"));
    tempfile::Builder::new().prefix("kvnode-test-").tempdir_in(parent).expect("a folder can be made")
}

/// The same in the machine's memory, where it can see that: there a sync costs nothing.
pub fn scratch_in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if root().is_some() || !memory.is_dir() {
        return scratch();
    }
    tempfile::Builder::new().prefix("kvnode-test-").tempdir_in(memory).expect("a folder can be made")
}

/// A path as it sees it.
pub fn inside(path: &Path) -> PathBuf {
    match root() {
        Some(root) => Path::new("/").join(path.strip_prefix(root).expect("a path in this root")),
        None => path.to_owned(),
    }
}

/// The versions beside the system's, each with its root folder.
///
/// # Panics
/// One is missing that `KVNODE_REQUIRE_ETCD` names.
#[track_caller]
pub fn others() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let cache = std::env::var_os("KVNODE_OTP_CACHE").unwrap_or_else(|| "/var/cache/kvnode-otp".into());
    let folders = std::fs::read_dir(cache).into_iter().flatten().flatten().map(|entry| entry.path());
    for root in
        folders.filter(|root| rustix::process::geteuid().is_root() && root.join("usr/bin/etcd").is_file())
    {
        found.push((version_in(Some(&root)), root));
    }
    found.sort();
    let known: Vec<String> =
        found.iter().map(|(version, _)| version.clone()).chain([version_in(None)]).collect();
    let required = std::env::var("KVNODE_REQUIRE_ETCD").unwrap_or_default();
    for wanted in required.split(',').map(str::trim).filter(|wanted| !wanted.is_empty()) {
        assert!(
            known.iter().any(|known| known == wanted),
            "KVNODE_REQUIRE_ETCD asks for {wanted}; there is {known:?}"
        );
    }
    found
}

/// Of the etcd that tests start.
pub fn version() -> String {
    version_in(root().as_deref())
}

/// "etcd Version: 3.5.16" is the first line.
fn version_in(root: Option<&Path>) -> String {
    let output = etcd_in(root).arg("--version").output().expect("etcd can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("etcd Version: ").unwrap_or_else(|| panic!("{first:?} is no version")).to_owned()
}

/// Runs tests of this test program once more on each etcd beside the system's, all that begin so; fewer than `least` are none.
///
/// # Panics
/// One of them fails.
#[track_caller]
pub fn run_on_others(tests: &[&str], least: usize) {
    for (version, root) in others() {
        eprintln!("--- on etcd {version}");
        let program = std::env::current_exe().expect("it runs");
        let output =
            Command::new(program).args(tests).args(["--test-threads", "2"]).env(ROOT, &root).output();
        let output = output.expect("it can be started again");
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success(), "on etcd {version}:\n{said}");
        let passed =
            said.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ... ok")).count();
        assert!(passed >= least, "on etcd {version} {passed} tests ran:\n{said}");
    }
}
