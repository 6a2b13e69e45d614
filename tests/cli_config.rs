//! Settings from a file, the environment and flags: which wins, what is refused, and what `kvnode config` says of it.

#![cfg(feature = "program")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::kvnode::program;
use support::{Epmd, KvNode};

/// A folder with a configuration file, which is HOME too.
struct Place(tempfile::TempDir);

impl Place {
    fn with(file: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        fs::write(folder.path().join("kvnode.toml"), file).expect("it is ours");
        fs::set_permissions(folder.path().join("kvnode.toml"), fs::Permissions::from_mode(0o600))
            .expect("ours");
        Self(folder)
    }

    fn home(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> PathBuf {
        self.home().join("kvnode.toml")
    }

    /// `kvnode config` with the file, these flags and these variables: exit code, stdout, stderr.
    fn config(&self, flags: &str, variables: &[(&str, &str)]) -> (i32, String, String) {
        let mut command = Command::new(program());
        command.arg("config").args(flags.split_whitespace()).stdin(Stdio::null()).current_dir(self.home());
        command.env_clear().env("HOME", self.home()).envs(variables.iter().copied());
        if !flags.contains("--config") && !variables.iter().any(|(name, _)| *name == "KVNODE_CONFIG") {
            command.arg("--config").arg("kvnode.toml");
        }
        let output = command.output().expect("it was built");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn refused(&self, flags: &str, variables: &[(&str, &str)], parts: &[&str]) -> String {
        let (code, stdout, stderr) = self.config(flags, variables);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{part:?} is not in {stderr:?}");
        }
        stderr
    }
}

/// The value of a setting in what `kvnode config` prints, and where it comes from.
#[track_caller]
fn setting(shown: &str, key: &str) -> (String, String) {
    let line = shown.lines().find(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
    let line = line.unwrap_or_else(|| panic!("{key} is not in\n{shown}"));
    let (value, origin) =
        line.split_once(" = ").expect("it was found by that").1.rsplit_once(" # ").expect("a place");
    (value.trim().to_owned(), origin.to_owned())
}

const FILE: &str = r#"
sname = "fromfile@h"
connect = ["one@h", "two@h"]
net-ticktime = 7
frame-bytes-max = "1MiB"
no-epmd-start = true
log = "warn"
store = "global:a,local:b"
"#;

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::with(FILE);
    let variables = [
        ("KVNODE_NET_TICKTIME", "8"),
        ("KVNODE_LOG", "debug"),
        ("KVNODE_CONNECT", "three@h four@h"),
        ("KVNODE_NO_EPMD_START", "false"),
    ];
    let (code, shown, stderr) = place.config("--log error", &variables);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let from = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(setting(&shown, "log"), from("\"error\"", "--log"));
    assert_eq!(setting(&shown, "net-ticktime"), from("8", "KVNODE_NET_TICKTIME"));
    assert_eq!(setting(&shown, "connect"), from("[\"three@h\", \"four@h\"]", "KVNODE_CONNECT"));
    assert_eq!(setting(&shown, "no-epmd-start"), from("false", "KVNODE_NO_EPMD_START"));
    assert_eq!(setting(&shown, "frame-bytes-max"), from("\"1MiB\"", "kvnode.toml"));
    assert_eq!(setting(&shown, "sname"), from("\"fromfile@h\"", "kvnode.toml"));
    assert_eq!(setting(&shown, "bind"), from("(not set)", "default"));
    assert_eq!(setting(&shown, "dist-port"), from("0", "default"));
}

#[test]
fn what_a_stronger_place_says_leaves_nothing_of_its_rivals() {
    let place = Place::with(FILE);
    let (_, shown, _) = place.config("--name other@h.example.org --connect x@y.z --global c", &[]);
    assert_eq!(setting(&shown, "sname"), ("(not set)".into(), "default".into()), "excluded by --name");
    assert_eq!(setting(&shown, "store"), ("(not set)".into(), "default".into()), "a group with --global");
    assert_eq!(setting(&shown, "global"), ("[\"c\"]".into(), "--global".into()));
    let (_, shown, _) = Place::with("sname = 'a@h'\nlog-format = 'json'").config("--log debug", &[]);
    assert_eq!(setting(&shown, "log-format").0, "\"json\"", "defined beside --log, and another thing");
    let (_, shown, _) =
        place.config("", &[("KVNODE_NAME", "x@h.example.org"), ("KVNODE_CONNECT", "a@h.example.org")]);
    assert_eq!(setting(&shown, "name").1, "KVNODE_NAME");
    assert_eq!(setting(&shown, "sname").1, "default");
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let first = Place::with(FILE);
    let (code, shown, _) = first.config("--global x --global y --memory-max 3GiB", &[]);
    assert_eq!(code, 0);
    let second = Place::with(&shown);
    let (code, again, stderr) = second.config("", &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(|line| line.split(" # ").next().expect("a first part").trim().to_owned()).collect()
    };
    assert_eq!(values(&shown), values(&again));
    assert!(values(&shown).contains(&"global = [\"x\", \"y\"]".to_owned()), "{shown}");
}

#[test]
fn what_nobody_has_set_is_shown_as_it_holds() {
    let place = Place::with("sname = 'a@h'\ndata-dir = 'kept'\n");
    let (_, shown, _) = place.config("", &[]);
    for (key, value) in [
        ("sync", "\"always\""),
        ("slave-buffer", "\"64MiB\""),
        ("frame-bytes-max", "\"160MiB\""),
        ("unfinished-bytes-max", "\"1GiB\""),
        ("store", "[\"global:a,local:KeyValueStore\"]"),
    ] {
        assert_eq!(setting(&shown, key), (value.to_owned(), "default".to_owned()));
    }
    assert!(!shown.contains("help"), "{shown}");
    for heading in ["This node", "Stores", "Network", "TLS", "Output"] {
        assert_eq!(shown.matches(&format!("\n# {heading}\n")).count(), 1, "{heading}: {shown}");
    }
    // Written without its marks it is a file that says the same.
    let whole: Vec<&str> = shown
        .lines()
        .filter(|line| !line.contains("(not set)") && !line.contains("cookie"))
        .map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line))
        .collect();
    let (code, again, stderr) = Place::with(&whole.join("\n")).config("", &[]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{whole:?}");
    assert_eq!(setting(&again, "store").0, setting(&shown, "store").0);
    assert_eq!(setting(&again, "sync").0, "\"always\"");
}

