//! The examples, which are the documented programs, against real nodes: each as a program of its own, called from every OTP.

#![cfg(feature = "program")]
#![allow(clippy::print_stderr, reason = "what a program said is shown when its test fails")]

#[path = "../examples/cache.rs"]
mod cache;
#[path = "../examples/counter.rs"]
mod counter;
#[cfg(feature = "eetf")]
#[path = "../examples/eetf_server.rs"]
mod eetf_server;
#[path = "../examples/own_engine.rs"]
mod own_engine;
#[expect(dead_code, reason = "its arguments would be those of the test: what it calls is called here")]
#[path = "../examples/rpc_client.rs"]
mod rpc_client;
#[path = "../examples/subscriber.rs"]
mod subscriber;
mod support;
#[cfg(feature = "tokio")]
#[path = "../examples/tokio_client.rs"]
mod tokio_client;

use std::process::{Child, Command, Stdio};

use support::output::Output;
use support::{BeamNode, Epmd, KvNode, at_host, on_every_otp, short_hostname};

/// Says to the test binary which of the documented programs it is to be.
const PROGRAM: &str = "KVNODE_TEST_PROGRAM";

/// A documented program, as its user would start it: with the cookie file and the environment that `erl` reads.
struct Program {
    name: String,
    child: Child,
    stderr: Output,
    _home: tempfile::TempDir,
}

impl Program {
    #[track_caller]
    fn start(name: &str, epmd: &Epmd) -> Self {
        Self::start_as(name, name, epmd)
    }

    /// As `start`, of an example whose node has another name.
    #[track_caller]
    fn start_as(example: &str, node: &str, epmd: &Epmd) -> Self {
        use std::os::unix::fs::PermissionsExt;

        let home = tempfile::tempdir().expect("a folder can be made");
        let cookie = home.path().join(".erlang.cookie");
        std::fs::write(&cookie, support::COOKIE).expect("it can be written");
        std::fs::set_permissions(&cookie, PermissionsExt::from_mode(0o400)).expect("it is ours");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--ignored", "--exact", "as_a_program_of_its_own", "--nocapture"]);
        command.env(PROGRAM, example).env("HOME", home.path()).env("ERL_EPMD_PORT", epmd.port().to_string());
        command.env_remove("ERL_EPMD_ADDRESS").env_remove("XDG_CONFIG_HOME");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("this program can be started");
        let stderr = Output::of(child.stderr.take().expect("it is piped"));
        Self { name: at_host(node), child, stderr, _home: home }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("=== {} said:\n{}", self.name, self.stderr.text());
        }
    }
}

#[test]
#[ignore = "started by the other tests, as a program of its own"]
fn as_a_program_of_its_own() {
    let result = match std::env::var(PROGRAM).expect("the test that starts this says which").as_str() {
        "counter" => counter::main(),
        "cache" => cache::main(),
        "own_engine" => own_engine::main(),
        "subscriber" => subscriber::main(),
        #[cfg(feature = "eetf")]
        "eetf_server" => eetf_server::main(),
        #[cfg(feature = "tokio")]
        "tokio_client" => tokio_client::main(),
        other => panic!("there is no {other}"),
    };
    result.expect("the program runs");
}

#[test]
fn the_documented_counter_is_short_and_counts() {
    // Its own documentation aside.
    let is_code = |line: &&str| !line.starts_with("//");
    let lines: Vec<&str> = include_str!("../examples/counter.rs").lines().filter(is_code).collect();
    let text = lines.join("\n");
    // With an enum for the calls and one for the casts: with an atom for both any atom would be answered.
    assert!(text.trim().lines().count() <= 42, "{text}");
    assert!(
        include_str!("../docs/library.md").contains(text.trim()),
        "docs/library.md shows the same counter"
    );
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let program = Program::start("counter", &epmd);
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.check_soon(&format!("Node.ping(:\"{}\")", program.name()), ":pong");
        beam.wait_for_global("counter");
        beam.check("GenServer.call({:global, :counter}, :value)", "0");
        beam.check("GenServer.cast({:global, :counter}, {:add, 40})", ":ok");
        beam.check("GenServer.cast({:global, :counter}, {:add, 2})", ":ok");
        beam.check("GenServer.call({:global, :counter}, :value)", "42");
        // What is no request ends the call, or is dropped, and leaves the counter as it was.
        beam.check("GenServer.cast({:global, :counter}, {:add, \"much\"})", ":ok");
        beam.check("GenServer.cast({:global, :counter}, {:sub, 3})", ":ok");
        for request in [":what", "{:unknown, 1}", "{:value, 1}"] {
            let unknown =
                beam.eval(&format!("GenServer.call({{:global, :counter}}, {request})")).unwrap_err();
            assert!(unknown.exit_reason().contains(&format!("{{:bad_call, {request}}}")), "{unknown}");
        }
        beam.check("GenServer.call({:global, :counter}, :value)", "42");
    });
}

