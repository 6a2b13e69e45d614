//! The commands that ask a node, as a person types them: against kvnode and against BEAM servers of the same protocol.

#![cfg(feature = "program")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use erl_dist::handshake::{HandshakeStatus, ServerSideHandshake};
use erl_dist::node::{Creation, LocalNode};
use rustix::process::Signal;
use support::kvnode::program;
use support::person::Person;
use support::tls::Ca;
use support::{
    BeamNode, BeamOptions, COOKIE, Epmd, KvNode, Otp, at_host, libfaketime, on_every_otp, short_hostname,
};

#[test]
fn the_only_kvnode_of_the_machine_is_asked() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    person.fails(&["get", ":a"], 1, &["knows no kvnode", "--sname slave1", "no node at all"]);
    let _one = KvNode::start(&epmd, "one", "");
    assert_eq!(person.gets(&["put", ":nombre", "\"Mafalda\""]), ":ok\n");
    assert_eq!(person.gets(&["get", ":nombre"]), "\"Mafalda\"\n");
    assert_eq!(person.gets(&["get", ":nombre", "--to", "global:one"]), "\"Mafalda\"\n");
    assert_eq!(person.gets(&["get", ":nombre", "--node", "one"]), "\"Mafalda\"\n");
    assert_eq!(
        person.gets(&["get", ":nombre", "--json"]),
        "{\"term\":\"\\\"Mafalda\\\"\",\"value\":\"Mafalda\"}\n"
    );
    assert_eq!(person.gets(&["delete", ":nombre"]), ":ok\n");
    assert_eq!(person.gets(&["get", ":nombre"]), "nil\n");
    let key = "%{1 => [{:a, -2.5} | ~c\"b\"], \"ü\" => <<1, 2::size(3)>>}";
    assert_eq!(person.gets(&["put", key, "-7"]), ":ok\n");
    assert_eq!(person.gets(&["get", "--json", key]), "{\"term\":\"-7\",\"value\":-7}\n");
    assert_eq!(person.gets(&["put", "-1", key]), ":ok\n");
    assert_eq!(person.gets(&["get", "-1"]), "%{1 => [{:a, -2.5}, 98], \"ü\" => <<1, 2::size(3)>>}\n");
    assert_eq!(person.gets(&["call", "{:get, -1.0}"]), "nil\n");
    assert_eq!(person.gets(&["cast", "{:replicate_put, :z, 1}"]), "");
    let ping = person.gets(&["ping"]);
    assert!(ping.starts_with(&format!("pong from {} in ", at_host("one"))), "{ping}");
    // Nobody is left behind.
    assert_eq!(epmd.names().expect("it runs"), ["one"]);
    let two = KvNode::start(&epmd, "two", "");
    person.fails(&["get", ":a"], 2, &["2 kvnodes", "one", "two"]);
    drop(two);
}

