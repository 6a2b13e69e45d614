//! The command line as a person meets it: what it takes, what it refuses, and what it says then.

#![cfg(feature = "program")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::kvnode::program;
use support::{Epmd, KvNode, at_host, short_hostname};

/// The program with a HOME of its own and nothing of the environment that it looks at.
fn kvnode(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).env("HOME", home).stdin(Stdio::null());
    for variable in
        ["ERL_EPMD_PORT", "ERL_EPMD_ADDRESS", "XDG_CONFIG_HOME", "NO_COLOR", "ERL_INET_ETC_DIR", "KVNODE_BIN"]
    {
        command.env_remove(variable);
    }
    command
}

/// What a command that ends by itself says.
#[track_caller]
fn says(args: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().expect("a folder can be made");
    let said = ended(kvnode(home.path(), args).output().expect("it was built"));
    assert_eq!(fs::read_dir(home.path()).expect("it is there").count(), 0, "{args:?} left a file behind");
    said
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

/// The command line is refused, on stderr, with all of these in the message.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let (code, stdout, stderr) = says(args);
    assert_eq!(code, 2, "{args:?}: {stderr}");
    assert_eq!(stdout, "", "{args:?}");
    assert!(stderr.starts_with("kvnode: ") || stderr.starts_with("error: "), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: {part:?} is not in {stderr:?}");
    }
}