#[test]
fn the_documented_cache_asks_the_elixir_store_once() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let program = Program::start("cache", &epmd);
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run(&format!("cache = {{:cache, :\"{}\"}}", program.name()));
        beam.check_soon(&format!("Node.ping(:\"{}\")", program.name()), ":pong");
        let none = beam.eval("GenServer.call(cache, {:get, \"k\"})").unwrap_err();
        assert!(none.exit_reason().contains(":no_master"), "{none}");
        beam.run("{:ok, master} = KeyValueStoreDistributed.start_link(:master)");
        // A value that no Rust type stands for.
        beam.check("KeyValueStoreDistributed.put(\"k\", [1 | &is_atom/1])", ":ok");
        beam.check("GenServer.call(cache, {:get, \"k\"}) === [1 | &is_atom/1]", "true");
        beam.check("KeyValueStoreDistributed.put(\"k\", :other)", ":ok");
        beam.check("GenServer.call(cache, {:get, \"k\"}) === [1 | &is_atom/1]", "true");
        beam.run("GenServer.cast(cache, {:forget, \"k\"})");
        beam.check("GenServer.call(cache, {:get, \"k\"})", ":other");
        beam.run("GenServer.cast(cache, :clear); KeyValueStoreDistributed.put(\"k\", nil)");
        beam.check("GenServer.call(cache, {:get, \"k\"})", "nil");
    });
}

#[test]
fn the_documented_subscriber_comes_back_to_its_publisher() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let program = Program::start("subscriber", &epmd);
        beam.run(
            "publisher = fn publish ->
               receive do
                 {:\"$gen_call\", from, {:subscribe, pid}} ->
                   GenServer.reply(from, :ok)
                   Process.put(:subscriber, pid)
                 {:tell, text} -> send(Process.get(:subscriber), {:event, text})
                 :crash -> exit(:crashed)
               end
               publish.(publish)
             end
             start = fn ->
               pid = spawn(fn -> publisher.(publisher) end)
               :yes = :global.register_name(:publisher, pid)
               pid
             end
             first = start.()",
        );
        beam.run(&format!("subscriber = {{:subscriber, :\"{}\"}}", program.name()));
        beam.check_soon(&format!("Node.ping(:\"{}\")", program.name()), ":pong");
        beam.check_soon("GenServer.call(subscriber, :events)", "{true, []}");
        let unknown = beam.eval("GenServer.call(subscriber, :what)").unwrap_err();
        assert!(unknown.exit_reason().contains("{:bad_call, :what}"), "{unknown}");
        beam.run("send(first, {:tell, \"one\"})");
        beam.check_soon("GenServer.call(subscriber, :events)", "{true, [\"one\"]}");
        beam.run("send(first, :crash)");
        beam.check_soon("GenServer.call(subscriber, :events)", "{false, [\"one\"]}");
        beam.run("second = start.()");
        beam.check_soon("GenServer.call(subscriber, :events)", "{true, [\"one\"]}");
        beam.run("send(second, {:tell, \"two\"})");
        beam.check_soon("GenServer.call(subscriber, :events)", "{true, [\"one\", \"two\"]}");
    });
}

/// What is typed in iex beside an example, and what that gives; nothing where it is not said.
fn typed(example: &str) -> Vec<(String, Option<String>)> {
    let text = include_str!("../examples/README.md").replace("myhost", &short_hostname());
    let section = text.split("\n## ").find(|section| section.starts_with(&format!("{example}\n")));
    let block = section.and_then(|section| section.split("```elixir\n").nth(1)).expect("it has a block");
    let lines = block.split("```").next().unwrap_or_default().lines();
    let lines = lines.map(|line| match line.rsplit_once(" # ") {
        Some((code, value)) => (code.to_owned(), Some(value.to_owned())),
        None => (line.to_owned(), None),
    });
    lines.collect()
}

fn the_lines_give_what_stands_behind_them(example: &str, node: &str) {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let _program = Program::start_as(example, node, &epmd);
        epmd.wait_for_name(node, true);
        let beam = BeamNode::start(otp, &epmd, "iex");
        type_the_lines(example, &beam);
    });
}

#[track_caller]
fn type_the_lines(example: &str, beam: &BeamNode) {
    let lines = typed(example);
    assert!(lines.len() > 2, "{lines:?}");
    for (code, value) in &lines {
        match value {
            Some(value) => beam.check_soon(code, value),
            None => _ = beam.run(code),
        }
    }
}