#[test]
fn elixir_servers_are_asked_as_kvnode_is() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let person = Person::new(&epmd);
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run("{:ok, _} = KeyValueStore.start_link(); :ok");
        beam.run("{:ok, _} = KeyValueStoreReplicated.start_link(:master); :ok");
        beam.run("{:ok, _} = KeyValueStoreDistributed.start_link(:master); :ok");
        for to in ["local:KeyValueStore", "local:master", "global:master"] {
            let at = ["--node", "beam", "--to", to];
            let ask = |args: &[&str]| person.gets(&[args, &at].concat());
            assert_eq!(ask(&["put", "{:a, [1, 2.5]}", "%{k: nil}"]), ":ok\n");
            assert_eq!(ask(&["get", "{:a, [1, 2.5]}"]), "%{k: nil}\n");
            assert_eq!(ask(&["call", "{:delete, {:a, [1, 2.5]}}"]), ":ok\n");
            assert_eq!(ask(&["get", "{:a, [1, 2.5]}"]), "nil\n");
            // A pid as iex prints it is that node's.
            beam.run("parent = self()");
            let pid = beam.run("parent");
            assert!(pid.starts_with("#PID<0."), "{pid}");
            assert_eq!(ask(&["put", ":pid", &pid]), ":ok\n");
            let server = if to == "global:master" { "{:global, :master}" } else { &to[6..] };
            let server = if to == "local:master" { ":master" } else { server };
            beam.check(&format!("GenServer.call({server}, {{:get, :pid}}) == parent"), "true");
            assert_eq!(ask(&["put", ":ref", "#Reference<0.1.2.3>"]), ":ok\n");
        }
        assert_eq!(
            person.gets(&["rpc", "lists", "reverse", "[[1, 2, :c]]", "--node", "beam"]),
            "[:c, 2, 1]\n"
        );
        assert_eq!(person.gets(&["rpc", "Enum", "sum", "[~c\"ab\"]", "--node", "beam"]), "195\n");
        assert_eq!(
            person
                .gets(&["rpc", "erlang", "node", "--node", "beam"])
                .trim()
                .trim_start_matches(':')
                .trim_matches('"'),
            beam.name()
        );
        person.fails(&["rpc", "no_such", "f", "--node", "beam"], 5, &["there is no :no_such.f/0"]);
        person.fails(
            &["rpc", "lists", "foreach", "[&:no_such.f/1, [1]]", "--node", "beam"],
            5,
            &["raised undef: there is no :no_such.f/1"],
        );
        // What a function prints comes to its caller, in order and whole; and a function that reads is at the end of the input.
        let printed = |args: &[&str]| person.gets(&[&["rpc"], args, &["--node", "beam"]].concat());
        assert_eq!(printed(&["IO", "puts", "[\"años\"]"]), "años\n:ok\n");
        assert_eq!(printed(&["io", "format", "[~c\"~p ~ts~n\", [{:a, 1.5}, \"ñ\"]]"]), "{a,1.5} ñ\n:ok\n");
        assert_eq!(printed(&["IO", "gets", "[\"? \"]"]), ":eof\n");
        assert_eq!(printed(&["Enum", "each", "[[1, 2, 3], &IO.inspect/1]"]), "1\n2\n3\n:ok\n");
        let said = person.types(&["rpc", "IO", "puts", "[\"a\"]", "--node", "beam", "--json"]);
        assert_eq!(
            (said.text().as_str(), said.stderr.as_str()),
            ("{\"term\":\":ok\",\"value\":\"ok\"}\n", "a\n")
        );
        person.fails(&["rpc", "erlang", "hd", "[[]]", "--node", "beam"], 5, &["raised :badarg"]);
        person.fails(&["rpc", "erlang", "throw", "[:x]", "--node", "beam"], 5, &["threw :x"]);
        person.fails(
            &["rpc", "timer", "sleep", "[60000]", "--node", "beam", "--timeout", "1"],
            4,
            &["within 1 s"],
        );
        person.fails(&["get", ":a", "--node", "beam", "--to", "local:none"], 3, &["{:none, "]);
        person.fails(&["get", ":a", "--node", "beam", "--to", "global:none"], 3, &["{:global, :none}"]);
        // No clause for it: the server ends, as it does for callers in iex.
        beam.run("Process.flag(:trap_exit, true)");
        person.fails(&["call", ":nonsense", "--node", "beam"], 5, &["function_clause"]);
        let ping = person.gets(&["ping", "--node", "beam", "--json"]);
        assert!(ping.contains("\"round_trip_ms\":"), "{ping}");
        let names = person.gets(&["names", "--node", "beam"]);
        assert!(names.contains("  beam  port ") && names.contains("  :master  #PID<"), "{names}");
        let names = person.gets(&["names", "--node", "beam", "--json"]);
        assert!(names.contains("\"name\":\":master\""), "{names}");
        let report = person.gets(&["doctor", "beam"]);
        assert!(report.contains("ok    clock "), "{report}");
        let answered = format!("erlang:node/0 answers it {}\n", beam.name());
        assert!(report.contains("ok    erl_rpc ") && report.contains(&answered), "{report}");
        beam.check_soon("Node.list(:connected)", "[]");
    });
}

#[test]
fn asking_a_beam_again_and_again_leaves_no_more_atoms_there() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let person = Person::new(&epmd);
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run("{:ok, _} = KeyValueStore.start_link(); :ok");
        let get = || assert_eq!(person.gets(&["get", ":a", "--node", beam.name()]), "nil\n");
        (0..3).for_each(|_| get());
        // What is looked at with has its own atoms.
        beam.run("more = fn before -> :erlang.system_info(:atom_count) - before end; more.(0)");
        beam.run("before = more.(0); more.(before)");
        (0..20).for_each(|_| get());
        // A command takes the first name that no other has: where other tests run beside this one, it is one of few.
        let more: u32 = beam.run("more.(before)").parse().expect("a number");
        assert!(more < 16, "{more} atoms more");
    });
}

