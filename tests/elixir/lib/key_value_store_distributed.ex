defmodule KeyValueStoreDistributed do
  @moduledoc """
  A primary and its slaves on any nodes of a cluster, each registered in `:global`.

      iex(master@myhost)> KeyValueStoreDistributed.start_link(:master)
      iex(slave1@myhost)> KeyValueStoreDistributed.start_link(:slave1)
      iex(master@myhost)> KeyValueStoreDistributed.add_slave(:slave1)
      iex(master@myhost)> KeyValueStoreDistributed.put(:name, "Mafalda")
      iex(slave1@myhost)> GenServer.call({:global, :slave1}, {:get, :name})
      "Mafalda"

  The client functions talk to `{:global, :master}`, wherever it lives. kvnode can take the part of the
  primary, of any slave, or of both. The servers are those of `KeyValueStoreReplicated`: only how they
  are named differs.

  A slave is kept in the state exactly as it stands in `{:add_slave, slave}`, here `{:global, name}`,
  and every write is cast to it as it stands. The system that this is modelled on wraps it once more
  before it casts a *delete*, so that its distributed primary crashes on the first delete once it has a
  slave. This one does not; its test holds that.
  """

  @type key :: term
  @type value :: term
  @type name :: term

  @doc "Starts a server under the global name `name` with the pairs of `initial_state`."
  @spec start_link(name, map, GenServer.options()) :: GenServer.on_start()
  def start_link(name \\ :master, initial_state \\ %{}, opts \\ []) do
    opts = Keyword.put(opts, :name, {:global, name})
    GenServer.start_link(KeyValueStoreReplicated, initial_state, opts)
  end

  @doc "Keeps `value` under `key` at the primary, and so at its slaves."
  @spec put(key, value) :: :ok
  def put(key, value), do: GenServer.call({:global, :master}, {:put, key, value})

  @doc "The primary's value under `key`, or `nil`."
  @spec get(key) :: value | nil
  def get(key), do: GenServer.call({:global, :master}, {:get, key})

  @doc "Forgets `key` at the primary, and so at its slaves."
  @spec delete(key) :: :ok
  def delete(key), do: GenServer.call({:global, :master}, {:delete, key})

  @doc """
  Has the primary cast every further write to the server with the global name `name`. Telling it twice
  changes nothing.
  """
  @spec add_slave(name) :: :ok
  def add_slave(name), do: GenServer.call({:global, :master}, {:add_slave, {:global, name}})
end
