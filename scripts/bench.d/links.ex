defmodule BenchLinks do
  @moduledoc """
  The BEAM's loads for scripts/bench links and crossing. A line of stdin asks for a load by its function and arguments, a
  line of stdout has its figures:

      fill SERVER BYTES
      gets SERVER COUNT BYTES TIMEOUT SMALLS
      puts SERVER COUNT BYTES TIMEOUT SMALLS
      relayed RELAY SERVER COUNT BYTES TIMEOUT
      beside SERVER RELAY SMALLS
      besides
      copy HOW KIND SERVER SLAVE COUNT BYTES TIMEOUT
      cross HOW KIND ONE OTHER COUNT BYTES TIMEOUT
      store

  SERVER and the like are nodes with a store `:kv`, in `cross` with a second one, `:copy`. TIMEOUT is in milliseconds. HOW is
  `before` where values are put before the slave is added, and `after` where they are put into a pair in step. KIND is what the primaries are: `kvnode`, or `elixir`. A figure is
  `name=number`; times are in milliseconds. What was lost has no time. What fails is answered by `error` and the reason.
  """

  # Between two small calls of one process.
  @pause 5

  def main do
    # That a node is lost is a figure here: said in words, it would stand among them.
    Logger.configure(level: :none)
    :ok = :net_kernel.monitor_nodes(true, node_type: :all)
    BenchCommands.serve(__MODULE__, &Enum.map(&1, fn word -> argument(word) end))
  end

  defp argument(text) do
    case Integer.parse(text) do
      {number, ""} -> number
      _ -> String.to_atom(text)
    end
  end

  @doc "Puts what `gets` and `beside` get."
  def fill(server, bytes) do
    :ok = put(server, :large, value(bytes), 60_000)
    :ok = put(server, :small, 1, 60_000)
    [calls: 2]
  end

  @doc "So many processes each get the large value once, at once, beside small gets of others."
  def gets(server, count, bytes, timeout, smalls) do
    act = fn -> ^bytes = byte_size(GenServer.call({:kv, server}, {:get, :large}, timeout)) end
    large(server, count, timeout, smalls, act)
  end

  @doc "So many processes each put a value once, at once, beside small gets of others."
  def puts(server, count, bytes, timeout, smalls) do
    value = value(bytes)
    large(server, count, timeout, smalls, fn -> :ok = put(server, make_ref(), value, timeout) end)
  end

  defp large(server, count, timeout, smalls, act) do
    :erlang.garbage_collect()
    nodes_lost()
    beside(server, :none, smalls)
    started = now()
    lost = at_once(List.duplicate(act, count), timeout)
    took = now() - started
    time = if lost == 0, do: [took: took], else: []
    [{:lost, lost}, {:calls, count} | time] ++ besides() ++ [kept: if(nodes_lost() == 0, do: 1, else: 0)]
  end

  @doc "So many gets and so many puts at once, of a store that is reached through another node."
  def relayed(relay, server, count, bytes, timeout) do
    call = fn request ->
      :erpc.call(relay, GenServer, :call, [{:kv, server}, request, timeout], timeout)
    end

    value = value(bytes)
    :ok = call.({:put, :large, value})
    get = fn -> ^value = call.({:get, :large}) end
    put = fn -> :ok = call.({:put, make_ref(), value}) end
    started = now()
    lost = at_once(List.duplicate(get, count) ++ List.duplicate(put, count), timeout)
    [lost: lost, calls: 2 * count, took: now() - started]
  end

  @doc "Small gets begin: of so many processes, through RELAY where that is a node."
  def beside(server, relay, count) do
    call =
      case relay do
        :none -> fn -> GenServer.call({:kv, server}, {:get, :small}) end
        _ -> fn -> :erpc.call(relay, GenServer, :call, [{:kv, server}, {:get, :small}], 5_000) end
      end

    1 = call.()
    pids = for _ <- 1..count, do: spawn_link(fn -> small_loop(call, [], 0) end)
    Process.put(:smalls, pids)
    [calls: count]
  end

  @doc "They end."
  def besides do
    found =
      for pid <- Process.delete(:smalls) do
        send(pid, {:stop, self()})

        receive do
          {^pid, times, lost} -> {times, lost}
        end
      end

    sorted = List.to_tuple(Enum.sort(Enum.flat_map(found, &elem(&1, 0))))
    count = tuple_size(sorted)
    at = fn part -> elem(sorted, min(count - 1, trunc(count * part))) / 1000 end
    [small_calls: count, small_lost: Enum.sum(Enum.map(found, &elem(&1, 1))), p50: at.(0.5), p99: at.(0.99), worst: at.(1.0)]
  end

  defp small_loop(call, times, lost) do
    started = micros()

    lost =
      try do
        1 = call.()
        lost
      catch
        _, _ -> lost + 1
      end

    times = [micros() - started | times]

    receive do
      {:stop, from} -> send(from, {self(), times, lost})
    after
      @pause -> small_loop(call, times, lost)
    end
  end

  @doc "Brings so many values to the slave of a primary, and waits until it has them."
  def copy(how, kind, server, slave, count, bytes, timeout) do
    copied(how, kind, [{{:kv, server}, {:kv, slave}}], count, bytes, timeout)
  end

  @doc "Two primaries, each with a slave at the other's node."
  def cross(how, kind, one, other, count, bytes, timeout) do
    copied(how, kind, [{{:kv, one}, {:copy, other}}, {{:kv, other}, {:copy, one}}], count, bytes, timeout)
  end

  defp copied(how, kind, pairs, count, bytes, timeout) do
    value = value(bytes)

    fill = fn ->
      pairs
      |> Enum.map(fn {primary, _} ->
        Task.async(fn ->
          for number <- 1..count, do: :ok = GenServer.call(primary, {:put, number, value}, timeout)
          :ok = GenServer.call(primary, {:put, :done, true}, timeout)
        end)
      end)
      |> Enum.each(&Task.await(&1, timeout))
    end

    # At once, so that one copy is not done before the other begins.
    add = fn ->
      pairs
      |> Enum.map(fn {primary, slave} ->
        Task.async(fn -> :ok = GenServer.call(primary, {:add_slave, slave}, timeout) end)
      end)
      |> Enum.each(&Task.await(&1, timeout))
    end

    if how == :before, do: fill.(), else: add.()
    # What is written while a copy begins goes twice.
    if how == :after, do: for({primary, _} <- pairs, do: until_in_step(kind, primary, now() + timeout))
    started = now()
    if how == :before, do: add.(), else: fill.()
    for pair <- pairs, do: wait(kind, pair, started + timeout)
    [took: now() - started]
  end

  defp until_in_step(kind, primary, until) do
    cond do
      in_step(kind, primary) -> :ok
      now() > until -> raise "a slave has not been found"
      true -> Process.sleep(10) && until_in_step(kind, primary, until)
    end
  end

  defp wait(kind, {primary, slave} = pair, until) do
    has =
      try do
        in_step(kind, primary) and GenServer.call(slave, {:get, :done}, 30_000) == true
      catch
        :exit, _ -> false
      end

    cond do
      has -> :ok
      now() > until -> raise "a slave has not been brought up to date"
      true -> Process.sleep(10) && wait(kind, pair, until)
    end
  end

  # What a kvnode's slave lacks may come in any order; an Elixir primary's gets everything in order.
  defp in_step(:elixir, _primary), do: true

  defp in_step(:kvnode, primary) do
    Enum.all?(GenServer.call(primary, :status, 30_000).slaves, &(&1.state == {:in_step, 0}))
  end

  @doc "A store of Elixir in this node, as a slave."
  def store do
    {:ok, _} = KeyValueStoreReplicated.start_link(:kv)
    [calls: 1]
  end

  # How many of them failed, all begun at once.
  defp at_once(functions, timeout) do
    functions
    |> Enum.map(fn function ->
      Task.async(fn ->
        try do
          function.()
          0
        catch
          _, _ -> 1
        end
      end)
    end)
    |> Enum.map(&Task.await(&1, timeout + 10_000))
    |> Enum.sum()
  end

  defp nodes_lost(count \\ 0) do
    receive do
      {:nodedown, _, _} -> nodes_lost(count + 1)
      {:nodeup, _, _} -> nodes_lost(count)
    after
      0 -> count
    end
  end

  defp put(server, key, value, timeout), do: GenServer.call({:kv, server}, {:put, key, value}, timeout)
  defp value(bytes), do: :binary.copy("0123456789abcdef", div(bytes, 16) + 1) |> binary_part(0, bytes)
  defp micros, do: :erlang.monotonic_time(:microsecond)
  defp now, do: :erlang.monotonic_time(:millisecond)
end