#[test]
fn files_and_pipes_carry_large_values() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let kv = KvNode::start(&epmd, "kv", "");
    let big: Vec<u8> = (0..3_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = person.home.path().join("picture");
    fs::write(&file, &big).expect("it is ours");
    assert_eq!(person.gets(&["put", ":file", &format!("@{}", file.display())]), ":ok\n");
    let said = person.types_with(&["put", ":pipe", "@-"], &big);
    assert_eq!((said.code, said.text().as_str()), (0, ":ok\n"));
    for key in [":file", ":pipe"] {
        let said = person.types(&["get", key, "--raw"]);
        assert_eq!(said.code, 0);
        assert!(said.stdout == big, "{key}");
    }
    // A reader that has enough goes.
    let mut child = person.command(&["get", ":file", "--raw"]).spawn().expect("it was built");
    let mut head = [0; 10];
    child.stdout.take().expect("it is piped").read_exact(&mut head).expect("it is longer");
    let output = child.wait_with_output().expect("it is our child");
    assert_eq!((head.as_slice(), output.status.code(), output.stderr), (&big[..10], Some(0), Vec::new()));
    person.gets(&["put", ":atom", ":x"]);
    person.fails(&["get", ":atom", "--raw"], 5, &["--raw prints binaries", ":x"]);
    person.fails(&["put", ":a", "@/no/such"], 2, &["/no/such cannot be read"]);
    assert!(kv.log().is_empty() || !kv.log().contains("error"), "{}", kv.log());
}

#[test]
fn what_is_refused_is_a_failure_for_scripts_and_its_answer_is_printed() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _kv = KvNode::start(&epmd, "kv", "--memory-max 64KiB --confirm 1 --confirm-timeout 20");
    let file = person.home.path().join("large");
    fs::write(&file, vec![0; 100 << 10]).expect("it is ours");
    let refused = |args: &[&str], answer: &str, part: &str| {
        let said = person.types(args);
        assert_eq!((said.code, said.text().trim()), (5, answer), "{args:?}: {said:?}");
        assert!(said.stderr.starts_with("kvnode: ") && said.stderr.contains(part), "{args:?}: {said:?}");
    };
    let large = format!("@{}", file.display());
    refused(&["put", ":a", &large], "{:error, :no_space}", "--memory-max");
    refused(&["put", ":a", "1"], "{:error, {:unconfirmed, 0, 1}}", "the write stays");
    refused(&["delete", ":b"], "{:error, {:unconfirmed, 0, 1}}", "the write stays");
    refused(&["add-slave", "kv"], "{:error, :itself}", "its own slave");
    let json = "{\"term\":\"{:error, :no_space}\",\"value\":[\"error\",\"no_space\"]}";
    refused(&["put", ":a", &large, "--json"], json, "no room");
    // A value may be anything.
    assert_eq!(person.gets(&["get", ":a"]), "1\n");
    assert_eq!(person.gets(&["call", "{:put, :c, {:error, :x}, confirm: 0}"]), ":ok\n");
    // What has no unit is none, and what is put with one ends.
    let said = person.types(&["put", ":ends", "1", "--ttl", "10"]);
    assert!(
        said.code == 2 && said.stderr.contains("a time has a unit, ms, s, m, h or d, as in 10s"),
        "{said:?}"
    );
    refused(&["put", ":ends", "1", "--ttl", "2h"], "{:error, {:unconfirmed, 0, 1}}", "the write stays");
    let left = person.gets(&["call", "{:ttl, :ends}"]);
    assert!(left.starts_with("{:ok, 7") && left.trim_end().len() == "{:ok, 7199999}".len(), "{left}");
    assert_eq!(person.gets(&["get", ":c"]), "{:error, :x}\n");
}

