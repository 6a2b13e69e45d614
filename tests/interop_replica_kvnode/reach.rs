//! Kvnodes alone, with no BEAM that joins them: a promotion reaches the slaves that only the old primary was connected to.

use std::process::Command;

use crate::support::kvnode::program;
use crate::support::{COOKIE, Epmd, KvNode, wait_until};

/// What a command prints that is typed on the nodes' host.
fn typed(epmd: &Epmd, command: &str) -> String {
    let output = Command::new(program())
        .args(command.split(' '))
        .args(["--cookie", COOKIE])
        .env("ERL_EPMD_PORT", epmd.port().to_string())
        .output()
        .expect("it was built");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{command}: {stdout}{stderr}");
    stdout
}

fn wait_for_status(epmd: &Epmd, node: &str, line: &[&str]) {
    wait_until(&format!("{node} has {line:?}"), || {
        let status = typed(epmd, &format!("status --node {node}"));
        status.lines().any(|shown| line.iter().all(|part| shown.contains(part)))
    });
}

/// A primary that alone is connected to the nodes of its two slaves, which are in step; the first slave has these arguments.
fn star(epmd: &Epmd, args: &str) -> (KvNode, KvNode, KvNode) {
    let (one, two) = (KvNode::start(epmd, "a1", args), KvNode::start(epmd, "a2", ""));
    let (first, second) = (one.name(), two.name());
    let args = format!("--connect {first} --connect {second} --slave global:a1 --slave global:a2");
    let primary = KvNode::start(epmd, "pm", &args);
    typed(epmd, "put --node pm :key :value");
    for slave in ["global:a1", "global:a2"] {
        wait_for_status(epmd, "pm", &[slave, "{:in_step, 0}"]);
    }
    (primary, one, two)
}

/// The value of a line of a table.
#[track_caller]
fn line<'a>(table: &'a str, name: &str) -> &'a str {
    let line = table.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name}: {table}")).trim()
}

#[test]
fn a_promotion_reaches_a_slave_that_only_the_old_primary_was_connected_to() {
    let epmd = Epmd::start();
    let (primary, _one, _two) = star(&epmd, "");
    let former = primary.name().to_owned();
    primary.kill(&epmd);
    wait_for_status(&epmd, "a1", &["primary.state", "gone"]);
    let told = typed(&epmd, "promote --node a1");
    assert!(told.starts_with(":ok\n"), "{told}");
    assert_eq!(
        ["term", "former", "missing", "names"].map(|name| line(&told, name)),
        ["1", &former, "nothing that is known", "global:pm"],
        "{told}"
    );
    assert!(line(&told, "global:a2").starts_with("{:in_step, 0}"), "{told}");
    assert!(told.ends_with("\nThe former primary becomes a slave once it is reached.\n"), "{told}");
    typed(&epmd, "put --node a1 :key :after");
    wait_for_status(&epmd, "a2", &["primary.state", "following"]);
    wait_until("the write is there", || typed(&epmd, "get --node a2 :key") == ":after\n");
}

#[test]
fn a_promotion_tells_which_slaves_have_not_answered() {
    let epmd = Epmd::start();
    let (primary, _one, two) = star(&epmd, "");
    two.kill(&epmd);
    primary.kill(&epmd);
    wait_for_status(&epmd, "a1", &["primary.state", "gone"]);
    let told = typed(&epmd, "promote --node a1");
    assert!(told.contains("\nNot answered yet: global:a2. kvnode status shows when it has.\n"), "{told}");
    assert!(line(&told, "global:a2").starts_with("seeking"), "{told}");
    // It is found where it was, when it is there again.
    let _two = KvNode::start(&epmd, "a2", "");
    wait_for_status(&epmd, "a1", &["global:a2", "{:in_step, 0}"]);
}

