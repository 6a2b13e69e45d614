//! Stores on disk, seen from a BEAM: what was answered is there after `kill -9`.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{BeamNode, Epmd, KvNode, Otp};

/// Eight processes put and delete until the node is gone. Each keeps what it was told of, and the one write that it was
/// not told of.
const LOAD: &str = r#"
tasks = for id <- 1..8 do
  step = fn step, n, acked ->
    key = {ROUND, id, rem(n, 40)}
    {request, want} = if rem(n, 7) == 0, do: {{:delete, key}, nil},
      else: {{:put, key, {n, String.duplicate("x", rem(n * 37, 3000))}}, n}
    answer = try do GenServer.call({KeyValueStore, :"NODE"}, request) catch :exit, _ -> :exit end
    if answer == :ok, do: step.(step, n + 1, Map.put(acked, key, want)), else: {acked, key, want}
  end
  Task.async(fn -> step.(step, 1, %{}) end)
end
:persistent_term.put(:results, Task.await_many(tasks, :infinity))
"#;

/// The keys whose value is neither what was answered last nor what was asked for at the end.
const WRONG: &str = r#"
for {acked, open, want} <- :persistent_term.get(:results), {key, value} <- acked,
    got <- [case GenServer.call({KeyValueStore, :"NODE"}, {:get, key}) do {n, _} -> n; nil -> nil end],
    got != value and not (key == open and got == want), do: {key, value, got}
"#;

fn filled(code: &str, node: &str, round: u32) -> String {
    code.replace("NODE", node).replace("ROUND", &round.to_string())
}

#[test]
fn what_was_answered_is_there_after_kill_9() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let args = format!("--connect {} --data-dir {}", beam.name(), dir.path().display());
    let mut kv = KvNode::start(&epmd, "kv", &args);
    let name = kv.name().to_owned();
    beam.wait_for_global("kv");
    beam.check(
        &format!("GenServer.call({{KeyValueStore, :\"{name}\"}}, {{:add_slave, {{:global, :late}}}})"),
        ":ok",
    );
    for round in 1..=5 {
        beam.wait_for_global("kv");
        let load = beam.spawn(&filled(LOAD, &name, round));
        let begun = format!("{{:get, {{{round}, 8, {}}}}}", 5 * round);
        beam.check_soon(&format!("GenServer.call({{KeyValueStore, :\"{name}\"}}, {begun}) != nil"), "true");
        kv.kill(&epmd);
        load.value();
        kv = KvNode::start(&epmd, "kv", &args);
        beam.wait_for_global("kv");
        beam.check("Enum.all?(:persistent_term.get(:results), fn {acked, _, _} -> acked != %{} end)", "true");
        beam.check(&filled(WRONG, &name, round), "[]");
    }
    beam.check(&format!(":sys.get_state({{KeyValueStore, :\"{name}\"}}).slaves"), "[global: :late]");
    kv.kill(&epmd);
    let check = Command::new(support::kvnode::program())
        .args(["check", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && said.contains("global:kv,local:Elixir.KeyValueStore: "), "{check:?}");
}

#[test]
fn a_folder_in_use_is_refused_with_the_pid_of_who_has_it() {
    let epmd = Epmd::start();
    let dir = tempfile::tempdir().unwrap();
    let args = format!("--data-dir {}", dir.path().display());
    let first = KvNode::start(&epmd, "first", &args);
    let second = KvNode::run_to_end(&epmd, "second", &args);
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains(&format!("(pid {})", first.pid())), "{}", second.stderr);
}

/// A library that makes the disk fail on demand.
fn fault_library(dir: &Path) -> std::path::PathBuf {
    let library = dir.join("fault.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/fault.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .status();
    assert!(built.expect("cc is there").success());
    library
}

#[test]
fn a_failing_sync_or_write_is_an_error_that_changes_nothing_and_ends_with_its_cause() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let scratch = tempfile::tempdir().unwrap();
    let (library, fault) = (fault_library(scratch.path()), scratch.path().join("fault"));
    let args = format!("--connect {} --data-dir {}", beam.name(), scratch.path().join("data").display());
    let start = |library: &Path| {
        KvNode::start_with(&epmd, "kv", &args, |command| {
            command.env("LD_PRELOAD", library).env("KVNODE_TEST_FAULT", &fault);
        })
    };
    let mut kv = start(&library);
    beam.wait_for_global("kv");
    let check = |request: &str, answer: &str| {
        beam.check(&format!("GenServer.call({{:global, :kv}}, {request})"), answer)
    };
    check("{:put, :kept, 1}", ":ok");
    for (what, error) in [("sync 5", "{:error, {:io, :eio}}"), ("write 28", "{:error, :no_space}")] {
        fs::write(&fault, what).unwrap();
        for _ in 0..2 {
            check("{:put, :failed, 1}", error);
            check("{:delete, :kept}", error);
            check("{:get, :kept}", "1");
            check("{:get, :failed}", "nil");
        }
        fs::remove_file(&fault).unwrap();
        check("{:put, :later, 1}", ":ok");
        check("{:get, :failed}", "nil");
        check("{:get, :kept}", "1");
        check("{:delete, :later}", ":ok");
    }
    kv.kill(&epmd);
    kv = start(&library);
    let store = format!("{{KeyValueStore, :\"{}\"}}", kv.name());
    beam.check_soon(&format!("GenServer.call({store}, {{:get, :kept}})"), "1");
    for gone in [":failed", ":later"] {
        beam.check(&format!("GenServer.call({store}, {{:get, {gone}}})"), "nil");
    }
    drop(kv);
}
