//! The loads of a BEAM over TLS: kvnode with `--tls`, a GenServer and the client with `-proto_dist inet_tls`, all with one
//! certificate that nobody verifies.

use rcgen::{CertificateParams, KeyPair};

use crate::beam::{BEFORE, NOT_WORSE};
use crate::servers::{Kind, Lab, Place};
use crate::{Findings, Plan, Result, beam};

/// What is wanted of kvnode beside a GenServer, wherever a table has it: its rate at least (where the client is what bounds
/// both, that is 1 and noise), and half its processor time.
pub const EXPECTED: [(&str, &str, f64); 12] = [
    ("p50 µs", BEFORE, NOT_WORSE),
    ("calls/s", BEFORE, NOT_WORSE),
    ("put MB/s", BEFORE, NOT_WORSE),
    ("get MB/s", BEFORE, NOT_WORSE),
    ("p50 µs", "GenServer", 0.97),
    ("calls/s", "GenServer", 0.97),
    ("put MB/s", "GenServer", 0.97),
    ("get MB/s", "GenServer", 0.97),
    ("small calls/s", "GenServer", 0.97),
    ("large MB/s", "GenServer", 0.97),
    ("p99 µs", "GenServer", 0.97),
    ("server CPU µs/call", "GenServer", 2.0),
];

/// What a BEAM is to read at once. Without it a BEAM reads a TLS connection 1,460 bytes at a time (inet(3), `buffer`), and large
/// values cost it so much that it is measured instead of the server.
const BUFFERS: &str =
    "-kernel inet_dist_connect_options [{buffer,262144}] inet_dist_listen_options [{buffer,262144}]";

/// `beam`, `values` and `mixed`, and the last two again with BEAMs that read as much at once as they can be told to.
pub fn tls(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let place = place(lab)?;
    let buffered = Place { erl: format!("{} {BUFFERS}", place.erl), ..place.clone() };
    let before = lab.set_place(place);
    findings.set_over(Some("over TLS"));
    let plan = Plan { only: plan.servers(&[Kind::Kvnode, Kind::KvnodeBefore, Kind::Genserver]), ..*plan };
    let large = |findings: &mut Findings| {
        beam::values(lab, &plan, findings).and_then(|()| beam::mixed(lab, &plan, findings))
    };
    let outcome = beam::calls(lab, &plan, findings).and_then(|()| large(findings)).and_then(|()| {
        lab.set_place(buffered);
        findings.set_over(Some("over TLS, BEAMs with a buffer of 256 KiB"));
        large(findings)
    });
    findings.set_over(None);
    lab.set_place(before);
    outcome
}

/// A certificate, and the flags that name it.
fn place(lab: &Lab) -> Result<Place> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let folder = lab.folder.path();
    let [cert_file, key_file, options] = ["cert.pem", "key.pem", "tls.conf"].map(|name| folder.join(name));
    std::fs::write(&cert_file, certificate.pem())?;
    std::fs::write(&key_file, key.serialize_pem())?;
    let files = format!(
        "{{certfile, \"{}\"}}, {{keyfile, \"{}\"}}, {{verify, verify_none}}",
        cert_file.display(),
        key_file.display()
    );
    std::fs::write(&options, format!("[{{server, [{files}]}}, {{client, [{files}]}}].\n"))?;
    let [cert, key] = [cert_file, key_file].map(|file| file.display().to_string());
    Ok(Place {
        kvnode: ["--tls", "--tls-verify", "none", "--tls-cert", &cert, "--tls-key", &key]
            .map(str::to_owned)
            .to_vec(),
        erl: format!("-proto_dist inet_tls -ssl_dist_optfile {}", options.display()),
        ..Place::default()
    })
}
