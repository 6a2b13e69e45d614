//! The name of the node that a command asks with: one of few.
//!
//! A BEAM keeps an atom for each node name that it has ever seen, and ends when its table of atoms is full. So a command takes the first
//! of a set of names that no other command has: where commands run one after the other, all have the same name. A command holds its name by
//! an abstract socket (unix(7)). The socket goes with the process, also where that is killed, and needs no folder that all users may write to.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// So many commands at once have names of the set. More have names of their own.
const NAMES_MAX: u32 = 1024;

/// A name that no other command has while this process runs, without a host.
///
/// # Errors
/// Fails if the system has no random bytes, for a name that is not one of the set.
pub(super) fn take() -> io::Result<String> {
    // Machines, and containers of one machine, may have the same host name.
    let place = place();
    for number in 0..NAMES_MAX {
        let name = format!("kvnode-{number}-{place:08x}");
        let address = SocketAddr::from_abstract_name(format!("kvnode/name/{number}"))?;
        match UnixDatagram::bind_addr(&address) {
            Ok(held) => {
                // Until the process ends: a BEAM may learn of the end of one connection after the beginning of the next.
                std::mem::forget(held);
                return Ok(name);
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            // Sockets of this kind are not to be had here.
            Err(_) => break,
        }
    }
    let number = getrandom::u64()?;
    Ok(format!("kvnode-{number:016x}"))
}

/// A number of this machine and its network namespace, within which abstract sockets are one's own.
fn place() -> u32 {
    let machine = fs::read("/etc/machine-id").unwrap_or_default();
    let network = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let digest = md5::compute([&machine[..], network.as_os_str().as_encoded_bytes()].concat());
    let [a, b, c, d, ..] = digest.0;
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_a_small_set_and_held_by_one() {
        let place = format!("-{:08x}", place());
        let taken: Vec<String> = (0..20).map(|_| take().unwrap()).collect();
        for (at, name) in taken.iter().enumerate() {
            let number = name.strip_prefix("kvnode-").and_then(|name| name.strip_suffix(&place)).unwrap();
            assert!(number.parse::<u32>().unwrap() < NAMES_MAX);
            assert!(!taken[..at].contains(name), "{taken:?}");
        }
    }
}
