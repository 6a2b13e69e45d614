//! What Erlang's environment variables say of epmd.

use std::ffi::OsString;
use std::net::IpAddr;

use crate::config::EpmdConfig;

/// An environment variable that `erl` reads has a value that means nothing: for the user to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// `ERL_EPMD_PORT` is no port.
    #[error("ERL_EPMD_PORT is {0:?}, which is no port; set it to 1..65535, or unset it")]
    Port(String),
    /// `ERL_EPMD_ADDRESS` has this in it, which is no IP address.
    #[error(
        "ERL_EPMD_ADDRESS has {0:?}, which is no IP address; set it to addresses with commas between them, or unset it"
    )]
    Address(String),
}

/// Where epmd is by `ERL_EPMD_PORT` and `ERL_EPMD_ADDRESS`, as `erl` reads them; what they do not say is as in
/// [`EpmdConfig::default`].
///
/// # Errors
/// One of them has a value that means nothing.
pub fn epmd_config() -> Result<EpmdConfig, EnvironmentError> {
    let default = EpmdConfig::default();
    let address = epmd_addresses()?.first().copied().unwrap_or(default.address);
    Ok(EpmdConfig { port: epmd_port()?, address, ..default })
}

/// The port of epmd: `ERL_EPMD_PORT`, else Erlang's default.
///
/// # Errors
/// It is no port.
pub fn epmd_port() -> Result<u16, EnvironmentError> {
    let Some(text) = variable("ERL_EPMD_PORT") else { return Ok(EpmdConfig::PORT) };
    port(&text).ok_or(EnvironmentError::Port(text))
}

/// The addresses that epmd listens on besides the loopback ones: `ERL_EPMD_ADDRESS`. Empty: all.
///
/// # Errors
/// Something in it is no address.
pub fn epmd_addresses() -> Result<Vec<IpAddr>, EnvironmentError> {
    let text = variable("ERL_EPMD_ADDRESS").unwrap_or_default();
    addresses(&text).map_err(EnvironmentError::Address)
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)
        .map(OsString::into_string)?
        .map_or_else(|raw| Some(raw.to_string_lossy().into_owned()), Some)
}

fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|&port| port != 0)
}

/// As epmd reads it: commas and blanks between addresses, in any number.
fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    text.split([',', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_err(|_| part.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_addresses_are_read_as_epmd_reads_them() {
        assert_eq!(port("4369"), Some(4369));
        assert_eq!((port("0"), port("x"), port("65536")), (None, None, None));
        assert_eq!(addresses(" , ").unwrap(), Vec::<IpAddr>::new());
        let two: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(addresses("10.0.0.1,::1").unwrap(), two);
        assert_eq!(addresses("10.0.0.1, ::1,").unwrap(), two);
        assert_eq!(addresses("10.0.0.1,host"), Err("host".into()));
    }
}