#[test]
fn names_and_slaves_are_typed_as_they_are_printed() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let kv = KvNode::start_with(&epmd, "kv", "", |command| {
        command.args(["--store", "global::\"my store\",local:KeyValueStore", "--frame-bytes-max", "80MiB"]);
    });
    let slave = KvNode::start(&epmd, "slave", "");
    let at = ["--node", "kv"];
    let ask = |args: &[&str]| person.gets(&[args, &at].concat());
    let to = ["--to", "global::\"my store\""];
    assert_eq!(ask(&[&["put", ":a", "1"][..], &to].concat()), ":ok\n");
    assert!(ask(&["names"]).contains(":\"my store\""));
    let name = format!("{{KeyValueStore, :\"{}\"}}", slave.name());
    assert_eq!(ask(&[&["add-slave", &name][..], &to].concat()), ":ok\n");
    kv.wait_for_log(&["slave found", slave.name()]);
    assert!(ask(&[&["status"][..], &to].concat()).contains(slave.name()));
    assert_eq!(ask(&[&["remove-slave", &name][..], &to].concat()), ":ok\n");
    // A process of another node than the asked one.
    let pid =
        person.gets(&["rpc", "erlang", "whereis", "[KeyValueStore]", "--node", "slave"]).trim().to_owned();
    let (mark, add) = (kv.log_mark(), format!("{{:add_slave, {pid}}}"));
    let said = person.types(&[&["call", &add][..], &at, &to].concat());
    assert!(said.code == 2 && said.stderr.contains("another node"), "{said:?}");
    let by_name = format!("global:{}", "nobody");
    assert_eq!(ask(&[&["add-slave", &by_name][..], &to].concat()), ":ok\n");
    assert_eq!(ask(&[&["remove-slave", &by_name][..], &to].concat()), ":ok\n");
    assert!(!kv.log_since(mark).contains("slave found"));

    let unknown = person.types(&[&["call", ":frob"][..], &at, &to].concat());
    assert!(
        unknown.code == 5 && unknown.stderr.contains("knows no such request: {:bad_call, :frob}"),
        "{unknown:?}"
    );
    let file = person.home.path().join("huge");
    fs::write(&file, vec![0; 81 << 20]).expect("it is ours");
    let huge = format!("@{}", file.display());
    let words = ["the call was ended", "over the bound of 83886080 (--frame-bytes-max)", "84934"];
    person.fails(&[&["put", ":b", &huge][..], &at, &to].concat(), 5, &words);
    assert_eq!(ask(&[&["get", ":a"][..], &to].concat()), "1\n");
}

#[test]
fn an_elixir_slave_is_added_from_the_shell() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let kv = KvNode::start(&epmd, "kv", "");
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    beam.ping(kv.name());
    beam.run("{:ok, _} = KeyValueStoreDistributed.start_link(:slave2); :ok");
    beam.run("{:ok, _} = KeyValueStoreReplicated.start_link(:master); :ok");
    beam.run("{:ok, _} = KeyValueStoreReplicated.start_link(:slave3); :ok");
    assert_eq!(person.gets(&["add-slave", "slave2", "--node", "kv"]), ":ok\n");
    assert_eq!(person.gets(&["put", ":nombre", "\"Mafalda\"", "--node", "kv"]), ":ok\n");
    beam.check_soon("GenServer.call({:global, :slave2}, {:get, :nombre})", "\"Mafalda\"");
    let at = ["--node", "beam", "--to", "local:master"];
    assert_eq!(person.gets(&[&["add-slave", "local:slave3"][..], &at].concat()), ":ok\n");
    assert_eq!(person.gets(&[&["put", ":a", "1"][..], &at].concat()), ":ok\n");
    beam.check_soon("GenServer.call(:slave3, {:get, :a})", "1");
}

