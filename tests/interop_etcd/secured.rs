//! Authentication and TLS.

use std::time::Duration;

use kvnode::block_on;
use kvnode::etcd::{Config, Error, Etcd, TlsFiles, User, WatchEvent, WatchOptions};

use super::support::EtcdCluster;
use super::support::otp::Otp;
use super::support::tls::Ca;
use super::{event, get, put, value};

#[test]
fn a_user_has_a_token_and_another_one_when_it_is_not_taken_any_more() {
    let mut cluster = EtcdCluster::start(1);
    let config = Config::new(cluster.endpoints()).with_user(User::new("kv", "geheim"));
    let etcd = Etcd::connect(config.clone()).unwrap();
    let nobody = Etcd::connect(Config::new(cluster.endpoints())).unwrap();
    let wrong = Etcd::connect(config.with_user(User::new("kv", "falsch"))).unwrap();
    // While it is off a user does no harm.
    let revision = block_on(etcd.call(&put("a/1", "before"))).unwrap().header.unwrap().revision;
    for args in [
        &["user", "add", "root:wurzel"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "kv:geheim"],
        &["role", "add", "kv"],
        &["role", "grant-permission", "kv", "--prefix=true", "readwrite", "a/"],
        &["user", "grant-role", "kv", "kv"],
        &["auth", "enable"],
    ] {
        cluster.ctl(args);
    }
    cluster.set_ctl_flags(&["--user=root:wurzel"]);
    assert_eq!(value(&block_on(etcd.call(&get("a/1"))).unwrap()), Some(&b"before"[..]), "asked for by then");
    assert_eq!(block_on(nobody.call(&get("a/1"))), Err(Error::TokenExpired));
    assert!(matches!(block_on(wrong.call(&get("a/1"))), Err(Error::Denied { .. })));
    assert!(matches!(block_on(etcd.call(&put("b", "1"))), Err(Error::Denied { .. })));
    let mut forbidden = etcd.watch(WatchOptions::key("b"));
    let refused = event(&mut forbidden);
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    let mut watch = etcd.watch(WatchOptions::prefix("a/").from_revision(revision));
    assert!(matches!(event(&mut watch), Ok(WatchEvent::Changes(_))));
    // Its tokens are gone with a member that is started again.
    cluster.kill(0);
    cluster.run(0);
    cluster.wait_until_healthy(0);
    assert_eq!(value(&block_on(etcd.call(&get("a/1"))).unwrap()), Some(&b"before"[..]));
    block_on(etcd.call(&put("a/1", "after"))).unwrap();
    let Ok(WatchEvent::Changes(events)) = event(&mut watch) else { panic!("the watch goes on") };
    assert_eq!(events[0].kv.as_ref().unwrap().value, "after");
    assert_eq!(cluster.ctl(&["get", "a/1", "--print-value-only"]).trim(), "after");
}

#[test]
fn both_sides_show_certificates_and_strangers_are_not_believed() {
    let otp = Otp::usual();
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let server = ca.files(&otp, "localhost");
    let path = |name: &str| server.path(name).display().to_string();
    let (cert, key, ca_file) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let flags =
        ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca_file, "--client-cert-auth"];
    let ctl = [format!("--cert={cert}"), format!("--key={key}"), format!("--cacert={ca_file}")];
    let ctl: Vec<&str> = ctl.iter().map(String::as_str).chain(["--insecure-skip-tls-verify"]).collect();
    let cluster = EtcdCluster::start_as(1, "https", &flags, &ctl);
    let mut config = Config::new([cluster.endpoint(0).replace("127.0.0.1", "localhost")]);
    config.deadline = Duration::from_secs(2);
    assert!(Etcd::connect(config.clone()).is_err(), "https needs a CA");
    let files = |by: &Ca| {
        let files = by.files(&otp, "client");
        let tls = TlsFiles::default().with_ca(server.path("ca.pem"));
        let tls = tls.with_cert(files.path("cert.pem")).with_key(files.path("key.pem"));
        (files, tls)
    };
    let (_kept, tls) = files(&ca);
    config.tls = tls.clone();
    let etcd = Etcd::connect(config.clone()).unwrap();
    block_on(etcd.call(&put("k", "secret"))).unwrap();
    assert_eq!(cluster.ctl(&["get", "k", "--print-value-only"]).trim(), "secret");
    // Without a certificate, with a stranger's, with a stranger as CA, and by a name that is not in the certificate.
    let (_kept, stranger) = files(&other);
    let other_files = other.files(&otp, "localhost");
    let by_address = Config::new([cluster.endpoint(0)]).with_tls(tls.clone()).with_deadline(config.deadline);
    for (what, config) in [
        ("none", config.clone().with_tls(TlsFiles::default().with_ca(server.path("ca.pem")))),
        ("a stranger's", config.clone().with_tls(stranger)),
        ("another CA", config.with_tls(tls.with_ca(other_files.path("ca.pem")))),
        ("another name", by_address),
    ] {
        let refused = block_on(Etcd::connect(config).unwrap().call(&put("k", "v")));
        assert!(refused.is_err(), "{what}: {refused:?}");
    }
    assert_eq!(value(&block_on(etcd.call(&get("k"))).unwrap()), Some(&b"secret"[..]));
}
