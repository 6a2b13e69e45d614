//! Large values, which go in fragments, beside small ones on the same connection.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, Epmd, KvNode, Otp, on_every_otp};

#[test]
fn large_and_small_values_of_many_processes_come_back_as_they_went_in() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let fragmenting = KvNode::start(&epmd, "kv", "");
        let plain = KvNode::start(&epmd, "plain", "--no-fragments");
        let beam = BeamNode::start(otp, &epmd, "beam");
        for kv in [&fragmenting, &plain] {
            beam.ping(kv.name());
        }
        beam.wait_for_global("kv");
        beam.wait_for_global("plain");
        beam.check(
            r#"
            large = fn caller, round ->
              bytes = :binary.copy(<<caller, round, 0, 255>>, 60_000 + 150_000 * caller + round)

              case rem(caller, 3) do
                0 -> bytes
                1 -> {:several, bytes, bytes, [round]}
                2 -> Enum.to_list(1..(60_000 + round))
              end
            end

            for kv <- [:kv, :plain] do
              pid = :global.whereis_name(kv)

              larges =
                for caller <- 1..6 do
                  Task.async(fn ->
                    for round <- 1..6 do
                      value = large.(caller, round)
                      :ok = GenServer.call(pid, {:put, caller, value}, 60_000)
                      ^value = GenServer.call(pid, {:get, caller}, 60_000)
                    end
                  end)
                end

              smalls =
                for caller <- 7..12 do
                  Task.async(fn ->
                    for round <- 1..300 do
                      :ok = GenServer.call(pid, {:put, caller, {caller, round}}, 60_000)
                      {^caller, ^round} = GenServer.call(pid, {:get, caller}, 60_000)
                    end
                  end)
                end

              for task <- larges ++ smalls, do: Task.await(task, 80_000)
              for caller <- 1..6, do: true = GenServer.call(pid, {:get, caller}, 60_000) == large.(caller, 6)
            end
            |> List.flatten()
            |> Enum.uniq()
            "#,
            "[true]",
        );
    });
}

#[test]
fn a_small_answer_does_not_pass_a_large_one_to_the_same_process() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.check(
            r#"
            pid = :global.whereis_name(:kv)
            bytes = :binary.copy("0123456789", 1_500_000)
            :ok = GenServer.call(pid, {:put, :large, bytes}, 60_000)
            :ok = GenServer.call(pid, {:put, :small, 1})
            asked = for number <- 1..20, do: {number, Enum.at([:large, :small, :small, :nobody], rem(number, 4))}
            for {number, key} <- asked, do: send(pid, {:"$gen_call", {self(), number}, {:get, key}})

            for {number, key} <- asked do
              # The next message, whatever it is.
              receive do
                {^number, value} -> value == Map.get(%{large: bytes, small: 1}, key)
                other -> {number, :passed_by, elem(other, 0)}
              end
            end
            |> Enum.uniq()
            "#,
            "[true]",
        );
    });
}

#[test]
fn what_a_large_value_is_replicated_to_gets_it_before_what_was_written_after_it() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let slave = KvNode::start(&epmd, "slave", "");
        let kv = KvNode::start(&epmd, "kv", "--slave global:slave");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.ping(slave.name());
        beam.wait_for_global("kv");
        beam.wait_for_global("slave");
        beam.check(
            r#"
            bytes = :binary.copy("0123456789", 400_000)

            for number <- 1..10 do
              :ok = GenServer.call({:global, :kv}, {:put, :value, {number, bytes}}, 60_000)
              :ok = GenServer.call({:global, :kv}, {:put, :number, number}, 60_000)
              :ok = GenServer.call({:global, :kv}, {:put, :value, number}, 60_000)
            end

            :ok = GenServer.call({:global, :kv}, {:put, :last, true}, 60_000)
            "#,
            ":ok",
        );
        beam.check_soon("GenServer.call({:global, :slave}, {:get, :last})", "true");
        beam.check(
            "for key <- [:value, :number], do: GenServer.call({:global, :slave}, {:get, key}) == 10",
            "[true, true]",
        );
    });
}

#[test]
fn a_value_over_the_bound_costs_the_call_that_brings_it_and_nothing_else() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let plain = KvNode::start(&epmd, "plain", "--no-fragments");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run("huge = :binary.copy(<<7>>, 170 * 1024 * 1024); :ok");
        for (kv, name) in [(&kv, "kv"), (&plain, "plain")] {
            beam.ping(kv.name());
            beam.wait_for_global(name);
            beam.run(&format!("pid = :global.whereis_name(:{name}); monitor = Process.monitor(pid); :ok"));
            beam.check(
                r#"
                others =
                  Task.async(fn ->
                    for n <- 1..500 do
                      :ok = GenServer.call(pid, {:put, n, n}, 60_000)
                      ^n = GenServer.call(pid, {:get, n}, 60_000)
                    end

                    :served
                  end)

                ended =
                  try do
                    GenServer.call(pid, {:put, :huge, huge}, 60_000)
                  catch
                    :exit, {{:system_limit, text}, {GenServer, :call, _}} -> text
                  end

                [_, bytes] = Regex.run(~r/^a message of (\d+) bytes is over the bound of 167772160 \(--frame-bytes-max\)$/, ended)
                {String.to_integer(bytes) in 178_257_920..178_259_000, Task.await(others, 60_000)}
                "#,
                "{true, :served}",
            );
            // A cast is dropped; what comes behind it is served.
            beam.check(
                "GenServer.cast(pid, {:replicate_put, :huge, huge}); GenServer.call(pid, {:get, :huge}, 60_000)",
                "nil",
            );
            beam.check(
                &format!(
                    "receive do {{:DOWN, ^monitor, _, _, _}} -> :lost
                     after 0 -> :global.whereis_name(:{name}) == pid end"
                ),
                "true",
            );
            kv.wait_for_log(&["WARN", "a call: it has ended", "--frame-bytes-max", beam.name()]);
            kv.wait_for_log(&["ERROR", "replicated write lost"]);
            assert!(!kv.log().contains("peer down"), "{}", kv.log());
        }
    });
}

