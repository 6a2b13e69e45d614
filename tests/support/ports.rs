//! Ports that no two tests use at the same time.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};

/// A TCP port that belongs to this value for as long as it lives, whether anything listens or not: an epmd
/// can be killed and started again without another test's node slipping into its place.
pub struct Port {
    number: u16,
    // Other test processes hold theirs: the lock ends with the process at the latest.
    _lock: File,
}

impl Port {
    /// Takes a free one, below the range from which systems take the ports of outgoing connections.
    pub fn take() -> Self {
        let folder = std::env::temp_dir().join("kvnode-test-ports");
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        for number in 21_000..31_000 {
            let file = File::create(folder.join(number.to_string())).expect("a lock file can be made");
            // Asked for, and not taken to see whether it can be: a program that another thread starts at this moment has our
            // sockets until it runs, and would keep the port from whom it is meant for.
            if file.try_lock().is_ok() && TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_err() {
                return Self { number, _lock: file };
            }
        }
        panic!("10,000 ports are in use");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
