//! What a BEAM was told is there after `kill -9`, and after what was not synced is undone too.
//!
//! `scripts/crash` runs these with more rounds.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::{BeamNode, Epmd, KvNode, Otp};
use crate::undo;
use crate::{kvnode, library};

/// Eight processes put and delete until the node is gone. Each keeps what it was told of, and the one write that it was
/// not told of. A value can be told from a part of it, and from another.
const LOAD: &str = r#"
truth = :persistent_term.get(:truth, %{})
tasks = for id <- 1..8 do
  step = fn step, acked ->
    key = {id, :rand.uniform(40)}
    n = System.unique_integer([:positive])
    {request, want} = if rem(n, 7) == 0, do: {{:delete, key}, nil}, else: {{:put, key, VALUE}, n}
    case (try do GenServer.call({KeyValueStore, :"NODE"}, request) catch :exit, _ -> :gone end) do
      :ok ->
        :counters.add(:persistent_term.get(:answered), 1, 1)
        step.(step, Map.put(acked, key, want))
      :gone -> {acked, {key, want}}
    end
  end
  Task.async(fn -> step.(step, for({{^id, _}, _} = pair <- truth, into: %{}, do: pair)) end)
end
results = Task.await_many(tasks, :infinity)
:persistent_term.put(:truth, for({acked, _} <- results, pair <- acked, into: %{}, do: pair))
:persistent_term.put(:open, for({_, open} <- results, do: open))
"#;

/// The keys whose value is neither what was answered last nor what was asked for at the end. What is there is what counts
/// from here on.
const WRONG: &str = r#"
{truth, open} = {:persistent_term.get(:truth), :persistent_term.get(:open)}
found = for key <- Map.keys(truth) ++ Enum.map(open, &elem(&1, 0)), into: %{} do
  case GenServer.call({KeyValueStore, :"NODE"}, {:get, key}) do
    nil -> {key, nil}
    {n, _} = value -> {key, if(value === VALUE, do: n, else: {:damaged, n})}
  end
end
:persistent_term.put(:truth, found)
for {key, got} <- found, got not in [truth[key] | for({^key, want} <- open, do: want)], do: {key, truth[key], got}
"#;

/// Mostly small, some so large that they stand in files of their own.
const VALUE: &str =
    r#"{n, String.duplicate("x", if(rem(n, 50) == 0, do: 300_000, else: rem(n * 37, 3000)))}"#;

fn filled(code: &str, node: &str) -> String {
    code.replace("VALUE", VALUE).replace("NODE", node)
}

/// How many rounds: a variable of the environment, or a few.
pub fn rounds(variable: &str, few: u32) -> u32 {
    std::env::var(variable).map_or(few, |rounds| rounds.parse().expect("a number of rounds"))
}

/// A number that differs from round to round and from run to run.
fn arbitrary() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

/// A node that is killed and started again.
pub struct Crashing<'a> {
    pub epmd: &'a Epmd,
    /// What loads it. The global `:answered` of its terms counts the answers.
    pub beam: &'a BeamNode,
    pub args: &'a str,
    /// A library to preload, and the folder of its notes; both for `data`.
    pub undo: Option<(&'a Path, &'a Path)>,
    pub data: &'a Path,
}

impl Crashing<'_> {
    pub fn start(&self) -> KvNode {
        let node = KvNode::start_with(self.epmd, "kv", self.args, |command| {
            if let Some((library, notes)) = self.undo {
                command.env("LD_PRELOAD", library);
                command.env("KVNODE_UNDO_DIR", self.data).env("KVNODE_UNDO_LOG", notes);
            }
        });
        let get =
            format!("GenServer.call({{KeyValueStore, :\"{}\"}}, {{:get, :nobody_has_this}})", node.name());
        self.beam.check_soon(&get, "nil");
        node
    }

    /// Loads the node, kills it some time after so many answers, undoes what is to be undone, and starts it again.
    pub fn round(&self, node: KvNode, load: &str, answers: u32) -> KvNode {
        self.beam.run(":persistent_term.put(:answered, :counters.new(1, []))");
        let load = self.beam.spawn(load);
        self.beam
            .check_soon(&format!(":counters.get(:persistent_term.get(:answered), 1) > {answers}"), "true");
        // A random moment is what is wanted, so that every place in the code is hit.
        thread::sleep(Duration::from_millis(arbitrary() % 300));
        node.kill(self.epmd);
        load.value();
        if let Some((_, notes)) = self.undo {
            undo::undo(self.data, notes);
        }
        self.start()
    }
}

#[test]
fn what_was_answered_is_there_after_kill_9() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let data = tempfile::tempdir().unwrap();
    let args = format!("--connect {} --data-dir {}", beam.name(), data.path().display());
    let crashing = Crashing { epmd: &epmd, beam: &beam, args: &args, undo: None, data: data.path() };
    let mut node = crashing.start();
    let name = node.name().to_owned();
    beam.check(
        &format!("GenServer.call({{KeyValueStore, :\"{name}\"}}, {{:add_slave, {{:global, :late}}}})"),
        ":ok",
    );
    for round in 1..=rounds("KVNODE_CRASH_ROUNDS", 5) {
        node = crashing.round(node, &filled(LOAD, &name), 30);
        assert_eq!(beam.run(&filled(WRONG, &name)), "[]", "round {round}");
        if round % 50 == 0 {
            println!("{round} rounds");
        }
    }
    beam.check("map_size(:persistent_term.get(:truth)) > 100", "true");
    beam.check(&format!(":sys.get_state({{KeyValueStore, :\"{name}\"}}).slaves"), "[global: :late]");
    node.kill(&epmd);
    let (right, said) = kvnode(&["check", "--data-dir", &data.path().display().to_string()]);
    assert!(right && said.contains("global:kv,local:Elixir.KeyValueStore: "), "{said}");
}

#[test]
fn what_was_answered_is_there_after_all_that_was_not_synced_is_undone() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let scratch = tempfile::tempdir().unwrap();
    let library = library("undo.c", scratch.path());
    // What undoes must be able to fail: without syncs it takes what was answered.
    for (sync, rounds) in [("never", 1), ("always", rounds("KVNODE_UNDO_ROUNDS", 4))] {
        let (data, notes) = (scratch.path().join(sync), scratch.path().join(format!("{sync}-notes")));
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&notes).unwrap();
        let args = format!("--connect {} --data-dir {} --sync {sync}", beam.name(), data.display());
        let undo = Some((&*library, &*notes));
        let crashing = Crashing { epmd: &epmd, beam: &beam, args: &args, undo, data: &data };
        beam.run(":persistent_term.put(:truth, %{})");
        let mut node = crashing.start();
        let name = node.name().to_owned();
        for round in 1..=rounds {
            node = crashing.round(node, &filled(LOAD, &name), 30);
            let wrong = beam.run(&filled(WRONG, &name));
            assert_eq!(wrong == "[]", sync == "always", "{sync}, round {round}: {wrong}");
            if round % 50 == 0 {
                println!("{round} rounds");
            }
        }
        node.kill(&epmd);
    }
}
