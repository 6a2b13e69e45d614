//! A store that is emptied again and again while its node is killed: all of a `:clear` is there or nothing, and what was there before
//! goes at the next start.

use std::fs;
use std::path::Path;

use crate::crash::{Crashing, rounds};
use crate::support::{BeamNode, Epmd, KvNode, Otp, wait_until};
use crate::{kvnode, library};

/// What each round asks for, by its number. A clear has more keys before it than go in one part afterwards, some of which end.
const ASKED: &str = "
many = fn n, part ->
  {:put_many, for(k <- 1..4_000, do: {{:many, part, k}, {n, k}}), [ttl: if(part == 1, do: 86_400_000, else: :infinity)]}
end
asked = fn n ->
  case rem(n, 40) do
    0 -> :clear
    5 -> many.(n, 1)
    6 -> many.(n, 2)
    20 -> {:delete, {:one, rem(n, 16)}}
    _ -> {:put, {:one, rem(n, 17)}, n}
  end
end
made = fn n, map ->
  case asked.(n) do
    :clear -> %{}
    {:put_many, pairs, _} -> Map.merge(map, Map.new(pairs))
    {:delete, key} -> Map.delete(map, key)
    {:put, key, value} -> Map.put(map, key, value)
  end
end
last = fn key -> :persistent_term.get(key, 0) end";

/// Nothing was asked for.
const BEGUN: &str =
    "for {key, value} <- [from: 0, held: %{}, cleared: 0, lost: false], do: :persistent_term.put(key, value)";

/// One process asks, a window ahead of the answers, until the node is gone. What one process asks for is carried out in that order.
const LOAD: &str = r#"
server = {KeyValueStore, :"NODE"}
monitor = Process.monitor(server)
counter = :persistent_term.get(:answered)
ask = fn ask, sent, answered ->
  if sent - answered < 100 do
    send(server, {:"$gen_call", {self(), {:load, sent + 1}}, asked.(sent + 1)})
    ask.(ask, sent + 1, answered)
  else
    receive do
      {{:load, n}, :ok} ->
        true = n == answered + 1
        :counters.add(counter, 1, 1)
        ask.(ask, sent, n)
      {:DOWN, ^monitor, _, _, _} ->
        :persistent_term.put(:reached, {answered, sent})
    end
  end
end
ask.(ask, last.(:from), last.(:from))
"#;

/// What is there is what some number of the writes have left, which is no less than `LEAST`. The next round begins there.
const JUDGED: &str = r#"
page = fn page, opts, found ->
  case GenServer.call({KeyValueStore, :"NODE"}, {:scan, opts}, 20_000) do
    {entries, :done} -> Map.new(entries ++ found)
    {entries, cursor} -> page.(page, [limit: 2_000, cursor: cursor], entries ++ found)
  end
end
found = page.(page, [limit: 2_000], [])
{answered, sent} = :persistent_term.get(:reached)
least = LEAST
from = last.(:from)
begun = Enum.reduce(if(least > from, do: from + 1..least, else: []), :persistent_term.get(:held, %{}), made)
right = Enum.reduce_while(least..sent, begun, fn n, map ->
  map = if n == least, do: map, else: made.(n, map)
  if map === found, do: {:halt, {:right, n}}, else: {:cont, map}
end)
case right do
  {:right, n} ->
    :persistent_term.put(:from, n)
    :persistent_term.put(:held, found)
    :persistent_term.put(:cleared, last.(:cleared) + div(answered, 40) - div(from, 40))
    if n < answered, do: :persistent_term.put(:lost, true)
    :right
  _ -> {:wrong, least, sent, map_size(found), found |> Map.values() |> Enum.take(20)}
end
"#;

fn filled(code: &str, least: &str, node: &str) -> String {
    code.replace("NODE", node).replace("LEAST", least)
}

fn on_disk(beam: &BeamNode, data: &Path, sync: &str) -> String {
    format!("--connect {} --data-dir {} --sync {sync}", beam.name(), data.display())
}

