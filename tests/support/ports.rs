//! Ports that no two tests use at the same time.

use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A TCP port that belongs to this value for as long as it lives, whether anything listens or not: an epmd
/// can be killed and started again without another test's node slipping into its place.
pub struct Port {
    number: u16,
    // An abstract name is one for all of a network's namespace, as a port is: a test in a chroot with a temporary folder of
    // its own finds it taken too. It is free again when its holder ends, whatever the end.
    _name: UnixListener,
}

impl Port {
    /// Takes a free one, below the range from which systems take the ports of outgoing connections.
    pub fn take() -> Self {
        for number in 21_000..31_000_u16 {
            let name = SocketAddr::from_abstract_name(format!("kvnode-test-port-{number}"))
                .expect("the name is short");
            // Asked for, and not taken to see whether it can be: a program that another thread starts at this moment has our
            // sockets until it runs, and would keep the port from the program that it is meant for.
            if let Ok(held) = UnixListener::bind_addr(&name)
                && TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_err()
            {
                return Self { number, _name: held };
            }
        }
        panic!("10,000 ports are in use");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
