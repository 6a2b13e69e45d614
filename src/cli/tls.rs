//! The flags of TLS: the same for a node and for the commands that ask one.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::CliError;
use crate::config::{TlsConfig, TlsSide, TlsVerify};
use crate::node::tls::read_optfile;

#[derive(Args, Clone, Debug)]
// Flags of one group leave no place for each other between the command line, the environment and the file.
#[group(skip)]
pub(super) struct TlsArgs {
    /// Speak TLS with every other node, as BEAMs do that are started with -proto_dist inet_tls. On SIGHUP a node reads the
    /// files again
    #[arg(long, help_heading = "TLS")]
    pub(super) tls: bool,
    /// The own certificate (PEM), with those between it and the CA
    #[arg(long, value_name = "FILE", requires = "tls", help_heading = "TLS")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM, not encrypted) [default: in the file of --tls-cert]
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    tls_key: Option<PathBuf>,
    /// The certificates of the CAs that sign those of the other nodes (PEM)
    #[arg(long, value_name = "FILE", requires = "tls", help_heading = "TLS")]
    tls_ca: Option<PathBuf>,
    /// Whose certificates must be signed by a CA: every other node's, those that are shown (a node that connects may come
    /// without one), or nobody's [default: peer]
    #[arg(long, value_name = "WHOSE", requires = "tls", help_heading = "TLS")]
    tls_verify: Option<Verify>,
    /// All of this from a file that BEAMs have for -ssl_dist_optfile
    #[arg(long, value_name = "FILE", requires = "tls", help_heading = "TLS",
          conflicts_with_all = ["tls_cert", "tls_key", "tls_ca", "tls_verify"])]
    tls_optfile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verify {
    Peer,
    PeerIfGiven,
    None,
}

impl TlsArgs {
    /// The flags that an erl needs to speak TLS with a node of these; `None`: none.
    pub(super) fn erl_flags(&self) -> Option<String> {
        // A name alone is not found by OTP 25, and an iex is often started elsewhere.
        let place = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let file =
            self.tls_optfile.as_ref().map_or_else(|| "…".into(), |path| place(path).display().to_string());
        self.tls.then(|| format!("-proto_dist inet_tls -ssl_dist_optfile {file}"))
    }

    /// Whether certificates are verified as nobody has said.
    pub(super) const fn verifies_by_default(&self) -> bool {
        self.tls && self.tls_optfile.is_none() && self.tls_verify.is_none()
    }

    /// What the flags say; `None`: no TLS.
    ///
    /// # Errors
    /// The certificate is missing, or the file of options cannot be used.
    pub(super) fn config(&self) -> Result<Option<TlsConfig>, CliError> {
        if !self.tls {
            return Ok(None);
        }
        if let Some(path) = &self.tls_optfile {
            let config =
                read_optfile(path).map_err(|error| CliError::usage(format!("--tls-optfile {error}")))?;
            return Ok(Some(config));
        }
        if self.tls_cert.is_none() {
            return Err(CliError::usage(
                "--tls needs this node's certificate; give it by --tls-cert, --tls-key and --tls-ca, or by the --tls-optfile \
                 of your BEAMs",
            ));
        }
        let verify = match self.tls_verify {
            None | Some(Verify::Peer) => TlsVerify::Peer,
            Some(Verify::PeerIfGiven) => TlsVerify::PeerIfGiven,
            Some(Verify::None) => TlsVerify::None,
        };
        Ok(Some(TlsConfig::both(TlsSide {
            cert_file: self.tls_cert.clone(),
            key_file: self.tls_key.clone(),
            ca_file: self.tls_ca.clone(),
            verify,
            ..TlsSide::default()
        })))
    }
}
