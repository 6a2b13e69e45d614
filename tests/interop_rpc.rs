//! Functions called here by rpc, and spawn requests: the same calls made to a BEAM with the Elixir modules and to kvnode,
//! and what the caller sees compared.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, Epmd, KvNode, Otp, at_once_on_every_otp, on_every_otp, on_every_otp_from};

/// A BEAM that calls, a BEAM that is called, and a kvnode that is called.
struct Trio {
    client: BeamNode,
    beam: BeamNode,
    kv: KvNode,
    // Goes last: its drop expects that nobody needs it any more.
    _epmd: Epmd,
}

/// Gives what a caller sees as text, without what differs from node to node and from run to run.
const SEEN: &str = r##"
    shown = fn term -> inspect(term, limit: :infinity, printable_limit: :infinity, width: :infinity) end
    plain = fn text, n ->
      text
      |> String.replace(to_string(n), "NODE")
      |> String.replace(~r/#PID<[^>]*>/, "#PID")
      |> String.replace(~r/#Reference<[^>]*>/, "#Reference")
      |> String.replace(~r/\[file: [^\]]*\]/, "[]")
    end
    seen = fn n, f -> plain.(shown.(try do {:value, f.(n)} catch kind, reason -> {kind, reason} end), n) end
    next = fn -> receive do m -> m after 20_000 -> :nothing end end
    rest = fn rest, wait -> receive do m -> [m | rest.(rest, wait)] after wait -> [] end end
"##;

impl Trio {
    fn start(otp: &Otp) -> Self {
        let epmd = Epmd::start();
        let (client, beam) = (BeamNode::start(otp, &epmd, "client"), BeamNode::start(otp, &epmd, "beam"));
        let kv = KvNode::start(&epmd, "kv", "");
        client.ping(beam.name());
        client.ping(kv.name());
        client.wait_for_global("kv");
        beam.run("{:ok, _} = KeyValueStore.start_link()");
        client.run(&format!("Process.flag(:trap_exit, true)\n{SEEN}"));
        Self { client, beam, kv, _epmd: epmd }
    }

    /// What a caller sees of `code`, where `n` is the node that is called.
    #[track_caller]
    fn seen(&self, node: &str, code: &str) -> String {
        // What an earlier one has left in the mailbox is not this one's.
        let text =
            self.client.run(&format!("rest.(rest, 0); seen.(:\"{node}\", fn n -> _ = n\n{code}\nend)"));
        text.trim_matches('"').replace("\\\"", "\"").replace("\\\\", "\\")
    }

    /// Both are seen to do the same.
    #[track_caller]
    fn same(&self, code: &str) -> String {
        let (ours, theirs) = (self.seen(self.kv.name(), code), self.seen(self.beam.name(), code));
        assert_eq!(ours, theirs, "{code}");
        ours
    }
}

/// Every way to call a function, with the module, function and arguments to be written in.
const CALLS: &[&str] = &[
    ":erpc.call(n, MFA)",
    ":erpc.call(n, MFA, 20_000)",
    ":rpc.call(n, MFA)",
    ":rpc.block_call(n, MFA)",
    ":erpc.multicall([n], MFA)",
    ":rpc.multicall([n], MFA)",
    ":rpc.yield(:rpc.async_call(n, MFA))",
    ":erpc.receive_response(:erpc.send_request(n, MFA))",
    // As a C node calls.
    "send({:rex, n}, {self(), {:call, MFA, :user}}); receive do {:rex, answer} -> answer after 20_000 -> :nothing end",
];

#[test]
fn what_is_served_and_what_is_not_is_seen_as_on_a_beam_by_every_kind_of_caller() {
    on_every_otp(|otp| {
        let trio = Trio::start(otp);
        for mfa in [
            ":no_such_module, :function, []",
            ":erlang, :no_such_function, [1, :two, \"three\"]",
            ":erlang, :node, [1, 2, 3]",
            ":erlang, :node, []",
            "Node, :self, []",
            "KeyValueStore, :put, [:key, {:a, \"value\"}]",
            "KeyValueStore, :get, [:key]",
            "KeyValueStore, :delete, [:key]",
            "KeyValueStore, :get, [:key]",
            "KeyValueStore, :get, [:too, [], :many]",
            "KeyValueStoreReplicated, :get, [:no_primary_here]",
            "KeyValueStoreDistributed, :get, [:no_primary_anywhere]",
            "GenServer, :call, [KeyValueStore, {:put, 1, 2}]",
            "GenServer, :call, [KeyValueStore, {:get, 1}, 20_000]",
            "GenServer, :call, [{KeyValueStore, n}, {:get, 1}, :infinity]",
            "GenServer, :call, [:nobody, :request]",
            "GenServer, :call, [:nobody, :request, 100]",
            "GenServer, :call, [{:global, :nobody}, :request]",
            "GenServer, :call, [{:nobody, :nowhere@localhost}, :request]",
            "GenServer, :cast, [:nobody, :request]",
            ":gen_server, :call, [KeyValueStore, {:get, 1}]",
            ":gen_server, :call, [:nobody, :request]",
            ":gen_server, :call, [:nobody, :request, 100]",
            ":gen_server, :cast, [KeyValueStore, {:get, 1}]",
            ":net_adm, :ping, [node()]",
            ":net_adm, :ping, [:nowhere@localhost]",
        ] {
            if mfa.contains("gen_server, :cast, [KeyValueStore") {
                // Which ends a GenServer of that module; the difference is known.
                assert_eq!(trio.seen(trio.kv.name(), &format!(":erpc.call(n, {mfa})")), "{:value, :ok}");
                continue;
            }
            for call in CALLS {
                trio.same(&call.replace("MFA", mfa));
            }
        }
        assert_eq!(
            trio.same(":rpc.call(n, :no_such_module, :function, [1])"),
            "{:value, {:badrpc, {:EXIT, {:undef, [{:no_such_module, :function, [1], []}]}}}}"
        );
    });
}

#[test]
fn wrong_arguments_are_refused_as_a_beam_refuses_them() {
    // Where the exception says which argument it was.
    on_every_otp_from(25, |otp| {
        let trio = Trio::start(otp);
        for mfa in [
            ":erlang, :whereis, [\"text\"]",
            "Process, :whereis, [\"text\"]",
            ":erlang, :is_process_alive, [self()]",
            "Process, :alive?, [self()]",
            ":erlang, :process_info, [self()]",
            ":erlang, :process_info, [:no_pid, :status]",
            "Process, :info, [self(), :status]",
            ":erlang, :nodes, [:nonsense]",
            ":erlang, :nodes, [[:this, :nonsense]]",
            "Node, :list, [:nonsense]",
            ":erlang, :system_info, [:nonsense]",
            ":erlang, :monotonic_time, [:fortnight]",
            ":erlang, :system_time, [0]",
            ":erlang, :statistics, [:nonsense]",
            ":erlang, :memory, [:nonsense]",
            ":net_adm, :ping, [1]",
            ":erlang, :node, [1 | 2]",
        ] {
            for call in [":erpc.call(n, MFA)", ":rpc.call(n, MFA)"] {
                trio.same(&call.replace("MFA", mfa));
            }
        }
    });
}

#[test]
fn functions_of_the_caller_are_undef_as_on_a_beam_that_lacks_their_module() {
    on_every_otp(|otp| {
        let trio = Trio::start(otp);
        // Not compiled into any module: only the caller has it.
        trio.client.run(
            "[{module, code}] = Code.compile_string(\"defmodule OnlyHere do def fun, do: fn -> :ran end end\")
             {module, byte_size(code) > 0}",
        );
        trio.same(":erpc.call(n, OnlyHere.fun())");
        trio.same(":erpc.call(n, &:erlang.node/0)");
        trio.same("pid = Node.spawn_link(n, OnlyHere.fun()); {:EXIT, ^pid, reason} = next.(); reason");
        trio.same("pid = Node.spawn_link(n, &:erlang.node/0); {:EXIT, ^pid, reason} = next.(); reason");
    });
}

#[test]
fn spawn_requests_are_answered_and_end_as_on_a_beam() {
    // Most of it is waiting for what must not come.
    at_once_on_every_otp(|otp| {
        let trio = Trio::start(otp);
        for mfa in [
            ":no_such_module, :function, [1, 2]",
            ":erlang, :node, []",
            "KeyValueStore, :put, [1, 2]",
            "KeyValueStoreDistributed, :get, [:no_primary_anywhere]",
        ] {
            trio.same(&format!("pid = Node.spawn_link(n, {mfa}); {{:EXIT, ^pid, reason}} = next.(); reason"));
            trio.same(&format!(
                "{{pid, ref}} = :erlang.spawn_opt(n, {mfa}, [:monitor]); {{:DOWN, ^ref, :process, ^pid, reason}} = next.(); reason"
            ));
            trio.same(&format!("true = is_pid(Node.spawn(n, {mfa})); rest.(rest, 300)"));
            for options in [
                "[]",
                "[reply: :yes]",
                "[reply: :no]",
                "[reply: :success_only]",
                "[reply: :error_only]",
                "[:link, reply: :no]",
                "[:monitor, reply: :error_only]",
                "[:link, :monitor, reply_tag: :mine]",
                "[:monitor, priority: :high, min_heap_size: 1000]",
            ] {
                trio.same(&format!(":erlang.spawn_request(n, {mfa}, {options}); Enum.sort_by(rest.(rest, 300), &(is_tuple(&1) && elem(&1, 0)))"));
            }
        }
    });
}

#[test]
fn spawn_options_of_later_releases_are_understood() {
    on_every_otp_from(25, |otp| {
        let trio = Trio::start(otp);
        for options in ["[monitor: [tag: :mine]]", "[monitor: [alias: :reply_demonitor]]", "[nonsense: 1]"] {
            trio.same(&format!(
                ":erlang.spawn_request(n, :no_such_module, :function, [], {options}); rest.(rest, 300)"
            ));
        }
        trio.same("ref = :erlang.spawn_request(n, :erpc, :execute_cast, [:no_such_module, :f, [1]], [:monitor, reply: :no]); {:DOWN, ^ref, :process, _, {reason, _}} = next.(); reason");
    });
}

#[test]
fn casts_of_functions_are_carried_out() {
    on_every_otp(|otp| {
        let trio = Trio::start(otp);
        for (number, cast) in [
            ":erpc.cast(n, MFA)",
            ":erpc.multicast([n], MFA)",
            ":rpc.cast(n, MFA)",
            ":rpc.eval_everywhere([n], MFA)",
            "GenServer.cast({:rex, n}, {:cast, MFA, self()})",
        ]
        .iter()
        .enumerate()
        {
            for node in [trio.kv.name(), trio.beam.name()] {
                let mfa = format!("KeyValueStore, :put, [:cast, {number}]");
                trio.seen(node, &cast.replace("MFA", &mfa));
                trio.client.check_soon(
                    &format!("GenServer.call({{KeyValueStore, :\"{node}\"}}, {{:get, :cast}})"),
                    &number.to_string(),
                );
                // What is not there harms nobody.
                trio.seen(node, &cast.replace("MFA", ":no_such_module, :function, [1]"));
                trio.seen(node, ":erpc.call(n, :erlang, :node, [])");
            }
        }
        trio.same(":rpc.sbcast([n], :nobody, :message)");
        trio.same(
            ":rpc.sbcast([n], KeyValueStore, {:\"$gen_call\", {self(), :tag}, {:get, :cast}}); next.()",
        );
        trio.same("send({:rex, n}, {self(), :features_request}); next.()");
    });
}

#[test]
fn a_node_says_of_itself_what_it_knows() {
    on_every_otp(|otp| {
        let trio = Trio::start(otp);
        let kv = |mfa: &str| trio.seen(trio.kv.name(), &format!(":erpc.call(n, {mfa})"));
        for check in [
            "pid = :erpc.call(n, :erlang, :whereis, [KeyValueStore]); {node(pid) == n, :erpc.call(n, Process, :alive?, [pid])}",
            "{:erpc.call(n, :erlang, :whereis, [:nobody]), :erpc.call(n, Process, :whereis, [:nobody])}",
            "pid = :erpc.call(n, :erlang, :whereis, [:rex]); pid in :erpc.call(n, :erlang, :processes, [])",
            "[KeyValueStore, :net_kernel, :rex] -- :erpc.call(n, Process, :registered, [])",
            "node() in :erpc.call(n, :erlang, :nodes, [:connected])",
            ":erpc.call(n, :erlang, :nodes, [:this])",
            "n in :erpc.call(n, Node, :list, [:known])",
            "pid = :erpc.call(n, :erlang, :whereis, [KeyValueStore]); :erpc.call(n, Process, :info, [pid, [:registered_name, :status, :message_queue_len, :trap_exit, :priority, :initial_call]])",
            "pid = :erpc.call(n, :erlang, :whereis, [KeyValueStore]); :erpc.call(n, :erlang, :process_info, [pid, :registered_name])",
            "pid = Node.spawn(n, :erlang, :node, []); :erpc.call(n, :erlang, :node, []); {:erpc.call(n, :erlang, :process_info, [pid]), :erpc.call(n, Process, :info, [pid]), :erpc.call(n, Process, :info, [pid, :status])}",
            ":erpc.call(n, :global, :whereis_name, [:nobody])",
            "is_integer(:erpc.call(n, :erlang, :memory, [:total]))",
            "abs(:erpc.call(n, :erlang, :system_time, [:second]) - :erlang.system_time(:second)) < 60",
            "abs(:erpc.call(n, :erlang, :system_time, [1000]) - :erlang.system_time(1000)) < 60_000",
            "a = :erpc.call(n, :erlang, :monotonic_time, []); b = :erpc.call(n, :erlang, :monotonic_time, []); a < b",
            "match?({a, b} when a >= b, :erpc.call(n, :erlang, :statistics, [:wall_clock]))",
            "for item <- [:process_count, :process_limit, :schedulers, :schedulers_online, :wordsize, :creation], do: :erpc.call(n, :erlang, :system_info, [item]) > 0",
            "for item <- [:otp_release, :version, :system_version, :machine, :system_architecture], do: is_list(:erpc.call(n, :erlang, :system_info, [item]))",
        ] {
            if check.contains(":creation") && otp.release < 25 {
                continue;
            }
            trio.same(check);
        }
        // The module whose state it shows: one that has slaves, as it has a global name too.
        trio.client.check(
            &format!(
                "n = :\"{}\"; pid = :erpc.call(n, :erlang, :whereis, [KeyValueStore]); {{:erpc.call(n, :erlang, :process_info, [pid])[:dictionary][:\"$initial_call\"], Map.keys(:sys.get_state(pid))}}",
                trio.kv.name()
            ),
            "{{KeyValueStoreReplicated, :init, 1}, [:data, :slaves]}",
        );
        // A hidden node: its lists are as its peers see it.
        trio.beam.ping(trio.kv.name());
        let visible = kv("Node, :list, []");
        assert!(visible.contains(":client@") && visible.contains(":beam@"), "{visible}");
        assert_eq!(kv(":global, :whereis_name, [:kv]"), "{:value, #PID}");
        trio.client.check(
            &format!(
                ":erpc.call(:\"{}\", :global, :whereis_name, [:kv]) == :global.whereis_name(:kv)",
                trio.kv.name()
            ),
            "true",
        );
        trio.client.run(
            "pid = spawn(fn -> Process.sleep(:infinity) end); :yes = :global.register_name(:theirs, pid)",
        );
        assert_eq!(kv(":global, :whereis_name, [:theirs]"), "{:value, #PID}");
        let names = kv(":global, :registered_names, []");
        assert!(names.contains(":kv") && names.contains(":theirs"), "{names}");
        let info = kv("Process, :info, [:erpc.call(n, :erlang, :whereis, [KeyValueStore])]");
        assert!(info.contains("current_function: {:gen_server, :loop, 7}"), "{info}");
    });
}

#[test]
fn the_requests_of_a_store_are_functions() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.run(&format!("call = fn f, a -> :erpc.call(:\"{}\", KeyValueStore, f, a) end", kv.name()));
        for (call, answer) in [
            ("call.(:put, [:k, 1, [ttl: 60_000]])", ":ok"),
            ("call.(:update_counter, [:k, 2])", "3"),
            ("call.(:update_counter, [:n, 2, 40, [confirm: 0]])", "42"),
            ("call.(:fetch, [:k])", "{:ok, 3}"),
            ("call.(:put_new, [:k, 1])", "false"),
            ("call.(:compare_and_put, [:k, {:value, 3}, :x])", ":ok"),
            ("call.(:transact, [[{:equal, :k, :x}], [{:add, :n, 1}, {:delete, :k}]])", "{:ok, [43, :ok]}"),
            ("call.(:count, [])", "1"),
            ("call.(:scan, [[limit: 5]])", "{[n: 43], :done}"),
            ("call.(:put_many, [%{1 => 2}])", ":ok"),
            ("call.(:get_many, [[1, 2]])", "%{1 => 2}"),
            ("call.(:delete, [1, [confirm: 0]])", ":ok"),
            ("call.(:put, [:k, 1, [colour: 1]])", "{:error, {:unknown_option, :colour}}"),
            (
                "match?({:exception, :undef, _}, catch_error(fn -> call.(:replica_ask, [1, 2, 3]) end))",
                "true",
            ),
            ("match?({:exception, :undef, _}, catch_error(fn -> call.(:count, [[], 1]) end))", "true"),
        ] {
            let caught = "catch_error = fn act -> try do act.() catch :error, why -> why end end";
            let call = call.replace("catch_error(", "catch_error.(");
            beam.check(&format!("{caught}; {call}"), answer);
        }
    });
}

