//! TLS with real BEAMs by `-proto_dist inet_tls`: which peers may connect, what passes, and what is said when nothing does.
//!
//! The certificates are of ECDSA, with which OTP 23 chooses the wrong hash in TLS 1.3; those of docs/operations.md are of
//! RSA, and do for it too.

#![cfg(feature = "program")]

mod support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::tls::{Ca, Days, Files};
use support::{BeamNode, BeamOptions, Epmd, KvNode, Otp, on_every_otp, on_every_otp_from, short_hostname};

/// A CA, and the files of one node on this host. Both nodes of a test can have the same.
fn files(otp: &Otp) -> Files {
    Ca::new("test").files(otp, &short_hostname())
}

fn beam(otp: &Otp, epmd: &Epmd, files: &Files) -> BeamNode {
    let beam = BeamNode::start(otp, epmd, BeamOptions::new("beam").erl(&files.erl()));
    beam.run(&format!("kv = :\"kv@{}\"", short_hostname()));
    beam
}

/// Small and large values, both ways, from many callers at once.
#[track_caller]
fn values_pass(beam: &BeamNode) {
    beam.wait_for_global("kv");
    beam.run("pid = :global.whereis_name(:kv)");
    beam.check("GenServer.call(pid, {:put, :small, {1, \"two\", [3.0]}})", ":ok");
    beam.check("GenServer.call(pid, {:get, :small})", "{1, \"two\", [3.0]}");
    // Around the size of a record (2^14), of what a connection keeps for reading, and far past both.
    beam.check(
        "Enum.all?([16_383, 16_384, 16_385, 65_536, 262_143, 5_000_000, 67_108_864], fn size ->
           value = :binary.copy(<<size::32, 7>>, div(size, 5)) <> <<0::size(rem(size, 5))-unit(8)>>
           :ok = GenServer.call(pid, {:put, :large, value}, 60_000)
           GenServer.call(pid, {:get, :large}, 60_000) === value
         end)",
        "true",
    );
    beam.check(
        "1..64
         |> Task.async_stream(
           fn caller ->
             Enum.all?(1..200, fn number ->
               value = :binary.copy(<<caller, number>>, rem(number * 997, 20_000))
               :ok = GenServer.call(pid, {:put, {caller, number}, value}, 60_000)
               GenServer.call(pid, {:get, {caller, number}}, 60_000) === value
             end)
           end,
           max_concurrency: 64, timeout: 120_000)
         |> Enum.all?(&(&1 == {:ok, true}))",
        "true",
    );
    // Quiet, and then again: the connection has gone to a thread of its own and come back.
    beam.check("Process.sleep(2_500); GenServer.call(pid, {:get, :small})", "{1, \"two\", [3.0]}");
}

#[test]
fn a_beam_connects_with_tls_1_2_and_1_3() {
    on_every_otp_from(25, |otp| {
        for versions in ["['tlsv1.2']", "['tlsv1.3']"] {
            let epmd = Epmd::start();
            let files = files(otp);
            files.set_options("verify_peer", versions);
            let kv = KvNode::start(&epmd, "kv", &files.flags());
            let beam = beam(otp, &epmd, &files);
            beam.ping(kv.name());
            values_pass(&beam);
            beam.check("Node.disconnect(kv)", "true");
            kv.wait_for_log(&["peer down", "closed by the peer"]);
            beam.ping(kv.name());
            beam.check("GenServer.call({:global, :kv}, {:get, :small})", "{1, \"two\", [3.0]}");
        }
    });
}

#[test]
fn a_beam_is_connected_to_with_tls_1_2_and_1_3() {
    on_every_otp_from(25, |otp| {
        for versions in ["['tlsv1.2']", "['tlsv1.3']"] {
            let epmd = Epmd::start();
            let files = files(otp);
            files.set_options("verify_peer", versions);
            let beam = beam(otp, &epmd, &files);
            let flags = format!("{} --connect beam@{}", files.flags(), short_hostname());
            let kv = KvNode::start(&epmd, "kv", &flags);
            kv.wait_for_log(&["peer up", "beam@"]);
            values_pass(&beam);
        }
    });
}

#[test]
fn nothing_is_verified_where_nobody_asks_for_it() {
    on_every_otp_from(25, |otp| {
        let epmd = Epmd::start();
        let theirs = Ca::new("theirs").files(otp, "elsewhere");
        theirs.set_options("verify_none", "['tlsv1.2', 'tlsv1.3']");
        let ours = Ca::new("ours").files(otp, "nowhere");
        let beam = beam(otp, &epmd, &theirs);
        let flags = format!("{} --tls-verify none", ours.flags());
        let kv = KvNode::start(&epmd, "kv", &flags);
        beam.ping(kv.name());
        beam.check("Node.disconnect(kv)", "true");
        drop(kv);
        let kv = KvNode::start(&epmd, "kv", &format!("{flags} --connect {}", beam.name()));
        kv.wait_for_log(&["peer up", "beam@"]);
    });
}