#[test]
fn functions_with_arguments_over_the_bound_are_refused_at_once() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--frame-bytes-max 1MiB");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.run(&format!("node = :\"{}\"; huge = :binary.copy(<<7>>, 3_000_000); :ok", kv.name()));
        beam.check(
            r#"
            try do
              :erpc.call(node, :erlang, :whereis, [huge])
            catch
              :error, {:erpc, reason} -> reason
            end
            "#,
            ":system_limit",
        );
        let said =
            beam.run("inspect(:rpc.call(node, :erlang, :whereis, [huge]), limit: 5, printable_limit: 200)");
        println!("{} {said}", otp.release);
        assert!(said.contains("{:badrpc, ") && said.contains("system_limit"), "{said}");
        let said = beam
            .run("inspect(:rpc.block_call(node, :erlang, :whereis, [huge]), limit: 9, printable_limit: 200)");
        println!("{} {said}", otp.release);
        assert!(said.contains("{:badrpc, ") && said.contains("--frame-bytes-max"), "{said}");
        // As erl_call asks.
        beam.check(
            r#"
            send({:rex, node}, {self(), {:call, :erlang, :whereis, [huge], :user}})
            receive do {:rex, {:badrpc, {:system_limit, text}}} -> text =~ "--frame-bytes-max" end
            "#,
            "true",
        );
        beam.check(":rpc.call(node, :erlang, :whereis, [:rex]) |> is_pid()", "true");
        assert!(!kv.log().contains("peer down"), "{}", kv.log());
    });
}

#[test]
fn an_answer_over_our_bound_ends_our_call_and_not_the_connection() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--frame-bytes-max 1MiB");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.run(&format!(
            "node = :\"{}\"
             answers = fn answers ->
               receive do {{:\"$gen_call\", from, bytes}} -> GenServer.reply(from, :binary.copy(<<7>>, bytes)) end
               answers.(answers)
             end
             Process.register(spawn(fn -> answers.(answers) end), :answers); :ok",
            kv.name()
        ));
        let call = |bytes: u32| format!(":rpc.call(node, GenServer, :call, [{{:answers, node()}}, {bytes}])");
        beam.check(&format!("byte_size({})", call(1_000_000)), "1000000");
        beam.check(
            &format!(
                "{{:badrpc, {{:EXIT, {{{{:system_limit, text}}, {{GenServer, :call, _}}}}}}}} = {}; text =~ \"--frame-bytes-max\"",
                call(3_000_000)
            ),
            "true",
        );
        beam.check(&format!("byte_size({})", call(1000)), "1000");
        assert!(!kv.log().contains("peer down"), "{}", kv.log());
    });
}

/// So many processes of one BEAM put so many bytes each at once: each is answered, or told why not.
fn at_once(otp: &Otp, processes: u32, mib: u32) {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let beam = BeamNode::start(otp, &epmd, "beam");
    beam.ping(kv.name());
    beam.wait_for_global("kv");
    let said = beam.run(&format!(
        r#"
        pid = :global.whereis_name(:kv)
        monitor = Process.monitor(pid)
        bytes = :binary.copy(<<7>>, {mib} * 1024 * 1024)

        counted =
          for _ <- 1..{processes} do
            Task.async(fn ->
              try do
                GenServer.call(pid, {{:put, :value, bytes}}, 80_000)
              catch
                :exit, {{{{:system_limit, text}}, _}} -> text =~ "(--unfinished-bytes-max)"
              end
            end)
          end
          |> Enum.map(&Task.await(&1, 85_000))
          |> Enum.frequencies()

        lost = receive do {{:DOWN, ^monitor, _, _, _}} -> true after 0 -> false end
        {{Map.get(counted, :ok, 0) >= 1024 / {mib} - 1, Map.get(counted, :ok, 0) + Map.get(counted, true, 0), lost, counted}}
        "#
    ));
    let wanted = format!("{{true, {processes}, false, ");
    assert!(said.starts_with(&wanted), "{processes} x {mib} MiB on {}: {said}", otp.release);
    assert!(!kv.log().contains("peer down"), "{}", kv.log());
    beam.check("GenServer.call(pid, {:get, :value}, 60_000) == bytes", "true");
    let status = std::fs::read_to_string(format!("/proc/{}/status", kv.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 1400 << 10, "{peak} KiB");
}

#[test]
fn many_large_values_at_once_are_taken_or_their_calls_told() {
    on_every_otp(|otp| at_once(otp, 30, 60));
    at_once(&Otp::newest(), 20, 63);
    at_once(&Otp::newest(), 60, 30);
}