#[test]
fn help_begins_with_an_example_and_names_every_flag() {
    let (code, stdout, stderr) = says(&["--help"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("$ kvnode --sname slave1 --cookie secret --connect master@myhost"), "{stdout}");
    for flag in [
        "--sname",
        "--name",
        "--cookie",
        "--connect",
        "--global",
        "--local",
        "--store",
        "--slave",
        "--slave-buffer",
        "--dist-port",
        "--bind",
        "--net-ticktime",
        "--log",
        "--frame-bytes-max",
        "--unfinished-bytes-max",
        "--no-epmd-start",
        "epmd",
    ] {
        assert!(stdout.contains(flag), "{flag}");
    }
    let (code, stdout, _) = says(&["epmd", "--help"]);
    assert_eq!(code, 0);
    for flag in ["--daemon", "--port", "--address", "--names", "--kill"] {
        assert!(stdout.contains(flag), "{flag}");
    }
    assert!(!stdout.contains("--detached"), "that one is not for people");
    let short = format!("kvnode {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(says(&["-V"]).1, short);
    let (_, long, _) = says(&["--version"]);
    assert!(long.starts_with(&short) && long.contains("0x2d07df5fbc: EXTENDED_REFERENCES, "), "{long}");
}

#[test]
fn a_node_without_a_name_is_told_how_to_give_one() {
    refused(&[], &["needs a name", "kvnode --sname slave1", "--name slave1@"]);
    refused(&["--sname", "a", "--name", "a@b.c"], &["cannot be used with"]);
}

#[test]
fn names_that_erl_refuses_are_refused_with_the_reason() {
    refused(&["--sname", "a.b@c"], &["--sname a.b@c", "'.'"]);
    refused(&["--sname", "a b"], &["' '"]);
    refused(&["--sname", "é"], &["'é'"]);
    refused(&["--sname", ""], &["nothing stands before the @"]);
    refused(&["--sname", "@h"], &["nothing stands before the @"]);
    refused(&["--sname", "a@b@c"], &["one @"]);
    refused(&["--sname", "a@b.c"], &["\"b.c\" has a dot", "--name"]);
    refused(&["--sname", "a@h h"], &["host name cannot have ' '"]);
    refused(&["--sname", &"a".repeat(300)], &["255 at most"]);
    refused(&["--sname", "undefined"], &["needs its own"]);
    refused(&["--name", "a@b"], &["Hostname b is illegal", "--sname"]);
}

#[test]
fn a_long_name_without_host_needs_a_domain() {
    let home = tempfile::tempdir().expect("a folder can be made");
    let etc = tempfile::tempdir().expect("a folder can be made");
    let named = |resolv_conf: &str| {
        fs::write(etc.path().join("resolv.conf"), resolv_conf).expect("it is ours");
        // A second mistake, so that a good name ends the program as well.
        let mut command = kvnode(home.path(), &["--name", "a", "--connect", "x@y"]);
        ended(command.env("ERL_INET_ETC_DIR", etc.path()).output().expect("it was built")).2
    };
    let host = short_hostname();
    assert!(named("domain example.org\n").contains(&format!("a@{host}.example.org has a long one")));
    if !rustix::system::uname().nodename().to_bytes().contains(&b'.') {
        let message = named("search example.org\n");
        assert!(
            message.contains("can't set a long node name") || message.contains("has a long one"),
            "{message}"
        );
    }
}

#[test]
fn peers_that_could_never_be_talked_to_are_refused() {
    refused(&["--sname", "a", "--connect", "b"], &["--connect b", "name@host"]);
    refused(&["--sname", "a", "--connect", "b@c.d"], &["b@c.d", "long name", "short one"]);
    refused(&["--name", "a@1.2.3.4", "--connect", "b@c"], &["b@c", "short name", "long one"]);
    refused(&["--sname", "a@h", "--connect", "a@h"], &["this node itself"]);
}

#[test]
fn stores_that_make_no_sense_are_refused() {
    refused(&["--sname", "a", "--store", "foo"], &["--store foo", "global:slave1"]);
    refused(&["--sname", "a", "--store", "global:a,"], &["--store"]);
    refused(&["--sname", "a", "--global", ""], &["--global", "empty"]);
    refused(&["--sname", "a", "--local", &"x".repeat(256)], &["255 at most"]);
    refused(&["--sname", "a", "--slave", "b"], &["--slave b", "global:slave1"]);
    refused(&["--sname", "a", "--global", "x", "--store", "local:y,global:x"], &["global:x is given twice"]);
    refused(&["--sname", "a", "--local", "rex"], &["local:rex", "choose another"]);
    refused(&["--sname", "a", "--local", "X", "--local", "Elixir.X"], &["local:Elixir.X is given twice"]);
}

#[test]
fn an_election_that_makes_no_sense_is_refused() {
    let store = ["--store", "global:a,local:a"];
    for (args, parts) in [
        (
            &["--elect", "etcd://h:1", "--store", "global:a"][..],
            &["--elect: the first store needs a global name"][..],
        ),
        (&["--elect", "etcd://h:1", "--store", "local:a"], &["--elect: the first store needs a global name"]),
        (
            &["--elect", "etcd://h:1"],
            &["--elect: the first store needs a global name", "--store global:kv,local:kv"],
        ),
        (
            &["--elect", "etcd://h:1", "--engine", "etcd", "--etcd", "http://h:1", store[0], store[1]],
            &["--elect: with --engine etcd there is no primary"],
        ),
        (
            &["--elect", "ftp://h:1", store[0], store[1]],
            &["--elect ftp://h:1", "--elect etcd://127.0.0.1:2379"],
        ),
        (
            &["--elect", "etcd://h:1", "--slave-writes", "accept", store[0], store[1]],
            &["--slave-writes accept: with --elect"],
        ),
        (&["--elect", "https://h:1", store[0], store[1]], &["--elect https://h:1", "--etcd-ca"]),
        (&["--elect-lossy", store[0], store[1]], &["--elect <URL"]),
        (&["--etcd-prefix", "p"], &["--etcd <URL", "--elect <URL"]),
    ] {
        let args = [&["--sname", "a"], args].concat();
        refused(&args, parts);
    }
}

#[test]
fn values_out_of_range_are_refused() {
    refused(&["--sname", "a", "--log", "loud"], &["loud", "debug"]);
    refused(&["--sname", "a", "--frame-bytes-max", "3x"], &["64MiB"]);
    refused(&["--sname", "a", "--frame-bytes-max", "3"], &["64KiB"]);
    refused(&["--sname", "a", "--net-ticktime", "0"], &["--net-ticktime"]);
    refused(&["--sname", "a", "--bind", "host"], &["--bind"]);
    refused(&["--sname", "a", "--dist-port", "65536"], &["--dist-port"]);
    refused(&["epmd", "--port", "0"], &["--port"]);
    refused(&["epmd", "--names", "--kill"], &["cannot be used with"]);
    refused(&["--sname", "a", "--no-such-flag"], &["--no-such-flag"]);
}

#[test]
fn environment_variables_that_make_no_sense_are_refused() {
    let home = tempfile::tempdir().expect("a folder can be made");
    for (variable, value) in
        [("ERL_EPMD_PORT", "x"), ("ERL_EPMD_PORT", "0"), ("ERL_EPMD_ADDRESS", "1.2.3.4 host")]
    {
        let mut command = kvnode(home.path(), &["--sname", "a"]);
        let (code, _, stderr) = ended(command.env(variable, value).output().expect("it was built"));
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(variable), "{stderr}");
    }
}

/// A cookie that no message may show.
const SECRET: &str = "TOPSECRETCOOKIE";

#[test]
fn a_cookie_is_refused_without_being_shown() {
    refused(&["--sname", "a", "--cookie", ""], &["--cookie", "at least one character"]);
    for bad in [format!("{SECRET}€"), SECRET.repeat(20)] {
        let (code, stdout, stderr) = says(&["--sname", "a", "--cookie", &bad]);
        assert_eq!(code, 2);
        assert!(!stderr.contains(SECRET) && !stdout.contains(SECRET), "{stderr}");
    }
}

#[test]
fn a_cookie_file_is_refused_as_erlang_refuses_it() {
    let cases = [
        (SECRET.to_owned(), 0o440, "must be accessible by its owner only"),
        (SECRET.to_owned(), 0o604, "chmod 400"),
        (String::new(), 0o400, "is empty"),
        (format!("{SECRET}\n{SECRET}"), 0o400, "bad characters"),
    ];
    for (content, mode, reason) in cases {
        let home = tempfile::tempdir().expect("a folder can be made");
        let path = home.path().join(".erlang.cookie");
        fs::write(&path, content).expect("it is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        let (code, _, stderr) = ended(kvnode(home.path(), &["--sname", "a"]).output().expect("it was built"));
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(reason) && stderr.contains(path.to_str().expect("it is text")), "{stderr}");
        assert!(!stderr.contains(SECRET), "{stderr}");
    }
}

#[test]
fn a_cookie_file_is_made_for_the_owner_and_a_beam_reads_it() {
    let (epmd, absent) = (Epmd::start(), Epmd::absent());
    let home = tempfile::tempdir().expect("a folder can be made");
    let mut command = kvnode(home.path(), &["--sname", "cookiemaker", "--no-epmd-start"]);
    command.env("ERL_EPMD_PORT", absent.port().to_string());
    assert_eq!(command.output().expect("it was built").status.code(), Some(1), "there is no epmd");
    let path = home.path().join(".erlang.cookie");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o400);
    let made = fs::read_to_string(&path).expect("it is ours");
    let mut beam = Command::new("erl");
    beam.args(["-noshell", "-sname", "cookiereader", "-start_epmd", "false", "-eval"]);
    beam.arg("io:format(\"~s\", [erlang:get_cookie()]), halt().");
    beam.env("HOME", home.path()).env("ERL_EPMD_PORT", epmd.port().to_string()).env_remove("XDG_CONFIG_HOME");
    assert_eq!(ended(beam.output().expect("Erlang is installed")).1, made);
}

