//! The addresses of a host: the one place that asks for them.
//!
//! A BEAM finds its own host by name also where neither a hosts file nor DNS knows it: as the last thing it compares the
//! name with its own, and takes the loopback (kernel, `inet.erl`, `gethostbyname_self`). So does this: nodes of this
//! machine and its epmd listen there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::client::{EPMD_STEP, EpmdError};
use super::host::Host;
use crate::within::io_within;

/// How long the resolver may take for this host's own name, whose address is known without it. A resolver whose servers
/// are not reached takes ten seconds.
const OWN_NAME_STEP: Duration = Duration::from_secs(1);

/// What a host's name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its addresses, one at least.
    pub addresses: Vec<IpAddr>,
    /// Whether they are the loopback's because the name is this host's own and the resolver does not know it.
    pub is_own_name: bool,
}

impl Resolved {
    /// The addresses with a port.
    pub fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
    }
}

/// Finds the addresses of a host. `own_host` is the host part of the asking node's own name, where others find that: it is
/// this machine too.
///
/// # Errors
/// [`EpmdError::UnknownHost`]: the resolver does not know it, and it is not this host's own name.
pub async fn resolve(host: &str, own_host: Option<&str>) -> Result<Resolved, EpmdError> {
    let is_own =
        own_host.is_some_and(|own| own.eq_ignore_ascii_case(host)) || Host::of_system().is_called(host);
    let step = if is_own { OWN_NAME_STEP } else { EPMD_STEP };
    let found = io_within(step, smol::net::resolve((host, 0))).await;
    let found = found.map(|found| found.iter().map(SocketAddr::ip).collect::<Vec<IpAddr>>());
    match found {
        Ok(addresses) if !addresses.is_empty() => Ok(Resolved { addresses, is_own_name: false }),
        _ if is_own => Ok(Resolved {
            addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            is_own_name: true,
        }),
        Ok(_) => {
            let reason = io::Error::new(io::ErrorKind::NotFound, "it has no address");
            Err(EpmdError::UnknownHost { host: host.into(), reason })
        }
        Err(reason) => Err(EpmdError::UnknownHost { host: host.into(), reason }),
    }
}
