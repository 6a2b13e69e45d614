//! From files to what rustls takes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::pki_types::pem::{self, PemObject};
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use futures_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use futures_rustls::rustls::sign::CertifiedKey;
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use super::TlsError;
use super::verify::{AtDepth, TakeAnyone};
use crate::config::{TlsSide, TlsVerify, TlsVersion};

/// What a node shows.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The settings for connections that peers make to us.
pub(super) fn server(side: &TlsSide) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let versions = versions(side)?;
    let Identity { chain, key } = identity(side, &provider)?.ok_or(TlsError::NoCertFile)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .expect("ring has ciphers for both versions");
    let builder = match side.verify {
        TlsVerify::None => builder.with_no_client_auth(),
        TlsVerify::Peer | TlsVerify::PeerIfGiven => {
            let roots = roots(side)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match side.verify {
                TlsVerify::PeerIfGiven => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(|_| TlsError::NoCaFile)?;
            builder.with_client_cert_verifier(match side.depth_max {
                Some(depth_max) => Arc::new(AtDepth::new(depth_max, verifier)),
                None => verifier,
            })
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(side, &error))?;
    // Connections last for days and are few: nothing is won by resuming them, and a peer that resumes has not shown
    // its certificate to the CAs of today.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The settings for connections that we make.
pub(super) fn client(side: &TlsSide) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let versions = versions(side)?;
    let identity = identity(side, &provider)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .expect("ring has ciphers for both versions");
    let builder = match side.verify {
        TlsVerify::None => {
            let anyone = TakeAnyone(provider.signature_verification_algorithms);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(anyone))
        }
        TlsVerify::Peer | TlsVerify::PeerIfGiven => {
            let roots = Arc::new(roots(side)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|_| TlsError::NoCaFile)?;
            match side.depth_max {
                Some(depth_max) => {
                    let verifier = Arc::new(AtDepth::new(depth_max, verifier));
                    builder.dangerous().with_custom_certificate_verifier(verifier)
                }
                None => builder.with_webpki_verifier(verifier),
            }
        }
    };
    let mut config = match identity {
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(side, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

fn versions(side: &TlsSide) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let all = [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)];
    let spoken =
        all.into_iter().filter(|(version, _)| (side.version_min..=side.version_max).contains(version));
    let spoken: Vec<_> = spoken.map(|(_, version)| version).collect();
    if spoken.is_empty() { Err(TlsError::NoVersion) } else { Ok(spoken) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::NoCertificate { path: path.to_owned() }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsError::BadCertificate { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn roots(side: &TlsSide) -> Result<RootCertStore, TlsError> {
    let path = side.ca_file.as_deref().ok_or(TlsError::NoCaFile)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::BadCertificate { path: path.to_owned(), reason: error.to_string() })?;
    }
    Ok(roots)
}

/// The file that the key is in.
fn key_path<'a>(side: &'a TlsSide, cert: &'a Path) -> &'a Path {
    side.key_file.as_deref().unwrap_or(cert)
}

fn identity(side: &TlsSide, provider: &CryptoProvider) -> Result<Option<Identity>, TlsError> {
    let Some(cert) = &side.cert_file else { return Ok(None) };
    let chain = certificates(cert)?;
    let path = key_path(side, cert);
    let key = private_key(path)?;
    // Also checks that the key is that of the certificate.
    CertifiedKey::from_der(chain.clone(), key.clone_key(), provider)
        .map_err(|error| unusable(side, &error))?;
    in_time(cert, &chain)?;
    Ok(Some(Identity { chain, key }))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    let path = path.to_owned();
    // "BEGIN ENCRYPTED PRIVATE KEY" of PKCS #8 and "Proc-Type: 4,ENCRYPTED" of RFC 1421.
    let encrypted = bytes.windows(9).any(|word| word == b"ENCRYPTED");
    match PrivateKeyDer::from_pem_slice(&bytes) {
        _ if encrypted => Err(TlsError::EncryptedKey { path }),
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsError::NoKey { path }),
        // What it says of the file may have parts of the key in it.
        Err(_) => Err(TlsError::BadKey { path, reason: "it is not whole".to_owned() }),
    }
}

fn unusable(side: &TlsSide, error: &Error) -> TlsError {
    let cert = side.cert_file.clone().unwrap_or_default();
    let key = key_path(side, &cert).to_owned();
    match error {
        Error::InconsistentKeys(_) => TlsError::KeyMismatch { cert, key },
        Error::InvalidCertificate(error) => {
            TlsError::BadCertificate { path: cert, reason: error.to_string() }
        }
        error => TlsError::BadKey { path: key, reason: error.to_string() },
    }
}

/// Whether our own certificate is valid today; a reason to refuse it now, rather than to be refused by everybody.
fn in_time(path: &Path, chain: &[CertificateDer<'static>]) -> Result<(), TlsError> {
    let [own, others @ ..] = chain else { return Ok(()) };
    let mut roots = RootCertStore::empty();
    // One of version 1 is none that could be looked into; a BEAM may take it all the same.
    if roots.add(own.clone()).is_err() {
        return Ok(());
    }
    let provider = Arc::new(ring::default_provider());
    let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return Ok(());
    };
    // The dates of the certificate are looked at before anything else of it; its signer does not matter here.
    match verifier.verify_client_cert(own, others, UnixTime::now()) {
        Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => Err(TlsError::Expired { path: path.to_owned() }),
        Err(Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => Err(TlsError::NotValidYet { path: path.to_owned() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use futures_rustls::rustls::pki_types::ServerName;
    use futures_rustls::rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::node::link::tls::verify::tests::path;

    /// Shakes hands in memory; gives the side that fails, if one does.
    fn shake(theirs: &TlsSide, ours: &TlsSide) -> Result<(), &'static str> {
        let host = ServerName::try_from("host").unwrap();
        let mut client = ClientConnection::new(Arc::new(client(theirs).unwrap()), host).unwrap();
        let mut server = ServerConnection::new(Arc::new(server(ours).unwrap())).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets().map_err(|_| "server")?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets().map_err(|_| "client")?;
        }
        Ok(())
    }

    #[test]
    fn both_sides_keep_their_depth() {
        let (root, path, key) = path();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let side = TlsSide {
            cert_file: write("cert.pem", path.iter().map(rcgen::Certificate::pem).collect()),
            key_file: write("key.pem", key),
            ca_file: write("ca.pem", root.pem()),
            ..TlsSide::default()
        };
        let least = TlsSide { depth_max: Some(2), ..side.clone() };
        let less = TlsSide { depth_max: Some(1), ..side.clone() };
        assert_eq!(shake(&side, &side), Ok(()));
        assert_eq!(shake(&least, &least), Ok(()));
        assert_eq!(shake(&side, &less), Err("server"));
        assert_eq!(shake(&less, &side), Err("client"));
    }
}