#[test]
fn the_counter_does_what_the_examples_say() {
    the_lines_give_what_stands_behind_them("counter", "counter");
}

#[test]
fn the_cache_does_what_the_examples_say() {
    the_lines_give_what_stands_behind_them("cache", "cache");
}

#[test]
fn the_subscriber_does_what_the_examples_say() {
    the_lines_give_what_stands_behind_them("subscriber", "subscriber");
}

#[cfg(feature = "eetf")]
#[test]
fn the_server_of_eetfs_terms_does_what_the_examples_say() {
    the_lines_give_what_stands_behind_them("eetf_server", "shelf");
}

#[cfg(feature = "tokio")]
#[test]
fn the_client_that_is_written_for_tokio_does_what_the_examples_say() {
    the_lines_give_what_stands_behind_them("tokio_client", "lines");
}

#[test]
fn a_store_of_an_engine_that_answers_late_has_slaves_of_both_kinds_and_all_else() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let rust = KvNode::start(&epmd, "rust", "");
        let program = Program::start_as("own_engine", "own", &epmd);
        epmd.wait_for_name("own", true);
        let beam = BeamNode::start(otp, &epmd, "iex");
        type_the_lines("own_engine", &beam);
        let own = |request: &str| format!("GenServer.call({{:own, :\"{}\"}}, {request})", program.name());
        // What it had is there, and what is written to it is refused, but for its primary's.
        beam.check(&format!("Enum.all?(1..1_000, &({} == &1 * &1))", own("{:get, &1}")), "true");
        beam.check(&format!("match?({{:error, {{:slave_of, _}}}}, {})", own("{:put, 1, 2}")), "true");
        // It takes its place again, with the same slaves.
        beam.check_soon(&own("{:promote}"), ":ok");
        beam.check_soon(&own("{:put, :again, 1}"), ":ok");
        beam.check(&format!("{}.role", own(":status")), ":primary");
        beam.check(
            &format!("GenServer.call({{KeyValueStore, :\"{}\"}}, {{:get, :again}})", rust.name()),
            "1",
        );
        beam.check("GenServer.call({:global, :elixir}, {:get, :again})", "1");
        let states = format!("Enum.map({}.slaves, & &1.state)", own(":status"));
        beam.check_soon(&states, "[in_step: 0, in_step: 0]");
        // Watchers are told, and keys end.
        beam.run(&format!("{{:ok, ref, _}} = {}", own("{:watch, []}")));
        beam.check(&own("{:put, :short, 1, ttl: 100}"), ":ok");
        let told = "receive do {:kvnode, ^ref, event} -> Tuple.delete_at(event, 0) after 10_000 -> nil end";
        beam.check(told, "{:put, :short, 1}");
        beam.check(told, "{:expire, :short}");
        // Several keys change at once or not at all, each by what is there.
        beam.check(&own("{:put_many, [{:a, 1}, {:b, 2}]}"), ":ok");
        beam.check(&format!("{} |> Enum.sort()", own("{:get_many, [:a, :b, :none]}")), "[a: 1, b: 2]");
        beam.check(&own("{:update_counter, :a, 41}"), "42");
        // Its process is started again, on what the engine has.
        let holder = format!("node(:global.whereis_name(:own)) == :\"{}\"", program.name());
        beam.check_soon(&holder, "true");
        beam.check("Process.exit(:global.whereis_name(:own), :kill)", "true");
        beam.check_soon(
            &format!("try do {} catch :exit, _ -> :not_yet end", own("{:get, 1_000}")),
            "1000000",
        );
        beam.check(&own(":count"), "1005");
        beam.check_soon(&states, "[in_step: 0, in_step: 0]");
        beam.check_soon(&own("{:put, :after, 1}"), ":ok");
    });
}

#[test]
fn the_client_of_another_crate_calls_a_store() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let answer = rpc_client::put_and_get(kv.name(), epmd.port_of("kv"), support::COOKIE);
    assert_eq!(answer.expect("it is reached").to_string(), "42");
    let wrong =
        rpc_client::put_and_get(kv.name(), epmd.port_of("kv"), "wrong").expect_err("it is not let in");
    assert!(!wrong.to_string().contains("wrong"), "{wrong}");
}

#[test]
fn every_example_is_in_the_table() {
    let table = include_str!("../examples/README.md");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let name = entry.expect("it is readable").file_name().to_string_lossy().into_owned();
        if let Some(example) = name.strip_suffix(".rs") {
            assert!(table.contains(&format!("[{example}]({name})")), "{name} is not in the table");
        }
    }
}
