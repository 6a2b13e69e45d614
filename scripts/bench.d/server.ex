defmodule BenchServer do
  @moduledoc """
  The BEAM's servers for scripts/bench: each registers `:kv` for calls and, but for the one that spawns,
  `:kv_replicated` for casts, says that it is ready, and ends with its stdin.
  """

  @doc "A GenServer with a Map."
  def map do
    {:ok, _} = KeyValueStore.start_link(%{}, name: :kv)
    {:ok, _} = KeyValueStoreReplicated.start_link(:kv_replicated)
    serve()
  end

  @doc "A GenServer with a Map, of which each get is answered by a process of its own: a large answer holds up no other."
  def spawning do
    {:ok, _} = GenServer.start_link(BenchServer.Spawning, nil, name: :kv)
    serve()
  end

  @doc "A GenServer that writes to an ETS table, which is read by `:erpc`."
  def ets do
    {:ok, pid} = GenServer.start_link(BenchServer.Table, nil, name: :kv)
    # One process cannot have two names.
    {:ok, _} = GenServer.start_link(BenchServer.Relay, pid, name: :kv_replicated)
    serve()
  end

  defp serve do
    IO.puts("ready")
    IO.read(:stdio, :line)
    System.halt(0)
  end
end

defmodule BenchServer.Spawning do
  @moduledoc false
  use GenServer

  def init(nil), do: {:ok, %{}}

  def handle_call({:put, key, value}, _from, pairs), do: {:reply, :ok, Map.put(pairs, key, value)}

  def handle_call({:get, key}, from, pairs) do
    value = Map.get(pairs, key)
    spawn(fn -> GenServer.reply(from, value) end)
    {:noreply, pairs}
  end
end

defmodule BenchServer.Table do
  @moduledoc false
  use GenServer

  def init(nil), do: {:ok, :ets.new(:kv, [:set, :named_table, :protected, read_concurrency: true])}

  def handle_call({:put, key, value}, _from, table) do
    :ets.insert(table, {key, value})
    {:reply, :ok, table}
  end

  def handle_call({:get, key}, _from, table), do: {:reply, value(:ets.lookup(table, key)), table}

  def handle_cast({:replicate_put, key, value}, table) do
    :ets.insert(table, {key, value})
    {:noreply, table}
  end

  defp value([{_key, value}]), do: value
  defp value([]), do: nil
end

defmodule BenchServer.Relay do
  @moduledoc false
  use GenServer

  def init(pid), do: {:ok, pid}

  def handle_call(request, _from, pid), do: {:reply, GenServer.call(pid, request), pid}

  def handle_cast(request, pid) do
    GenServer.cast(pid, request)
    {:noreply, pid}
  end
end
