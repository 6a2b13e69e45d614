defmodule KvNodeTest.Linear do
  @moduledoc """
  Clients that put, get and delete at random, and write down when each call began and ended
  (tests/linearizable.rs judges what they wrote). With `conditional: true` they also look at what is there and put something in its
  place in one call: by a comparison, a transaction, a sum, by taking it out. With `clears: n` one of so many calls deletes all keys, and
  another reads all of them.

  Times are the operating system's monotonic clock, which all processes of a machine share. Each value is put once:
  `run/2` counts them from `base` on.
  """

  # Only a test that fails waits for so long.
  @patience 30_000

  @doc """
  Runs `clients` processes that call `server` as often as `calls` says, on the keys 1 to `keys`, and gives all calls as
  text: `CLIENT KEY ACT VALUE START END` each, `-` for none, and the key 0 for all keys (of `all` VALUE is what each has, with colons
  between). Where something was seen and replaced ACT is `swap`, and VALUE what was
  seen, a colon and what has come in its place.

  With `cut: {node, calls}` one of them cuts the connection to this node each time that so many calls were made here.
  A client whose call ends in an exit goes on when the server is found again: the call is written down without an end.

  `run_until_finished/2` is the same of several servers that have one store.
  """
  def run(server, options) do
    made = :counters.new(1, [])
    options = Map.new(options)
    parent = self()

    pids =
      for client <- 1..options.clients do
        spawn_link(fn ->
          :rand.seed(:exsss, {options.seed, client, 0})
          base = options.base + client * 100_000

          send(
            parent,
            {self(), Enum.map(1..options.calls, &call(server, client, base + &1, made, options))}
          )
        end)
      end

    pids
    |> Enum.map(fn pid ->
      receive do
        {^pid, calls} -> calls
      end
    end)
    |> IO.iodata_to_binary()
  end

  @doc """
  The same from `begin/0` until `finish/0`: each call goes to one of these servers, and reads say `consistency: :linearizable`. `first` is the first of the
  keys, `timeout` that of a call.

  What may have been done or not is written down without an end, by what it was to do: `add` is a sum. What was surely not done is `unknown`.
  A server that has not answered is left alone for some time, and one whose node is not there is not called.
  """
  def run_until_finished(servers, options) do
    answered = :persistent_term.get({__MODULE__, :answered})
    options = Map.merge(Map.new(options), %{answered: answered, read: [consistency: :linearizable]})
    parent = self()

    pids =
      for client <- 1..options.clients do
        spawn_link(fn ->
          :rand.seed(:exsss, {options.seed, client, 0})
          base = options.base + client * 100_000
          send(parent, {self(), calls_until_finished(servers, client, base, [], options)})
        end)
      end

    pids
    |> Enum.map(fn pid ->
      receive do
        {^pid, calls} -> calls
      end
    end)
    |> IO.iodata_to_binary()
  end

  @doc "To be called before `run_until_finished/2`."
  def begin do
    :persistent_term.put({__MODULE__, :answered}, :counters.new(1, []))
    :persistent_term.put({__MODULE__, :ends}, false)
  end

  @doc "Has the clients of `run_until_finished/2` end."
  def finish, do: :persistent_term.put({__MODULE__, :ends}, true)

  @doc "How many of their calls were answered by more than an error."
  def answered, do: :counters.get(:persistent_term.get({__MODULE__, :answered}), 1)

  defp calls_until_finished(servers, client, fresh, calls, options) do
    if :persistent_term.get({__MODULE__, :ends}) do
      calls
    else
      made = call_one(pick(servers), client, fresh + 1, options)
      calls_until_finished(servers, client, fresh + 1, [made | calls], options)
    end
  end

  defp call_one(server, client, fresh, options) do
    {key, {act, request}} = choose_of_one(fresh, options)
    started = now()

    {answer, ended} =
      try do
        {GenServer.call(server, request, options.timeout), now()}
      catch
        # It is not there yet.
        :exit, {:noproc, _} -> {{:error, :unavailable}, away(server)}
        :exit, _ -> {{:error, :unknown}, away(server)}
      end

    {act, value, ended} =
      case answer do
        {:error, :unavailable} ->
          {:unknown, nil, nil}

        {:error, :unknown} ->
          {act, value} = unanswered(act)
          {act, value, nil}

        answer ->
          :counters.add(options.answered, 1, 1)
          {act, value} = made(act, {:ok, answer})
          {act, value, ended}
      end

    if ended, do: Process.put(key, seen(act, value))
    Enum.map([client, key, act, value, started, ended], &[show(&1), " "]) ++ [";"]
  end

  # What a call that was not answered may have done.
  defp unanswered(:get), do: {:unknown, nil}
  defp unanswered(:delete), do: {:delete, nil}
  defp unanswered({:put, value}), do: {:put, value}
  defp unanswered({:swap, nil}), do: {:delete, nil}
  defp unanswered({:swap, puts}), do: {:put, puts}
  defp unanswered({:sum, more}), do: {:add, more}
  defp unanswered({:compared, saw, puts}), do: {:swap, {saw, puts}}
  defp unanswered({:transacted, saw, sum}), do: {:swap, {saw, sum}}

  # Some server that is there.
  defp pick(servers) do
    now = System.monotonic_time(:millisecond)
    there? = fn server -> Process.get({:away, server}, now) <= now and there?(server) end

    case Enum.find(Enum.shuffle(servers), there?) do
      nil ->
        receive do
        after
          20 -> pick(servers)
        end

      server ->
        server
    end
  end

  defp there?({:global, name}), do: is_pid(:global.whereis_name(name))
  defp there?({_, node}), do: node in Node.list(:connected) or Node.connect(node) == true

  defp away(server) do
    Process.put({:away, server}, System.monotonic_time(:millisecond) + 500)
    nil
  end

  @doc "The operating system's monotonic clock, in nanoseconds."
  def now do
    source = :erlang.system_info(:os_monotonic_time_source)
    :CLOCK_MONOTONIC = source[:clock_id]
    :erlang.convert_time_unit(source[:time], :native, :nanosecond)
  end

  defp call(server, client, fresh, made, options) do
    :counters.add(made, 1, 1)
    maybe_cut(options, :counters.get(made, 1))
    {key, {act, request}} = choose_of_all(options) || choose_of_one(fresh, options)
    started = now()

    {answer, ended} =
      try do
        {{:ok, GenServer.call(server, request, @patience)}, now()}
      catch
        :exit, _ ->
          await(server, options)
          {:none, nil}
      end

    {act, value} = made(act, answer)
    if key == 0, do: seen_all(act, value, options), else: Process.put(key, seen(act, value))
    Enum.map([client, key, act, value, started, ended], &[show(&1), " "]) ++ [";"]
  end

  defp choose_of_all(%{clears: clears, keys: keys}) do
    case :rand.uniform(clears) do
      1 -> {0, {:clear, :clear}}
      2 -> {0, {{:all, keys}, {:get_many, Enum.to_list(1..keys)}}}
      _ -> nil
    end
  end

  defp choose_of_all(_options), do: nil

  defp choose_of_one(fresh, options) do
    key = Map.get(options, :first, 1) + :rand.uniform(options.keys) - 1
    {key, choose(key, fresh, options)}
  end

  defp choose(key, fresh, %{conditional: true} = options) do
    last = Process.get(key)
    expected = if last, do: {:value, last}, else: :absent

    case :rand.uniform(16) do
      1 -> {{:swap, fresh}, {:get_and_put, key, fresh}}
      2 -> {{:swap, nil}, {:pop, key}}
      at when at in 3..4 -> {{:sum, fresh}, {:update_counter, key, fresh}}
      at when at in 5..7 -> {{:compared, last, fresh}, {:compare_and_put, key, expected, fresh}}
      8 when last != nil -> {{:transacted, last, last + fresh}, transaction(key, last, fresh)}
      _ -> choose(key, fresh, Map.delete(options, :conditional))
    end
  end

  defp choose(key, fresh, options) do
    case :rand.uniform(10) do
      at when at <= 4 -> {{:put, fresh}, {:put, key, fresh}}
      5 -> {:delete, {:delete, key}}
      _ when is_map_key(options, :read) -> {:get, {:get, key, options.read}}
      _ -> {:get, {:get, key}}
    end
  end

  # A sum by way of other keys, which stand for nothing.
  defp transaction(key, last, fresh) do
    changes = [{:put, {:beside, key}, fresh}, {:add, key, fresh}, {:delete, {:beside, key}}]
    {:transact, [{:equal, key, last}, {:absent, {:beside, key}}], changes}
  end

  defp made(:get, {:ok, value}), do: {:get, value}
  defp made(:get, :none), do: {:get, nil}
  defp made({:put, value}, answer) when answer in [:none, {:ok, :ok}], do: {:put, value}
  defp made(:delete, answer) when answer in [:none, {:ok, :ok}], do: {:delete, nil}
  defp made(:clear, answer) when answer in [:none, {:ok, :ok}], do: {:clear, nil}
  defp made({:all, keys}, {:ok, found}), do: {:all, Enum.map(1..keys, &Map.get(found, &1))}
  defp made({:all, keys}, :none), do: {:all, List.duplicate(nil, keys)}
  # What takes out of nothing changes nothing.
  defp made({:swap, nil}, {:ok, nil}), do: {:get, nil}
  defp made({:swap, puts}, {:ok, saw}), do: {:swap, {saw, puts}}
  defp made({:sum, n}, {:ok, n}), do: {:swap, {nil, n}}
  defp made({:sum, n}, {:ok, sum}), do: {:swap, {sum - n, sum}}
  defp made({:compared, saw, puts}, {:ok, :ok}), do: {:swap, {saw, puts}}
  defp made({:compared, saw, _}, {:ok, {:error, {:conflict, {:value, value, _}}}}) when value != saw, do: {:get, value}
  defp made({:compared, saw, _}, {:ok, {:error, {:conflict, :absent}}}) when saw != nil, do: {:get, nil}
  defp made({:transacted, saw, sum}, {:ok, {:ok, [:ok, sum, :ok]}}), do: {:swap, {saw, sum}}
  # That it has something else is all that is known.
  defp made({:transacted, _, _}, {:ok, {:error, {:failed, {:equal, _, _}}}}), do: {:unknown, nil}

  # What the key may have, as far as this client knows.
  defp seen(:swap, {_, puts}), do: puts
  defp seen(_, value), do: value

  defp seen_all(act, value, %{keys: keys}) do
    values = if act == :all, do: value, else: List.duplicate(nil, keys)
    Enum.each(Enum.zip(1..keys, values), fn {key, value} -> Process.put(key, value) end)
  end

  defp maybe_cut(%{cut: {node, every}}, made) when rem(made, every) == 0 do
    :erlang.disconnect_node(node)
  end

  defp maybe_cut(_options, _made), do: :ok

  # A name comes back without a message that could be waited for. The ping connects, as callers in a cluster would.
  defp await(server, options) do
    with {node, _} <- options[:cut], do: Node.ping(node)

    case GenServer.whereis(server) do
      nil ->
        receive do
        after
          5 -> await(server, options)
        end

      _ ->
        :ok
    end
  end

  defp show(nil), do: "-"
  defp show({saw, puts}), do: show([saw, puts])
  defp show(values) when is_list(values), do: values |> Enum.map(&show/1) |> Enum.intersperse(":")
  defp show(act) when is_atom(act), do: Atom.to_string(act)
  defp show(number), do: Integer.to_string(number)
end