#[test]
fn a_promoted_store_on_disk_finds_its_slaves_after_a_restart() {
    let epmd = Epmd::start();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let args = format!("--data-dir {}", dir.path().join("a1").display());
    let (primary, one, _two) = star(&epmd, &args);
    primary.kill(&epmd);
    wait_for_status(&epmd, "a1", &["primary.state", "gone"]);
    typed(&epmd, "promote --node a1");
    wait_for_status(&epmd, "a1", &["global:a2", "{:in_step, 0}"]);
    one.kill(&epmd);
    let _one = KvNode::start(&epmd, "a1", &args);
    wait_for_status(&epmd, "a1", &["global:a2", "{:in_step, 0}"]);
}

#[test]
fn what_callers_write_to_a_slave_that_is_started_before_its_primary_is_kept_in_a_file() {
    let epmd = Epmd::start();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let data = |name: &str| format!("--data-dir {}", dir.path().join(name).display());
    let slave = KvNode::start(&epmd, "a1", &data("a1"));
    let args = format!("{} --connect {} --slave global:a1", data("pm"), slave.name());
    let primary = KvNode::start(&epmd, "pm", &args);
    typed(&epmd, "put --node pm :key :value");
    wait_for_status(&epmd, "pm", &["global:a1", "{:in_step, 0}"]);
    primary.kill(&epmd);
    wait_for_status(&epmd, "a1", &["primary.state", "gone"]);
    slave.kill(&epmd);
    let slave = KvNode::start(&epmd, "a1", &data("a1"));
    typed(&epmd, "put --node a1 :own :write");
    slave.wait_for_log(&["WARN", "a caller writes here", "kvnode promote"]);
    let _primary = KvNode::start(&epmd, "pm", &args);
    slave.wait_for_log(&["ERROR", "dropped", "pairs=1", "kvnode-dropped-a1-1.exs"]);
    wait_for_status(&epmd, "a1", &["primary.state", "following"]);
    assert_eq!(typed(&epmd, "get --node a1 :own"), "nil\n");
    assert_eq!(typed(&epmd, "get --node a1 :key"), ":value\n");
    let file = dir.path().join("a1").join("kvnode-dropped-a1-1.exs");
    assert_eq!(std::fs::read_to_string(file).expect("it is there"), "{:own, :write}\n");
}

/// A primary on disk at the head of a chain, all of which ends; then the last store is promoted, and the others come back, the
/// primary last.
#[test]
fn a_superseded_primary_is_handed_up_to_the_head_of_the_chain_that_its_slave_is_in() {
    let epmd = Epmd::start();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let data = |name: &str| format!("--data-dir {}", dir.path().join(name).display());
    let last = KvNode::start(&epmd, "a1", &data("a1"));
    let args = format!("{} --connect {} --slave global:a1", data("a2"), last.name());
    let middle = KvNode::start(&epmd, "a2", &args);
    let args = format!("{} --connect {} --slave global:a2", data("pm"), middle.name());
    let primary = KvNode::start(&epmd, "pm", &args);
    typed(&epmd, "put --node pm :key :value");
    for (node, slave) in [("pm", "global:a2"), ("a2", "global:a1")] {
        wait_for_status(&epmd, node, &[slave, "{:in_step, 0}"]);
    }
    wait_until("the write is there", || typed(&epmd, "get --node a1 :key") == ":value\n");
    for node in [primary, middle, last] {
        node.kill(&epmd);
    }
    let last = KvNode::start(&epmd, "a1", &data("a1"));
    let told = typed(&epmd, "promote --node a1");
    assert_eq!(line(&told, "term"), "1");
    assert!(line(&told, "missing").starts_with("not known"), "{told}");
    let _middle = KvNode::start(&epmd, "a2", &format!("{} --connect {}", data("a2"), last.name()));
    wait_for_status(&epmd, "a1", &["a2@", "{:in_step, 0}"]);
    typed(&epmd, "put --node a1 :key :after");
    // It remembers its slave and where that was, and knows neither the promoted store nor its node.
    let primary = KvNode::start(&epmd, "pm", &data("pm"));
    last.wait_for_log(&["WARN", "pm@", "older term", "becomes a slave"]);
    wait_for_status(&epmd, "pm", &["primary.state", "following"]);
    wait_until("the write is there", || typed(&epmd, "get --node pm :key") == ":after\n");
    drop(primary);
}
