//! A disk that is full, cannot be written to, or fails to sync: callers are told, nothing changes, and it passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use kvnode::etf::Traits;
use kvnode::store::{Change, Disk, Pending, Store, StoreError, SyncPolicy, Update, Value, Written, wait};

use crate::support::{BeamNode, Epmd, KvNode, Otp};
use crate::{kvnode, library};

/// A kvnode with a disk that fails on demand, and a BEAM beside it.
struct Failing {
    epmd: Epmd,
    beam: BeamNode,
    library: PathBuf,
    fault: PathBuf,
    data: PathBuf,
    // Where the others are.
    _scratch: tempfile::TempDir,
}

impl Failing {
    fn new() -> Self {
        let epmd = Epmd::start();
        let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
        let scratch = tempfile::tempdir().unwrap();
        let (library, fault) = (library("fault.c", scratch.path()), scratch.path().join("fault"));
        Self { epmd, beam, library, fault, data: scratch.path().join("data"), _scratch: scratch }
    }

    fn start(&self, more: &str) -> KvNode {
        let args = format!("--connect {} --data-dir {} {more}", self.beam.name(), self.data.display());
        let node = KvNode::start_with(&self.epmd, "kv", &args, |command| {
            command.env("LD_PRELOAD", &self.library).env("KVNODE_TEST_FAULT", &self.fault);
        });
        self.beam.wait_for_global("kv");
        node
    }

    fn call(&self, request: &str) -> String {
        self.beam.run(&format!("GenServer.call({{:global, :kv}}, {request}, 30_000)"))
    }

    #[track_caller]
    fn check(&self, request: &str, answer: &str) {
        assert_eq!(self.call(request), answer, "{request}");
    }
}

#[test]
fn a_failing_sync_or_write_is_an_error_that_changes_nothing_and_ends_with_its_cause() {
    let failing = Failing::new();
    let node = failing.start("");
    failing.check("{:put, :kept, 1}", ":ok");
    let faults = [
        ("sync 5", "{:error, {:io, :eio}}"),
        ("write 28", "{:error, :no_space}"),
        ("write 30", "{:error, {:io, :erofs}}"),
    ];
    for (what, error) in faults {
        fs::write(&failing.fault, what).unwrap();
        for _ in 0..2 {
            failing.check("{:put, :failed, 1}", error);
            failing.check("{:delete, :kept}", error);
            failing.check("{:get, :kept}", "1");
            failing.check("{:get, :failed}", "nil");
        }
        fs::remove_file(&failing.fault).unwrap();
        failing.check("{:put, :later, 1}", ":ok");
        failing.check("{:get, :failed}", "nil");
        failing.check("{:get, :kept}", "1");
        failing.check("{:delete, :later}", ":ok");
    }
    node.kill(&failing.epmd);
    let _again = failing.start("");
    failing.check("{:get, :kept}", "1");
    for gone in [":failed", ":later"] {
        failing.check(&format!("{{:get, {gone}}}"), "nil");
    }
}

/// Puts values until `until` is answered; gives how many were kept.
fn put_until(failing: &Failing, until: &str) -> String {
    failing.beam.run(&format!(
        r#"Enum.reduce_while(Stream.iterate(0, &(&1 + 1)), nil, fn n, _ ->
          case GenServer.call({{:global, :kv}}, {{:put, {{:filler, n}}, {{n, :crypto.strong_rand_bytes(200_000)}}}}, 30_000) do
            :ok when n < 5000 -> {{:cont, nil}}
            answer -> true = answer in {until}; {{:halt, n}}
          end
        end)"#
    ))
}

/// How many of the first values are not there as they were written, and whether the one behind them is there.
fn fillers(count: &str) -> String {
    format!(
        "{{Enum.count(0..({count} - 1), fn n -> not match?({{^n, <<_::binary-size(200_000)>>}}, \
         GenServer.call({{:global, :kv}}, {{:get, {{:filler, n}}}})) end), \
         GenServer.call({{:global, :kv}}, {{:get, {{:filler, {count}}}}})}}"
    )
}

