//! TLS to a member: rustls, with the files of [`TlsFiles`].

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::{ClientConfig, RootCertStore};

use crate::etcd::{ConfigError, TlsFiles};

/// The protocol inside that etcd's API has.
pub(super) const HTTP2: &[u8] = b"h2";

/// What the files say now, for this protocol inside.
pub(super) fn connector(files: &TlsFiles, protocol: &[u8]) -> Result<TlsConnector, ConfigError> {
    let ca = files.ca.as_deref().ok_or(ConfigError::NoCa)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| wrong(ca, error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(ca, error))?
        .with_root_certificates(roots);
    let mut config = match &files.cert {
        None => builder.with_no_client_auth(),
        Some(cert) => {
            let path = files.key.as_deref().unwrap_or(cert);
            // What a reader says of a key's file may have parts of the key in it.
            let key = PrivateKeyDer::from_pem_slice(&read(path)?)
                .map_err(|_| wrong(path, "there is no private key in it, or one with a password"))?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(|error| wrong(path, error))?
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config).into())
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(wrong(path, "there is no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(path, error)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })
}

fn wrong(path: &Path, reason: impl ToString) -> ConfigError {
    ConfigError::Tls { path: path.to_owned(), reason: reason.to_string() }
}