#[test]
fn all_of_a_clear_is_there_after_kill_9_or_nothing() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    beam.run(ASKED);
    for sync in ["always", "never"] {
        let data = tempfile::tempdir().unwrap();
        let args = on_disk(&beam, data.path(), sync);
        let crashing = Crashing { epmd: &epmd, beam: &beam, args: &args, undo: None, data: data.path() };
        beam.run(BEGUN);
        let mut node = crashing.start();
        let name = node.name().to_owned();
        for round in 1..=rounds("KVNODE_CRASH_ROUNDS", 3) {
            node = crashing.round(node, &filled(LOAD, "", &name), 200);
            // Whatever the policy is, a process that is killed takes nothing with it that was answered.
            let judged = beam.run(&filled(JUDGED, "answered", &name));
            assert_eq!(judged, ":right", "--sync {sync}, round {round}");
        }
        beam.check("last.(:cleared) > 10", "true");
        node.kill(&epmd);
        let (right, said) = kvnode(&["check", "--data-dir", &data.path().display().to_string()]);
        assert!(right, "{said}");
    }
}

/// Rounds until something was lost that was not synced: about every second one loses something.
const UNDO_ROUNDS_MAX: u32 = 30;

/// Whatever the policy is, a clear is synced before it is answered, and all that was asked for before it.
#[test]
fn a_clear_that_was_answered_is_there_after_all_that_was_not_synced_is_undone() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let scratch = tempfile::tempdir().unwrap();
    let library = library("undo.c", scratch.path());
    beam.run(ASKED);
    for (sync, least) in
        [("never", "max(last.(:from), answered - rem(answered, 40))"), ("always", "answered")]
    {
        let (data, notes) = (scratch.path().join(sync), scratch.path().join(format!("{sync}-notes")));
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&notes).unwrap();
        let args = on_disk(&beam, &data, sync);
        let undo = Some((&*library, &*notes));
        let crashing = Crashing { epmd: &epmd, beam: &beam, args: &args, undo, data: &data };
        beam.run(BEGUN);
        let mut node = crashing.start();
        let name = node.name().to_owned();
        // What undoes must be able to take something: a kill right behind a clear leaves it nothing.
        let must_lose = sync == "never";
        let mut round = 1;
        while round <= rounds("KVNODE_UNDO_ROUNDS", 3)
            || (must_lose && round <= UNDO_ROUNDS_MAX && beam.run("last.(:lost) == true") == "false")
        {
            node = crashing.round(node, &filled(LOAD, "", &name), 100);
            let judged = beam.run(&filled(JUDGED, least, &name));
            assert_eq!(judged, ":right", "--sync {sync}, round {round}");
            round += 1;
        }
        beam.check("last.(:cleared) > 5", "true");
        beam.check("last.(:lost) == true", if must_lose { "true" } else { "false" });
        node.kill(&epmd);
    }
}

/// The folders of the engine that hold entries, and what else it has.
fn keyspaces(data: &Path) -> usize {
    fs::read_dir(data.join("engine/keyspaces")).unwrap().count()
}

#[test]
fn what_was_there_before_a_clear_goes_at_the_start_behind_a_kill() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let data = tempfile::tempdir().unwrap();
    let args = on_disk(&beam, data.path(), "never");
    let node = KvNode::start(&epmd, "kv", &args);
    beam.wait_for_global("kv");
    beam.check(
        "for part <- 1..10 do
           pairs = for k <- 1..10_000, do: {{part, k}, k}
           :ok = GenServer.call({:global, :kv}, {:put_many, pairs, ttl: 86_400_000}, 30_000)
         end
         GenServer.call({:global, :kv}, :clear, 30_000)",
        ":ok",
    );
    node.kill(&epmd);
    beam.wait_for_no_global("kv");
    let check = || kvnode(&["check", "--data-dir", &data.path().display().to_string()]);
    let (right, said) = check();
    assert!(right && said.contains(": 0 entries"), "{said}");
    let node = KvNode::start(&epmd, "kv", &args);
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, :count)", "0");
    // Nothing is asked of it meanwhile.
    node.wait_for_log(&["what was there before :clear is being deleted"]);
    node.wait_for_log(&["what was there before :clear is deleted"]);
    beam.check("GenServer.call({:global, :kv}, {:put, :k, 1})", ":ok");
    let of_one = {
        let fresh = tempfile::tempdir().unwrap();
        let _node = KvNode::start(&epmd, "fresh", &on_disk(&beam, fresh.path(), "never"));
        keyspaces(fresh.path())
    };
    wait_until("the files are gone", || keyspaces(data.path()) == of_one);
    node.kill(&epmd);
    beam.wait_for_no_global("kv");
    let (right, said) = check();
    assert!(right && said.contains(": 1 entry,"), "{said}");
    // A start that has nothing to go on with says nothing.
    let node = KvNode::start(&epmd, "kv", &args);
    assert!(!node.log().contains(":clear"), "{}", node.log());
}
