//! What Erlang's environment variables say of epmd.

use std::ffi::OsString;
use std::net::IpAddr;

use super::CliError;
use crate::config::EpmdConfig;

/// The port of epmd: `ERL_EPMD_PORT`, else Erlang's default.
pub(super) fn epmd_port() -> Result<u16, CliError> {
    let Some(text) = variable("ERL_EPMD_PORT") else { return Ok(EpmdConfig::PORT) };
    port(&text).ok_or_else(|| {
        CliError::usage(format!(
            "ERL_EPMD_PORT is {text:?}, which is no port; set it to 1..65535, or unset it"
        ))
    })
}

/// The addresses that epmd listens on besides the loopback ones: `ERL_EPMD_ADDRESS`. Empty: all.
pub(super) fn epmd_addresses() -> Result<Vec<IpAddr>, CliError> {
    let text = variable("ERL_EPMD_ADDRESS").unwrap_or_default();
    addresses(&text).map_err(|part| {
        CliError::usage(format!(
            "ERL_EPMD_ADDRESS has {part:?}, which is no IP address; set it to addresses with commas between them, or \
             unset it"
        ))
    })
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