#[test]
fn the_options_file_of_a_beam_does_for_kvnode_and_two_kvnodes_replicate() {
    on_every_otp_from(25, |otp| {
        let epmd = Epmd::start();
        let files = files(otp);
        let kv = KvNode::start(&epmd, "kv", &files.optfile_flags());
        let flags = format!("{} --slave global:copy --connect {}", files.optfile_flags(), kv.name());
        let _second = KvNode::start(&epmd, "second", &flags.replace("global:copy", "global:kv"));
        kv.wait_for_log(&["peer up", "second@"]);
        let beam = beam(otp, &epmd, &files);
        beam.ping(kv.name());
        beam.ping(&support::at_host("second"));
        beam.wait_for_global("second");
        beam.check("GenServer.call({:global, :second}, {:put, :a, 1})", ":ok");
        beam.check_soon("GenServer.call({:global, :kv}, {:get, :a})", "1");
    });
}

#[test]
fn who_is_not_trusted_is_refused_and_told_apart() {
    on_every_otp_from(25, |otp| {
        let epmd = Epmd::start();
        let host = short_hostname();
        let ca = Ca::new("ours");
        let ours = ca.files(otp, &host);
        let kv = KvNode::start(&epmd, "kv", &ours.flags());
        let refused = |files: &Files, parts: &[&str]| {
            let mark = kv.log_mark();
            let beam = BeamNode::start(otp, &epmd, BeamOptions::new("stranger").erl(&files.erl()));
            beam.check(&format!("Node.ping(:\"{}\")", kv.name()), ":pang");
            kv.wait_for_log_after(mark, parts);
        };

        let theirs = Ca::new("theirs").files(otp, &host);
        // They take ours; we do not take theirs.
        std::fs::copy(ours.path("ca.pem"), theirs.path("ca.pem")).unwrap();
        refused(&theirs, &["TLS refused", "signed by none of our CAs", "--tls-ca"]);

        let expired = ca.files(otp, &host);
        ca.renew(&expired, &host, Days::Over);
        refused(&expired, &["TLS refused", "has expired"]);

        let nobody = ca.files(otp, &host);
        nobody.set_client_without_certificate();
        refused(&nobody, &["TLS refused", "shown no certificate", "--tls-verify peer-if-given"]);

        // A BEAM does not take ours.
        let other = Ca::new("other").files(otp, &host);
        refused(&other, &["TLS refused", "does not take this node's certificate", "--tls-cert"]);

        // Without TLS.
        let mark = kv.log_mark();
        let plain = BeamNode::start(otp, &epmd, "plain");
        // It takes the answer in TLS for the beginning of a packet, and waits for the rest of it unless it is let go of.
        plain.run(&format!("{{micros, pang}} = :timer.tc(fn -> Node.ping(:\"{}\") end)", kv.name()));
        plain.check("pang == :pang and micros < 5_000_000", "true");
        kv.wait_for_log_after(mark, &["TLS refused", "does not speak TLS", "-proto_dist inet_tls"]);

        // And peers that may come still can.
        let beam = beam(otp, &epmd, &ours);
        beam.ping(kv.name());
        let lenient =
            KvNode::start(&epmd, "lenient", &format!("{} --tls-verify peer-if-given", ours.flags()));
        let guest = BeamNode::start(otp, &epmd, BeamOptions::new("guest").erl(&nobody.erl()));
        guest.ping(lenient.name());
    });
}