#[test]
fn a_banner_says_all_that_a_caller_needs_and_not_the_cookie() {
    let epmd = Epmd::start();
    let args =
        "--cookie TOPSECRETCOOKIE --local Two --global one --store local:x,global:y --connect other@nohost";
    let node = KvNode::start(&epmd, "bannered", args);
    let banner = node.banner();
    let port = epmd.port_of("bannered").expect("it is registered");
    for part in [
        format!("node      {} (hidden)", at_host("bannered")),
        format!(":{port}\n"),
        format!("epmd      127.0.0.1:{} (was running)", epmd.port()),
        "cookie    from --cookie\n".to_owned(),
        "connects  to other@nohost\n".to_owned(),
        "$ iex --sname master --cookie".to_owned(),
        "iex> Node.ping(:".to_owned(),
    ] {
        assert!(banner.contains(&part), "{part} is not in:\n{banner}");
    }
    assert!(!banner.contains(SECRET) && !node.log().contains(SECRET));
    let stores: Vec<&str> = banner.lines().filter(|line| line.contains("store ")).collect();
    let expected = ["Two", "{:global, :one}", "{:global, :y} and :x"];
    assert_eq!(stores.len(), expected.len(), "{banner}");
    for (line, names) in stores.iter().zip(expected) {
        assert!(
            line.starts_with(&format!("  store     {names} #PID<")),
            "in the order that they were typed: {banner}"
        );
    }
}

