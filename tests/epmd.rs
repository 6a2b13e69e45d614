//! Our epmd and our client of epmd, held against Erlang's: the same requests, byte for byte, and real nodes.

#![cfg(feature = "program")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kvnode::config::EpmdConfig;
use kvnode::epmd::client::{kill, local_names};
use kvnode::epmd::daemon::{CONNECTIONS_MAX, REMOTE_CONNECTIONS_MAX};
use kvnode::epmd::start::EpmdStarter;
use kvnode::epmd::{EpmdError, ensure, lookup, names, register};
use support::kvnode::program;
use support::netns::Seat;
use support::{BeamNode, Epmd, Network, at_host, on_every_otp, wait_until};

/// A connection to an epmd that sends what it is told to.
struct Talk(TcpStream);

impl Talk {
    fn to(epmd: &Epmd) -> Self {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, epmd.port())).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(40))).expect("it is a socket");
        Self(socket)
    }

    fn send(&mut self, request: &[u8]) {
        let len = u16::try_from(request.len()).expect("it is short").to_be_bytes();
        self.0.write_all(&[&len, request].concat()).expect("it is taken");
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).expect("it answers");
        bytes
    }

    /// Reads to the end. That may come with an error, where what was sent was not all read.
    fn end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes);
        assert!(
            !end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "the connection stays open"
        );
        bytes
    }
}

/// Sends a request and reads the answer to its end.
fn ask(epmd: &Epmd, request: &[u8]) -> Vec<u8> {
    let mut talk = Talk::to(epmd);
    talk.send(request);
    talk.end()
}

/// ALIVE2_REQ, as erl_dist_protocol has it.
fn alive2(name: &[u8], port: u16, highest_version: u16, extra: &[u8]) -> Vec<u8> {
    let mut request = vec![b'x'];
    request.extend(port.to_be_bytes());
    request.extend([77, 0]);
    request.extend(highest_version.to_be_bytes());
    request.extend(5u16.to_be_bytes());
    for field in [name, extra] {
        request.extend(u16::try_from(field.len()).expect("it is short").to_be_bytes());
        request.extend(field);
    }
    request
}

/// Registers, and returns the connection with the answer, its creation left out: that is a number of the daemon's own.
fn hold(epmd: &Epmd, request: &[u8]) -> (Talk, Vec<u8>) {
    let mut talk = Talk::to(epmd);
    talk.send(request);
    let head = talk.read(2);
    let len = if head[0] == b'v' { 4 } else { 2 };
    let creation = talk.read(len);
    let shown = if head[1] == 0 { vec![b'?'; len] } else { creation };
    (talk, [head, shown].concat())
}