#[test]
fn what_is_mistyped_is_pointed_at_before_anybody_is_asked() {
    let epmd = Epmd::absent();
    let person = Person::new(&epmd);
    person.fails(
        &["get", "{:a, b}"],
        2,
        &["KEY is not a term: column 6: b is a variable", "    {:a, b}\n         ^\n"],
    );
    person.fails(&["put", ":a", "[1"], 2, &["VALUE", "column 3"]);
    person.fails(&["call", "Mafalda!"], 2, &["REQUEST"]);
    person.fails(&["rpc", "m", "f", ":a"], 2, &["ARGUMENTS is a list"]);
    person.fails(&["get", ":a", "--to", "slave1"], 2, &["--to slave1", "global:slave1"]);
    person.fails(&["get", ":a", "--to", "global:\"a b\""], 2, &["--to global:\"a b\"", ":\"my store\""]);
    person.fails(&["get", ":a", "--node", "@h"], 2, &["--node @h"]);
    person.fails(&["get", ":a"], 1, &["no epmd answers"]);
    let said = person.types(&["gett", ":a"]);
    assert!(said.code == 2 && said.stderr.contains("'get'"), "{said:?}");
    // Also where the environment has settings of a node, which go with no command.
    let output = person.command(&["gett", ":a"]).env("KVNODE_COOKIE", "x").output().expect("it was built");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && stderr.contains("'get'") && !stderr.contains("--cookie"),
        "{stderr}"
    );
    let said = person.types(&["--cookie", "x", "get", ":a"]);
    assert!(said.code == 2 && said.stderr.contains("stands behind it, see 'kvnode get --help'"), "{said:?}");
    let said = person.types(&["get", ":a", "--nod", "x"]);
    assert!(said.code == 2 && said.stderr.contains("'--node'"), "{said:?}");
}

#[test]
fn a_node_that_does_not_let_us_in_is_told_apart() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _kv = KvNode::start(&epmd, "kv", "");
    person.fails(&["get", ":a", "--cookie", "wrong"], 1, &["cookie", "kvnode doctor"]);
    person.fails(&["get", ":a", "--node", "none"], 1, &["does not know the name \"none\""]);
    fs::remove_file(person.home.path().join(".erlang.cookie")).expect("it is there");
    person.fails(&["get", ":a"], 1, &["there is no cookie file", "--cookie", "KVNODE_COOKIE"]);
    // The environment has it as a node's does, and a flag wins.
    let with_variable = |args: &[&str]| {
        let output = person.command(args).env("KVNODE_COOKIE", COOKIE).output().expect("it was built");
        output.status.code()
    };
    assert_eq!(with_variable(&["get", ":a"]), Some(0));
    assert_eq!(with_variable(&["doctor", "kv"]), Some(0));
    assert_eq!(with_variable(&["get", ":a", "--cookie", "wrong"]), Some(1));
    assert_eq!(fs::read_dir(person.home.path()).expect("it is there").count(), 0, "a cookie was made");
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_good_node() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _kv = KvNode::start(&epmd, "kv", "");
    let text = person.gets(&["doctor", "kv"]);
    for check in
        ["name", "host", "epmd", "registered", "port", "handshake", "flags", "ping", "clock", "erl_rpc"]
    {
        assert!(text.contains(&format!("ok    {check:<10} ")), "{check} is not in {text}");
    }
    let json = person.gets(&["doctor", "kv", "--json"]);
    assert!(json.starts_with("{\"checks\":[{") && json.trim_end().ends_with("\"ok\":true}"), "{json}");
}

