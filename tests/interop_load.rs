//! Many callers at once, and many messages in order.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, Epmd, KvNode, at_host, on_every_otp};

#[test]
fn a_thousand_concurrent_callers_get_right_answers() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.check(
            r#"
            pid = :global.whereis_name(:kv)

            1..1_000
            |> Enum.map(fn caller ->
              Task.async(fn ->
                for round <- 1..20 do
                  value = {caller, round, List.duplicate(caller, round)}
                  :ok = GenServer.call(pid, {:put, {:caller, caller}, value}, 60_000)
                  ^value = GenServer.call(pid, {:get, {:caller, caller}}, 60_000)
                  :ok = GenServer.call(pid, {:put, {:caller, caller, round}, round}, 60_000)
                  nil = GenServer.call(pid, {:get, {:nobody, caller, round}}, 60_000)
                end

                caller
              end)
            end)
            |> Enum.map(&Task.await(&1, 80_000))
            |> Enum.sum()
            "#,
            "500500",
        );
        beam.check(
            r#"
            Enum.count(for caller <- 1..1_000, round <- [1, 20] do
              ^round = GenServer.call(pid, {:get, {:caller, caller, round}})
            end)
            "#,
            "2000",
        );
    });
}

#[test]
fn callers_on_two_nodes_see_each_others_writes() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beams = ["one", "two"].map(|name| BeamNode::start(otp, &epmd, name));
        for beam in &beams {
            beam.ping(kv.name());
            beam.wait_for_global("kv");
        }
        // What was answered :ok is seen by the other side's next call: each turn waits for the other's last.
        let play = |own: &str, other: &str| {
            format!(
                r#"
                await = fn await, key ->
                  GenServer.call({{:global, :kv}}, {{:get, key}}) || await.(await, key)
                end

                for turn <- 1..300 do
                  :ok = GenServer.call({{:global, :kv}}, {{:put, {{:{own}, turn}}, turn}})
                  ^turn = await.(await, {{:{other}, turn}})
                end
                |> length()
                "#
            )
        };
        let games = [beams[0].spawn(&play("one", "two")), beams[1].spawn(&play("two", "one"))];
        for game in games {
            assert_eq!(game.value(), "300");
        }
    });
}

#[test]
fn two_hundred_thousand_casts_arrive_in_order() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.run("pid = :global.whereis_name(:kv)");
        // Never backwards while they arrive…
        let looks = beam.spawn(
            r#"
            pid = :global.whereis_name(:kv)

            Stream.repeatedly(fn -> GenServer.call(pid, {:get, :last}, 60_000) || 0 end)
            |> Enum.reduce_while([0], fn
              200_000, seen -> {:halt, [200_000 | seen]}
              last, seen -> {:cont, [last | seen]}
            end)
            |> Enum.chunk_every(2, 1, :discard)
            |> Enum.all?(fn [later, earlier] -> later >= earlier end)
            "#,
        );
        // … and none missing or late: each of 1,000 keys is written 200 times, some of them deleted in between.
        beam.run(
            r#"
            for i <- 1..200_000 do
              GenServer.cast(pid, {:replicate_put, {:key, rem(i, 1_000)}, i})
              if rem(i, 7) == 0, do: GenServer.cast(pid, {:replicate_delete, {:key, rem(i, 1_000)}})
              if rem(i, 10) == 0, do: GenServer.cast(pid, {:replicate_put, :last, i})
            end

            :sent
            "#,
        );
        assert_eq!(looks.value(), "true");
        beam.check(
            r#"
            for i <- 199_001..200_000,
                wanted = if(rem(i, 7) == 0, do: nil, else: i),
                got = GenServer.call(pid, {:get, {:key, rem(i, 1_000)}}),
                got != wanted do
              {i, got}
            end
            "#,
            "[]",
        );
    });
}

#[test]
fn two_hundred_thousand_writes_reach_a_slave_in_order() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let _kv = KvNode::start(&epmd, "kv", &format!("--connect {}", at_host("beam")));
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.wait_for_global("kv");
        beam.run("pid = :global.whereis_name(:kv)");
        beam.check("GenServer.call(pid, {:add_slave, self()})", ":ok");
        // From here on it is sent each write; before, it would be sent what a key has by then.
        beam.check_soon("hd(GenServer.call(pid, :status).slaves).state", "{:in_step, 0}");
        beam.check(
            r#"
            slave = self()

            spawn_link(fn ->
              for batch <- Enum.chunk_every(1..200_000, 1_000) do
                ids = for i <- batch, do: :gen_server.send_request(pid, {:put, :key, i})
                for id <- ids, do: {:reply, :ok} = :gen_server.wait_response(id, 60_000)
              end

              send(slave, :sent)
            end)

            next = fn next, i ->
              receive do
                {:"$gen_cast", {:replicate_put, :key, got}} ->
                  got

                {:"$gen_call", from, {:get, _}} ->
                  GenServer.reply(from, nil)
                  next.(next, i)
              after
                30_000 -> raise "the slave has waited in vain for #{i}"
              end
            end

            for(i <- 1..200_000, do: next.(next, i)) == Enum.to_list(1..200_000)
            "#,
            "true",
        );
        beam.check("receive do :sent -> GenServer.call(pid, {:get, :key}) after 60_000 -> nil end", "200000");
    });
}
