defmodule KeyValueStore do
  @moduledoc """
  A key-value store in one process, registered on its node under the name of this module.

      iex> KeyValueStore.start_link()
      iex> KeyValueStore.put(:name, "Mafalda")
      :ok
      iex> KeyValueStore.get(:name)
      "Mafalda"

  From another node the same server is `{KeyValueStore, node}`:

      iex> GenServer.call({KeyValueStore, :slave1@myhost}, {:get, :name})

  kvnode answers the same three calls, so either side can stand on either end. A request that is none
  of them ends this server, as `GenServer` does with any request that no clause takes.
  """

  use GenServer

  @type key :: term
  @type value :: term

  @doc "Starts the store with the pairs of `initial_state`."
  @spec start_link(map, GenServer.options()) :: GenServer.on_start()
  def start_link(initial_state \\ %{}, opts \\ []) do
    GenServer.start_link(__MODULE__, initial_state, Keyword.put_new(opts, :name, __MODULE__))
  end

  @doc "Keeps `value` under `key`, in the place of what was there."
  @spec put(key, value) :: :ok
  def put(key, value), do: GenServer.call(__MODULE__, {:put, key, value})

  @doc "The value under `key`, or `nil`."
  @spec get(key) :: value | nil
  def get(key), do: GenServer.call(__MODULE__, {:get, key})

  @doc "Forgets `key`. It need not be there."
  @spec delete(key) :: :ok
  def delete(key), do: GenServer.call(__MODULE__, {:delete, key})

  @impl GenServer
  def init(pairs) when is_map(pairs), do: {:ok, pairs}

  @impl GenServer
  def handle_call({:put, key, value}, _from, pairs), do: {:reply, :ok, Map.put(pairs, key, value)}
  def handle_call({:get, key}, _from, pairs), do: {:reply, Map.get(pairs, key), pairs}
  def handle_call({:delete, key}, _from, pairs), do: {:reply, :ok, Map.delete(pairs, key)}
end
