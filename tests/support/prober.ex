defmodule KvNodeTest.Prober do
  @moduledoc """
  Processes that call a server all the time: a put and a get of the same key in turn, each answer with its time.

  Each prober writes numbers that go up, over a ring of keys. What it has been acknowledged must be there: a get that finds an older
  number than the last acknowledged one of its key is kept as a fault, and `lost/2` looks for the last ones in the end. A put that
  was not answered may be done at any later time, also over one that was begun later: its number is no fault.
  """

  @keys 50

  def start(server, count, timeout) do
    now = now()

    for number <- 1..count do
      spawn(fn ->
        loop(%{
          server: server,
          number: number,
          timeout: timeout,
          next: 1,
          acked: %{},
          open: MapSet.new(),
          oks: 0,
          last_ok: now,
          begun: now,
          gap: 0,
          longest: 0,
          failed: %{},
          faults: []
        })
      end)
    end
  end

  def now, do: System.monotonic_time(:millisecond)

  @doc "From here on gaps, failures and the longest call are counted."
  def mark(probers), do: Enum.each(probers, &ask(&1, :mark))

  @doc "Waits until each prober has an answer `:ok` to a put that was begun after this moment."
  def await_ok(probers, begun \\ now()) do
    if Enum.all?(probers, &(ask(&1, :report).begun > begun)) do
      :ok
    else
      Process.sleep(5)
      await_ok(probers, begun)
    end
  end

  @doc "Waits for so many more answers `:ok` to puts."
  def await_oks(probers, more), do: await_total(probers, oks(probers) + more)

  defp await_total(probers, total) do
    if oks(probers) < total do
      Process.sleep(5)
      await_total(probers, total)
    end
  end

  @doc "`{longest time between two answers :ok, longest call, failures by their kind, faults}` since the mark, of all probers."
  def report(probers) do
    reports = Enum.map(probers, &ask(&1, :report))
    failed = Enum.reduce(reports, %{}, &Map.merge(&1.failed, &2, fn _, one, other -> one + other end))

    {reports |> Enum.map(& &1.gap) |> Enum.max(), reports |> Enum.map(& &1.longest) |> Enum.max(),
     Enum.sort(Map.to_list(failed)), Enum.flat_map(reports, & &1.faults)}
  end

  @doc "How many puts were acknowledged."
  def oks(probers), do: probers |> Enum.map(&ask(&1, :report).oks) |> Enum.sum()

  @doc "Ends them; gives the last acknowledged number of each key, with the numbers that were not answered."
  def stop(probers) do
    for prober <- probers, state = ask(prober, :stop), {key, number} <- state.acked, do: {key, number, state.open}
  end

  @doc "The acknowledged writes that a server has not, nor what came behind them."
  def lost(ended, server) do
    for {key, number, open} <- ended,
        found = GenServer.call(server, {:get, key}),
        not (is_integer(found) and (found >= number or MapSet.member?(open, found))),
        do: {key, number, found}
  end

  defp ask(prober, what) do
    monitor = Process.monitor(prober)
    send(prober, {what, self(), monitor})

    receive do
      {^monitor, answer} ->
        Process.demonitor(monitor, [:flush])
        answer

      {:DOWN, ^monitor, _, _, reason} ->
        raise "a prober has ended: #{inspect(reason)}"
    end
  end

  defp loop(state) do
    receive do
      {:mark, from, ref} ->
        send(from, {ref, :ok})
        loop(%{state | last_ok: now(), gap: 0, longest: 0, failed: %{}})

      {:report, from, ref} ->
        send(from, {ref, %{state | gap: max(state.gap, now() - state.last_ok)}})
        loop(state)

      {:stop, from, ref} ->
        send(from, {ref, state})
    after
      0 -> state |> put() |> get() |> loop()
    end
  end

  defp put(%{next: number} = state) do
    key = key(state, number)
    begun = now()
    state = %{state | next: number + 1}

    case call(state, {:put, key, number}) do
      {:ok, state} ->
        ended = now()
        gap = max(state.gap, ended - state.last_ok)
        acked = Map.put(state.acked, key, number)
        %{state | acked: acked, oks: state.oks + 1, last_ok: ended, begun: begun, gap: gap}

      {failure, state} ->
        failed(%{state | open: MapSet.put(state.open, number)}, failure)
    end
  end

  defp get(state) do
    key = key(state, state.next - 1)
    acked = Map.get(state.acked, key, 0)

    case call(state, {:get, key}) do
      {nil, state} when acked == 0 -> state
      {found, state} when is_integer(found) and found >= acked -> state

      {found, state} when is_integer(found) or is_nil(found) ->
        if MapSet.member?(state.open, found),
          do: state,
          else: %{state | faults: [{:stale, key, acked, found} | state.faults]}

      {failure, state} ->
        failed(state, failure)
    end
  end

  defp key(state, number), do: {:probe, state.number, rem(number, @keys)}

  defp call(state, request) do
    begun = now()

    answer =
      try do
        GenServer.call(state.server, request, state.timeout)
      catch
        :exit, {reason, _} -> {:exit, kind(reason)}
        :exit, reason -> {:exit, kind(reason)}
      end

    {answer, %{state | longest: max(state.longest, now() - begun)}}
  end

  defp kind(reason) when is_atom(reason), do: reason
  defp kind({reason, _}) when is_atom(reason), do: reason
  defp kind(_), do: :other

  defp failed(state, failure) do
    # Nobody is there to answer: others are to have their turn.
    Process.sleep(2)
    kind = case failure do
      {:exit, kind} -> kind
      {:error, reason} -> {:error, reason}
      other -> {:strange, other}
    end

    %{state | failed: Map.update(state.failed, kind, 1, &(&1 + 1))}
  end
end
