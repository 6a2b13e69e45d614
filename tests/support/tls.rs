//! Certificates for a test: CAs of its own, and what a node needs of them, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};

use super::otp::Otp;

/// One that signs certificates.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A folder with `cert.pem`, `key.pem`, `ca.pem` and `tls.conf`, which is for `-ssl_dist_optfile`.
pub struct Files {
    folder: tempfile::TempDir,
    seen_as: PathBuf,
}

/// What may be said of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Days {
    Valid,
    Over,
    ToCome,
}

impl Ca {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = called(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the system has random bytes");
        let pem = params.self_signed(&key).expect("it can be signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate for `host` and what goes with it into a new folder that programs of this version can see.
    pub fn files(&self, otp: &Otp, host: &str) -> Files {
        let folder = otp.scratch();
        let files = Files { seen_as: otp.inside(folder.path()), folder };
        self.renew(&files, host, Days::Valid);
        files.write("tls.conf", &options(&files.seen_as, "verify_peer", "['tlsv1.2', 'tlsv1.3']"));
        files
    }

    /// Writes another certificate with another key, and this CA.
    pub fn renew(&self, files: &Files, host: &str, days: Days) {
        let mut params = CertificateParams::default();
        params.distinguished_name = called("node");
        params.subject_alt_names = vec![SanType::DnsName(host.try_into().expect("a host name"))];
        match days {
            Days::Valid => {}
            Days::Over => params.not_after = date_time_ymd(2001, 1, 1),
            Days::ToCome => params.not_before = date_time_ymd(2999, 1, 1),
        }
        let key = KeyPair::generate().expect("the system has random bytes");
        files.write("key.pem", &key.serialize_pem());
        files.write("cert.pem", &params.signed_by(&key, &self.issuer).expect("it can be signed").pem());
        files.write("ca.pem", &self.pem);
    }
}

impl Files {
    /// As this machine sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it can be written");
    }

    /// Writes `tls.conf` again, with this `verify` and these `versions` on both sides.
    pub fn set_options(&self, verify: &str, versions: &str) {
        self.write("tls.conf", &options(&self.seen_as, verify, versions));
    }

    /// Writes `tls.conf` for a client that has no certificate.
    pub fn set_client_without_certificate(&self) {
        let text = fs::read_to_string(self.path("tls.conf")).expect("it is there");
        let (server, client) = text.split_once("{client").expect("it has both");
        let shown = |line: &&str| !line.contains("{certfile") && !line.contains("{keyfile");
        let client: Vec<&str> = client.lines().filter(shown).collect();
        self.write("tls.conf", &format!("{server}{{client{}", client.join("\n")));
    }

    /// Flags for erl.
    pub fn erl(&self) -> String {
        format!("-proto_dist inet_tls -ssl_dist_optfile {}", self.seen_as.join("tls.conf").display())
    }

    /// Flags for kvnode.
    pub fn flags(&self) -> String {
        let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| self.path(name));
        format!("--tls --tls-cert {} --tls-key {} --tls-ca {}", cert.display(), key.display(), ca.display())
    }

    /// Flags for kvnode with the file of erl, which has its paths as this machine sees them.
    pub fn optfile_flags(&self) -> String {
        let text = fs::read_to_string(self.path("tls.conf")).expect("it is there");
        let path = |folder: &Path| format!("\"{}/", folder.display());
        self.write("kvnode.conf", &text.replace(&path(&self.seen_as), &path(self.folder.path())));
        format!("--tls --tls-optfile {}", self.path("kvnode.conf").display())
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

fn options(folder: &Path, verify: &str, versions: &str) -> String {
    let side = |more: &str| {
        format!(
            "[\n   {{certfile, \"{0}/cert.pem\"}},\n   {{keyfile, \"{0}/key.pem\"}},\n   {{cacertfile, \"{0}/ca.pem\"}},\n   {more}\
             {{versions, {versions}}},\n   {{verify, {verify}}}]",
            folder.display()
        )
    };
    // verify_none with fail_if_no_peer_cert is refused by later releases.
    let fail = if verify == "verify_peer" { "{fail_if_no_peer_cert, true},\n   " } else { "" };
    format!("[{{server,\n  {}}},\n {{client,\n  {}}}].\n", side(fail), side(""))
}