#[test]
fn stores_are_started_with_a_state_and_served_under_their_names() {
    on_every_otp(|otp| {
        let trio = Trio::start(otp);
        let kv = trio.kv.name();
        trio.client.run(&format!("n = :\"{kv}\"; call = fn m, f, a -> :erpc.call(n, m, f, a, 30_000) end"));
        let check = |code: &str, value: &str| trio.client.check(code, value);
        // A store that is there keeps its name.
        check(
            "{:error, {:already_started, pid}} = call.(KeyValueStore, :start_link, []); pid == call.(Process, :whereis, [KeyValueStore])",
            "true",
        );
        check(
            "{:error, {:already_started, pid}} = call.(KeyValueStore, :start_link, [%{}]); is_pid(pid)",
            "true",
        );
        check(
            "{:ok, pid} = call.(KeyValueStore, :start_link, [%{a: 1}, [name: :other]]); GenServer.call({:other, n}, {:get, :a})",
            "1",
        );
        check(
            "{:ok, pid} = call.(KeyValueStore, :start_link, [%{b: 2}, [name: nil]]); GenServer.call(pid, {:get, :b})",
            "2",
        );
        check(
            "{:ok, pid} = call.(KeyValueStore, :start_link, [%{c: 3}, [name: {:global, :third}]]); GenServer.call({:global, :third}, {:get, :c})",
            "3",
        );
        // Local primary and slave, by the functions of their module.
        check(
            "{:ok, _} = call.(KeyValueStoreReplicated, :start_link, []); call.(KeyValueStoreReplicated, :put, [1, :one])",
            ":ok",
        );
        check("call.(KeyValueStoreReplicated, :get, [1])", ":one");
        check(
            "{:ok, _} = call.(KeyValueStoreReplicated, :start_link, [:slave1, %{{:key} => 7}, []]); GenServer.call({:slave1, n}, {:get, {:key}})",
            "7",
        );
        check("call.(KeyValueStoreReplicated, :add_slave, [:slave1])", ":ok");
        check("call.(KeyValueStoreReplicated, :put, [2, :two])", ":ok");
        trio.client.check_soon("GenServer.call({:slave1, n}, {:get, 2})", ":two");
        // A global primary, known in the whole cluster when the answer is there.
        check(
            "{:ok, pid} = call.(KeyValueStoreDistributed, :start_link, [:master, %{1 => 2}]); pid == :global.whereis_name(:master)",
            "true",
        );
        check("KeyValueStoreDistributed.get(1)", "2");
        trio.beam.check_soon("KeyValueStoreDistributed.get(1)", "2");
        check("call.(KeyValueStoreDistributed, :get, [1])", "2");
        check(
            "{:error, {:already_started, pid}} = call.(KeyValueStoreDistributed, :start_link, []); pid == :global.whereis_name(:master)",
            "true",
        );
        // A name that another node has.
        check(
            "{:ok, far} = KeyValueStoreDistributed.start_link(:far); {:error, {:already_started, ^far}} = call.(KeyValueStoreDistributed, :start_link, [:far]); :global.whereis_name(:far) == far",
            "true",
        );
        // Slaves on either side.
        check("call.(KeyValueStoreDistributed, :add_slave, [:far])", ":ok");
        check("call.(KeyValueStoreDistributed, :put, [:k, \"v\"])", ":ok");
        trio.client.check_soon("GenServer.call(far, {:get, :k})", "\"v\"");
        // What is no state, and what are no options.
        for wrong in [
            "KeyValueStore, :start_link, [:no_map, [name: :x]]",
            "KeyValueStoreReplicated, :start_link, [:x, [1]]",
        ] {
            let seen = |node| trio.seen(node, &format!(":rpc.call(n, {wrong})"));
            for seen in [seen(kv), seen(trio.beam.name())] {
                assert!(seen.contains("function_clause") && seen.contains(":init"), "{wrong}: {seen}");
            }
        }
        check("call.(Process, :whereis, [:x])", "nil");
        for wrong in ["[%{}, [name: {:via, Registry, 1}]]", "[%{}, [name: 5]]"] {
            let seen = trio.seen(kv, &format!(":rpc.call(n, KeyValueStore, :start_link, {wrong})"));
            assert!(seen.contains("ArgumentError"), "{seen}");
        }
    });
}

