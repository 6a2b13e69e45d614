//! Each verdict at its bounds.

use super::*;

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Good(_) => "good",
        Note(..) => "note",
        Bad(..) => "bad",
    }
}

/// All that is said.
fn text(verdict: &Verdict) -> String {
    match verdict {
        Good(found) => found.clone(),
        Note(found, more) | Bad(found, more) => format!("{found}; {more}"),
    }
}

#[track_caller]
fn says(verdict: &Verdict, expected: &str, parts: &[&str]) {
    let text = text(verdict);
    assert_eq!(kind(verdict), expected, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_member_is_well_unless_it_is_behind() {
    let of = |behind, unapplied| {
        let member_ = Member {
            endpoint: "http://a:1",
            version: "3.4.23",
            leads: behind == 0,
            is_learner: false,
            term: 5,
            index: 70,
            behind,
            unapplied,
        };
        member(&member_)
    };
    assert_eq!(of(0, 0), Good("http://a:1 is etcd 3.4.23, leads, term 5, index 70".to_owned()));
    says(&of(BEHIND_MAX, 0), "good", &["follows"]);
    says(&of(BEHIND_MAX + 1, 0), "bad", &["1001 entries behind", "its disk is slow"]);
    says(&of(0, UNAPPLIED_MAX), "bad", &["5000 entries are not applied"]);
}

#[test]
fn a_silent_member_says_why_and_what_to_do() {
    let away = |reason: &str| {
        silent("https://a:1", &Error::Unavailable { reason: format!("https://a:1: {reason}") })
    };
    for (reason, todo) in [
        ("Connection refused (os error 111)", "nothing listens there"),
        ("failed to lookup address information: Name or service not known", "/etc/hosts"),
        ("cannot connect within 1s", "no firewall"),
        ("https://a:1 has not answered within 1.5s", "its process is stopped"),
        ("invalid peer certificate: UnknownIssuer", "--etcd-ca"),
        ("received fatal alert: CertificateRequired", "--etcd-cert"),
        ("operation was canceled: connection closed", "it wants a certificate of its clients"),
        ("something else", "http:// and https://"),
    ] {
        says(&away(reason), "bad", &["https://a:1 does not answer", reason, todo]);
    }
    says(&silent("http://a:1", &Error::LeaderLost), "bad", &["has no leader", "--listen-peer-urls"]);
    let other = Error::OtherCluster { expected: 1, found: 2 };
    says(&silent("http://a:1", &other), "bad", &["another cluster"]);
}

#[test]
fn a_quorum_is_what_most_members_are() {
    says(&quorum(3, 3, 0, &[]), "good", &["3 of 3", "2 are needed", "1 may fail"]);
    says(&quorum(5, 4, 0, &[]), "good", &["1 may fail"]);
    says(&quorum(3, 2, 0, &[]), "bad", &["no further one may fail"]);
    says(&quorum(3, 1, 0, &[]), "bad", &["nothing can be written"]);
    says(&quorum(1, 1, 0, &[]), "note", &["three members"]);
    says(&quorum(4, 4, 0, &[]), "note", &["an odd number"]);
    says(
        &quorum(3, 1, 2, &["http://b:1".to_owned()]),
        "note",
        &["2 of the members are not named", "http://b:1"],
    );
}

#[test]
fn alarms_say_how_they_are_ended() {
    says(&alarm(AlarmKind::NoSpace, "http://a:1"), "bad", &["NOSPACE", "defrag", "disarm"]);
    says(&alarm(AlarmKind::Corrupt, "http://a:1"), "bad", &["CORRUPT", "member remove"]);
}

#[test]
fn a_user_without_rights_is_told_how_it_gets_them() {
    let of = |outcome, user| rights(outcome, user, false, "kvnode/");
    let denied = |text: &str| Err(Error::Denied { text: text.to_owned() });
    says(&of(Ok(Auth::On), Some("kv")), "good", &["the user kv may read below kvnode/"]);
    says(&of(Ok(Auth::NoUser), None), "note", &["authentication is off", "auth enable"]);
    says(&rights(Ok(Auth::NoUser), None, true, "kvnode/"), "good", &["certificate"]);
    says(&of(Ok(Auth::Off), Some("kv")), "note", &["is not asked for"]);
    says(&of(Err(Error::TokenExpired), None), "bad", &["--etcd-user", "KVNODE_ETCD_PASSWORD"]);
    let refused = denied("etcdserver: authentication failed, invalid user ID or password");
    says(&of(refused, Some("kv")), "bad", &["does not know the user kv with this password"]);
    let grant = "grant-permission kvnode --prefix=true readwrite kvnode/; etcdctl user grant-role kv kvnode";
    says(
        &of(denied("etcdserver: permission denied"), Some("kv")),
        "bad",
        &["may not read below kvnode/", grant],
    );
    let written = not_written(&Error::Denied { text: "no".to_owned() }, Some("kv"), "kvnode");
    says(&written, "bad", &["may not write below kvnode/", grant]);
    says(&not_written(&Error::NoSpace, None, "kvnode"), "bad", &["alarms above"]);
}

#[test]
fn writes_and_reads_are_judged_by_their_median() {
    let millis = |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
    says(&writes(&mut millis(&[900, 3, 2])), "good", &["takes 3.0 ms, at worst 900.0 ms, of 3"]);
    says(&writes(&mut millis(&[25])), "note", &["SSD"]);
    says(&writes(&mut millis(&[100])), "bad", &["elected", "SSD"]);
    says(&writes(&mut []), "note", &["none was made"]);
    says(&reads(&mut millis(&[14])), "good", &["confirmed by most members"]);
    says(&reads(&mut millis(&[15])), "note", &["network"]);
    says(&reads(&mut millis(&[100])), "bad", &["network"]);
}

#[test]
fn a_file_is_judged_by_its_bound_and_by_what_a_defragmentation_gives_back() {
    const MIB: u64 = 1 << 20;
    let of =
        |file: u64, used: u64, quota: Option<u64>| size(&Size { endpoint: "http://a:1", file, used, quota });
    says(&of(MIB, MIB / 2, Some(2 << 30)), "good", &["1.0 MiB of 2.0 GiB (0%), 512.0 KiB in use"]);
    says(&of(MIB, MIB, None), "good", &["does not tell", "2.0 GiB unless"]);
    says(&of(60 * MIB, 60 * MIB, Some(100 * MIB)), "note", &["60%"]);
    says(&of(80 * MIB, 70 * MIB, Some(100 * MIB)), "bad", &["80%", "compacted", "--quota-backend-bytes"]);
    says(
        &of(80 * MIB, 40 * MIB, Some(100 * MIB)),
        "bad",
        &["defrag --endpoints http://a:1 gives 40.0 MiB back"],
    );
    says(&of(200 * MIB, 90 * MIB, Some(2 << 30)), "note", &["defrag", "one member after the other"]);
    says(&of(90 * MIB, 9 * MIB, Some(2 << 30)), "good", &[]);
    says(&of(1 << 32, 1 << 32, None), "bad", &["does not tell"]);
}

#[test]
fn a_history_grows_where_nobody_compacts() {
    let of = |oldest, revision, compactor| history(&History { oldest, revision, compactor });
    let by = |secs| Some(Compactor { node: "a@h".to_owned(), revision: 8, age: Duration::from_secs(secs) });
    says(&of(1, 500, None), "good", &["revisions 1 to 500 are kept", "nobody has compacted yet"]);
    says(
        &of(1, HISTORY_MUCH + 1, None),
        "bad",
        &["nobody has ever compacted", "--etcd-compact 5m", "--auto-compaction-retention"],
    );
    says(&of(900, 900 + HISTORY_HUGE - 1, None), "good", &[]);
    says(&of(900, 900 + HISTORY_HUGE, None), "note", &["which are 1000000", "does somebody still compact?"]);
    says(&of(900, 50_000, by(40)), "good", &["a@h has compacted up to 8, 40 s ago"]);
    says(&of(900, 900 + HISTORY_HUGE, by(40)), "note", &["40 s ago"]);
    says(&of(900, 900 + HISTORY_HUGE, by(200_000)), "note", &["2 days ago", "does somebody still compact?"]);
}

#[test]
fn clocks_agree_within_the_second_that_is_said() {
    let of = |secs, before_ms, after_ms| clock("http://a:1", &Clock::Said { secs, before_ms, after_ms });
    says(&of(10, 10_500, 10_600), "good", &["agrees"]);
    says(&of(10, 12_999, 13_000), "good", &[]);
    says(&of(10, 13_000, 13_001), "bad", &["2.0 s off", "NTP"]);
    says(&of(10, 7_000, 7_999), "bad", &["2.0 s off"]);
    says(&of(10, 7_000, 8_000), "good", &[]);
    says(&clock("http://a:1", &Clock::NotSaid("no page".to_owned())), "note", &["not known: no page"]);
}

#[test]
fn a_certificate_is_to_be_renewed_before_its_end_and_no_tls_is_said() {
    const DAY: u64 = 86_400;
    let of = |end: Option<u64>| certificate("its certificate", end, 1000 * DAY);
    says(&of(Some(1030 * DAY)), "good", &["ends in 30 days"]);
    says(&of(Some(1030 * DAY - 1)), "note", &["ends in 29 days", "renew it soon"]);
    says(&of(Some(1007 * DAY - 1)), "bad", &["ends in 6 days"]);
    says(&of(Some(1000 * DAY + 5)), "bad", &["ends today"]);
    says(&of(Some(1000 * DAY)), "bad", &["has ended"]);
    says(&of(None), "note", &["not known"]);
    let plain_ = |endpoints: &[&str]| {
        plain(&endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect::<Vec<_>>())
    };
    for own in ["http://127.0.0.1:2379", "http://localhost", "http://[::1]:7/", "https://far:1"] {
        assert_eq!(plain_(&[own]), None, "{own}");
    }
    let far = plain_(&["https://a", "http://10.0.0.1:2379", "http://b"]).expect("two have none");
    says(&far, "note", &["none to http://10.0.0.1:2379, http://b;", "https://"]);
}

#[test]
fn transactions_are_as_large_as_stores_send_them() {
    says(&transactions(Ok(()), 120), "good", &["120 operations"]);
    says(&transactions(Err(Error::TooManyOperations), 120), "bad", &["fewer than 120", "--max-txn-ops=128"]);
    says(&transactions(Err(Error::LeaderLost), 120), "bad", &["no leader", "members above"]);
}