#[test]
fn who_is_dialled_must_be_trusted_and_be_the_host() {
    on_every_otp_from(25, |otp| {
        let epmd = Epmd::start();
        let host = short_hostname();
        let ca = Ca::new("ours");
        let ours = ca.files(otp, &host);
        let dials = |files: &Files, flags: &str, parts: &[&str]| {
            let beam = BeamNode::start(otp, &epmd, BeamOptions::new("beam").erl(&files.erl()));
            let kv = KvNode::start(&epmd, "kv", &format!("{flags} --connect {}", beam.name()));
            kv.wait_for_log(parts);
            drop(kv);
            beam.kill(&epmd);
        };
        let other_host = ca.files(otp, "elsewhere");
        dials(
            &other_host,
            &ours.flags(),
            &["not connected", "not for this host but for", "elsewhere", "DNS:HOST"],
        );
        let theirs = Ca::new("theirs").files(otp, &host);
        dials(&theirs, &ours.flags(), &["not connected", "signed by none of our CAs"]);
        ca.renew(&other_host, &host, Days::Over);
        dials(&other_host, &ours.flags(), &["not connected", "has expired"]);
        // They do not take ours: with TLS 1.3 that is said after our side of the handshake has ended.
        for versions in ["['tlsv1.2']", "['tlsv1.3']"] {
            theirs.set_options("verify_peer", versions);
            let half = Ca::new("half").files(otp, &host);
            std::fs::copy(theirs.path("ca.pem"), half.path("ca.pem")).unwrap();
            dials(&theirs, &half.flags(), &["not connected", "take this node's certificate"]);
        }
        // TLS on one side only.
        dials(&ours, "", &["not connected", "speaks TLS, and this node does not", "--tls"]);
        let plain = BeamNode::start(otp, &epmd, "plain");
        let kv = KvNode::start(&epmd, "kv", &format!("{} --connect {}", ours.flags(), plain.name()));
        kv.wait_for_log(&["not connected", "does not speak TLS", "inet_tls"]);
        drop(kv);
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = beam(otp, &epmd, &ours);
        beam.check("Node.ping(kv)", ":pang");
        kv.wait_for_log(&["handshake refused: it speaks TLS", "--tls"]);
    });
}

#[test]
fn who_dials_without_tls_hears_that_it_is_spoken() {
    let otp = Otp::newest();
    let epmd = Epmd::start();
    let files = files(&otp);
    let kv = KvNode::start(&epmd, "kv", &files.flags());
    let hears = "speaks TLS, and this node does not";
    let plain = KvNode::start(&epmd, "plain", &format!("--connect {}", kv.name()));
    plain.wait_for_log(&["not connected", kv.name(), hears, "--tls"]);
    kv.wait_for_log(&["TLS refused", "does not speak TLS"]);
    let got = Command::new(env!("CARGO_BIN_EXE_kvnode"))
        .args(["get", ":a", "--node", "kv", "--cookie", support::COOKIE])
        .env("ERL_EPMD_PORT", epmd.port().to_string())
        .output()
        .expect("it was built");
    let said = String::from_utf8_lossy(&got.stderr);
    assert!(!got.status.success() && said.contains(hears), "{said}");
    // What a stranger sends after its first byte is not in the way of the answer, and neither is its silence.
    let port = epmd.port_of("kv").expect("it is registered");
    for sent in [&[0][..], &[0; 100_000]] {
        let mut stranger = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stranger.write_all(sent).expect("it reads");
        let mut answer = Vec::new();
        stranger.read_to_end(&mut answer).expect("it is closed and not cut off");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 10], "fatal, unexpected_message");
    }
}

#[test]
fn a_hangup_takes_new_certificates_and_keeps_the_old_where_the_new_are_wrong() {
    on_every_otp_from(25, |otp| {
        let epmd = Epmd::start();
        let host = short_hostname();
        let old = Ca::new("old");
        let new = Ca::new("new");
        let ours = old.files(otp, &host);
        let theirs = new.files(otp, &host);
        let kv = KvNode::start(&epmd, "kv", &ours.flags());
        let beam = beam(otp, &epmd, &theirs);
        beam.check("Node.ping(kv)", ":pang");

        // A connection that stands goes on; a new one is looked at with the new files.
        let before = KvNode::start(&epmd, "before", &format!("{} --connect {}", ours.flags(), kv.name()));
        kv.wait_for_log(&["peer up", "before@"]);
        new.renew(&ours, &host, Days::Valid);
        kv.signal(Signal::HUP);
        kv.wait_for_log(&["were read again"]);
        beam.ping(kv.name());

        let mark = kv.log_mark();
        new.renew(&ours, &host, Days::Over);
        kv.signal(Signal::HUP);
        kv.wait_for_log_after(mark, &["ERROR", "those of before stay", "has expired"]);
        beam.check("Node.disconnect(kv)", "true");
        beam.ping(kv.name());
        assert!(!kv.log().contains("peer down peer=before"), "{}", kv.log());
        drop(before);
    });
}

