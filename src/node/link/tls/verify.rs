//! Where certificates are looked at otherwise than rustls does: `verify_none`, and `depth`.

use std::sync::Arc;

use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::WebPkiSupportedAlgorithms;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use futures_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

/// Takes every certificate. The signatures of the handshake are not looked at either: the key of a
/// certificate that every peer may make for itself proves nothing, and certificates of version 1, which a BEAM takes, could not be.
#[derive(Debug)]
pub(super) struct TakeAnyone(pub WebPkiSupportedAlgorithms);

impl ServerCertVerifier for TakeAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Takes what another verifier takes, with at most so many certificates between the other side's own and one of our CAs:
/// ssl's `depth`.
///
/// It is shown the first of those that were sent and no more. They are sent in the order of the path, each signing the one
/// before it (RFC 5246, section 7.4.2; RFC 8446, section 4.4.2).
#[derive(Debug)]
pub(super) struct AtDepth<V: ?Sized> {
    depth_max: u8,
    verifier: Arc<V>,
}

impl<V: ?Sized> AtDepth<V> {
    pub(super) const fn new(depth_max: u8, verifier: Arc<V>) -> Self {
        Self { depth_max, verifier }
    }

    fn cut<T>(
        &self,
        intermediates: &[CertificateDer<'_>],
        verify: impl FnOnce(&[CertificateDer<'_>]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match intermediates.get(..usize::from(self.depth_max)) {
            Some(first) if first.len() < intermediates.len() => verify(first).map_err(|error| match error {
                Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                    let too_deep = Arc::new(TooDeep { depth_max: self.depth_max });
                    Error::InvalidCertificate(CertificateError::Other(OtherError(too_deep)))
                }
                error => error,
            }),
            _ => verify(intermediates),
        }
    }
}

/// What is said of a path that is longer.
#[derive(Debug, thiserror::Error)]
#[error("more than {depth_max} certificates to a CA")]
pub(super) struct TooDeep {
    pub depth_max: u8,
}

impl<V: ServerCertVerifier + ?Sized> ServerCertVerifier for AtDepth<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.cut(intermediates, |first| {
            self.verifier.verify_server_cert(end_entity, first, server_name, ocsp_response, now)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl<V: ClientCertVerifier + ?Sized> ClientCertVerifier for AtDepth<V> {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.cut(intermediates, |first| self.verifier.verify_client_cert(end_entity, first, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use futures_rustls::rustls::RootCertStore;
    use futures_rustls::rustls::client::WebPkiServerVerifier;
    use futures_rustls::rustls::crypto::ring;
    use futures_rustls::rustls::server::WebPkiClientVerifier;
    use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::node::link::tls::TlsFault;

    /// The certificate of a CA, one of a node with two more between, in the order of the path, and its key (PEM).
    pub(in crate::node::link::tls) fn path() -> (Certificate, Vec<Certificate>, String) {
        let mut certificates = Vec::new();
        let mut signer: Option<Issuer<'static, KeyPair>> = None;
        let mut pem = String::new();
        for name in ["root", "upper", "lower", "node"] {
            let mut params = CertificateParams::new(vec!["host".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            if name != "node" {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            let key = KeyPair::generate().unwrap();
            let signed = match &signer {
                Some(signer) => params.signed_by(&key, signer).unwrap(),
                None => params.self_signed(&key).unwrap(),
            };
            certificates.insert(0, signed);
            pem = key.serialize_pem();
            signer = Some(Issuer::new(params, key));
        }
        let root = certificates.pop().unwrap();
        (root, certificates, pem)
    }

    #[test]
    fn a_path_that_is_longer_than_its_depth_is_not_taken() {
        let (root, path, _) = path();
        let path: Vec<_> = path.iter().map(|signed| signed.der().clone()).collect();
        let root = root.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let client =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let client = client.unwrap();
        let server = WebPkiServerVerifier::builder_with_provider(roots, provider).build().unwrap();
        let host = ServerName::try_from("host").unwrap();
        let verified = |depth_max, sent: &[CertificateDer<'_>]| {
            let (node, between) = sent.split_first().unwrap();
            let now = UnixTime::now();
            let of_client = AtDepth::new(depth_max, Arc::clone(&client));
            let of_client = of_client.verify_client_cert(node, between, now).map(|_| ());
            let of_server = AtDepth::new(depth_max, Arc::clone(&server));
            let of_server = of_server.verify_server_cert(node, between, &host, &[], now).map(|_| ());
            assert_eq!(of_client.is_ok(), of_server.is_ok());
            of_client
        };
        for depth_max in [2, 3, 255] {
            assert_eq!(verified(depth_max, &path), Ok(()));
        }
        for depth_max in [0, 1] {
            let fault = TlsFault::of_tls(&verified(depth_max, &path).unwrap_err());
            assert!(matches!(fault, TlsFault::TooDeep { depth_max: most } if most == depth_max), "{fault}");
        }
        // One that sends the CA's too has no longer a path for it.
        let with_root = [&path[..], &[root]].concat();
        assert_eq!(verified(2, &with_root), Ok(()));
        // What is missing is another matter.
        let error = verified(3, &path[..1]).unwrap_err();
        assert_eq!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer));
    }
}