#[test]
fn tables_that_cannot_be_written_are_told_of_and_written_later() {
    let failing = Failing::new();
    let node = failing.start("");
    fs::write(&failing.fault, "tables 5").unwrap();
    let kept = put_until(&failing, "[{:error, {:io, :eio}}, {:error, {:io, :unknown}}]");
    failing.beam.check(&fillers(&kept), "{0, nil}");
    fs::remove_file(&failing.fault).unwrap();
    // It is tried now and then.
    failing.beam.check_soon("GenServer.call({:global, :kv}, {:put, :later, 1}, 30_000)", ":ok");
    failing.beam.check(&fillers(&kept), "{0, nil}");
    node.kill(&failing.epmd);
    let node = failing.start("");
    failing.beam.check(&fillers(&kept), "{0, nil}");
    failing.check("{:get, :later}", "1");
    node.kill(&failing.epmd);
    let (right, said) = kvnode(&["check", "--data-dir", &failing.data.display().to_string()]);
    assert!(right, "{said}");
}

/// A file system in memory, gone when this is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// `None`, with a message, where it cannot be: only root may.
    pub fn new(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        let mounted = mount.is_ok_and(|mount| mount.status.success());
        if !mounted {
            eprintln!("skipped: no file system can be mounted here; root can");
        }
        mounted.then(|| Self(at.into()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(ended.is_ok_and(|ended| ended.success()), "{} stays mounted", self.0.display());
    }
}

#[test]
fn a_full_disk_refuses_puts_reads_on_and_takes_writes_again_when_there_is_room() {
    let failing = Failing::new();
    let Some(_mounted) = Mounted::new(&failing.data, "300m") else { return };
    let ballast = failing.data.join("lost+found");
    let fill = |bytes: usize| fs::write(&ballast, vec![1; bytes]).unwrap();
    fill(150 << 20);
    let node = failing.start("");
    let kept = put_until(&failing, "[{:error, :no_space}]");
    // There may be room for a small one where there is none for a large one.
    let mut others = fs::OpenOptions::new().append(true).open(&ballast).unwrap();
    std::io::Write::write_all(&mut others, &[1; 1 << 20]).unwrap();
    drop(others);
    failing.check("{:put, :small, 1}", "{:error, :no_space}");
    failing.beam.check(&fillers(&kept), "{0, nil}");
    // To delete is how others get room.
    failing.check("{:delete, {:filler, 0}}", ":ok");
    failing.check("{:get, {:filler, 0}}", "nil");
    // Not one byte is left, as others write too.
    let full = fs::OpenOptions::new().append(true).open(&ballast).unwrap();
    while std::io::Write::write(&mut &full, &[1; 65_536]).is_ok_and(|written| written > 0) {}
    failing.check("{:delete, {:filler, 1}}", "{:error, :no_space}");
    failing.beam.check("match?({1, _}, GenServer.call({:global, :kv}, {:get, {:filler, 1}}))", "true");
    drop(full);
    fs::remove_file(&ballast).unwrap();
    failing.check("{:put, {:filler, 0}, {0, String.duplicate(\"x\", 200_000)}}", ":ok");
    failing.beam.check(&fillers(&kept), "{0, nil}");
    node.kill(&failing.epmd);
    let node = failing.start("");
    failing.beam.check(&fillers(&kept), "{0, nil}");
    node.kill(&failing.epmd);
}

/// Deletes what is there, or keeps that there is nothing, as a user's compare-and-delete does.
struct Remove(mpsc::Sender<Result<Option<u64>, StoreError>>);

impl Update for Remove {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        present.map_or(Change::Keep, |_| Change::Delete)
    }
}

impl Pending for Remove {
    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        self.0.send(result.map(|written| written.map(|written| written.seq))).unwrap();
    }
}

