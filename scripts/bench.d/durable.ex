defmodule BenchDurable do
  @moduledoc """
  The loads of scripts/bench durable. A line of stdin asks for a load, a line of stdout has its figures:

      ready KIND WHERE
      puts KIND WHERE MILLISECONDS CALLERS
      puts_many gen|redis WHERE MILLISECONDS CALLERS PAIRS
      gets KIND WHERE MILLISECONDS CALLERS KEYS
      fill KIND WHERE KEYS
      check KIND WHERE KEYS

  KIND is `gen` for a store at the node WHERE, `redis` for a server at the port WHERE, and `dets` or `mnesia` for a table
  of this node, in a folder that the environment names. Times are in nanoseconds. What fails is answered by `error` and the
  reason.
  """

  @keys 100_000
  @timeout 60_000

  def main do
    BenchCommands.serve(__MODULE__, &BenchCommands.of_server(&1, fn where -> where end))
  end

  @doc "Opens what is to be opened, and puts what `gets` gets."
  def ready(server) do
    open(server)
    connected = connect(server)
    for number <- 0..999, do: put(connected, key(number), value())
    100 = byte_size(get(connected, key(999)))
    [calls: 1000]
  end

  @doc "So many callers, each a put after the other."
  def puts(server, milliseconds, callers) do
    value = value()
    run(server, milliseconds, callers, fn connected -> put(connected, key(:rand.uniform(@keys)), value) end)
  end

  @doc "The same with so many pairs in each put."
  def puts_many(server, milliseconds, callers, pairs) do
    value = value()

    run(server, milliseconds, callers, fn connected ->
      from = :rand.uniform(@keys)
      put_many(connected, for(number <- from..(from + pairs - 1), do: {key(number), value}))
    end)
  end

  @doc "So many callers, each a get after the other, of so many keys."
  def gets(server, milliseconds, callers, keys) do
    run(server, milliseconds, callers, fn connected ->
      100 = byte_size(get(connected, key(:rand.uniform(keys) - 1)))
    end)
  end

  @doc "Casts entries, and waits for the last. Only of a store."
  def fill({:gen, where}, keys) do
    to = {:kv, String.to_atom(where)}
    value = value()
    for number <- 0..(keys - 1), do: GenServer.cast(to, {:replicate_put, key(number), value})
    check({:gen, where}, keys)
  end

  @doc "Gets the last of so many entries."
  def check(server, keys) do
    100 = byte_size(get(connect(server), key(keys - 1)))
    [calls: 1]
  end

  @doc "So many callers for that long, each of which acts again and again on what connects it with the server."
  def run(server, milliseconds, callers, act) do
    parent = self()

    pids =
      for _ <- 1..callers do
        spawn_link(fn ->
          connected = connect(server)
          send(parent, {self(), :ready})

          receive do
            {:go, until} -> send(parent, {self(), loop(connected, act, until, [])})
          end
        end)
      end

    for pid <- pids do
      receive do
        {^pid, :ready} -> :ok
      end
    end

    started = now()
    until = started + milliseconds * 1_000_000
    for pid <- pids, do: send(pid, {:go, until})

    times =
      Enum.flat_map(pids, fn pid ->
        receive do
          {^pid, times} -> times
        end
      end)

    elapsed = now() - started
    sorted = List.to_tuple(Enum.sort(times))
    count = tuple_size(sorted)
    at = fn part -> elem(sorted, min(trunc(count * part), count - 1)) end
    [calls: count, elapsed: elapsed, p50: at.(0.5), p99: at.(0.99), max: at.(1.0)]
  end

  @doc "The key of a number."
  def key(number), do: "key #{number}"

  @doc "The value that all keys have."
  def value, do: String.duplicate("x", 100)

  defp loop(connected, act, until, times) do
    before = now()

    if before < until or times == [] do
      act.(connected)
      loop(connected, act, until, [now() - before | times])
    else
      times
    end
  end

  defp open({:gen, _}), do: :ok
  defp open({:redis, _}), do: :ok

  defp open({:dets, _}) do
    File.mkdir_p!(folder())
    {:ok, _} = :dets.open_file(:bench, file: String.to_charlist(Path.join(folder(), "bench.dets")))
  end

  defp open({:mnesia, _}) do
    File.mkdir_p!(folder())
    :application.set_env(:mnesia, :dir, String.to_charlist(folder()))
    # Of its warnings, not of what is measured: they would stand among the figures.
    Logger.configure(level: :none)
    :ok = :mnesia.create_schema([node()])
    :ok = :mnesia.start()
    {:atomic, :ok} = :mnesia.create_table(:bench, disc_copies: [node()])
  end

  defp connect({:redis, port}) do
    options = [:binary, active: false, nodelay: true, packet: :raw]
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, String.to_integer(port), options)
    {:redis, socket}
  end

  defp connect({:gen, where}), do: {:gen, {:kv, String.to_atom(where)}}
  defp connect(server), do: server

  defp put({:gen, to}, key, value), do: :ok = GenServer.call(to, {:put, key, value}, @timeout)

  defp put({:dets, _}, key, value) do
    :ok = :dets.insert(:bench, {key, value})
    :ok = :dets.sync(:bench)
  end

  defp put({:mnesia, _}, key, value) do
    {:atomic, :ok} = :mnesia.sync_transaction(fn -> :mnesia.write({:bench, key, value}) end)
  end

  defp put({:redis, socket}, key, value) do
    :ok = :gen_tcp.send(socket, ["*3\r\n$3\r\nSET\r\n", text(key), text(value)])
    {:ok, "+OK\r\n"} = :gen_tcp.recv(socket, 0, @timeout)
  end

  defp put_many({:gen, to}, pairs), do: :ok = GenServer.call(to, {:put_many, pairs}, @timeout)

  defp put_many({:redis, socket}, pairs) do
    words = for {key, value} <- pairs, do: [text(key), text(value)]
    :ok = :gen_tcp.send(socket, ["*#{1 + 2 * length(pairs)}\r\n$4\r\nMSET\r\n", words])
    {:ok, "+OK\r\n"} = :gen_tcp.recv(socket, 0, @timeout)
  end

  defp get({:gen, to}, key), do: GenServer.call(to, {:get, key}, @timeout)

  defp get({:dets, _}, key) do
    [{_, value}] = :dets.lookup(:bench, key)
    value
  end

  defp get({:mnesia, _}, key) do
    [{_, _, value}] = :mnesia.dirty_read(:bench, key)
    value
  end

  defp get({:redis, socket}, key) do
    :ok = :gen_tcp.send(socket, ["*2\r\n$3\r\nGET\r\n", text(key)])
    {:ok, "$100\r\n" <> value} = :gen_tcp.recv(socket, 108, @timeout)
    binary_part(value, 0, 100)
  end

  defp text(bytes), do: ["$", Integer.to_string(byte_size(bytes)), "\r\n", bytes, "\r\n"]
  defp folder, do: System.fetch_env!("BENCH_DATA")
  defp now, do: :erlang.monotonic_time(:nanosecond)
end
