//! Backups, of a folder and of a node that serves; restored, checked.

use std::fs;
use std::path::Path;

use crate::faults::Mounted;
use crate::support::{BeamNode, Epmd, KvNode, Otp};
use crate::{kvnode, kvnode_in};

/// A backup of one store without what that had counted to, which is given too, and without the checksum.
fn alike(file: &Path) -> (Vec<u8>, u64) {
    let mut bytes = fs::read(file).unwrap();
    bytes.truncate(bytes.len() - 16);
    // Behind the mark, the version, the store's tag and its names.
    let names = u32::from_be_bytes(bytes[19..23].try_into().unwrap()) as usize;
    let counted: Vec<u8> = bytes.drain(23 + names..23 + names + 8).collect();
    (bytes, u64::from_be_bytes(counted.try_into().unwrap()))
}

#[test]
fn a_node_is_backed_up_while_it_is_written_to_and_restored_as_it_was_then() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let args = |data: &str| format!("--connect {} --data-dir {}", beam.name(), path(data));
    let node = KvNode::start(&epmd, "kv", &format!("{} --backup-dir {}", args("data"), path("backups")));
    beam.wait_for_global("kv");
    beam.run("for n <- 1..5000, do: GenServer.cast({:global, :kv}, {:replicate_put, n, {0, n}})");
    beam.check_soon("GenServer.call({:global, :kv}, {:get, 5000})", "{0, 5000}");
    // Rounds of writes in order: a backup has some whole rounds, and a beginning of one.
    let load = beam.spawn(
        "for round <- 1..200, n <- 1..5, do: :ok = GenServer.call({:global, :kv}, {:put, n, {round, n}})",
    );
    beam.check_soon("GenServer.call({:global, :kv}, {:get, 5}) != {0, 5}", "true");
    beam.check("GenServer.call({:global, :kv}, {:backup, \"one\"}, 30_000)", ":ok");
    beam.check("GenServer.call({:global, :kv}, {:backup, \"one\"}, 30_000)", "{:error, {:io, :eexist}}");
    beam.check("GenServer.call({:global, :kv}, {:backup, \"../one\"})", "{:error, {:io, :eacces}}");
    load.value();
    beam.check("GenServer.call({:global, :kv}, {:get, 5})", "{200, 5}");
    node.kill(&epmd);
    beam.wait_for_no_global("kv");

    let (right, said) = kvnode(&["restore", &path("backups/one"), "--data-dir", &path("restored")]);
    assert!(right && said.contains("global:kv,local:Elixir.KeyValueStore: 5000 entries, "), "{said}");
    let (right, said) = kvnode(&["restore", &path("backups/one"), "--data-dir", &path("restored")]);
    assert!(!right && said.contains("is there already"), "{said}");
    let (right, said) = kvnode(&["check", "--data-dir", &path("restored")]);
    assert!(right && said.contains("5000 entries"), "{said}");
    let (right, said) = kvnode(&["backup", "--data-dir", &path("restored"), &path("two")]);
    assert!(right && said.contains("5000 entries"), "{said}");
    let [(one, before), (two, after)] =
        [path("backups/one"), path("two")].map(|file| alike(Path::new(&file)));
    assert!(one == two, "notes and entries are the same, with their revisions");
    assert!(after > before + (1 << 32), "{before} and {after}: the store may have gone on behind its backup");
    fs::write(path("three"), "kvnode backup, nearly").unwrap();
    let (right, said) = kvnode(&["restore", &path("three"), "--data-dir", &path("none")]);
    assert!(!right && said.contains("no whole backup"), "{said}");
    assert!(!dir.path().join("none").exists());

    let _restored = KvNode::start(&epmd, "kv", &args("restored"));
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:get, 5000})", "{0, 5000}");
    // Each key is at most a round behind the key before, and none is ahead of it.
    beam.check(
        "rounds = for n <- 1..5, {round, ^n} <- [GenServer.call({:global, :kv}, {:get, n})], do: round; \
         {first, last} = {hd(rounds), List.last(rounds)}; \
         length(rounds) == 5 and rounds == Enum.sort(rounds, :desc) and last in [first, first - 1] and first in 1..200",
        "true",
    );
    beam.check("GenServer.call({:global, :kv}, {:backup, \"one\"})", "{:error, {:io, :eacces}}");
}

#[test]
fn a_folder_is_checked_and_restored_wherever_it_is() {
    let epmd = Epmd::start();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let node = KvNode::start(&epmd, "kv", &format!("--data-dir {}", path("data")));
    node.kill(&epmd);
    let (right, said) = kvnode(&["backup", "--data-dir", &path("data"), &path("file")]);
    assert!(right, "{said}");

    fs::create_dir(path("here")).unwrap();
    let (right, said) = kvnode_in(&scratch.path().join("here"), &["restore", "../file", "--data-dir", "."]);
    assert!(right, "{said}");
    // A crash has torn its end: check says so, and cuts nothing.
    let journal = scratch.path().join("here/engine/0.jnl");
    let torn = [fs::read(&journal).unwrap(), vec![1, 9, 9]].concat();
    fs::write(&journal, &torn).unwrap();
    let (right, said) = kvnode_in(&scratch.path().join("here"), &["check", "--data-dir", "."]);
    assert!(
        right && said.contains("engine/0.jnl: ") && said.contains("the next start cuts them off"),
        "{said}"
    );
    assert!(fs::read(&journal).unwrap() == torn);
    // It is emptied, which no crash does.
    fs::write(&journal, "").unwrap();
    let (right, said) = kvnode_in(&scratch.path().join("here"), &["check", "--data-dir", "."]);
    assert!(!right && said.contains("engine/0.jnl is damaged") && said.contains("are missing"), "{said}");
    let node = KvNode::run_to_end(&epmd, "kv", &format!("--data-dir {}", path("here")));
    assert!(node.stderr.contains("engine/0.jnl is damaged"), "{}", node.stderr);

    let mounted = scratch.path().join("mounted");
    let Some(_mounted) = Mounted::new(&mounted, "300m") else { return };
    fs::create_dir(mounted.join("lost+found")).unwrap();
    let (right, said) = kvnode(&["restore", &path("file"), "--data-dir", &path("mounted")]);
    assert!(right, "{said}");
    let (right, said) = kvnode(&["check", "--data-dir", &path("mounted")]);
    assert!(right && said.contains("all of it could be read"), "{said}");
}

#[test]
fn a_store_in_memory_has_no_backup() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let _node = KvNode::start(&epmd, "kv", &format!("--connect {}", beam.name()));
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:backup, \"one\"})", "{:error, {:io, :enotsup}}");
}
