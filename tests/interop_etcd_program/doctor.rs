//! `kvnode doctor --etcd`: what is as it should be, and what is not, with real etcds.

use super::support::otp::Otp;
use super::support::person::{Person, Said};
use super::support::tls::Ca;
use super::support::{BeamNode, Epmd, EtcdCluster, wait_until};
use super::{call, serve};

/// The lines of a report with these marks, `ok`, `note` or `FAIL`, and this check.
fn lines<'a>(text: &'a str, mark: &str, check: &str) -> Vec<&'a str> {
    let begin = format!("{mark:<4}  {check:<10} ");
    text.lines().filter_map(|line| line.strip_prefix(begin.as_str())).collect()
}

/// The doctor's report of this etcd.
fn report(person: &Person<'_>, cluster: &EtcdCluster, more: &[&str]) -> Said {
    let etcd = cluster.endpoints().join(",");
    person.types(&[&["doctor", "--etcd", &etcd][..], more].concat())
}

/// What does not depend on how fast the machine is that tests.
#[track_caller]
fn fails(said: &Said, check: &str, parts: &[&str]) {
    let text = said.text();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains(check), "{said:?}");
    assert!(!lines(&text, "FAIL", check).is_empty(), "{check} is not FAIL in {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_good_etcd_is_shown_with_its_members_its_speed_its_size_its_history_and_the_holders_of_its_stores() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = serve(&epmd, &cluster, "a", "--etcd-compact 1s");
    beam.ping(node.name());
    let put = call(&node, "{:put, key, key}");
    beam.check(&format!("for key <- 1..300, uniq: true, do: {put}"), "[:ok]");
    let person = Person::new(&epmd);
    wait_until("the history is compacted", || {
        let text = report(&person, &cluster, &[]).text();
        lines(&text, "ok", "history")
            .iter()
            .any(|line| line.contains(&format!("{} has compacted up to", node.name())))
    });
    let said = report(&person, &cluster, &[]);
    let text = said.text();
    let members = lines(&text, "ok", "member");
    assert_eq!(members.len(), 3, "{text}");
    for (at, line) in members.iter().enumerate() {
        let begin = format!("{} is etcd 3.", cluster.endpoint(at));
        assert!(line.starts_with(&begin), "{text}");
        assert_eq!(line.contains(", leads, term "), at == cluster.leader(), "{text}");
    }
    let quorum = "3 of 3 members with a vote answer, and 2 are needed: 1 may fail";
    assert_eq!(lines(&text, "ok", "quorum"), [quorum], "{text}");
    assert_eq!(lines(&text, "ok", "alarms"), ["none"]);
    assert_eq!(lines(&text, "note", "auth"), ["authentication is off"]);
    let sizes = lines(&text, "ok", "size");
    assert_eq!(sizes.iter().filter(|line| line.contains(" of 2.0 GiB (0%), ")).count(), 3, "{text}");
    assert!(lines(&text, "ok", "clock")[0].contains(&cluster.endpoint(cluster.leader())), "{text}");
    assert_eq!(lines(&text, "ok", "store"), [format!("global:kv: its names are held by {}", node.name())]);
    for check in ["write", "read"] {
        let any = ["ok", "note", "FAIL"].map(|mark| lines(&text, mark, check)).concat();
        assert!(
            any.len() == 1 && any[0].contains(" ms, at worst ") && any[0].contains(" most members"),
            "{text}"
        );
    }
    // It leaves nothing behind, and takes part in nothing.
    assert_eq!(cluster.ctl(&["get", "kvnode/doctor", "--prefix", "--keys-only"]).trim(), "");
    let json = report(&person, &cluster, &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    let checks = json["checks"].as_array().expect("a list");
    assert!(
        checks
            .iter()
            .any(|check| check["check"] == "quorum" && check["ok"] == true && check["found"] == quorum),
        "{json}"
    );
    // A node and its etcd at once.
    let both = report(&person, &cluster, &[node.name()]).text();
    assert!(both.contains("ok    handshake ") && both.contains("ok    quorum "), "{both}");

    let leader = cluster.leader();
    cluster.kill(leader);
    wait_until("another leads", || {
        let said = report(&person, &cluster, &[]);
        let text = said.text();
        text.contains(", leads, term ") && text.contains("quorum")
    });
    let said = report(&person, &cluster, &[]);
    let gone = cluster.endpoint(leader);
    fails(
        &said,
        "member",
        &[&format!("{gone} does not answer"), "Connection refused", "nothing listens there"],
    );
    fails(&said, "quorum", &["2 of 3 members", "no further one may fail"]);
    let other = (0..3).find(|at| *at != leader).expect("there are three");
    cluster.kill(other);
    wait_until("none leads", || {
        let said = report(&person, &cluster, &[]);
        said.text().contains("answers, and has no leader")
    });
    fails(&report(&person, &cluster, &[]), "member", &["--listen-peer-urls"]);
}

#[test]
fn a_user_that_is_wrong_or_has_no_rights_is_told_what_it_lacks() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(1));
    let person = Person::new(&epmd);
    let file = |name: &str, text: &str| {
        let path = person.home.path().join(name);
        std::fs::write(&path, text).expect("it is ours");
        path.display().to_string()
    };
    let (right, wrong) = (file("right", "geheim\n"), file("wrong", "falsch\n"));
    let user = |name: &'static str, file: &str| {
        ["--etcd-user".to_owned(), name.to_owned(), "--etcd-password-file".to_owned(), file.to_owned()]
    };
    let with = |cluster: &EtcdCluster, flags: &[String]| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let said = report(&person, cluster, &flags);
        assert!(!said.text().contains("geheim") && !said.text().contains("falsch"), "{said:?}");
        said
    };
    let off = with(&cluster, &user("kv", &right)).text();
    assert_eq!(
        lines(&off, "note", "auth"),
        ["authentication is off, and the user kv is not asked for"],
        "{off}"
    );
    assert_eq!(lines(&off, "note", "quorum").len(), 1, "{off}");
    for args in [
        &["user", "add", "root:wurzel"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "kv:geheim"],
        &["user", "add", "reads:geheim"],
        &["user", "add", "none:geheim"],
        &["role", "add", "kv"],
        &["role", "grant-permission", "kv", "--prefix=true", "readwrite", "kvnode/"],
        &["role", "add", "reads"],
        &["role", "grant-permission", "reads", "--prefix=true", "read", "kvnode/"],
        &["user", "grant-role", "kv", "kv"],
        &["user", "grant-role", "reads", "reads"],
        &["auth", "enable"],
    ] {
        cluster.ctl(args);
    }
    cluster.set_ctl_flags(&["--user=root:wurzel"]);
    fails(&with(&cluster, &[]), "auth", &["authentication is on, and there is no user", "--etcd-user"]);
    fails(&with(&cluster, &user("kv", &wrong)), "auth", &["does not know the user kv with this password"]);
    let grant =
        "grant-permission kvnode --prefix=true readwrite kvnode/; etcdctl user grant-role none kvnode";
    fails(
        &with(&cluster, &user("none", &right)),
        "auth",
        &["the user none may not read below kvnode/", grant],
    );
    fails(&with(&cluster, &user("reads", &right)), "write", &["the user reads may not write below kvnode/"]);
    let good = with(&cluster, &user("kv", &right)).text();
    assert_eq!(
        lines(&good, "ok", "auth"),
        ["authentication is on, and the user kv may read below kvnode/"],
        "{good}"
    );
    let write = ["ok", "note", "FAIL"].map(|mark| lines(&good, mark, "write")).concat();
    assert!(write[0].contains("synced by most members"), "{good}");
}

