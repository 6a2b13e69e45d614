defmodule KvNode do
  @moduledoc """
  The requests of a kvnode store as functions.

  This file is all of it: copy it into a project's `lib`. It needs Elixir 1.10 or later, and nothing else. `docs/requests.md` says
  what each request does; here each is named as the function of `Map`, `:ets` or `Keyword` that does the same.

  A store is whatever `GenServer.call/3` takes: `{:global, :slave1}`, `{KeyValueStore, :store@host}`, a pid.

      iex> store = {:global, :docs}
      iex> KvNode.put(store, :nombre, "Mafalda")
      :ok
      iex> KvNode.get(store, :nombre)
      "Mafalda"

  ## Options

  Every function takes options at its end:

    * `:timeout` - how long the answer is waited for, in milliseconds, or `:infinity`; 5000 unless it is given.

  Those that write also take:

    * `:confirm` - so many slaves have the write before it is answered; else the answer is `{:error, {:unconfirmed, have, wanted}}`.
    * `:ttl` - what is written ends after so many milliseconds. (Not of what deletes.)

  Those that read also take:

    * `:consistency` - `:linearizable`, so that nothing is missed that any kvnode of a store in etcd had answered before (a slave refuses it by
      `{:error, {:slave_of, primary}}`), or `:session`; as the store is started with unless it is given.

  ## Errors

  What a store does not do it answers with `{:error, reason}`: `:no_space`, `{:slave_of, primary}` and others, see `docs/requests.md`.
  Functions that answer `true` or `false` may answer that too: `true = KvNode.put_new(store, key, value)`, and not `if`.
  A call that is not answered exits, as every `GenServer.call/3` does.
  """

  # So often a store is asked for a page that has no room for one more reader, and milliseconds between two of these.
  @page_tries 100
  @page_pause 100

  @type store :: GenServer.server()
  @type key :: term
  @type value :: term
  @type revision :: pos_integer
  @type milliseconds :: pos_integer
  @type error :: {:error, reason :: term}
  @type expected :: {:value, value} | {:revision, revision} | :absent
  @type guard ::
          {:equal, key, value} | {:revision, key, revision} | {:present, key} | {:absent, key}
  @type change :: {:put, key, value} | {:delete, key} | {:add, key, integer}
  @type cursor :: binary
  @type seq :: pos_integer
  @type event ::
          {seq, :put, key, value} | {seq, :put, key} | {seq, :delete, key} | {seq, :expire, key} | {seq, :clear} | {seq, :current}

  defmodule Error do
    @moduledoc "A store has answered `{:error, reason}` to a function that has no other way to say so."
    defexception [:reason]

    @impl true
    def message(%{reason: reason}), do: "the store answers #{inspect({:error, reason})}"
  end

  @doc """
  The value of a key, or `default` where nothing is there. Raises `KvNode.Error` where the store cannot say. Options come behind
  `default`: `KvNode.get(store, key, nil, timeout: 1000)`.

      iex> KvNode.get({:global, :docs}, :missing)
      nil
      iex> KvNode.get({:global, :docs}, :missing, 0)
      0
  """
  @spec get(store, key, default :: term, keyword) :: value | term
  def get(store, key, default \\ nil, opts \\ []) do
    case fetch(store, key, opts) do
      {:ok, value} -> value
      :error -> default
      {:error, reason} -> raise Error, reason: reason
    end
  end

  @doc """
  `{:ok, value}`, or `:error` where nothing is there.

      iex> KvNode.put({:global, :docs}, :nothing, nil)
      iex> KvNode.fetch({:global, :docs}, :nothing)
      {:ok, nil}
      iex> KvNode.fetch({:global, :docs}, :missing)
      :error
  """
  @spec fetch(store, key, keyword) :: {:ok, value} | :error | error
  def fetch(store, key, opts \\ []), do: read(store, {:fetch, key}, opts)

  @doc """
  The value of a key. Raises `KeyError` where nothing is there, and `KvNode.Error` where the store cannot say.

      iex> KvNode.put({:global, :docs}, :here, 1)
      iex> KvNode.fetch!({:global, :docs}, :here)
      1
  """
  @spec fetch!(store, key, keyword) :: value
  def fetch!(store, key, opts \\ []) do
    case fetch(store, key, opts) do
      {:ok, value} -> value
      :error -> raise KeyError, key: key, term: store
      {:error, reason} -> raise Error, reason: reason
    end
  end

  @doc """
  `{:ok, value, revision}`: the value with the number of the write that it is of, or `:error` where nothing is there.

      iex> KvNode.put({:global, :docs}, :account, 100)
      iex> {:ok, 100, revision} = KvNode.fetch_revision({:global, :docs}, :account)
      iex> KvNode.compare_and_put({:global, :docs}, :account, {:revision, revision}, 70)
      :ok
  """
  @spec fetch_revision(store, key, keyword) :: {:ok, value, revision} | :error | error
  def fetch_revision(store, key, opts \\ []), do: read(store, {:fetch_revision, key}, opts)

  @doc """
  Whether something is there. Raises `KvNode.Error` where the store cannot say.

      iex> KvNode.has_key?({:global, :docs}, :missing)
      false
  """
  @spec has_key?(store, key, keyword) :: boolean
  def has_key?(store, key, opts \\ []) do
    case read(store, {:member, key}, opts) do
      {:error, reason} -> raise Error, reason: reason
      is_there -> is_there
    end
  end

  @doc """
  How long a key has: `{:ok, milliseconds}`, `{:ok, :infinity}`, or `:error` where nothing is there.

      iex> KvNode.put({:global, :docs}, :session, "abc", ttl: 60_000)
      iex> {:ok, left} = KvNode.ttl({:global, :docs}, :session)
      iex> left in 1..60_000
      true
  """
  @spec ttl(store, key, keyword) :: {:ok, milliseconds | 0 | :infinity} | :error | error
  def ttl(store, key, opts \\ []), do: read(store, {:ttl, key}, opts)

  @doc """
  The number of keys.

      iex> is_integer(KvNode.count({:global, :docs}))
      true
  """
  @spec count(store, keyword) :: non_neg_integer
  def count(store, opts \\ []), do: read(store, :count, opts)

  @doc """
  A map of those keys that are there, as they are at one moment.

      iex> KvNode.put_many({:global, :docs}, a: 1, b: 2)
      iex> KvNode.get_many({:global, :docs}, [:a, :b, :missing])
      %{a: 1, b: 2}
  """
  @spec get_many(store, [key], keyword) :: %{key => value} | error
  def get_many(store, keys, opts \\ []), do: read(store, {:get_many, keys}, opts)

  @doc """
  Puts a value, whatever was there.

      iex> KvNode.put({:global, :docs}, {:user, 1}, %{name: "Felipe"})
      :ok
  """
  @spec put(store, key, value, keyword) :: :ok | error
  def put(store, key, value, opts \\ []), do: write(store, {:put, key, value}, opts)

  @doc """
  Puts a value where nothing is there: `true`, or `false` where something is.

      iex> KvNode.put_new({:global, :docs}, {:once, :only}, 1)
      true
      iex> KvNode.put_new({:global, :docs}, {:once, :only}, 2)
      false
  """
  @spec put_new(store, key, value, keyword) :: boolean | error
  def put_new(store, key, value, opts \\ []), do: write(store, {:put_new, key, value}, opts)

  @doc """
  Puts a value where something is there: `true`, or `false` where nothing is.

      iex> KvNode.replace({:global, :docs}, :missing, 1)
      false
  """
  @spec replace(store, key, value, keyword) :: boolean | error
  def replace(store, key, value, opts \\ []), do: write(store, {:replace, key, value}, opts)

  @doc """
  Deletes a key, whether something is there or not.

      iex> KvNode.delete({:global, :docs}, :missing)
      :ok
  """
  @spec delete(store, key, keyword) :: :ok | error
  def delete(store, key, opts \\ []), do: write(store, {:delete, key}, opts)

  @doc """
  The value that was there, which goes; or `nil`.

      iex> KvNode.put({:global, :docs}, :job, :work)
      iex> KvNode.pop({:global, :docs}, :job)
      :work
      iex> KvNode.pop({:global, :docs}, :job)
      nil
  """
  @spec pop(store, key, keyword) :: value | nil | error
  def pop(store, key, opts \\ []), do: write(store, {:pop, key}, opts)

  @doc """
  Puts a value, and gives the one that was there, or `nil`.

      iex> KvNode.put({:global, :docs}, :leader, :a)
      iex> KvNode.get_and_put({:global, :docs}, :leader, :b)
      :a
  """
  @spec get_and_put(store, key, value, keyword) :: value | nil | error
  def get_and_put(store, key, value, opts \\ []),
    do: write(store, {:get_and_put, key, value}, opts)

  @doc """
  Adds to an integer, and gives the sum. With `:initial` that is what it is added to where nothing is there, and else 0.

      iex> KvNode.delete({:global, :docs}, :hits)
      iex> KvNode.update_counter({:global, :docs}, :hits, 2)
      2
      iex> KvNode.update_counter({:global, :docs}, :visits, 1, initial: 100)
      101
  """
  @spec update_counter(store, key, integer, keyword) :: integer | error
  def update_counter(store, key, increment \\ 1, opts \\ []) when not is_list(increment) do
    {initial, opts} = Keyword.pop(opts, :initial, 0)
    write(store, {:update_counter, key, increment, initial}, opts)
  end

  @doc """
  Puts a value where the key has what is expected: `{:value, value}` (by `===`), `{:revision, revision}` or `:absent`.

      iex> KvNode.put({:global, :docs}, :light, :red)
      iex> KvNode.compare_and_put({:global, :docs}, :light, {:value, :red}, :green)
      :ok
      iex> {:error, {:conflict, {:value, :green, _}}} =
      ...>   KvNode.compare_and_put({:global, :docs}, :light, {:value, :red}, :yellow)
      iex> KvNode.compare_and_put({:global, :docs}, :missing, {:value, 1}, 2)
      {:error, {:conflict, :absent}}
  """
  @spec compare_and_put(store, key, expected, value, keyword) :: :ok | error
  def compare_and_put(store, key, expected, value, opts \\ []),
    do: write(store, {:compare_and_put, key, expected, value}, opts)

  @doc """
  Deletes a key where it has what is expected, see `compare_and_put/5`.

      iex> KvNode.compare_and_delete({:global, :docs}, :missing, :absent)
      :ok
  """
  @spec compare_and_delete(store, key, expected, keyword) :: :ok | error
  def compare_and_delete(store, key, expected, opts \\ []),
    do: write(store, {:compare_and_delete, key, expected}, opts)

  @doc """
  Puts the result of `fun` for what is there, or `initial` where nothing is: `{:ok, value}` with what it has put. `fun` runs in the
  caller, once more for each write of the key that comes between. Without `:ttl` what it puts stays, whatever was there.

      iex> KvNode.delete({:global, :docs}, :list)
      iex> KvNode.update({:global, :docs}, :list, [1], &[2 | &1])
      {:ok, [1]}
      iex> KvNode.update({:global, :docs}, :list, [1], &[2 | &1])
      {:ok, [2, 1]}
  """
  @spec update(store, key, initial :: value, (value -> value), keyword) :: {:ok, value} | error
  def update(store, key, initial, fun, opts \\ []) when is_function(fun, 1) do
    case fetch_revision(store, key, Keyword.take(opts, [:timeout])) do
      {:ok, value, revision} ->
        update_to(store, key, {:revision, revision}, fun.(value), initial, fun, opts)

      :error ->
        update_to(store, key, :absent, initial, initial, fun, opts)

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp update_to(store, key, expected, value, initial, fun, opts) do
    case compare_and_put(store, key, expected, value, opts) do
      :ok -> {:ok, value}
      {:error, {:conflict, _}} -> update(store, key, initial, fun, opts)
      {:error, reason} -> {:error, reason}
    end
  end

  @doc """
  Puts several pairs, of a map or a list: one write, all of it or nothing.

      iex> KvNode.put_many({:global, :docs}, %{1 => :one, 2 => :two})
      :ok
  """
  @spec put_many(store, %{key => value} | [{key, value}], keyword) :: :ok | error
  def put_many(store, pairs, opts \\ []), do: write(store, {:put_many, pairs}, opts)

  @doc """
  Deletes several keys: one write.

      iex> KvNode.delete_many({:global, :docs}, [1, 2, 3])
      :ok
  """
  @spec delete_many(store, [key], keyword) :: :ok | error
  def delete_many(store, keys, opts \\ []), do: write(store, {:delete_many, keys}, opts)

  @doc """
  Deletes all keys at once: one write.

      :ok = KvNode.clear(store, confirm: 1)
  """
  @spec clear(store, keyword) :: :ok | error
  def clear(store, opts \\ []) do
    case Keyword.pop(opts, :timeout, 5_000) do
      {timeout, []} -> GenServer.call(store, :clear, timeout)
      {timeout, opts} -> GenServer.call(store, {:clear, opts}, timeout)
    end
  end

  @doc """
  Has what is there end after so many milliseconds, or never (`:infinity`): `true`, or `false` where nothing is there.

      iex> KvNode.put({:global, :docs}, :lease, self())
      iex> KvNode.touch({:global, :docs}, :lease, 30_000)
      true
  """
  @spec touch(store, key, milliseconds | :infinity, keyword) :: boolean | error
  def touch(store, key, ttl, opts \\ []), do: write(store, {:touch, key, ttl}, opts)

  @doc """
  Has what is there stay: `true`, or `false` where nothing is there.

      iex> KvNode.put({:global, :docs}, :draft, "text", ttl: 60_000)
      iex> KvNode.persist({:global, :docs}, :draft)
      true
      iex> KvNode.ttl({:global, :docs}, :draft)
      {:ok, :infinity}
  """
  @spec persist(store, key, keyword) :: boolean | error
  def persist(store, key, opts \\ []), do: write(store, {:persist, key}, opts)

  @doc """
  Makes all changes where all guards hold, and else none: `{:ok, results}`, or `{:error, {:failed, guard}}`.

  A result is `:ok`, and of `{:add, key, n}` the sum.

      iex> KvNode.put_many({:global, :docs}, %{{:account, 1} => 100, {:account, 2} => 0})
      iex> KvNode.transact({:global, :docs}, [{:equal, {:account, 1}, 100}], [
      ...>   {:add, {:account, 1}, -30},
      ...>   {:add, {:account, 2}, 30},
      ...>   {:put, :last, {:transfer, 30}}
      ...> ])
      {:ok, [70, 30, :ok]}
      iex> KvNode.transact({:global, :docs}, [{:absent, {:account, 1}}], [{:delete, :last}])
      {:error, {:failed, {:absent, {:account, 1}}}}
  """
  @spec transact(store, [guard], [change], keyword) :: {:ok, [:ok | integer]} | error
  def transact(store, guards, changes, opts \\ []),
    do: write(store, {:transact, guards, changes}, opts)

  @doc """
  A page of the entries: `{entries, cursor}`, or `{entries, :done}`.

  Options are `:limit`, `:bytes`, `:keys`, `:match`, `:consistency` and `:cursor`; and `:from`, `:to`, `:prefix` and `:reverse` for the order of
  Erlang's terms, which stores on disk have, and those in memory of a node with `--ordered`. `stream/2` goes through all pages.

      iex> KvNode.put({:global, :docs}, {:page, 1}, :a)
      iex> KvNode.scan({:global, :docs}, match: {:page, :_}, limit: 16_000)
      {[{{:page, 1}, :a}], :done}
      iex> KvNode.put({:global, :docs}, {:page, 2}, :b)
      iex> KvNode.scan({:global, :docs}, prefix: {:page}, reverse: true)
      {[{{:page, 2}, :b}, {{:page, 1}, :a}], :done}
  """
  @spec scan(store, keyword) :: {[{key, value}] | [key], cursor | :done} | error
  def scan(store, opts \\ []) do
    {timeout, opts} = Keyword.pop(opts, :timeout, 5_000)
    GenServer.call(store, {:scan, opts}, timeout)
  end

  @doc """
  The entries of a store as a lazy stream, page by page; or its keys with `keys: true`. Options are those of `scan/2`.

  A key that is there all the while comes once. A store that has no room for one more reader is asked again, for ten seconds. Raises `KvNode.Error` where the store does not answer with a page.

      iex> KvNode.put_many({:global, :docs}, for(n <- 1..100, do: {{:number, n}, n}))
      iex> {:global, :docs} |> KvNode.stream(match: {:number, :_}, limit: 7) |> Stream.map(&elem(&1, 1)) |> Enum.sum()
      5050
      iex> {:global, :docs} |> KvNode.stream(keys: true, match: {:number, :_}) |> Enum.count()
      100
      iex> {:global, :docs} |> KvNode.stream(keys: true, from: {:number, 40}, to: {:number, 42}) |> Enum.to_list()
      [{:number, 40}, {:number, 41}, {:number, 42}]
  """
  @spec stream(store, keyword) :: Enumerable.t()
  def stream(store, opts \\ []) do
    next = fn
      :done ->
        {:halt, :done}

      cursor ->
        case page(store, cursor ++ opts, @page_tries) do
          {:error, reason} -> raise Error, reason: reason
          {entries, :done} -> {entries, :done}
          {entries, cursor} -> {entries, [cursor: cursor]}
        end
    end

    Stream.resource(fn -> Keyword.take(opts, [:cursor]) end, next, fn _ -> :ok end)
  end

  # A store on disk reads 64 scans at once, and one more is asked to come again.
  defp page(store, opts, tries) do
    case scan(store, opts) do
      {:error, :busy} when tries > 0 ->
        Process.sleep(@page_pause)
        page(store, opts, tries - 1)

      page ->
        page
    end
  end

  @doc """
  Has the calling process told of each change of a store: `{:ok, ref, seq}`, and from there on messages `{:kvnode, ref, {seq, :put, key, value}}`,
  `{:kvnode, ref, {seq, :delete, key}}`, `{:kvnode, ref, {seq, :expire, key}}` and, where all keys went, `{:kvnode, ref, {seq, :clear}}`, in the order of
  the store's writes.

  Options are `:match`, `:prefix`, `values: false` (a put is `{seq, :put, key}` then), `:from` and `initial: true` (what is there comes first, and
  `{seq, :current}` behind it). What this node's release cannot decode is `{seq, :undecodable}`. `{:kvnode, ref, :overrun}` says that the process was
  too slow, `{:kvnode, ref, {:error, reason}}` that the store cannot be read: it is told nothing more. `KvNode.Watcher` is a process that goes on by itself when its store was away.

      iex> {:ok, ref, _seq} = KvNode.watch({:global, :docs}, match: :watched)
      iex> KvNode.put({:global, :docs}, :watched, 1)
      iex> receive do {:kvnode, ^ref, {_seq, :put, key, value}} -> {key, value} after 5_000 -> :nothing end
      {:watched, 1}
      iex> KvNode.unwatch({:global, :docs}, ref)
      :ok
  """
  @spec watch(store, keyword) :: {:ok, reference, seq} | error
  def watch(store, opts \\ []) do
    {timeout, opts} = Keyword.pop(opts, :timeout, 5_000)
    GenServer.call(store, {:watch, opts}, timeout)
  end

  @doc """
  Ends a watch of the calling process. What has come of it is taken out of the mailbox; what is on its way may come still.

      iex> KvNode.unwatch({:global, :docs}, make_ref())
      {:error, :no_watch}
  """
  @spec unwatch(store, reference, keyword) :: :ok | error
  def unwatch(store, ref, opts \\ []) when is_reference(ref) do
    answer = ask(store, {:unwatch, ref}, opts)
    forget(ref)
    answer
  end

  defp forget(ref) do
    receive do
      {:kvnode, ^ref, _} -> forget(ref)
    after
      0 -> :ok
    end
  end

  @doc """
  How a store is: its role, its entries and bytes, and each slave with its state.

      iex> KvNode.status({:global, :docs}).role
      :single
  """
  @spec status(store, keyword) :: map
  def status(store, opts \\ []), do: ask(store, :status, opts)

  defp read(store, request, opts) do
    case Keyword.split(opts, [:consistency]) do
      {[], opts} -> ask(store, request, opts)
      {wanted, opts} when is_atom(request) -> ask(store, {request, wanted}, opts)
      {wanted, opts} -> ask(store, :erlang.append_element(request, wanted), opts)
    end
  end

  defp ask(store, request, opts) do
    case Keyword.pop(opts, :timeout, 5_000) do
      {timeout, []} -> GenServer.call(store, request, timeout)
      {_, [{option, _} | _]} -> raise ArgumentError, "what reads has no option #{inspect(option)}"
    end
  end

  # Without options it is a request that the Elixir servers know too.
  defp write(store, request, opts) do
    case Keyword.pop(opts, :timeout, 5_000) do
      {timeout, []} -> GenServer.call(store, request, timeout)
      {timeout, opts} -> GenServer.call(store, :erlang.append_element(request, opts), timeout)
    end
  end