#[test]
fn the_doctor_recognises_what_is_wrong() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let host = short_hostname();
    person.doctor(&["a@no-such-host.invalid"], "host", &["/etc/hosts"]);
    person.doctor(&["kv"], "registered", &["kv is not among them"]);
    let nobody = Epmd::absent();
    Person::new(&nobody).doctor(&["kv"], "epmd", &["epmd -daemon", "ERL_EPMD_PORT"]);
    person.fails(&["doctor", ""], 2, &["NODE is empty"]);

    // Another program than epmd, as a web server.
    let other = std::net::TcpListener::bind(("0.0.0.0", nobody.port())).expect("the port is ours");
    let served = std::thread::spawn(move || {
        for mut socket in other.incoming().flatten() {
            let mut asked = [0; 64];
            let len = socket.read(&mut asked).unwrap_or_default();
            if &asked[..len] == b"end" {
                return;
            }
            let _gone = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    Person::new(&nobody).doctor(&["kv"], "epmd", &["another program than epmd"]);
    let end = std::net::TcpStream::connect(("127.0.0.1", nobody.port()));
    end.and_then(|mut end| end.write_all(b"end")).expect("it listens");
    served.join().expect("it does not fail");

    // Registered, and nothing listens at the port.
    let port = nobody.port();
    let config = kvnode::config::EpmdConfig::default().with_port(epmd.port());
    let gone = smol::block_on(kvnode::epmd::register(&config, "gone", port)).expect("it is registered");
    person.doctor(&["gone"], "port", &["nothing listens there"]);
    drop(gone);

    let _kv = KvNode::start(&epmd, "kv", "");
    person.doctor(&["kv", "--cookie", "wrong"], "cookie", &["--cookie here", "Node.get_cookie()"]);
    // The classic: one by a short name, the other by a long one.
    person.doctor(
        &["kv@127.0.0.1"],
        "name kinds",
        &[&format!("calls itself kv@{host}"), "all have long ones"],
    );
    let _choosy = KvNode::start(&epmd, "choosy", "--allow friend@nowhere");
    person.doctor(&["choosy"], "handshake", &["not_allowed", "kvnode that was started with --allow"]);
    let files = Ca::new("ca").files(&Otp::newest(), &host);
    let flags = files.flags();
    let with_tls: Vec<&str> = ["kv"].into_iter().chain(flags.split(' ')).collect();
    person.doctor(&with_tls, "tls", &["see that it speaks TLS too"]);
    person.doctor(&["kv", "--tls"], "tls", &["--tls-cert", "--tls-optfile"]);
}

/// As a person sees it at a terminal, which script(1) makes.
#[test]
fn what_takes_longer_than_a_second_shows_how_far_it_is() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let kv = KvNode::start(&epmd, "kv", "");
    let at_terminal = |line: String| {
        let mut command = person.command(&[]);
        let env: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command = Command::new("script");
        // As terminals do: where nothing has set it, as in a container, nothing is drawn.
        command.envs(env).env("TERM", "xterm");
        let output = command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
        String::from_utf8_lossy(&output.expect("util-linux has it").stdout).into_owned()
    };
    let program = program().into_string().expect("a path of ours");
    let quick = at_terminal(format!("{program} get :a"));
    assert!(quick.contains("nil") && !quick.contains("waiting"), "{quick:?}");
    kv.signal(Signal::STOP);
    let slow = at_terminal(format!("{program} get :a --timeout 2"));
    assert!(slow.contains(&format!("waiting for {}", kv.name())) && slow.contains("--timeout"), "{slow:?}");
    // Nothing can have been done where nobody was reached.
    Person::new(&epmd).fails(
        &["put", ":a", "1", "--timeout", "1"],
        1,
        &["nothing was asked of it", "kvnode doctor"],
    );
}

/// What ours gets into and another implementation's client does not: no fault of the node's.
#[test]
fn the_doctor_tells_that_another_client_is_shut_out() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _choosy = KvNode::start(&epmd, "choosy", &format!("--allow kvnode-*@{}", short_hostname()));
    let report = person.gets(&["doctor", "choosy"]);
    assert!(report.contains("note  erl_rpc ") && report.contains("is told not_allowed"), "{report}");
    assert!(report.contains("      meaning    ") && report.contains("kvnode --allow"), "{report}");
    assert!(!report.contains(COOKIE), "{report}");
    let json = person.gets(&["doctor", "choosy", "--json"]);
    assert!(json.trim_end().ends_with("\"todo\":null}],\"ok\":true}"), "{json}");
    assert!(json.contains("\"note\":\"choosy@"), "{json}");
}

#[test]
fn the_doctor_recognises_a_node_that_is_stopped() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    kv.signal(Signal::STOP);
    Person::new(&epmd).doctor(&["kv"], "handshake", &["stopped or overloaded"]);
}

/// A node that lacks flags: erl_dist's server with those of an old release.
#[test]
fn the_doctor_recognises_a_node_that_is_too_old() {
    let epmd = Epmd::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let _registered = epmd.register("old", port);
    let name = at_host("old");
    let served = std::thread::spawn(move || {
        smol::block_on(async {
            let listener = smol::Async::try_from(listener).expect("it is a socket");
            // The doctor has looked whether anything listens before it speaks.
            loop {
                let (socket, _) = listener.accept().await.expect("somebody comes");
                let mut node = LocalNode::new(name.parse().expect("a name"), Creation::new(5));
                node.flags = erl_dist::DistributionFlags::from_bits_truncate(
                    node.flags.bits() & !erl_dist::DistributionFlags::BIG_CREATION.bits(),
                );
                let mut server = ServerSideHandshake::new(socket, node, COOKIE);
                if server.execute_recv_name().await.is_ok() {
                    // It is refused for its flags, and left.
                    return server.execute_rest(HandshakeStatus::Ok).await.is_err();
                }
            }
        })
    });
    Person::new(&epmd).doctor(&["old"], "flags", &["BIG_CREATION", "OTP 23 or later"]);
    assert!(served.join().expect("it does not fail"));
}