#[test]
fn a_node_without_stores_serves_one_under_its_own_name() {
    let epmd = Epmd::start();
    let node = KvNode::start(&epmd, "plain", "--bind 127.0.0.1");
    let banner = node.banner();
    assert!(banner.contains("store     {:global, :plain} and KeyValueStore #PID<"), "{banner}");
    assert!(banner.contains("GenServer.call({:global, :plain}, {:put, :nombre, \"Mafalda\"})"), "{banner}");
    assert!(banner.contains("listens   127.0.0.1:"), "{banner}");
}

#[test]
fn a_name_that_is_taken_ends_the_second_node() {
    let epmd = Epmd::start();
    let _first = KvNode::start(&epmd, "twin", "");
    let second = KvNode::run_to_end(&epmd, "twin", "");
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(second.stdout, "");
    assert!(second.stderr.contains("kvnode: the name \"twin\" is taken"), "{}", second.stderr);
}

#[test]
fn a_port_that_is_taken_ends_the_node() {
    let epmd = Epmd::start();
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = holder.local_addr().expect("it is bound").port();
    let node = KvNode::run_to_end(&epmd, "crowded", &format!("--bind 127.0.0.1 --dist-port {port}"));
    assert_eq!(node.status.code(), Some(1));
    assert!(
        node.stderr.contains(&format!("{port}")) && node.stderr.contains("--dist-port"),
        "{}",
        node.stderr
    );
}

#[test]
fn no_epmd_is_started_where_that_is_not_wanted() {
    let epmd = Epmd::absent();
    let node = KvNode::run_to_end(&epmd, "lonely", "--no-epmd-start");
    assert_eq!(node.status.code(), Some(1));
    assert!(node.stderr.contains("kvnode: no epmd answers at 127.0.0.1:"), "{}", node.stderr);
    assert!(epmd.names().is_none());
}

#[test]
fn without_erlang_a_node_starts_an_epmd_of_its_own_that_outlives_it() {
    let epmd = Epmd::absent();
    let node = KvNode::start_with(&epmd, "alone", "", |command| {
        command.env("PATH", "/nonexistent");
    });
    assert!(node.banner().contains("(started now, kvnode's own)"), "{}", node.banner());
    assert_eq!(epmd.names(), Some(vec!["alone".to_owned()]));
    drop(node);
    epmd.wait_for_name("alone", false);
}

#[test]
fn a_log_that_is_no_terminal_has_no_colours() {
    let epmd = Epmd::start();
    let node = KvNode::start(&epmd, "plainlog", "--log debug --connect nobody@127");
    node.wait_for_log(&["WARN", "nobody@127"]);
    assert!(!node.log().contains('\u{1b}'), "{}", node.log());
}

#[test]
fn a_json_log_is_an_object_on_each_line_and_so_is_what_ends_the_node() {
    let epmd = Epmd::start();
    let node = KvNode::start(&epmd, "jsonlog", "--log-format json --log kvnode=debug --connect nobody@127");
    node.wait_for_log(&["not connected", "nobody@127"]);
    let ended = node.terminate();
    let lines: Vec<serde_json::Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let warned = lines.iter().find(|line| line["peer"] == "nobody@127").expect("it was logged");
    assert_eq!(
        (&warned["level"], &warned["target"]),
        (&"WARN".into(), &"kvnode::node::life::run".into()),
        "{warned}"
    );
    assert!(lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("ending"))));

    let refused = KvNode::run_to_end(&epmd, "jsonlog", "--log-format json --slave x");
    let line: serde_json::Value = serde_json::from_str(&refused.stderr).expect("one line of JSON");
    assert_eq!(refused.status.code(), Some(2));
    assert!(line["message"].as_str().is_some_and(|text| text.contains("--slave x")), "{line}");
}

