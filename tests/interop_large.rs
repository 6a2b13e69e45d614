//! Large values, which go in fragments, beside small ones on the same connection.

mod support;

use support::{BeamNode, Epmd, KvNode, on_every_otp};

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