#[test]
fn a_cluster_without_epmd_can_stand_in_the_file_and_the_environment() {
    let place = Place::with("sname = 'a@h'\nepmd = 'none'\ndist-port = 4370\nconnect = ['b@h:4371']\n");
    let (code, shown, stderr) = place.config("", &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(setting(&shown, "epmd"), ("\"none\"".into(), "kvnode.toml".into()));
    assert_eq!(setting(&shown, "connect").0, "[\"b@h:4371\"]");
    let (_, shown, _) = place.config("--epmd use", &[("KVNODE_EPMD", "none")]);
    assert_eq!(setting(&shown, "epmd"), ("\"use\"".into(), "--epmd".into()));
    let (_, shown, _) = Place::with("sname = 'a@h'").config("", &[]);
    assert_eq!(setting(&shown, "epmd"), ("\"use\"".into(), "default".into()));
    let none = [("KVNODE_EPMD", "none")];
    Place::with("sname = 'a@h'").refused("", &none, &["KVNODE_EPMD: --epmd none", "--dist-port 4370"]);
    Place::with("sname = 'a@h'\nepmd = 'nine'").refused("", &[], &["kvnode.toml", "--epmd"]);
    Place::with("sname = 'a@h'\nconnect = ['b@h:0']").refused("", &[], &["kvnode.toml: --connect b@h:0"]);
}

#[test]
fn a_file_may_say_what_a_flag_needs() {
    let place = Place::with("sname = \"a@h\"\ntls = true\ntls-ca = \"ca.pem\"\n");
    let (code, shown, stderr) = place.config("--tls-cert node.pem", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(setting(&shown, "tls"), ("true".into(), "kvnode.toml".into()));
    assert_eq!(setting(&shown, "tls-cert"), ("\"node.pem\"".into(), "--tls-cert".into()));
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    for (key, meant) in [
        ("net-tick-time = 3", "net-ticktime was meant?"),
        ("net_ticktime = 3", "net-ticktime was meant?"),
        ("slaves = [\"global:a\"]", "slave was meant?"),
        ("cokie = \"TOPSECRET\"", "cookie was meant?"),
        ("zzz = 1", "`kvnode --help` lists"),
        ("config = \"other.toml\"", "is no setting"),
    ] {
        let stderr = Place::with(key).refused("--sname a@h", &[], &["kvnode.toml", meant]);
        assert!(!stderr.contains("TOPSECRET"), "{stderr}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_the_place_that_it_stands_in() {
    for (file, parts) in [
        ("log = \"loud\"", ["kvnode.toml", "--log"]),
        ("net-ticktime = 0", ["kvnode.toml", "--net-ticktime"]),
        ("tls = \"yes\"", ["kvnode.toml: tls", "true or false"]),
        ("net-ticktime = [1, 2]", ["kvnode.toml: net-ticktime", "not a list"]),
        ("net-ticktime = 1.5", ["kvnode.toml: net-ticktime", "number"]),
        ("slave = [\"b\"]", ["kvnode.toml: --slave b", "global:slave1"]),
        ("[section]\nx = 1", ["kvnode.toml", "\"section\" is no setting"]),
        ("log = 'warn'\nlog = 'info'", ["kvnode.toml: line 2, column 1", "duplicate key"]),
    ] {
        Place::with(file).refused("--sname a@h", &[], &parts);
    }
    let place = Place::with("");
    Place::with("sname = 'a@h'\nname = 'a@h.example.org'").refused("", &[], &["kvnode.toml: name and sname"]);
    let both = [("KVNODE_SNAME", "a@h"), ("KVNODE_NAME", "a@h.example.org")];
    place.refused("", &both, &["the environment: KVNODE_SNAME and KVNODE_NAME"]);
    place.refused("--sname a@h", &[("KVNODE_LOG", "loud")], &["KVNODE_LOG", "loud"]);
    place.refused("--sname a@h", &[("KVNODE_TLS", "maybe")], &["KVNODE_TLS", "true or false"]);
    place.refused("--sname a@h", &[("KVNODE_SLAVE", "b")], &["KVNODE_SLAVE: --slave b"]);
    let (code, _, stderr) = place.config("--sname a@h --config nothing.toml", &[]);
    assert!(code == 1 && stderr.contains("--config nothing.toml: cannot be read"), "{stderr}");
}

#[test]
fn the_cookie_is_never_shown_and_its_file_is_for_the_owner() {
    let place = Place::with("sname = 'a@h'\ncookie = 'TOPSECRET'\n");
    let (code, shown, _) = place.config("", &[]);
    assert!(
        code == 0 && shown.contains("# cookie: from kvnode.toml\n") && !shown.contains("TOPSECRET"),
        "{shown}"
    );
    let (_, shown, _) = place.config("", &[("KVNODE_COOKIE", "TOPSECRET")]);
    assert!(shown.contains("# cookie: from KVNODE_COOKIE\n") && !shown.contains("TOPSECRET"), "{shown}");
    let (_, shown, _) = Place::with("sname = 'a@h'").config("", &[]);
    assert!(shown.contains("# cookie: from a file that is made when a node starts\n"), "{shown}");
    // A text that does not end: the parser's own message would show the line.
    let stderr = Place::with("cookie = 'TOPSECRET\n").refused("--sname a@h", &[], &["line 1"]);
    assert!(!stderr.contains("TOPSECRET"), "{stderr}");
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o640)).expect("it is ours");
    let stderr = place.refused("", &[], &["chmod 600"]);
    assert!(!stderr.contains("TOPSECRET"), "{stderr}");
}

#[test]
fn a_node_runs_by_its_file_and_warns_of_variables_that_are_nearly_known() {
    let epmd = Epmd::start();
    let place = Place::with("global = ['one', 'two']\nlog-format = 'json'\ncookie = 'TOPSECRET'\n");
    let node = KvNode::start_with(&epmd, "configured", "--cookie x", |command| {
        // What `start_with` types wins.
        command.env("KVNODE_CONFIG", place.file()).env("KVNODE_SNMAE", "b").env("KVNODE_BIND", "127.0.0.1");
    });
    let banner = node.banner();
    assert!(banner.contains("{:global, :one}") && banner.contains("{:global, :two}"), "{banner}");
    assert!(
        banner.contains("listens   127.0.0.1:") && banner.contains("cookie    from --cookie"),
        "{banner}"
    );
    let line = node.wait_for_log(&["KVNODE_SNMAE"]);
    assert!(line.starts_with('{') && line.contains("KVNODE_SNAME was meant?"), "{line}");
    // Other commands are not touched by what a node's settings are.
    let mut command = Command::new(program());
    command.args(["epmd", "--names"]).env("KVNODE_LOG", "loud").env("KVNODE_CONFIG", "/nowhere");
    let output = command.env("ERL_EPMD_PORT", epmd.port().to_string()).output().expect("it was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