#[test]
fn a_store_that_was_started_by_rpc_replicates_until_it_ends() {
    on_every_otp(|otp| {
        let trio = Trio::start(otp);
        let check = |code: &str, value: &str| trio.client.check(code, value);
        trio.client.run(&format!(
            "n = :\"{}\"; {{:ok, slave}} = KeyValueStoreReplicated.start_link(:slave)",
            trio.kv.name()
        ));
        trio.client
            .run("{:ok, store} = :rpc.call(n, KeyValueStoreReplicated, :start_link, [:primary, %{1 => 2}])");
        check("GenServer.call({:primary, n}, {:add_slave, slave})", ":ok");
        check("GenServer.call(store, {:add_slave, {:global, :kv}})", ":ok");
        check("for k <- 1..100, do: :ok = GenServer.call(store, {:put, k, [k]}); :ok", ":ok");
        trio.client.check_soon("GenServer.call(slave, {:get, 100}) == [100]", "true");
        trio.client.check_soon("GenServer.call({:global, :kv}, {:get, 100}) == [100]", "true");
        check("for k <- 1..100, do: (true = GenServer.call(slave, {:get, k}) == [k]); :ok", ":ok");
        check("Process.info(slave, :monitored_by) == {:monitored_by, [store]}", "true");
        check(":sys.get_state(store).slaves == [slave, {:global, :kv}]", "true");
        // What follows the slave ends with the store, which is not started again.
        check("Process.exit(store, :kill)", "true");
        trio.client.check_soon("Process.info(slave, :monitored_by)", "{:monitored_by, []}");
        check(":rpc.call(n, Process, :whereis, [:primary])", "nil");
        trio.kv.wait_for_log(&["process ended", "primary", ":killed"]);
    });
}