#[test]
fn an_etcd_that_is_full_says_so_and_what_helps() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start_with(1, &["--quota-backend-bytes", "4000000"]));
    let person = Person::new(&epmd);
    let etcd =
        kvnode::etcd::Etcd::connect(kvnode::etcd::Config::new(cluster.endpoints())).expect("it is right");
    let value = vec![b'v'; 500_000];
    let full = (0..40).find_map(|_| {
        let put = kvnode::etcd::message::PutRequest {
            key: "x".into(),
            value: value.clone().into(),
            ..Default::default()
        };
        kvnode::block_on(etcd.call(&put)).err()
    });
    assert_eq!(full, Some(kvnode::etcd::Error::NoSpace));
    let said = report(&person, &cluster, &[]);
    fails(
        &said,
        "alarms",
        &[&format!("NOSPACE: the file of {}", cluster.endpoint(0)), "etcdctl alarm disarm"],
    );
    fails(&said, "write", &["there is no space", "see the alarms above"]);
    fails(&said, "size", &[" of 3.8 MiB (", "takes no more writes"]);
    assert!(said.stderr.contains("etcd: alarms and write and "), "{said:?}");
}

#[test]
fn tls_is_verified_and_the_end_of_certificates_is_told() {
    let otp = Otp::usual();
    let ca = Ca::new("ca");
    let server = ca.files(&otp, "localhost");
    let path = |name: &str| server.path(name).display().to_string();
    let (cert, key, ca_file) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let flags =
        ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca_file, "--client-cert-auth"];
    let ctl = [format!("--cert={cert}"), format!("--key={key}"), format!("--cacert={ca_file}")];
    let ctl: Vec<&str> = ctl.iter().map(String::as_str).chain(["--insecure-skip-tls-verify"]).collect();
    let cluster = EtcdCluster::start_as(1, "https", &flags, &ctl);
    let client = ca.files(&otp, "client");
    let own = |name: &str| client.path(name).display().to_string();
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let by_name = cluster.endpoint(0).replace("127.0.0.1", "localhost");
    let with = |etcd: &str, flags: &[&str]| person.types(&[&["doctor", "--etcd", etcd][..], flags].concat());
    let (own_cert, own_key) = (own("cert.pem"), own("key.pem"));
    let whole = ["--etcd-ca", &ca_file, "--etcd-cert", &own_cert, "--etcd-key", &own_key];
    let text = with(&by_name, &whole).text();
    let tls = lines(&text, "ok", "tls");
    assert_eq!(tls.len(), 2, "{text}");
    assert!(
        tls[0].starts_with(&format!("{by_name} is verified by --etcd-ca; its certificate ends in ")),
        "{text}"
    );
    assert!(tls[1].starts_with("the own certificate, --etcd-cert, ends in "), "{text}");
    assert_eq!(lines(&text, "ok", "auth").len(), 1, "{text}");
    assert!(
        lines(&text, "ok", "clock")[0].contains("agrees with ours") && text.contains(" of 2.0 GiB (0%)"),
        "{text}"
    );
    fails(&with(&by_name, &whole[..2]), "member", &["it wants a certificate of its clients"]);
    fails(&with(&cluster.endpoint(0), &whole), "member", &["does not have this host name in it"]);
    let other_files = Ca::new("other").files(&otp, "client");
    let other = other_files.path("ca.pem").display().to_string();
    fails(&with(&by_name, &["--etcd-ca", &other]), "member", &["is not signed by --etcd-ca"]);
    fails(
        &with(&by_name.replace("https", "http"), &[]),
        "member",
        &["http:// and https:// are not mixed up"],
    );
    let nothing = with("https://localhost:1", &[]);
    assert_eq!(nothing.code, 2, "{nothing:?}");
    assert!(nothing.stderr.contains("--etcd-ca"), "{nothing:?}");
}
