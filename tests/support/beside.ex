defmodule KvNodeTest.Beside do
  @moduledoc """
  Small calls beside whatever else goes on: what each took, and how each was lost.

  Some processes call all the time, each with a pause between two calls, until they are stopped.
  """

  @pause 20

  @doc "Starts `count` processes that each do `call` (a function without arguments that gives `value`) again and again."
  def start(count, value, call) do
    for _ <- 1..count, do: spawn(fn -> loop(value, call, %{calls: 0, worst: 0, lost: []}) end)
  end

  @doc "Ends them once their last calls are answered. Times are in milliseconds; how calls were lost is a list."
  def stop(pids) do
    found =
      for pid <- pids do
        reference = make_ref()
        send(pid, {:stop, self(), reference})

        receive do
          {^reference, found} -> found
        end
      end

    %{
      calls: Enum.sum(for one <- found, do: one.calls),
      worst: Enum.max(for one <- found, do: one.worst),
      lost: Enum.uniq(Enum.flat_map(found, & &1.lost))
    }
  end

  defp loop(value, call, found) do
    started = now()

    outcome =
      try do
        call.()
      catch
        _, reason -> {:lost, reason}
      end

    lost = if outcome == value, do: found.lost, else: [summary(outcome) | found.lost]
    found = %{calls: found.calls + 1, worst: max(found.worst, now() - started), lost: lost}

    receive do
      {:stop, from, reference} -> send(from, {reference, found})
    after
      @pause -> loop(value, call, found)
    end
  end

  defp summary({:lost, {reason, {GenServer, :call, _}}}), do: reason
  defp summary(outcome), do: outcome |> inspect(limit: 5) |> String.slice(0, 200)

  @doc "Does all of these functions at once, and gives how long each took, in milliseconds, or how it failed, in their order."
  def at_once(functions, timeout) do
    functions
    |> Enum.map(fn function ->
      Task.async(fn ->
        started = now()

        try do
          function.()
          now() - started
        catch
          _, {reason, {GenServer, :call, _}} -> {:lost, reason}
          _, reason -> {:lost, reason |> inspect(limit: 5) |> String.slice(0, 200)}
        end
      end)
    end)
    |> Enum.map(&Task.await(&1, timeout))
  end

  @doc "Those of `at_once/2` that failed, each once."
  def lost(outcomes), do: outcomes |> Enum.filter(&is_tuple/1) |> Enum.uniq()

  defp now, do: :erlang.monotonic_time(:millisecond)
end
