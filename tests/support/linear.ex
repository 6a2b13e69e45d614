defmodule KvNodeTest.Linear do
  @moduledoc """
  Clients that put, get and delete at random, and write down when each call began and ended
  (tests/linearizable.rs judges what they wrote).

  Times are the operating system's monotonic clock, which all processes of a machine share. Each value is put once:
  `run/2` counts them from `base` on.
  """

  # Only a test that fails waits for so long.
  @patience 30_000

  @doc """
  Runs `clients` processes that call `server` as often as `calls` says, on the keys 1 to `keys`, and gives all calls as
  text: `CLIENT KEY ACT VALUE START END` each, `-` for none.

  With `cut: {node, calls}` one of them cuts the connection to this node each time that so many calls were made here.
  A client whose call ends in an exit goes on when the server is found again: the call is written down without an end.
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

  @doc "The operating system's monotonic clock, in nanoseconds."
  def now do
    source = :erlang.system_info(:os_monotonic_time_source)
    :CLOCK_MONOTONIC = source[:clock_id]
    :erlang.convert_time_unit(source[:time], :native, :nanosecond)
  end

  defp call(server, client, fresh, made, options) do
    :counters.add(made, 1, 1)
    maybe_cut(options, :counters.get(made, 1))
    key = :rand.uniform(options.keys)

    {act, request} =
      case :rand.uniform(10) do
        at when at <= 4 -> {"put", {:put, key, fresh}}
        5 -> {"delete", {:delete, key}}
        _ -> {"get", {:get, key}}
      end

    started = now()

    {answer, ended} =
      try do
        {{:ok, GenServer.call(server, request, @patience)}, now()}
      catch
        :exit, _ ->
          await(server, options)
          {:none, nil}
      end

    value =
      case {act, answer} do
        {"get", {:ok, value}} -> value
        {"get", :none} -> nil
        {"put", {:ok, :ok}} -> fresh
        {"put", :none} -> fresh
        {"delete", {:ok, :ok}} -> nil
        {"delete", :none} -> nil
      end

    Enum.map([client, key, act, value, started, ended], &[show(&1), " "]) ++ [";"]
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
  defp show(text) when is_binary(text), do: text
  defp show(number), do: Integer.to_string(number)
end
