//! The kvnode that is attacked, and the good peer beside.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::{Epmd, KvNode, Scripted, binary, term_with};

/// What the resident memory may grow by over what the data needs, in bytes: calls that wait (`held_bytes_max`), twice the
/// answers that wait (`outbound_bytes_max`), and as much again for buffers.
pub const GROWTH_MAX: u64 = (64 + 16 + 16) << 20;
pub const STORE: &str = "Elixir.KeyValueStore";

/// A kvnode, and a good peer that was there before the others came.
pub struct Scene {
    pub kv: KvNode,
    pub port: u16,
    pub good: Scripted,
    pub rss: u64,
    _epmd: Epmd,
}

impl Scene {
    #[track_caller]
    pub fn start(args: &str) -> Self {
        Self::start_with(args, |_| {})
    }

    /// The same with large blocks of memory outside of the heaps, for what takes many of these in turn. With its defaults glibc takes
    /// such blocks into the heap of a thread once the first was freed, and keeps up to 64 MiB of each heap (mallopt(3),
    /// M_MMAP_THRESHOLD): the peak is then by chance, and tells little of what kvnode holds.
    #[track_caller]
    pub fn start_with_blocks_apart(args: &str) -> Self {
        Self::start_with(args, |command| _ = command.env("MALLOC_MMAP_THRESHOLD_", "131072"))
    }

    #[track_caller]
    fn start_with(args: &str, change: impl FnOnce(&mut Command)) -> Self {
        let epmd = Epmd::start();
        let kv = KvNode::start_with(&epmd, "kv", args, change);
        let port = epmd.port_of("kv").expect("it is registered");
        let mut good = Scripted::connect(port, "good@h", kv.name());
        good.use_the_store();
        let rss = memory(&kv, "VmRSS");
        Self { kv, port, good, rss, _epmd: epmd }
    }

    #[track_caller]
    pub fn peer(&self, name: &str) -> Scripted {
        Scripted::connect(self.port, name, self.kv.name())
    }

    pub fn stranger(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("the port is open");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream
    }

    /// The good peer that was there, and a new one, are served; memory is what it was, but for `data` bytes.
    #[track_caller]
    pub fn all_is_well(&mut self, data: u64) {
        self.good.use_the_store();
        self.peer("late@h").use_the_store();
        let peak = memory(&self.kv, "VmHWM");
        assert!(peak <= self.rss + data + GROWTH_MAX, "{} MiB grew to {} MiB", self.rss >> 20, peak >> 20);
    }

    /// The rest of a conversation that kvnode must end, and be well.
    #[track_caller]
    pub fn must_end(&mut self, mut peer: Scripted, data: u64) {
        peer.wait_for_end();
        self.all_is_well(data);
    }
}

pub fn memory(kv: &KvNode, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", kv.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("a size");
    kib.trim().parse::<u64>().expect("a number") << 10
}

/// Waits until the other side closes.
#[track_caller]
pub fn closed(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// A request to put bytes.
pub fn put(key: u64, value: &[u8]) -> Vec<u8> {
    term_with(&format!("{{:put, {key}, $1}}"), &[&binary(value)])
}