#[test]
fn a_call_whose_caller_is_gone_leaves_nothing_behind() {
    on_every_otp(|otp| {
        let trio = Trio::start(otp);
        let kv = trio.kv.name();
        // A server that never answers, called by way of kvnode for as long as it takes.
        trio.client.run("mute = spawn(fn -> Process.sleep(:infinity) end); Process.register(mute, :mute)");
        let count = format!("length(:erpc.call(:\"{kv}\", :erlang, :processes, []))");
        let before = trio.client.run(&count);
        let asker = BeamNode::start(otp, &trio._epmd, "asker");
        asker.run(&format!(
            "for _ <- 1..50, do: :erpc.send_request(:\"{kv}\", GenServer, :call, [{{:mute, :\"{}\"}}, :hello, :infinity])",
            trio.client.name()
        ));
        trio.client.check_soon("Process.info(mute, :message_queue_len)", "{:message_queue_len, 50}");
        trio.client.check_soon("Process.info(mute, :monitored_by) |> elem(1) |> length()", "50");
        asker.kill(&trio._epmd);
        trio.client.check_soon("Process.info(mute, :monitored_by) |> elem(1) |> length()", "0");
        trio.client.check_soon(&count, &before);
        // One that is killed answers no more.
        trio.client.check(
            &format!(
                "{{:EXIT, _, reason}} = (Node.spawn_link(:\"{kv}\", GenServer, :call, [{{:mute, node()}}, :hello, 200]); next.()); elem(reason, 0)"
            ),
            ":timeout",
        );
        trio.client.check_soon(&count, &before);
    });
}
