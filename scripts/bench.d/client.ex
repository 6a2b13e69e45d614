defmodule BenchClient do
  @moduledoc """
  The BEAM's load for scripts/bench. A line of stdin asks for a load, a line of stdout has its figures:

      prepare KIND NODE
      seq KIND NODE MILLISECONDS
      callers KIND NODE MILLISECONDS COUNT
      values KIND NODE MILLISECONDS BYTES
      casts KIND NODE COUNT
      mixed KIND NODE MILLISECONDS BYTES ACT CREATION

  `prepare` puts what `seq`, `callers`, `casts` and `mixed` get. KIND is `gen` for a server that is called, `ets` for one whose table is read by `:erpc`. A figure is
  `name=number`; times are in nanoseconds. What fails is answered by `error` and the reason.
  """

  @keys 1000
  @timeout 60_000

  def main do
    BenchCommands.serve(__MODULE__, &BenchCommands.of_server(&1, fn node -> String.to_atom(node) end))
  end

  @doc "Puts the keys of the other loads."
  def prepare(server) do
    value = value(100)
    for key <- Tuple.to_list(keys()), do: :ok = put(server, key, value)
    if get(server, elem(keys(), 0)) != value, do: raise("a value is not what was put")
    [calls: @keys + 1]
  end

  @doc "One caller, one get after the other."
  def seq(server, milliseconds) do
    keys = keys()
    started = now()
    times = seq_loop(server, keys, 0, deadline(milliseconds), [])
    figures(times, now() - started)
  end

  defp seq_loop(server, keys, at, until, times) do
    before = now()

    if before < until do
      get(server, elem(keys, rem(at, @keys)))
      seq_loop(server, keys, at + 1, until, [now() - before | times])
    else
      times
    end
  end

  @doc "Many callers at once: nine gets, then a put."
  def callers(server, milliseconds, count) do
    keys = keys()
    value = value(100)
    parent = self()

    pids =
      for number <- 1..count do
        spawn_link(fn ->
          receive do
            {:go, until} -> send(parent, {self(), callers_loop(server, keys, value, number * 7, until, 0)})
          end
        end)
      end

    started = now()
    Enum.each(pids, &send(&1, {:go, deadline(milliseconds)}))

    calls =
      Enum.sum(
        for pid <- pids do
          receive do
            {^pid, calls} -> calls
          end
        end
      )

    [calls: calls, elapsed: now() - started]
  end

  defp callers_loop(server, keys, value, at, until, calls) do
    if now() < until do
      key = elem(keys, rem(at, @keys))
      if rem(at, 10) == 0, do: put(server, key, value), else: get(server, key)
      callers_loop(server, keys, value, at + 1, until, calls + 1)
    else
      calls
    end
  end

  @doc "Values of one size, put and got by one caller."
  def values(server, milliseconds, bytes) do
    value = value(bytes)
    key = "large 0123456789"
    :ok = put(server, key, value)

    if get(server, key) != value, do: raise("a value is not what was put")

    {puts, put_time} = repeat(fn -> :ok = put(server, key, value) end, milliseconds)
    {gets, get_time} = repeat(fn -> get(server, key) end, milliseconds)
    # What was received is garbage now, and should not be swept in another server's time.
    :erlang.garbage_collect()
    [puts: puts, put_time: put_time, gets: gets, get_time: get_time]
  end

  defp repeat(act, milliseconds), do: repeat(act, deadline(milliseconds), now(), 0)

  defp repeat(act, until, started, count) do
    act.()
    time = now()
    if time < until, do: repeat(act, until, started, count + 1), else: {count + 1, time - started}
  end

  @doc "Casts of one process, and a get behind them: the server has handled them all."
  def casts({_, node}, count) do
    keys = keys()
    value = value(100)
    name = {:kv_replicated, node}
    started = now()
    for at <- 1..count, do: GenServer.cast(name, {:replicate_put, elem(keys, rem(at, @keys)), value})
    ^value = GenServer.call(name, {:get, elem(keys, 1)}, @timeout)
    [calls: count, elapsed: now() - started]
  end

  @doc """
  Small gets of one process, while another moves large values on the same connection: ACT 0 puts and gets them, 1
  only puts, 2 only gets. Both call one server process by its pid: where CREATION is not 0 by any pid of that creation,
  else by that of `:kv`.
  """
  def mixed({kind, node}, milliseconds, bytes, act, creation) do
    pid = if creation == 0, do: :erpc.call(node, :erlang, :whereis, [:kv]), else: any_pid(node, creation)
    server = {kind, pid}
    keys = keys()
    value = value(bytes)
    :ok = put(server, "large 0123456789", value)
    if get(server, "large 0123456789") != value, do: raise("a value is not what was put")
    :erlang.garbage_collect()
    parent = self()
    started = now()
    until = started + milliseconds * 1_000_000
    large = spawn_link(fn -> send(parent, {self(), large_loop(server, value, act, until, 0), now()}) end)
    times = seq_loop(server, keys, 0, until, [])
    elapsed = now() - started

    receive do
      {^large, moved, ended} -> [{:moved, moved}, {:moved_time, ended - started} | figures(times, elapsed)]
    end
  end

  defp large_loop(server, value, act, until, moved) do
    if act != 2, do: :ok = put(server, "large 0123456789", value)
    if act != 1, do: ^value = get(server, "large 0123456789")
    moved = moved + byte_size(value) * if(act == 0, do: 2, else: 1)
    if now() < until, do: large_loop(server, value, act, until, moved), else: moved
  end

  # NEW_PID_EXT, for a server that answers whatever process is called.
  defp any_pid(node, creation) do
    name = Atom.to_string(node)
    :erlang.binary_to_term(<<131, 88, 119, byte_size(name), name::binary, 1::32, 0::32, creation::32>>)
  end

  defp keys do
    # What the load before has left is garbage now, and should not be swept in another server's time.
    :erlang.garbage_collect()
    List.to_tuple(for number <- 1..@keys, do: <<number::64, "bench-kv">>)
  end

  defp get({:gen, pid}, key) when is_pid(pid), do: GenServer.call(pid, {:get, key}, @timeout)
  defp get({:gen, node}, key), do: GenServer.call({:kv, node}, {:get, key}, @timeout)

  defp get({:ets, node}, key) do
    case :erpc.call(node, :ets, :lookup, [:kv, key], @timeout) do
      [{_key, value}] -> value
      [] -> nil
    end
  end

  defp put({:gen, pid}, key, value) when is_pid(pid), do: GenServer.call(pid, {:put, key, value}, @timeout)
  defp put({_, node}, key, value), do: GenServer.call({:kv, node}, {:put, key, value}, @timeout)

  # The value of so many bytes that all clients of scripts/bench put.
  defp value(bytes) do
    period = for at <- 0..250, into: <<>>, do: <<at>>
    binary_part(String.duplicate(period, div(bytes, 251) + 1), 0, bytes)
  end

  defp figures(times, elapsed) do
    sorted = List.to_tuple(Enum.sort(times))
    count = tuple_size(sorted)
    at = fn part -> elem(sorted, min(count - 1, trunc(count * part))) end
    [calls: count, elapsed: elapsed, p50: at.(0.5), p99: at.(0.99), max: at.(1.0)]
  end

  defp deadline(milliseconds), do: now() + milliseconds * 1_000_000
  defp now, do: :erlang.monotonic_time(:nanosecond)
end
