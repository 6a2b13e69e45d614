defmodule KeyValueStoreReplicated do
  @moduledoc """
  A primary and its slaves on one node, each registered under a local name.

      iex> KeyValueStoreReplicated.start_link(:master)
      iex> KeyValueStoreReplicated.start_link(:slave1)
      iex> KeyValueStoreReplicated.add_slave(:slave1)
      iex> KeyValueStoreReplicated.put(:name, "Mafalda")
      iex> GenServer.call(:slave1, {:get, :name})
      "Mafalda"

  The client functions talk to the server named `:master`. A slave is the same server under another
  name: nothing makes it one but that a primary was told of it. The primary casts each write to its
  slaves, in the order of the writes, and then answers it. What was written before `add_slave/1` is not
  sent after the fact.

  A slave may be anything that `GenServer.cast/2` takes: a local name, `{:global, name}`,
  `{name, node}`, a pid. A request that is none of the protocol's ends the server, as with any
  `GenServer`.
  """

  use GenServer

  @type key :: term
  @type value :: term

  @doc "Starts a server under the local name `name` with the pairs of `initial_state`."
  @spec start_link(atom, map, GenServer.options()) :: GenServer.on_start()
  def start_link(name \\ :master, initial_state \\ %{}, opts \\ []) do
    GenServer.start_link(__MODULE__, initial_state, Keyword.put(opts, :name, name))
  end

  @doc "Keeps `value` under `key` at the primary, and so at its slaves."
  @spec put(key, value) :: :ok
  def put(key, value), do: GenServer.call(:master, {:put, key, value})

  @doc "The primary's value under `key`, or `nil`."
  @spec get(key) :: value | nil
  def get(key), do: GenServer.call(:master, {:get, key})

  @doc "Forgets `key` at the primary, and so at its slaves."
  @spec delete(key) :: :ok
  def delete(key), do: GenServer.call(:master, {:delete, key})

  @doc "Has the primary cast every further write to `slave`. Telling it twice changes nothing."
  @spec add_slave(GenServer.server()) :: :ok
  def add_slave(slave), do: GenServer.call(:master, {:add_slave, slave})

  @impl GenServer
  def init(pairs) when is_map(pairs), do: {:ok, %{data: pairs, slaves: []}}

  @impl GenServer
  def handle_call({:put, key, value}, _from, state) do
    replicate(state, {:replicate_put, key, value})
    {:reply, :ok, %{state | data: Map.put(state.data, key, value)}}
  end

  def handle_call({:get, key}, _from, state) do
    {:reply, Map.get(state.data, key), state}
  end

  def handle_call({:delete, key}, _from, state) do
    replicate(state, {:replicate_delete, key})
    {:reply, :ok, %{state | data: Map.delete(state.data, key)}}
  end

  def handle_call({:add_slave, slave}, _from, state) do
    {:reply, :ok, %{state | slaves: Enum.uniq(state.slaves ++ [slave])}}
  end

  @impl GenServer
  def handle_cast({:replicate_put, key, value}, state) do
    {:noreply, %{state | data: Map.put(state.data, key, value)}}
  end

  def handle_cast({:replicate_delete, key}, state) do
    {:noreply, %{state | data: Map.delete(state.data, key)}}
  end

  defp replicate(state, write), do: Enum.each(state.slaves, &GenServer.cast(&1, write))
end