#[test]
fn a_log_without_lines_is_had_by_part() {
    let epmd = Epmd::start();
    let node = KvNode::start(
        &epmd,
        "quietlog",
        "--log info,kvnode::node=off,kvnode::program=off --connect nobody@127",
    );
    let ended = node.terminate();
    assert_eq!(ended.stderr, "");
}

#[test]
fn what_is_no_port_of_a_node_is_refused() {
    for (node, parts) in [
        ("m@h:0", ["--connect m@h:0: \"0\" is no port", "1 to 65535"]),
        ("m@h:abc", ["\"abc\" is no port", "name@host:4370"]),
        ("m@h:70000", ["\"70000\" is no port", "1 to 65535"]),
        ("m@h:", ["no port stands behind the colon", "leave the colon out"]),
        ("m@1:2:3", ["neither a host nor a host with a port", "name@[::1]:4370"]),
        ("m@[::1:4370", ["stands in brackets", "name@[::1]:4370"]),
        ("m:4370", ["not a node name", "name@host"]),
    ] {
        refused(&["--sname", "a", "--connect", node], &parts);
        refused(&["ping", "--node", node.replace("m:4370", "m@:4370").as_str()], &parts[1..]);
    }
    let twice = ["--sname", "a", "--connect", "m@h:1", "--connect", "m@h:2"];
    refused(&twice, &["--connect m@h", "port 1 and with port 2"]);
}

#[test]
fn without_epmd_a_port_is_asked_for() {
    refused(&["--sname", "a", "--epmd", "none"], &["--epmd none", "--dist-port 4370", "-erl_epmd_port"]);
    refused(&["--sname", "a", "--epmd", "non"], &["--epmd", "none"]);
    refused(&["ping", "--epmd", "none"], &["--node NAME@HOST:PORT"]);
    refused(&["ping", "--epmd", "none", "--node", "m@h"], &["--node m@h", "m@h:PORT", "--dist-port"]);
    refused(&["doctor", "m@h", "--epmd", "none"], &["NODE m@h", "m@h:PORT", "--dist-port"]);
    refused(&["ping", "--dist-port", "4370", "--node", "m@h"], &["--epmd none", "NAME@HOST:PORT"]);
    refused(&["names", "--epmd", "none", "--epmd-only"], &["--epmd-only", "--epmd none"]);
    let home = tempfile::tempdir().expect("a folder can be made");
    for (variables, parts) in [
        (vec![("KVNODE_EPMD", "nothing")], ["KVNODE_EPMD is \"nothing\"", "use or none"]),
        (vec![("KVNODE_EPMD", "none"), ("KVNODE_DIST_PORT", "x")], ["KVNODE_DIST_PORT is \"x\"", "1..65535"]),
    ] {
        let mut command = kvnode(home.path(), &["ping", "--node", "m@h"]);
        let (code, _, stderr) = ended(command.envs(variables).output().expect("it was built"));
        assert!(code == 2 && parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    }
}

#[test]
fn without_epmd_a_port_that_is_taken_ends_the_node_with_what_that_means() {
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = holder.local_addr().expect("it is bound").port();
    let args = format!("--bind 127.0.0.1 --epmd none --dist-port {port}");
    let node = KvNode::run_to_end(&Epmd::absent(), "crowded", &args);
    assert_eq!(node.status.code(), Some(1));
    for part in [&format!("port {port} of 127.0.0.1"), "without epmd all nodes have it", "--bind"] {
        assert!(node.stderr.contains(part), "{part}: {}", node.stderr);
    }
}