end

defmodule KvNode.Watcher do
  @moduledoc """
  A process that watches a store, and goes on behind the last change that it was told when the store was away: its node was lost, it was
  started again, or another took its place. It ends with `{:refused, reason}` where the store does not take its options.

      children = [
        {KvNode.Watcher, store: {:global, :master}, match: {:user, :_}, initial: true, notify: &MyCache.changed/1}
      ]

  ## Options

    * `:store` - whatever `KvNode` takes.
    * `:notify` - a function that is called in this process with each event: `{seq, :put, key, value}`, `{seq, :delete, key}`,
      `{seq, :expire, key}`, `{seq, :clear}` when all keys are gone, with `initial: true` also `{seq, :current}` once what is there was told. `{seq, :undecodable}` stands for a change that
      this node's OTP cannot decode. `:reset` says that what was told before counts no more: changes were missed. With `initial: true` what is there follows it, and else what changes from there on.
    * `:match`, `:prefix`, `:values`, `:initial`, `:from` - as of `KvNode.watch/2`.
    * `:pause` - milliseconds between two tries to reach the store; 500 unless it is given.
    * `:name`, `:id` and others of `GenServer.start_link/3` and `Supervisor.child_spec/2`.

  ## Example

      iex> here = self()
      iex> KvNode.put({:global, :docs}, {:cached, 1}, :a)
      iex> {:ok, watcher} =
      ...>   KvNode.Watcher.start_link(
      ...>     store: {:global, :docs}, match: {:cached, :_}, initial: true, notify: &send(here, {:told, &1}))
      iex> receive do {:told, {_revision, :put, key, value}} -> {key, value} after 5_000 -> :nothing end
      {{:cached, 1}, :a}
      iex> receive do {:told, {_seq, :current}} -> :current after 5_000 -> :nothing end
      :current
      iex> GenServer.stop(watcher)
      :ok
  """
  use GenServer

  @own [:store, :notify, :match, :prefix, :values, :initial, :from, :pause, :id]

  @type option ::
          {:store, KvNode.store()}
          | {:notify, (KvNode.event() | :reset -> any)}
          | {:match, term}
          | {:prefix, term}
          | {:values, boolean}
          | {:initial, boolean}
          | {:from, KvNode.seq()}
          | {:pause, pos_integer}
          | {:name, GenServer.name()}

  @doc "What a supervisor starts. Several watchers under one supervisor need an `:id` each."
  @spec child_spec([option | {:id, term}]) :: Supervisor.child_spec()
  def child_spec(opts) do
    %{id: Keyword.get(opts, :id, __MODULE__), start: {__MODULE__, :start_link, [opts]}}
  end

  @doc "Starts a watcher, whether its store is there or not."
  @spec start_link([option]) :: GenServer.on_start()
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts, Keyword.drop(opts, @own))

  @doc "The number of the last change that a watcher was told; `nil` before it is known."
  @spec seq(GenServer.server()) :: KvNode.seq() | nil
  def seq(watcher), do: GenServer.call(watcher, :seq)

  @impl true
  def init(opts) do
    state = %{
      store: Keyword.fetch!(opts, :store),
      notify: Keyword.fetch!(opts, :notify),
      opts: Keyword.take(opts, [:match, :prefix, :values]),
      initial: Keyword.get(opts, :initial, false),
      pause: Keyword.get(opts, :pause, 500),
      seq: Keyword.get(opts, :from),
      told: false,
      ref: nil,
      monitor: nil
    }

    {:ok, state, {:continue, :watch}}
  end

  @impl true
  def handle_continue(:watch, state), do: {:noreply, watch(state)}

  @impl true
  def handle_call(:seq, _from, state), do: {:reply, state.seq, state}

  @impl true
  def handle_info({:kvnode, ref, :overrun}, %{ref: ref} = state), do: {:noreply, watch(lost(state))}

  def handle_info({:kvnode, ref, {:error, _}}, %{ref: ref} = state), do: {:noreply, later(lost(state))}

  def handle_info({:kvnode, ref, {seq, :current} = event}, %{ref: ref} = state) do
    state.notify.(event)
    {:noreply, %{state | seq: seq}}
  end

  def handle_info({:kvnode, ref, event}, %{ref: ref} = state) do
    state.notify.(event)
    # What is shown first has no place among the changes.
    seq = if state.seq, do: elem(event, 0)
    {:noreply, %{state | seq: seq, told: true}}
  end

  # A watch whose answer came too late: nobody else would end it while this process lives.
  def handle_info({:kvnode, stray, {_, _, _}}, state), do: {:noreply, end_stray(stray, state)}
  def handle_info({:kvnode, stray, {_, _, _, _}}, state), do: {:noreply, end_stray(stray, state)}

  def handle_info({:DOWN, monitor, _, _, _}, %{monitor: monitor} = state),
    do: {:noreply, later(lost(state))}

  def handle_info(:watch, %{ref: nil} = state), do: {:noreply, watch(state)}
  def handle_info(_, state), do: {:noreply, state}

  defp watch(state) do
    case GenServer.whereis(state.store) do
      nil ->
        later(state)

      process ->
        monitor = Process.monitor(process)
        begin(%{state | monitor: monitor}, process)
    end
  end

  defp begin(state, process) do
    behind =
      cond do
        state.seq -> [from: state.seq]
        state.initial -> [initial: true]
        true -> []
      end

    # What was shown in part is shown again.
    state = if state.seq == nil and state.told, do: reset(state), else: state

    case ask(process, behind ++ state.opts) do
      {:ok, ref, seq} -> %{state | ref: ref, seq: if(behind != [initial: true], do: seq)}
      {:error, :too_old} -> begin(reset(state), process)
      {:error, reason} when reason == :busy or elem(reason, 0) == :too_many -> later(lost(state))
      {:error, reason} -> exit({:refused, reason})
      :no_answer -> later(lost(state))
    end
  end

  # What the store does not understand it will not understand the next time.
  defp ask(process, opts) do
    KvNode.watch(process, opts)
  catch
    :exit, {{:bad_call, _} = reason, _} -> exit({:refused, reason})
    :exit, _ -> :no_answer
  end

  # Its answer is nothing to wait for.
  defp end_stray(ref, state) do
    process = GenServer.whereis(state.store)
    if process, do: send(process, {:"$gen_call", {self(), ref}, {:unwatch, ref}})
    flush(ref)
    state
  end

  defp flush(ref) do
    receive do
      {:kvnode, ^ref, _} -> flush(ref)
    after
      0 -> :ok
    end
  end

  defp reset(state) do
    state.notify.(:reset)
    %{state | seq: nil, told: false}
  end

  defp lost(state) do
    if state.monitor, do: Process.demonitor(state.monitor, [:flush])
    %{state | ref: nil, monitor: nil}
  end

  defp later(state) do
    Process.send_after(self(), :watch, state.pause)
    state
  end
end