#[test]
fn on_a_full_disk_an_update_that_deletes_goes_through_as_a_deletion_does() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = dir.path().join("data");
    let Some(_mounted) = Mounted::new(&mounted, "300m") else { return };
    let resize = |size: &str| {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&mounted).status().unwrap().success());
    };
    let store = Disk::open(&mounted, SyncPolicy::Always, 1 << 30).unwrap().store(&["a".into()]).unwrap();
    let value = Value::of(&[7; 100], Traits::none());
    let put = |key: &[u8]| {
        let (tell, told) = mpsc::channel();
        store.put(key, value, || Box::new(move |result| tell.send(result.map(|_| ())).unwrap()));
        told.recv().unwrap()
    };
    let remove = |key: &[u8]| {
        let (tell, told) = mpsc::channel();
        store.update(key, &mut Remove(tell.clone()), |_| Box::new(Remove(tell)));
        told.recv().unwrap()
    };
    let barrier = || wait(|done| assert_eq!(store.barrier(|| done), None)).unwrap();
    for key in [b"1", b"2", b"3"] {
        assert_eq!(put(key), Ok(()));
    }
    // Less than what puts are taken with, and more than what deletions are.
    resize("50m");
    assert_eq!(put(b"4"), Err(StoreError::NoSpace));
    assert!(matches!(remove(b"1"), Ok(Some(_))));
    assert_eq!(remove(b"1"), Ok(None), "it is gone");
    // Not even for deletions; what writes nothing takes no room.
    resize("20m");
    assert_eq!(remove(b"2"), Err(StoreError::NoSpace));
    assert_eq!((remove(b"1"), barrier()), (Ok(None), Ok(())));
    resize("300m");
    assert_eq!((put(b"4"), store.len()), (Ok(()), 3));
}

#[test]
fn a_disk_that_cannot_be_written_to_is_refused_at_the_start() {
    let failing = Failing::new();
    let Some(mounted) = Mounted::new(&failing.data, "8m") else { return };
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted.0).status();
    assert!(remount.unwrap().success());
    let args = format!("--data-dir {}", failing.data.display());
    let ended = KvNode::run_to_end(&failing.epmd, "kv", &args);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("Read-only file system"), "{}", ended.stderr);
}

#[test]
fn what_a_slaves_disk_does_not_take_is_not_confirmed_and_is_there_later() {
    let failing = Failing::new();
    let connect = format!("--connect {}", failing.beam.name());
    let _master = KvNode::start(
        &failing.epmd,
        "master",
        &format!("{connect} --slave global:kv --confirm-timeout 3000"),
    );
    let node = failing.start("");
    let beam = &failing.beam;
    beam.wait_for_global("master");
    let states = "(for s <- GenServer.call({:global, :master}, :status).slaves, do: s.state)";
    beam.check_soon(states, "[in_step: 0]");
    for (what, shown) in [("write 28", "full"), ("sync 5", "failing")] {
        let mark = node.log_mark();
        let put = |value: u8| {
            format!("GenServer.call({{:global, :master}}, {{:put, :{shown}, {value}, confirm: 1}})")
        };
        beam.check(&put(1), ":ok");
        fs::write(&failing.fault, what).unwrap();
        beam.check(&put(2), "{:error, {:unconfirmed, 0, 1}}");
        beam.check_soon(&format!("match?([{{:{shown}, _}}], {states})"), "true");
        beam.check_soon("GenServer.call({:global, :kv}, :status).primary.state", &format!(":{shown}"));
        failing.check(&format!("{{:get, :{shown}}}"), "1");
        fs::remove_file(&failing.fault).unwrap();
        beam.check_soon(states, "[in_step: 0]");
        failing.check(&format!("{{:get, :{shown}}}"), "2");
        beam.check(&put(3), ":ok");
        let said = node.log_since(mark).lines().filter(|line| line.contains("is not kept")).count();
        assert_eq!(said, 1, "said once");
    }
}
