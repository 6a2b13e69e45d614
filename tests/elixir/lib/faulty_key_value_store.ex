defmodule FaultyKeyValueStore do
  @moduledoc """
  A store that lies now and then, on purpose: what tests of consistency have to find.

  It answers the calls of `KeyValueStore`, `:clear` and `{:get_many, keys}`, under a global name. Its fault is one of

    * `:none`: it is as good as the others, and no test may find anything;
    * `:stale_read`: every `every`th get is answered with what the key had before the last write;
    * `:lost_write`: every `every`th write is answered `:ok` and not done;
    * `:half_clear`: of the keys that are there, one stays at a `:clear`.
  """

  use GenServer

  @type fault :: :none | :stale_read | :lost_write | :half_clear

  @doc "Starts a store under the global name `name`, with this fault."
  @spec start_link(term, fault, pos_integer) :: GenServer.on_start()
  def start_link(name, fault, every \\ 50) do
    GenServer.start_link(__MODULE__, {fault, every}, name: {:global, name})
  end

  @impl GenServer
  def init({fault, every}) do
    {:ok, %{pairs: %{}, before: %{}, fault: fault, every: every, gets: 0, writes: 0}}
  end

  @impl GenServer
  def handle_call({:get, key}, _from, state) do
    state = %{state | gets: state.gets + 1}
    stale = state.fault == :stale_read and rem(state.gets, state.every) == 0
    {:reply, Map.get(if(stale, do: state.before, else: state.pairs), key), state}
  end

  def handle_call({:get_many, keys}, _from, state), do: {:reply, Map.take(state.pairs, keys), state}

  def handle_call(:clear, _from, state) do
    kept = if state.fault == :half_clear, do: Enum.take(state.pairs, 1), else: []
    {:reply, :ok, %{state | before: state.pairs, pairs: Map.new(kept)}}
  end

  def handle_call({:put, key, value}, _from, state), do: {:reply, :ok, write(state, key, value)}
  def handle_call({:delete, key}, _from, state), do: {:reply, :ok, write(state, key, nil)}

  defp write(state, key, value) do
    state = %{state | writes: state.writes + 1}

    if state.fault == :lost_write and rem(state.writes, state.every) == 0 do
      state
    else
      before = Map.put(state.before, key, Map.get(state.pairs, key))
      %{state | before: before, pairs: Map.put(state.pairs, key, value)}
    end
  end
end
