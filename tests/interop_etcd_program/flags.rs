//! What is typed wrong is told before anything is opened, and the settings stand in the file and the environment too.

use std::process::{Command, Stdio};

use super::support::kvnode::program;

/// `kvnode config` with these flags and variables: the code, stdout and stderr.
fn config(flags: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let home = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program());
    command.args(["config", "--sname", "a@h"]).args(flags).stdin(Stdio::null()).current_dir(home.path());
    command.env_clear().env("HOME", home.path()).envs(variables.iter().copied());
    let output = command.output().expect("it was built");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const ETCD: [&str; 4] = ["--engine", "etcd", "--etcd", "http://a:1,http://b:2"];

#[test]
fn what_means_nothing_in_etcd_is_refused_with_the_reason() {
    for (flags, parts) in [
        (&["--data-dir", "d"][..], &["--data-dir: stores are kept in one place"][..]),
        (&["--data-dir", "d", "--sync", "never"], &["--sync: with --engine etcd"]),
        (&["--data-dir", "d", "--backup-dir", "b"], &["--backup-dir: ", "kvnode backup --etcd"]),
        (&["--memory-max", "1GiB"], &["--memory-max: ", "--quota-backend-bytes"]),
        (&["--confirm", "1"], &["--confirm: ", "most members of etcd"]),
        (&["--confirm-timeout", "100"], &["--confirm-timeout: ", "no write waits for slaves"]),
        (&["--slave-writes", "forward"], &["--slave-writes: ", "follows no primary"]),
        (&["--etcd", "https://c:3"], &["--etcd https://c:3: ", "--etcd-ca"]),
        (&["--etcd-reads", "stale"], &["--etcd-reads", "'stale'", "one of session, linearizable"]),
        (&["--etcd-prefix", ""], &["--etcd-prefix: it is empty"]),
        (&["--etcd-user", "u"], &["--etcd-user u: the password is missing", "KVNODE_ETCD_PASSWORD"]),
        (&["--etcd-user", "u", "--etcd-password-file", "none"], &["--etcd-password-file none: No such file"]),
        (&["--etcd-cert", "f"], &["--etcd-ca"]),
        (&["--etcd-password-file", "f"], &["--etcd-user"]),
    ] {
        let (code, stdout, stderr) = config(&[&ETCD[..], flags].concat(), &[]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{flags:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{flags:?}: {part:?} is not in {stderr}");
        }
    }
    let (_, _, stderr) = config(&ETCD, &[("KVNODE_DATA_DIR", "d")]);
    assert!(stderr.contains("KVNODE_DATA_DIR: --data-dir: "), "{stderr}");
}

#[test]
fn an_engine_and_what_it_needs_belong_together() {
    for (flags, part) in [
        (&["--engine", "etcd"][..], "--engine etcd: its members are missing"),
        (&["--etcd", "http://a:1"], "--etcd: stores are kept there with --engine etcd alone"),
        (&["--engine", "memory", "--etcd", "http://a:1"], "--etcd: stores are kept there"),
        (&["--engine", "disk"], "--engine disk: the folder is missing; give it by --data-dir"),
        (&["--engine", "memory", "--data-dir", "d"], "--data-dir: stores are kept there with --engine disk"),
        (&["--engine", "paper"], "--engine"),
        (&["--etcd-prefix", "p"], "--etcd"),
        (&["--etcd-reads", "linearizable"], "--etcd"),
        (&["--etcd-compact", "5m"], "--etcd"),
        (&[&ETCD[..], &["--etcd-compact", "5"]].concat(), "--etcd-compact"),
        (&[&ETCD[..], &["--etcd-compact", "10ms"]].concat(), "load their stores anew"),
    ] {
        let (code, _, stderr) = config(flags, &[]);
        assert_eq!(code, Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(part), "{flags:?}: {stderr}");
    }
}

/// A node with these flags, that cannot start: its code, and what it says.
fn node(flags: &[&str]) -> (Option<i32>, String) {
    let mut node = Command::new(program());
    let output = node.args(["--sname", "a@h", "--cookie", "secretsecretsecret"]).args(flags).output();
    let output = output.expect("it was built");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_no_endpoint_is_told_with_its_flag_wherever_one_is_named() {
    for (flags, said) in [
        (
            &["--engine", "etcd", "--etcd", "http://a:1/x"][..],
            "--etcd: \"http://a:1/x\" is no endpoint of etcd: it has a path",
        ),
        (&["--engine", "etcd", "--etcd", "localhost:2379"], "neither http:// nor https://"),
        (&["--elect", "etcd://a:1/x"], "--elect: \"http://a:1/x\" is no endpoint of etcd: it has a path"),
    ] {
        let (code, stderr) = node(flags);
        assert_eq!(code, Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(said), "{flags:?}: {stderr}");
        assert_eq!(config(flags, &[]).0, Some(2), "{flags:?}");
    }
}

#[test]
fn a_file_for_tls_that_is_none_is_told_with_its_own_flag() {
    let (code, stderr) = node(&["--engine", "etcd", "--etcd", "https://a:1", "--etcd-ca", "/dev/null"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--etcd-ca: /dev/null: there is no certificate in it"), "{stderr}");
    let (code, stderr) =
        node(&["--elect", "etcd://a:1", "--etcd-ca", "/nowhere", "--store", "global:kv,local:kv"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--etcd-ca: /nowhere: No such file"), "{stderr}");
}

/// A line of what `kvnode config` prints, without where it comes from.
fn setting<'a>(shown: &'a str, key: &str) -> Option<&'a str> {
    let line = shown.lines().find(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")))?;
    line.split(" # ").next().map(str::trim)
}

#[test]
fn the_settings_stand_in_the_file_and_the_environment_too() {
    let (_, shown, _) = config(&[], &[]);
    assert_eq!(setting(&shown, "# engine"), None);
    assert_eq!(setting(&shown, "engine"), Some("# engine = \"memory\""));
    let (_, shown, _) = config(&["--data-dir", "d"], &[]);
    assert_eq!(setting(&shown, "engine"), Some("# engine = \"disk\""));
    let variables = [
        ("KVNODE_ENGINE", "etcd"),
        ("KVNODE_ETCD", "http://a:1 http://b:2,http://c:3"),
        ("KVNODE_ETCD_USER", "u"),
        ("KVNODE_ETCD_PASSWORD", "geheim"),
    ];
    let (code, shown, stderr) = config(&[], &variables);
    // The variable of the password is none that is mistyped.
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(setting(&shown, "engine"), Some("engine = \"etcd\""));
    assert_eq!(setting(&shown, "etcd"), Some("etcd = [\"http://a:1\", \"http://b:2\", \"http://c:3\"]"));
    assert_eq!(setting(&shown, "etcd-prefix"), Some("# etcd-prefix = \"kvnode\""));
    assert_eq!(setting(&shown, "etcd-compact"), Some("# etcd-compact = \"5m\""));
    let (_, off, _) = config(&ETCD, &[("KVNODE_ETCD_COMPACT", "off")]);
    assert_eq!(setting(&off, "etcd-compact"), Some("etcd-compact = \"off\""));
    assert!(!shown.contains("geheim"), "{shown}");
    assert_eq!(setting(&shown, "etcd-reads"), Some("# etcd-reads = \"session\""));
    let (_, chosen, _) = config(&[], &[&variables[..2], &[("KVNODE_ETCD_READS", "linearizable")]].concat());
    assert_eq!(setting(&chosen, "etcd-reads"), Some("etcd-reads = \"linearizable\""));
    // It is a file that says the same.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kvnode.toml");
    let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with("sname")).collect();
    std::fs::write(&file, lines.join("\n")).expect("it is ours");
    let file = file.display().to_string();
    let (code, again, stderr) = config(&["--config", &file], &[("KVNODE_ETCD_PASSWORD", "geheim")]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for key in ["engine", "etcd", "etcd-user", "etcd-prefix"] {
        assert_eq!(setting(&again, key), setting(&shown, key), "{key}");
    }
}