#[test]
fn the_doctor_recognises_a_clock_that_is_wrong() {
    let Some(library) = libfaketime() else { return };
    let epmd = Epmd::start();
    let _kv = KvNode::start_with(&epmd, "kv", "", |command| {
        command.env("LD_PRELOAD", library).env("FAKETIME", "+1h").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    Person::new(&epmd).doctor(&["kv"], "clock", &["its clock is 3600.", "NTP"]);
}

#[test]
fn the_doctor_recognises_what_is_wrong_with_a_beam() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let otp = Otp::newest();
    let host = short_hostname();
    let beam = BeamNode::start(&otp, &epmd, "beam");
    person.doctor(&["beam", "--cookie", "wrong"], "cookie", &["-setcookie"]);
    person.doctor(&["beam@127.0.0.1"], "name kinds", &[&format!("calls itself beam@{host}")]);
    // Only these may connect, and we are none of them.
    beam.run(":net_kernel.allow([:friend@nowhere])");
    person.doctor(&["beam"], "handshake", &["net_kernel:allow/1"]);
    drop(beam);

    let scratch = otp.scratch();
    let path = |name: &str| scratch.path().join(name);
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=kvnode",
            "-keyout",
        ])
        .arg(path("key.pem"))
        .arg("-out")
        .arg(path("cert.pem"))
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl can be run").success());
    let inside = |name: &str| otp.inside(&path(name)).display().to_string();
    let tls = BeamOptions::new("tls").erl(&format!(
        "-proto_dist inet_tls -ssl_dist_opt server_certfile {} server_keyfile {}",
        inside("cert.pem"),
        inside("key.pem")
    ));
    let _tls = BeamNode::start(&otp, &epmd, tls);
    person.doctor(&["tls"], "tls", &["speaks TLS", "-proto_dist inet_tls"]);
}

#[test]
fn with_the_flags_of_a_node_the_commands_speak_tls() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let files = Ca::new("ca").files(&Otp::newest(), &short_hostname());
    let _kv = KvNode::start(&epmd, "kv", &files.flags());
    let flags = files.flags();
    let with = |args: &[&str]| {
        let all: Vec<&str> = args.iter().copied().chain(flags.split(' ')).collect();
        person.gets(&all)
    };
    assert!(with(&["ping"]).starts_with("pong from kv@"));
    assert_eq!(with(&["put", ":a", "1"]).trim(), ":ok");
    assert_eq!(with(&["get", ":a"]).trim(), "1");
    assert_eq!(with(&["call", "{:get, :a}"]).trim(), "1");
    assert!(with(&["names"]).contains("kv"));
    let report = with(&["doctor", &at_host("kv")]);
    assert!(!report.contains("FAIL"), "{report}");
    assert!(report.contains("ok    erl_rpc    not asked: ") && report.contains("no TLS\n"), "{report}");
    person.fails(&["get", ":a"], 1, &["kvnode doctor"]);
    person.doctor(&["kv"], "tls", &["--tls-cert"]);
    // A CA that the node knows nothing of.
    let other_files = Ca::new("other").files(&Otp::newest(), &short_hostname());
    let others = other_files.flags();
    let refused: Vec<&str> = ["get", ":a"].into_iter().chain(others.split(' ')).collect();
    person.fails(&refused, 1, &["TLS"]);
    let refused: Vec<&str> = ["kv"].into_iter().chain(others.split(' ')).collect();
    person.doctor(&refused, "tls", &["the CA of the other's"]);
    person.fails(&["ping", "--tls"], 2, &["--tls-cert"]);
}

