//! Clients that are no BEAM: `erl_call`, and a Java program with Jinterface.

#![cfg(feature = "program")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use kvnode::config::Limits;
use support::scripted::Scripted;
use support::wait::PATIENCE;
use support::{Epmd, KvNode, Otp, Running, at_host, on_every_otp};

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

/// `erl_call -a` of this version.
#[track_caller]
fn erl_call(otp: &Otp, epmd: &Epmd, arguments: &[&str]) -> String {
    let mut command = otp.command("erl_call");
    command.env("ERL_EPMD_PORT", epmd.port().to_string());
    command.args(["-sname", "kv", "-c", support::COOKIE]).args(arguments);
    text(&command.output().expect("erl_call can be started"))
}

#[test]
fn a_client_that_comes_again_at_once_is_not_told_that_it_is_connected() {
    // As erl_call does it: each run has the same name, and may come before the end of the last one has been read.
    let epmd = Epmd::start();
    // As long as the test is patient: what is tested is the wait, not its length.
    let limits = Limits::default().with_reconnect_pause(PATIENCE);
    let _node = Running::start_with(&epmd, "kv", limits);
    let (kv, port) = (at_host("kv"), epmd.port_of("kv").expect("it is registered"));
    let mut client = Scripted::connect(port, "again@h", &kv);
    for round in 0..300 {
        client =
            Scripted::connect_after(client, port, &kv).unwrap_or_else(|error| panic!("{round}: {error:?}"));
    }
}

#[test]
fn erl_call_pings_puts_and_gets() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let call = |apply: &str| erl_call(otp, &epmd, &["-a", apply]);
        assert_eq!(call("erlang node"), kv.name());
        let ping = call(&format!("net_adm ping ['{}']", kv.name()));
        assert_eq!(ping, "pong");
        assert_eq!(call("Elixir.KeyValueStore put [key,{a,[1,2,3]}]"), "ok");
        assert_eq!(call("Elixir.KeyValueStore get [key]"), "{a, [1, 2, 3]}");
        assert_eq!(call("Elixir.GenServer call ['Elixir.KeyValueStore',{delete,key}]"), "ok");
        assert_eq!(call("Elixir.KeyValueStore get [key]"), "nil");
        let refused = call("os cmd [\"id\"]");
        assert!(refused.starts_with("{badrpc, {'EXIT', {undef, [{os, cmd, "), "{refused}");
        // Once more after all that.
        assert_eq!(call("erlang node"), kv.name());
    });
}

#[test]
fn a_java_program_pings_puts_and_gets() {
    const JAR: &str = "/usr/share/java/OtpErlang.jar";
    // Either name may be Eclipse's compiler: it does without a JDK, and Debian registers it as `javac` too where there is
    // none. Its default level of the source takes neither varargs nor `20_000`, so that the level is always said.
    const COMPILERS: [&str; 2] = ["javac", "ecj"];
    const LEVEL: [&str; 5] = ["-proc:none", "-source", "11", "-target", "11"];
    let there = |compiler: &&&str| {
        Command::new(compiler).arg("-version").output().is_ok_and(|output| output.status.success())
    };
    let Some(compiler) = COMPILERS.iter().find(there).filter(|_| Path::new(JAR).exists()) else {
        let how = "apt-get install erlang-jinterface ecj";
        assert!(std::env::var_os("KVNODE_REQUIRE_JAVA").is_none(), "no Java compiler or no {JAR}: {how}");
        eprintln!("left out, as there is no Java compiler or no {JAR}: {how}");
        return;
    };
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    // Compiled rather than run from its source: Java before 11 knows no other way.
    let classes = tempfile::tempdir().expect("a folder can be made");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/Client.java");
    let compiled = Command::new(compiler)
        .args(LEVEL)
        .arg("-cp")
        .arg(JAR)
        .arg("-d")
        .arg(classes.path())
        .arg(source)
        .output();
    text(&compiled.expect("the compiler can be started"));
    let mut java = Command::new("java");
    java.env("ERL_EPMD_PORT", epmd.port().to_string());
    java.arg("-cp").arg(format!("{JAR}:{}", classes.path().display())).arg("Client");
    java.args([&at_host("java"), kv.name(), support::COOKIE]);
    let said = text(&java.output().expect("java can be started"));
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), 6, "{said:?}");
    assert_eq!(said[..2], ["ping true", "put ok"]);
    assert_eq!(said[2], "get {a,1099511627776}");
    assert_eq!(said[3..5], ["rpc ok", "rpc rpc"]);
    assert!(said[5].starts_with("rpc {badrpc,{'EXIT',{undef,[{os,cmd,"), "{said:?}");
}
