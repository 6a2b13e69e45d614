defmodule BenchServer.Api do
  @moduledoc """
  The requests of scripts/bench api, as a GenServer with a Map has them when each is written the obvious way; those of a table of
  ETS are functions, called by `:erpc`.
  """
  use GenServer

  def main do
    {:ok, _} = GenServer.start_link(__MODULE__, nil, name: :kv)
    IO.puts("ready")
    IO.read(:stdio, :line)
    System.halt(0)
  end

  @impl true
  def init(nil) do
    :ets.new(:kv_table, [:set, :named_table, :public, read_concurrency: true])
    {:ok, %{}}
  end

  @impl true
  def handle_call({:get, key}, _from, pairs), do: {:reply, Map.get(pairs, key), pairs}
  def handle_call({:put, key, value}, _from, pairs), do: {:reply, :ok, Map.put(pairs, key, value)}
  def handle_call({:get_many, keys}, _from, pairs), do: {:reply, Map.take(pairs, keys), pairs}
  def handle_call({:put_many, new}, _from, pairs), do: {:reply, :ok, Map.merge(pairs, Map.new(new))}

  def handle_call({:update_counter, key, n}, _from, pairs) do
    sum = Map.get(pairs, key, 0) + n
    {:reply, sum, Map.put(pairs, key, sum)}
  end

  # A timer for each key.
  def handle_call({:put, key, value, ttl: ttl}, _from, pairs) do
    Process.send_after(self(), {:ended, key, value}, ttl)
    {:reply, :ok, Map.put(pairs, key, value)}
  end

  @impl true
  def handle_info({:ended, key, value}, pairs) do
    case pairs do
      %{^key => ^value} -> {:noreply, Map.delete(pairs, key)}
      pairs -> {:noreply, pairs}
    end
  end

  @doc "The entries of the table that there are for these keys."
  def table_take(keys), do: for(key <- keys, {_, value} <- :ets.lookup(:kv_table, key), into: %{}, do: {key, value})

  @doc "Fills the table."
  def table_fill(count) do
    for number <- 1..count, do: :ets.insert(:kv_table, {BenchApi.key(number), BenchApi.value()})
    :ok
  end

  @doc "A page of the table, behind the last key of the one before: a continuation of ETS does not leave its node."
  def table_page(from, limit), do: table_page(from, limit, [])
  defp table_page(:"$end_of_table", _, entries), do: {entries, :done}
  defp table_page(key, 0, entries), do: {entries, key}

  defp table_page(key, left, entries),
    do: table_page(:ets.next(:kv_table, key), left - 1, :ets.lookup(:kv_table, key) ++ entries)

  @doc "Where the first page begins."
  def table_first, do: :ets.first(:kv_table)
end