#[test]
fn shells_complete_and_man_reads_the_same_definition() {
    let epmd = Epmd::absent();
    let person = Person::new(&epmd);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = person.gets(&["completions", shell]);
        assert!(script.contains("add-slave") && script.contains("timeout"), "{shell}: {script}");
    }
    // The shell reads it, and completes by it.
    let script = person.home.path().join("kvnode.bash");
    fs::write(&script, person.gets(&["completions", "bash"])).expect("it is ours");
    let asked = format!(
        ". {}; COMP_WORDS=(kvnode add); COMP_CWORD=1; _kvnode kvnode add kvnode; echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &asked]).output().expect("bash can be run");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "add-slave", "{output:?}");
    assert_eq!(person.gets(&["help"]), person.gets(&["--help"]));
    assert_eq!(person.gets(&["help", "get"]), person.gets(&["get", "--help"]));
    let page = person.gets(&["man"]);
    for part in [".TH kvnode 1", "kvnode\\-get", "\\-\\-timeout", "EXIT CODES"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    for command in
        ["get", "put", "delete", "add-slave", "call", "cast", "rpc", "ping", "names", "doctor", "completions"]
    {
        let help = person.gets(&[command, "--help"]);
        assert!(help.starts_with("EXAMPLES\n  $ kvnode "), "{command}: {help}");
        assert!(!help.contains('\u{1b}'), "colours without a terminal");
        let flags =
            ["--tls ", "--tls-cert <FILE>", "--tls-key <FILE>", "--tls-ca <FILE>", "--tls-verify <WHOSE>"];
        for flag in flags.into_iter().filter(|_| command != "completions") {
            assert!(help.contains(flag), "{command}: {flag} is not in {help}");
        }
    }
}

#[test]
fn a_kvnodes_store_tells_how_it_is_and_an_elixir_server_is_not_asked() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let connect = format!("--connect {}", beam.name());
    let _nodes = ["master", "one"].map(|name| KvNode::start(&epmd, name, &connect));
    beam.run("{:ok, elixir} = KeyValueStoreDistributed.start_link(:elixir); Process.unlink(elixir)");
    beam.wait_for_global("one");
    beam.wait_for_global("master");
    let at = ["--node", "master", "--to", "global:master"];
    assert_eq!(person.gets(&[&["add-slave", "one"][..], &at].concat()), ":ok\n");
    assert_eq!(person.gets(&[&["add-slave", "elixir"][..], &at].concat()), ":ok\n");
    assert_eq!(person.gets(&[&["put", ":nombre", "\"Mafalda\""][..], &at].concat()), ":ok\n");
    beam.check_soon(
        "for s <- GenServer.call({:global, :master}, :status).slaves, do: {s.kind, s.state}",
        "[kvnode: {:in_step, 0}, elixir: {:in_step, 0}]",
    );
    let status = person.gets(&[&["status"][..], &at].concat());
    for line in [
        "role                  primary",
        "entries               1",
        "SLAVE          STATE          KIND    STALE KEYS  WITHHELD  SINCE  LAST ERROR",
    ] {
        assert!(status.lines().any(|shown| shown == line), "{line}: {status}");
    }
    assert!(status.contains("global:elixir  {:in_step, 0}  elixir  false"), "{status}");
    let json = person.gets(&[&["status", "--json"][..], &at].concat());
    assert!(json.contains("\"role\":\"primary\""), "{json}");
    assert_eq!(person.gets(&[&["remove-slave", "elixir"][..], &at].concat()), ":ok\n");
    person.fails(&[&["remove-slave", "elixir"][..], &at].concat(), 5, &["it has no such slave"]);
    person.fails(&[&["promote"][..], &at].concat(), 5, &["slave of no kvnode"]);
    let promoted = person.gets(&["promote", "--node", "one"]);
    assert!(promoted.starts_with(":ok\nterm                  1\n"), "{promoted}");
    beam.check_soon(
        "node(:global.whereis_name(:master)) |> to_string |> String.starts_with?(\"one@\")",
        "true",
    );
    // It would end, and its data with it.
    for command in ["status", "promote"] {
        person.fails(
            &[command, "--node", "beam", "--to", "global:elixir"],
            5,
            &["is no kvnode", "it was not asked"],
        );
    }
    beam.check("GenServer.call({:global, :elixir}, {:get, :nombre})", "\"Mafalda\"");
}