/// What differs between any two daemons: their own port, and the numbers of their files.
fn comparable(mut answer: Vec<u8>, epmd: &Epmd) -> Vec<u8> {
    if answer.starts_with(&u32::from(epmd.port()).to_be_bytes()) {
        answer.splice(..4, *b"PORT");
    }
    let text: Vec<&[u8]> = answer.split_inclusive(|&byte| byte == b'\n').collect();
    let cut = |line: &[u8]| {
        let at = line.windows(5).position(|part| part == b"fd = ");
        let digits = |at: usize| line[at + 5..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        at.map_or_else(|| line.to_vec(), |at| [&line[..at], b"fd", &line[at + 5 + digits(at)..]].concat())
    };
    text.into_iter().flat_map(cut).collect()
}

/// A life of an epmd, as the answers that it gave.
fn conversation(epmd: &Epmd) -> Vec<(&'static str, Vec<u8>)> {
    let mut said = Vec::new();
    let mut note = |what, answer| said.push((what, comparable(answer, epmd)));
    note("names of none", ask(epmd, b"n"));
    note("dump of none", ask(epmd, b"d"));
    let (alpha, answer) = hold(epmd, &alive2(b"alpha", 4000, 6, b""));
    note("new node", answer);
    let (_beta, answer) = hold(epmd, &alive2(b"beta", 4001, 5, b"xyz"));
    note("old node", answer);
    note("taken", hold(epmd, &alive2(b"alpha", 5, 6, b"")).1);
    note("taken, asked by an old node", hold(epmd, &alive2(b"alpha", 5, 5, b"")).1);
    note("names", ask(epmd, b"n"));
    note("names and more", ask(epmd, b"nzzz"));
    note("dump", ask(epmd, b"d"));
    note("look up", ask(epmd, b"zalpha"));
    note("look up an old node", ask(epmd, b"zbeta"));
    note("look up with a zero byte", ask(epmd, b"zbeta\0"));
    note("look up nobody", ask(epmd, b"znobody"));
    note("look up nothing", ask(epmd, b"z"));
    note("look up a zero byte", ask(epmd, b"zbe\0ta"));
    note("look up bytes", ask(epmd, b"z\xff\xfe"));
    note("kill with nodes", ask(epmd, b"k"));
    note("stop without leave", ask(epmd, b"salpha"));
    note("unknown", ask(epmd, b"\x01abc"));
    note("empty", ask(epmd, b""));
    note("too short to register", ask(epmd, b"x\0\0\0\0\0"));
    note("a name without characters", ask(epmd, &alive2(b"", 1, 6, b"")));
    note("a name with a zero byte", ask(epmd, &alive2(b"a\0b", 1, 6, b"")));
    note("a name that is cut", ask(epmd, &alive2(b"cut", 1, 6, b"")[..13]));
    note("a name of bytes", hold(epmd, &alive2(b"\xff", 1, 6, b"")).1);
    note("a long name", hold(epmd, &alive2(&[b'q'; 255], 1, 6, b"")).1);
    note("too long a name", hold(epmd, &alive2(&[b'q'; 256], 1, 6, b"")).1);
    note("a long wide name", hold(epmd, &alive2("𝒳".repeat(255).as_bytes(), 1, 6, b"")).1);
    note("a long extra field", hold(epmd, &alive2(b"extra", 1, 6, &[1; 1020])).1);
    note("too long an extra field", hold(epmd, &alive2(b"extra2", 1, 6, &[1; 1021])).1);
    note("more than a request", hold(epmd, &[&alive2(b"gamma", 1, 6, b"")[..], b"zz"].concat()).1);
    drop(alpha);
    epmd.wait_for_name("alpha", false);
    note("look up a past node", ask(epmd, b"zalpha"));
    note("it comes back", hold(epmd, &alive2(b"alpha", 6, 6, b"")).1);
    let mut talk = Talk::to(epmd);
    talk.send(&alive2(b"talker", 1, 6, b""));
    talk.read(6);
    talk.send(b"n");
    note("a node that goes on talking", talk.end());
    note("it is forgotten", ask(epmd, b"ztalker"));
    said
}

#[test]
fn our_epmd_answers_as_erlangs_does() {
    let (erlangs, ours) = (Epmd::start(), Epmd::start_kvnode());
    let (theirs, our) = (conversation(&erlangs), conversation(&ours));
    assert_eq!(theirs.len(), our.len());
    for (theirs, ours) in theirs.iter().zip(&our) {
        assert_eq!(theirs, ours, "Erlang's at the left");
    }
}

#[test]
fn past_nodes_are_dumped_as_erlangs_epmd_does() {
    let dump = |epmd: &Epmd| {
        for name in [b"one", b"two"] {
            let (node, _) = hold(epmd, &alive2(name, 4000, 6, b""));
            drop(node);
            epmd.wait_for_name(std::str::from_utf8(name).expect("it is text"), false);
        }
        let _three = hold(epmd, &alive2(b"three", 4000, 6, b""));
        comparable(ask(epmd, b"d"), epmd)
    };
    let (erlangs, ours) = (Epmd::start(), Epmd::start_kvnode());
    assert_eq!(dump(&erlangs), dump(&ours));
}

#[test]
fn nodes_of_a_beam_find_each_other_through_our_epmd() {
    on_every_otp(|otp| {
        let epmd = Epmd::start_kvnode();
        let (one, two) = (BeamNode::start(otp, &epmd, "one"), BeamNode::start(otp, &epmd, "two"));
        let mut names = epmd.names().expect("it answers");
        names.sort();
        assert_eq!(names, ["one", "two"]);
        one.check(&format!("Node.ping(:\"{}\")", at_host("two")), ":pong");
        two.check("length(Node.list())", "1");
        two.kill(&epmd);
        let listed = "{:ok, names} = :erl_epmd.names(); Enum.map(names, &to_string(elem(&1, 0)))";
        one.check(listed, "[\"one\"]");
        // It is gone before its epmd is.
        one.kill(&epmd);
    });
}

#[test]
fn erlangs_own_tool_reads_our_epmd() {
    let epmd = Epmd::start_kvnode();
    let (_node, _) = hold(&epmd, &alive2(b"alpha", 4000, 6, b""));
    let tool = |argument| {
        let mut command = Command::new("epmd");
        command.arg(argument).env("ERL_EPMD_PORT", epmd.port().to_string());
        text(&command.output().expect("Erlang is installed"))
    };
    let ours = |argument| {
        let mut command = Command::new(program());
        command.args(["epmd", argument]).env("ERL_EPMD_PORT", epmd.port().to_string());
        text(&command.output().expect("it was built"))
    };
    assert_eq!(tool("-names"), (Some(0), tool("-names").1));
    assert_eq!(tool("-names"), ours("--names"));
    assert!(tool("-kill").1.contains("living nodes"));
    assert_eq!(ours("--kill").0, Some(1));
}

fn text(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn our_client_registers_and_looks_up_at_both_kinds_of_epmd() {
    for epmd in [Epmd::start(), Epmd::start_kvnode()] {
        let config = epmd.config();
        smol::block_on(async {
            let registration = register(&config, "client", 4711).await.expect("it is registered");
            assert!(registration.creation() > 3);
            let found = lookup("localhost", config.port, "client").await.expect("it answers");
            let found = found.expect("it is registered");
            assert_eq!(found.address.port(), 4711);
            assert!(found.address.ip().is_loopback());
            assert_eq!((found.lowest_version, found.highest_version), (6, 6));
            assert_eq!(lookup("localhost", config.port, "nobody").await.expect("it answers"), None);
            let all = names("127.0.0.1", config.port).await.expect("it answers");
            assert_eq!(all, [("client".to_owned(), 4711)]);
            let taken = register(&config, "client", 4712).await.expect_err("the name is taken");
            assert!(matches!(&taken, EpmdError::NameTaken { port: Some(4711), .. }), "{taken:?}");
            assert_eq!(kill(&config).await.expect("it answers"), "NO");
            drop(registration);
        });
        epmd.wait_for_name("client", false);
    }
}

#[test]
fn a_registration_is_lost_when_epmd_dies() {
    for mut epmd in [Epmd::start(), Epmd::start_kvnode()] {
        let config = epmd.config();
        let mut registration = smol::block_on(register(&config, "client", 1)).expect("it is registered");
        epmd.kill();
        smol::block_on(registration.lost());
        let absent = smol::block_on(register(&config, "client", 1)).expect_err("nothing listens");
        assert!(absent.is_absent(), "{absent:?}");
        epmd.start_again();
        smol::block_on(register(&config, "client", 1)).expect("it is registered again");
    }
}

#[test]
fn what_is_no_epmd_is_told_from_none() {
    let impostor = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = impostor.local_addr().expect("it is bound").port();
    let answers = std::thread::spawn(move || {
        let (mut socket, _) = impostor.accept().expect("somebody comes");
        // NAMES_REQ, whole: closing with some of it unread would reset the connection and take the answer along.
        socket.read_exact(&mut [0; 3]).expect("a request comes");
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it is read");
    });
    let config = EpmdConfig::default().with_port(port);
    let error = smol::block_on(local_names(&config)).expect_err("it is none");
    assert!(matches!(error, EpmdError::Malformed { .. }), "{error:?}");
    answers.join().expect("it does not fail");
    let unknown =
        smol::block_on(lookup("no-such-host.invalid", port, "x")).expect_err("nobody has that name");
    assert!(matches!(unknown, EpmdError::UnknownHost { .. }), "{unknown:?}");
}

#[test]
fn an_answer_without_end_is_not_read_without_end() {
    let endless = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = endless.local_addr().expect("it is bound").port();
    let writer = std::thread::spawn(move || {
        let (mut socket, _) = endless.accept().expect("somebody comes");
        let mut sent = 0usize;
        while let Ok(count) = socket.write(&[b'x'; 65536]) {
            sent += count;
        }
        sent
    });
    let config = EpmdConfig::default().with_port(port).with_start(false);
    let error = smol::block_on(local_names(&config)).expect_err("it has no end");
    assert!(matches!(error, EpmdError::Malformed { .. }), "{error:?}");
    // What was read, and what the system had taken meanwhile.
    assert!(writer.join().expect("it does not fail") < 64 << 20);
}

/// A `PATH` that has no epmd.
fn without_erlang(command: &mut Command) -> &mut Command {
    command.env("PATH", "/nonexistent")
}

#[test]
fn a_daemon_outlives_who_started_it_and_ends_when_it_is_killed() {
    let epmd = Epmd::absent();
    let start = || {
        let mut command = Command::new(program());
        without_erlang(&mut command).args(["epmd", "--daemon"]).env("ERL_EPMD_PORT", epmd.port().to_string());
        command.stdin(Stdio::null()).output().expect("it was built")
    };
    let first = start();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(epmd.names(), Some(Vec::new()), "it answers as soon as the command has ended");
    assert!(start().status.success(), "one that runs is as good");
    assert_eq!(ask(&epmd, b"k"), b"OK");
    wait_until("it has ended", || epmd.names().is_none());
}

#[test]
fn a_daemon_that_cannot_listen_says_why() {
    let epmd = Epmd::absent();
    let mut command = Command::new(program());
    command.args(["epmd", "--daemon", "--address", "192.0.2.1", "--port", &epmd.port().to_string()]);
    let output = command.output().expect("it was built");
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.starts_with("kvnode: cannot listen on 192.0.2.1:"), "{complaint}");
    assert!(complaint.contains("--address"), "{complaint}");
}

#[test]
fn erlangs_epmd_is_started_where_there_is_one() {
    let epmd = Epmd::absent();
    let config = epmd.config().with_start(true);
    let started = smol::block_on(ensure(&config, None)).expect("Erlang is installed");
    assert_eq!(started.starter, EpmdStarter::Erlang);
    assert_eq!(started.address.port(), epmd.port());
    let again = smol::block_on(ensure(&config, None)).expect("it runs");
    assert_eq!(again.starter, EpmdStarter::Running);
    let not_wanted = config.with_port(Epmd::absent().port()).with_start(false);
    assert!(smol::block_on(ensure(&not_wanted, None)).expect_err("none may be started").is_absent());
}

#[test]
fn a_daemon_may_be_bound_to_addresses() {
    let epmd = Epmd::absent();
    let mut command = Command::new(program());
    command.args(["epmd", "--address", "127.0.0.1", "--port", &epmd.port().to_string()]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("it was built");
    wait_until("it answers", || epmd.names().is_some());
    let elsewhere = TcpStream::connect(("127.0.0.2", epmd.port()));
    assert_eq!(
        elsewhere.map(drop).expect_err("nothing listens").kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    assert_eq!(ask(&epmd, b"k"), b"OK");
    assert!(child.wait().expect("it is our child").success());
}

#[test]
fn a_connection_that_asks_nothing_is_closed_and_a_node_is_not() {
    let epmd = Epmd::start_kvnode();
    let (_node, _) = hold(&epmd, &alive2(b"patient", 4000, 6, b""));
    let mut silent = Talk::to(&epmd);
    let mut slow = Talk::to(&epmd);
    slow.0.write_all(b"\0\x09z").expect("it is taken");
    assert_eq!(silent.end(), b"");
    assert_eq!(slow.end(), b"");
    assert_eq!(epmd.names(), Some(vec!["patient".to_owned()]));
}

#[test]
fn idle_connections_keep_nobody_of_this_machine_out() {
    let epmd = Epmd::start_kvnode();
    let (_node, _) = hold(&epmd, &alive2(b"patient", 4000, 6, b""));
    let mut idle: Vec<Talk> = (0..CONNECTIONS_MAX).map(|_| Talk::to(&epmd)).collect();
    let (_another, answer) = hold(&epmd, &alive2(b"another", 4001, 6, b""));
    assert_eq!(answer[..2], [b'v', 0], "it is registered");
    assert_eq!(idle[0].end(), b"", "the oldest has made room");
    let newest = idle.last_mut().expect("there are many");
    newest.send(b"n");
    let names = String::from_utf8(newest.end().split_off(4)).expect("it is text");
    assert!(names.contains("patient") && names.contains("another"), "{names}");
}

#[test]
fn another_machine_that_asks_nothing_keeps_no_other_machine_out() {
    // The test runs itself again where the stranger is: to open its connections, and to hold them until it is told to
    // close them.
    const STRANGER: &str = "KVNODE_TEST_EPMD_OF_ANOTHER";
    const MYSELF: &str = "another_machine_that_asks_nothing_keeps_no_other_machine_out";
    if let Ok(address) = std::env::var(STRANGER) {
        let connect = || TcpStream::connect(&address).expect("it listens");
        let idle: Vec<TcpStream> = (0..REMOTE_CONNECTIONS_MAX + 10).map(|_| connect()).collect();
        println!("--- all are there");
        let _closed = std::io::stdin().read(&mut [0; 1]);
        drop(idle);
        return;
    }
    let Some(network) = Network::lay(3) else { return };
    let [here, stranger, other] = network.hosts();
    let port = Epmd::absent().port();
    let at = |seat: &Seat, command: &mut Command| {
        command.env("ERL_EPMD_PORT", port.to_string()).env("ERL_CRASH_DUMP_SECONDS", "0");
        let mut command = seat.around(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let started =
        |seat: &Seat, command: &mut Command| Started(at(seat, command).spawn().expect("it can be run"));
    let mut daemon = Command::new(program());
    let mut daemon = started(here.seat(), daemon.args(["epmd", "--address", "0.0.0.0"]));
    read_line(daemon.0.stderr.as_mut(), "epmd listens");
    let mut node = Command::new("erl");
    node.args([
        "-noinput",
        "-start_epmd",
        "false",
        "-name",
        &here.node("node"),
        "-eval",
        "io:put_chars(\"up\\n\").",
    ]);
    let address = format!("{}:{port}", here.node("").trim_start_matches('@'));
    let looks = || {
        let mut asker = Command::new("erl");
        let look = format!(
            "{{port, _, _}} = erl_epmd:port_please(\"node\", \"{}\", 5000), halt().",
            here.node("").trim_start_matches('@')
        );
        at(other.seat(), asker.args(["-noinput", "-eval", &look])).output().expect("Erlang is installed")
    };
    let mut node = started(here.seat(), &mut node);
    read_line(node.0.stdout.as_mut(), "up");
    let mut again = Command::new(std::env::current_exe().expect("it runs"));
    again.args(["--exact", MYSELF, "--nocapture"]).env(STRANGER, &address);
    let mut crowd = started(stranger.seat(), &mut again);
    read_line(crowd.0.stdout.as_mut(), "--- all are there");
    let found = looks();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
}

/// A program that is ended with this value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads what a program prints up to a line with this in it.
#[track_caller]
fn read_line(from: Option<&mut impl Read>, wanted: &str) {
    let lines = BufReader::new(from.expect("it is piped")).lines();
    let found = lines.map_while(Result::ok).any(|line| line.contains(wanted));
    assert!(found, "{wanted:?} was not said");
}

#[test]
fn a_library_without_the_program_starts_erlangs_epmd_only() {
    // The daemon is found through the PATH of a process: this one asks itself to be run again without it.
    const AGAIN: &str = "KVNODE_TEST_EPMD_PORT";
    let Ok(port) = std::env::var(AGAIN) else {
        let epmd = Epmd::absent();
        let mut again = Command::new(std::env::current_exe().expect("it runs"));
        again.args(["--exact", "a_library_without_the_program_starts_erlangs_epmd_only", "--nocapture"]);
        let again = without_erlang(&mut again).env(AGAIN, epmd.port().to_string()).output().expect("it runs");
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(String::from_utf8_lossy(&again.stdout).contains("1 passed"));
        assert!(epmd.names().is_none());
        return;
    };
    let config = EpmdConfig::default().with_port(port.parse().expect("it is a port"));
    let error = smol::block_on(ensure(&config, None)).expect_err("there is none to start");
    assert!(matches!(&error, EpmdError::Start { tried, .. } if tried.len() == 1), "{error:?}");
    assert!(error.to_string().contains("epmd -daemon"), "{error}");
}