defmodule BenchApi do
  @moduledoc """
  The loads of scripts/bench api. A line of stdin asks for a load, a line of stdout has its figures:

      fill KIND NODE COUNT
      single KIND NODE MILLISECONDS
      many KIND NODE MILLISECONDS COUNT
      callers KIND NODE MILLISECONDS CALLERS REQUEST
      scan KIND NODE LIMIT
      beside KIND NODE MILLISECONDS SCANS
      fill_groups gen NODE COUNT GROUP
      prefix gen NODE MILLISECONDS COUNT GROUP
      fill_ends gen NODE COUNT MILLISECONDS
      count gen NODE
      watch gen NODE COUNT
      told gen NODE EVENTS
      unwatch gen NODE

  KIND is `gen` for a server that is called, `ets` for a table that is read by `:erpc`. REQUEST is 0 for a put, 1 for a sum, 2 for a
  put with a time. Times are in nanoseconds.
  """

  @keys 10_000
  @timeout 60_000

  def main do
    BenchCommands.serve(__MODULE__, &BenchCommands.of_server(&1, fn node -> String.to_atom(node) end))
  end

  def key(number), do: "key #{number}"
  def value, do: String.duplicate("v", 100)

  @doc "Puts so many entries."
  def fill({:ets, node}, count) do
    :ok = :erpc.call(node, BenchServer.Api, :table_fill, [count], :infinity)
    [calls: count]
  end

  def fill({:gen, node}, count) do
    for numbers <- Enum.chunk_every(1..count, 1000),
        do: :ok = call(node, {:put_many, for(number <- numbers, do: {key(number), value()})})

    [calls: count]
  end

  @doc "Puts so many entries whose keys are pairs, as many with each first element as one asks for."
  def fill_groups({:gen, node}, count, group) do
    for numbers <- Stream.chunk_every(0..(count - 1), 1000) do
      pairs = for number <- numbers, do: {{:group, div(number, group), rem(number, group)}, value()}
      :ok = call(node, {:put_many, pairs})
    end
    |> length()

    [calls: count]
  end

  @doc """
  Puts so many entries that end one after the other within a second, the first of them so many milliseconds from now; 0: none ends.
  `left` is the time until the first does.
  """
  def fill_ends({:gen, node}, count, milliseconds) do
    first = milliseconds + div(now(), 1_000_000)

    for numbers <- Stream.chunk_every(0..(count - 1), 1000) do
      pairs = for number <- numbers, do: {{:ends, number}, value()}
      ttl = first + div(hd(numbers) * 1000, count) - div(now(), 1_000_000)
      :ok = call(node, if(milliseconds > 0, do: {:put_many, pairs, ttl: max(ttl, 1)}, else: {:put_many, pairs}))
    end
    |> length()

    [calls: count, left: first * 1_000_000 - now()]
  end

  @doc "How many there are."
  def count({:gen, node}), do: [calls: call(node, :count)]

  @doc "All entries of one such first element after the other."
  def prefix({:gen, node}, milliseconds, count, group) do
    started = now()

    times =
      timed(milliseconds, fn ->
        prefix = {:group, :rand.uniform(div(count, group)) - 1}
        {entries, :done} = call(node, {:scan, prefix: prefix})
        ^group = length(entries)
      end)

    [calls: length(times), elapsed: now() - started, p50: at(times, 0.5), p99: at(times, 0.99)]
  end

  @doc "So many processes watch, from here on."
  def watch({:gen, node}, count) do
    parent = self()

    watchers =
      for _ <- 1..count do
        pid =
          spawn_link(fn ->
            {:ok, ref, _} = call(node, {:watch, []})
            send(parent, {self(), :watches})
            watched(ref, 0, 0, nil)
          end)

        receive do
          {^pid, :watches} -> pid
        end
      end

    Process.put(:watchers, watchers)
    [calls: count]
  end

  @doc "Waits until each was told of so many events since it was asked last."
  def told({:gen, _}, events) do
    started = now()
    answers = ask_watchers({:told, self(), events})
    [calls: Enum.sum(for {told, _} <- answers, do: told), elapsed: now() - started]
  end

  @doc "Ends them, once they have read what has come."
  def unwatch({:gen, _}) do
    answers = ask_watchers({:stop, self()})
    [calls: Enum.sum(for {told, _} <- answers, do: told), overrun: Enum.sum(for {_, overrun} <- answers, do: overrun)]
  end

  defp ask_watchers(question) do
    watchers = Process.get(:watchers)
    for pid <- watchers, do: send(pid, question)

    for pid <- watchers do
      receive do
        {^pid, told, overrun} -> {told, overrun}
      end
    end
  end

  defp watched(_, told, overrun, {asker, events}) when told >= events or overrun > 0 do
    send(asker, {self(), told, overrun})
    watched(nil, 0, overrun, nil)
  end

  defp watched(ref, told, overrun, asked) do
    receive do
      {:kvnode, _, {_, _, _, _}} -> watched(ref, told + 1, overrun, asked)
      {:kvnode, _, :overrun} -> watched(ref, told, overrun + 1, asked)
      {:told, asker, events} -> watched(ref, told, overrun, {asker, events})
      {:stop, asker} -> send(asker, {self(), told, overrun})
    end
  end

  @doc "One caller, a get after the other."
  def single(server, milliseconds) do
    repeat(milliseconds, 1, fn ->
      100 = byte_size(get(server, key(:rand.uniform(@keys))))
    end)
  end

  @doc "One caller, requests of so many keys each."
  def many(server, milliseconds, count) do
    repeat(milliseconds, count, fn ->
      from = :rand.uniform(@keys - count)
      ^count = map_size(take(server, for(number <- from..(from + count - 1), do: key(number))))
    end)
  end

  @doc "So many callers, each with a request after the other, of few keys."
  def callers({:gen, node}, milliseconds, count, request) do
    parent = self()

    act =
      case request do
        0 -> fn n -> :ok = call(node, {:put, {:sum, n}, n}) end
        1 -> fn n -> true = is_integer(call(node, {:update_counter, {:sum, n}, 1})) end
        2 -> fn n -> :ok = call(node, {:put, {:sum, n}, n, ttl: 3_600_000}) end
      end

    # What another request has left there is no sum.
    for n <- 0..99, do: call(node, {:put, {:sum, n}, n})
    started = now()
    until = started + milliseconds * 1_000_000
    pids = for n <- 1..count, do: spawn_link(fn -> send(parent, {self(), loop(act, n, until, 0)}) end)

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

  defp loop(act, n, until, calls) do
    if now() < until do
      act.(rem(n, 100))
      loop(act, n + 7, until, calls + 1)
    else
      calls
    end
  end

  @doc "All entries, page by page."
  def scan(server, limit) do
    started = now()
    {pages, count} = walk(server, first(server), limit, 0, 0)
    [calls: count, elapsed: now() - started, pages: pages]
  end

  @doc "Gets of one caller, alone and beside another that scans."
  def beside(server, milliseconds, scans) do
    alone = times(server, milliseconds)
    scanner = spawn_link(fn -> scan_again(server, scans) end)
    beside = times(server, milliseconds)
    Process.unlink(scanner)
    Process.exit(scanner, :kill)
    [alone: at(alone, 0.99), beside: at(beside, 0.99)]
  end

  defp scan_again(server, limit) do
    walk(server, first(server), limit, 0, 0)
    scan_again(server, limit)
  end

  defp times(server, milliseconds),
    do: timed(milliseconds, fn -> 100 = byte_size(get(server, key(:rand.uniform(@keys)))) end)

  defp timed(milliseconds, act) do
    until = now() + milliseconds * 1_000_000

    Stream.repeatedly(fn ->
      before = now()
      act.()
      now() - before
    end)
    |> Enum.reduce_while([], fn time, times ->
      if now() < until, do: {:cont, [time | times]}, else: {:halt, [time | times]}
    end)
  end

  defp at(times, part) do
    sorted = List.to_tuple(Enum.sort(times))
    elem(sorted, min(tuple_size(sorted) - 1, trunc(tuple_size(sorted) * part)))
  end

  defp walk(_, :done, _, pages, count), do: {pages, count}

  defp walk(server, at, limit, pages, count) do
    {entries, next} = page(server, at, limit)
    walk(server, next, limit, pages + 1, count + length(entries))
  end

  defp first({:gen, _}), do: []
  defp first({:ets, node}), do: :erpc.call(node, BenchServer.Api, :table_first, [])

  defp page({:gen, node}, at, limit) do
    case call(node, {:scan, at ++ [limit: limit, bytes: 4_194_304]}) do
      {entries, :done} -> {entries, :done}
      {entries, cursor} -> {entries, [cursor: cursor]}
    end
  end

  defp page({:ets, node}, at, limit), do: :erpc.call(node, BenchServer.Api, :table_page, [at, limit])

  defp get({:gen, node}, key), do: call(node, {:get, key})
  defp get({:ets, node}, key), do: :erpc.call(node, :ets, :lookup_element, [:kv_table, key, 2])

  defp take({:gen, node}, keys), do: call(node, {:get_many, keys})
  defp take({:ets, node}, keys), do: :erpc.call(node, BenchServer.Api, :table_take, [keys])

  defp call(node, request), do: GenServer.call({:kv, node}, request, @timeout)

  defp repeat(milliseconds, each, act) do
    started = now()
    until = started + milliseconds * 1_000_000
    count = repeat_until(act, until, 0)
    [calls: count * each, elapsed: now() - started]
  end

  defp repeat_until(act, until, count) do
    act.()
    if now() < until, do: repeat_until(act, until, count + 1), else: count + 1
  end

  defp now, do: :erlang.monotonic_time(:nanosecond)
end
