defmodule KvNodeTest.Writer do
  @moduledoc """
  A stream of writes to one server from one process, which knows what was acknowledged: what the server and its slaves
  have to hold in the end. And readers that watch one key.
  """

  use GenServer

  @patience 60_000

  @doc """
  Starts to put and delete the keys 1 to `keys` of `server` at random, one after another, with a pause of
  `pause` milliseconds between two.
  """
  def start(server, keys, pause, patience \\ 5_000) do
    state = %{
      server: server,
      keys: keys,
      pause: pause,
      patience: patience,
      expected: %{},
      unsure: %{},
      writes: 0,
      slowest: 0,
      failed: [],
      waiting: [],
      history: []
    }

    GenServer.start(__MODULE__, state)
  end

  @doc "Waits until so many writes more were acknowledged, and gives how many there were in all."
  def await_more(writer, writes), do: GenServer.call(writer, {:await_more, writes}, @patience)

  @doc "The longest that one write took since this was asked for the last time, in milliseconds."
  def slowest(writer), do: GenServer.call(writer, :slowest, @patience)

  @doc """
  Ends the stream. Gives what was acknowledged as `expected`, the number of `writes`, the reasons of those that
  `failed`, of each key whose last writes failed the values that it may have as well, as `unsure`, and all writes with
  the last one first, as `history`.
  """
  def stop(writer) do
    ended = GenServer.call(writer, :stop, @patience)
    Map.take(ended, [:expected, :writes, :failed, :unsure, :history])
  end

  @doc "Puts every key of the stream once."
  def put_all(writer), do: GenServer.call(writer, :put_all, @patience)

  @doc """
  What is otherwise in `data` than was acknowledged, and may not be: `{key, acknowledged, found}`, the first ten.
  """
  def differences(ended, data) do
    keys = Enum.uniq(Map.keys(ended.expected) ++ Map.keys(data) ++ Map.keys(ended.unsure))

    wrong =
      for key <- keys,
          found = Map.get(data, key),
          found != Map.get(ended.expected, key),
          found not in Map.get(ended.unsure, key, []),
          do: {key, Map.get(ended.expected, key), found}

    Enum.take(wrong, 10)
  end

  @doc """
  After how many of the writes of the stream a server that began empty held exactly `data`; `nil`: never.
  """
  def prefix(ended, data) do
    ended.history
    |> Enum.reverse()
    |> Enum.scan(%{}, fn
      {key, nil}, held -> Map.delete(held, key)
      {key, value}, held -> Map.put(held, key, value)
    end)
    |> List.insert_at(0, %{})
    |> Enum.find_index(&(&1 == data))
  end

  @doc "Puts 1, 2, 3 and so on under `key` of `server`, in a process of its own."
  def start_counter(server, key) do
    spawn(fn -> count(server, key, 1) end)
  end

  @doc "Ends it, and gives the last number that was put."
  def stop_counter(counter) do
    send(counter, {:stop, self()})

    receive do
      {^counter, last} -> last
    after
      @patience -> exit(:no_answer)
    end
  end

  defp count(server, key, number) do
    :ok = GenServer.call(server, {:put, key, number}, @patience)

    receive do
      {:stop, from} -> send(from, {self(), number})
    after
      0 -> count(server, key, number + 1)
    end
  end

  @doc """
  Reads `key` of `server` again and again in a process of its own, which keeps each number that is less than one
  that it read before. A call that exits is left out, as is a key without a value before the first.
  """
  def start_reader(server, key) do
    spawn(fn -> read(server, key, %{last: 0, reads: 0, changes: 0, back: [], exits: 0}) end)
  end

  @doc "Ends a reader, and gives what it saw."
  def stop_reader(reader) do
    send(reader, {:stop, self()})

    receive do
      {^reader, seen} -> seen
    after
      @patience -> exit(:no_answer)
    end
  end

  @doc "Waits until the reader has seen this number or a greater one."
  def await_read(reader, number) do
    send(reader, {:await, number, self()})

    receive do
      {^reader, :read, last} -> last
    after
      @patience -> exit({:not_read, number})
    end
  end

  defp read(server, key, seen) do
    receive do
      {:stop, from} -> send(from, {self(), seen})
      {:await, number, from} -> read(server, key, Map.put(seen, :awaited, {number, from}))
    after
      0 -> read(server, key, told(look(server, key, seen)))
    end
  end

  defp look(server, key, %{last: last} = seen) do
    case GenServer.call(server, {:get, key}, 2_000) do
      nil when last == 0 ->
        seen

      got ->
        got = got || -1
        back = if got < last, do: [{last, got} | seen.back], else: seen.back
        changes = if got > last, do: seen.changes + 1, else: seen.changes

        %{
          seen
          | last: max(got, last),
            reads: seen.reads + 1,
            back: Enum.take(back, 10),
            changes: changes
        }
    end
  catch
    :exit, _ ->
      receive do
      after
        2 -> %{seen | exits: seen.exits + 1}
      end
  end

  defp told(%{awaited: {number, from}, last: last} = seen) when last >= number do
    send(from, {self(), :read, last})
    Map.delete(seen, :awaited)
  end

  defp told(seen), do: seen

  @impl GenServer
  def init(state) do
    send(self(), :write)
    {:ok, state}
  end

  @impl GenServer
  def handle_info(:write, state) do
    number = state.writes + length(state.failed) + 1
    key = :rand.uniform(state.keys)

    state =
      if :rand.uniform(10) == 1 do
        write(state, {:delete, key}, key, nil)
      else
        write(state, put(key, number), key, value(number))
      end

    Process.send_after(self(), :write, state.pause)
    {:noreply, answer_waiting(state)}
  end

  # Too late, from a call that was given up.
  def handle_info(_late, state), do: {:noreply, state}

  @impl GenServer
  def handle_call({:await_more, writes}, from, state) do
    {:noreply, %{state | waiting: [{state.writes + writes, from} | state.waiting]}}
  end

  def handle_call(:slowest, _from, state), do: {:reply, state.slowest, %{state | slowest: 0}}

  def handle_call(:put_all, _from, state) do
    state =
      Enum.reduce(1..state.keys, state, fn key, state ->
        number = state.writes + length(state.failed) + 1
        write(state, put(key, number), key, value(number))
      end)

    {:reply, :ok, state}
  end

  def handle_call(:stop, _from, state), do: {:stop, :normal, state, state}

  defp put(key, number), do: {:put, key, value(number)}
  defp value(number), do: {number, String.duplicate("v", 80)}

  defp write(state, request, key, value) do
    started = System.monotonic_time(:millisecond)

    result =
      try do
        GenServer.call(state.server, request, state.patience)
      catch
        :exit, {reason, _} -> {:failed, reason}
      end

    took = System.monotonic_time(:millisecond) - started
    state = %{state | history: [{key, value} | state.history]}

    case result do
      :ok ->
        expected =
          if value == nil,
            do: Map.delete(state.expected, key),
            else: Map.put(state.expected, key, value)

        unsure = Map.delete(state.unsure, key)
        slowest = max(state.slowest, took)
        %{state | expected: expected, unsure: unsure, writes: state.writes + 1, slowest: slowest}

      other ->
        unsure = Map.update(state.unsure, key, [value], &[value | &1])
        %{state | failed: [other | state.failed], unsure: unsure}
    end
  end

  defp answer_waiting(state) do
    {ready, waiting} =
      Enum.split_with(state.waiting, fn {writes, _} -> state.writes >= writes end)

    for {_, from} <- ready, do: GenServer.reply(from, state.writes)
    %{state | waiting: waiting}
  end
end