#[test]
fn a_connection_that_ends_here_is_closed_with_a_word() {
    let otp = Otp::newest();
    let epmd = Epmd::start();
    let files = Ca::new("ca").files(&otp, &short_hostname());
    let kv = KvNode::start(&epmd, "kv", &files.flags());
    let port = epmd.port_of("kv").expect("it is registered");
    let mut stranger = Command::new("openssl")
        .args(["s_client", "-state", "-connect", &format!("127.0.0.1:{port}")])
        .args(["-cert".into(), files.path("cert.pem"), "-key".into(), files.path("key.pem")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl can be run");
    // No packet of a handshake: the node closes.
    let mut stdin = stranger.stdin.take().expect("it is piped");
    stdin.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
    let said = stranger.wait_with_output().expect("it is our child");
    drop(stdin);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("read:warning:close notify"), "{said}\n{}", kv.log());
}

#[test]
fn files_that_do_not_do_end_the_start_with_a_line_that_says_what_to_do() {
    let otp = Otp::newest();
    let epmd = Epmd::start();
    let host = short_hostname();
    let ca = Ca::new("ca");
    let files = ca.files(&otp, &host);
    let secret = std::fs::read_to_string(files.path("key.pem")).unwrap();
    let secret = secret.lines().nth(1).expect("a line of the key").to_owned();
    let says = |flags: &str, parts: &[&str]| {
        let ended = KvNode::run_to_end(&epmd, "kv", flags);
        assert!(!ended.status.success(), "{flags}: {}", ended.stdout);
        for part in parts {
            assert!(ended.stderr.contains(part), "{flags}: {part:?} is not in {:?}", ended.stderr);
        }
        assert!(!ended.stderr.contains(&secret), "{}", ended.stderr);
    };
    let other = ca.files(&otp, &host);
    let cert = files.path("cert.pem").display().to_string();
    let key = files.path("key.pem").display().to_string();

    let missing = files.flags().replace("cert.pem", "missing.pem");
    says(&missing, &["missing.pem cannot be read", "look at the path"]);
    // Before anything else is opened.
    let data = files.path("data");
    let on_disk = format!("{missing} --data-dir {}", data.display());
    says(&on_disk, &["missing.pem cannot be read"]);
    assert!(!data.exists(), "a folder of stores was made for a node that could not start");
    says(
        &format!("--tls --tls-cert {cert} --tls-key {}", other.path("key.pem").display()),
        &["is not that of"],
    );
    says(&format!("--tls --tls-cert {cert} --tls-key {key}"), &["--tls-ca", "--tls-verify none"]);
    says(&format!("--tls --tls-cert {key} --tls-key {key}"), &["holds no certificate"]);
    let alone = KvNode::run_to_end(&epmd, "kv", &format!("--tls --tls-cert {cert}"));
    assert!(alone.stderr.contains("holds no private key"), "{}", alone.stderr);
    says("--tls", &["--tls-cert", "--tls-optfile"]);
    says(&format!("--tls-cert {cert}"), &["--tls"]);
    for (days, said) in [(Days::Over, "has expired"), (Days::ToCome, "is not valid yet")] {
        ca.renew(&other, &host, days);
        says(&other.flags(), &[said]);
    }
    files.write(
        "key.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    says(&files.flags(), &["is encrypted", "openssl pkey"]);
    files.write("tls.conf", "[{server,\n [{certfile, os:getenv(\"CERT\")}]}].\n");
    says(&files.optfile_flags(), &["kvnode.conf, line 2", "called as a function"]);
}

#[test]
fn what_the_docs_say_of_tls_works_when_it_is_pasted() {
    const OPERATIONS: &str = include_str!("../docs/operations.md");
    let section =
        OPERATIONS.split("\n## TLS\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let block = |kind: &str| {
        let block = section.split(&format!("```{kind}\n")).nth(1).and_then(|rest| rest.split("```").next());
        block.unwrap_or_else(|| panic!("a block of {kind}"))
    };
    let line = |start: &str| section.lines().find_map(|line| line.trim().strip_prefix(start)).expect(start);
    let args = line("kvnode --sname secret1 ");
    let erl = line("iex --sname iex --cookie secret --erl ").trim_matches('"');
    let lines: Vec<(&str, &str)> =
        block("elixir").lines().filter_map(|line| line.rsplit_once(" # ")).collect();
    assert_eq!(lines.len(), block("elixir").lines().count(), "each line says what it gives");
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let folder = otp.scratch();
        let made =
            Command::new("sh").args(["-ec", block("sh")]).current_dir(folder.path()).output().expect("sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(folder.path().join("tls.conf"), block("erlang")).unwrap();
        let _kv = KvNode::start_with(&epmd, "secret1", args, |command| {
            command.current_dir(folder.path());
        });
        let options = BeamOptions::new("iex").cookie("secret").erl(erl).within(folder.path());
        let iex = BeamNode::start(otp, &epmd, options);
        for (code, value) in &lines {
            iex.check(code, value);
        }
    });
}
