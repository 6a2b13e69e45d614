# Callers of a store that several kvnodes serve, for scripts/demo --cluster: they write and read all the time, check what they read, and
# say how long nobody was answered. What is to be said and waited for comes as lines on stdin.
#
# DEMO_TOLD is a file that gets a line when that is said; DEMO_TTY=yes says that a terminal shows it.
#
#   say TEXT       says it, and counts anew from here
#   moved          waits until another node holds the name and all is quiet, then says what the callers have seen
#   quiet          waits until all is quiet, then says the same
#   check          reads every write that was answered :ok once more, and ends: with exit code 1 where one is missing or old

defmodule Demo.Cluster do
  @writers 6
  @readers 2
  # So long without a gap is quiet, in milliseconds; and what counts as a gap.
  @quiet 1_500
  @gap 250

  def run do
    wait_for_name(400)
    tally = spawn_link(fn -> tally(new()) end)
    writers = for n <- 1..@writers, do: spawn_link(fn -> write({n, 1}, 1, [], tally) end)
    :ok = GenServer.call({:global, :kv}, {:put, :nombre, "Mafalda"})
    for _ <- 1..@readers, do: spawn_link(fn -> read(tally) end)
    :timer.send_interval(1_000, tally, :second)
    for line <- IO.stream(:stdio, :line), do: obey(String.trim(line), tally, writers)
  end

  defp wait_for_name(0), do: stop("nobody has the name kv")

  defp wait_for_name(tries) do
    unless is_pid(:global.whereis_name(:kv)) do
      Process.sleep(25)
      wait_for_name(tries - 1)
    end
  end

  # Reads a key that nobody writes: it has to wait for no write.
  defp read(tally) do
    Process.sleep(2)
    read = ask({:get, :nombre})
    if match?({:ok, _}, read) and read != {:ok, "Mafalda"}, do: stop(":nombre is read as #{inspect(read)}")
    send(tally, {:read, now(), if(match?({:ok, _}, read), do: :ok, else: read)})
    read(tally)
  end

  # A writer has a key of its own, and reads what it has written last. A write that was not answered may be done yet, also later, by a
  # kvnode that was stopped: the writer goes on with another key then, and that one has either value at the end.
  defp write(key, value, left, tally) do
    receive do
      {:end, asker} -> send(asker, {:written, [{key, [value - 1]} | left]})
    after
      2 ->
        written = ask({:put, key, value})
        send(tally, {:write, now(), written})
        read = ask({:get, key})
        send(tally, {:read, now(), if(match?({:ok, _}, read), do: :ok, else: read)})
        # A key begins with nothing.
        before = if value == 1, do: nil, else: value - 1

        case {written, read} do
          {:ok, {:ok, ^value}} ->
            write(key, value + 1, left, tally)

          {:ok, {:ok, other}} ->
            stop("#{inspect(key)} was put #{value}, answered :ok, and is read as #{inspect(other)}")

          {:ok, _} ->
            write(key, value + 1, left, tally)

          {_, {:ok, other}} when other != before and other != value ->
            stop("#{inspect(key)} was put #{value}, not answered, and is read as #{inspect(other)}")

          _ ->
            {n, serial} = key
            write({n, serial + 1}, 1, [{key, [before, value]} | left], tally)
        end
    end
  end

  defp ask(request) do
    case {GenServer.call({:global, :kv}, request, 1_500), elem(request, 0)} do
      {:ok, :put} -> :ok
      {{:error, reason}, _} -> reason
      {value, :get} -> {:ok, value}
    end
  catch
    :exit, {{:nodedown, _}, _} -> :nodedown
    :exit, {reason, _} when is_atom(reason) -> reason
    :exit, _ -> :exit
  end

  defp new do
    %{
      begun: now(),
      second: {0, 0},
      all: {0, 0},
      last: %{write: now(), read: now()},
      event: now(),
      holder: holder(),
      gaps: %{write: 0, read: 0},
      disturbed: now(),
      failed: %{},
      waiting: nil
    }
  end

  defp tally(state) do
    receive do
      {kind, at, :ok} ->
        # A gap that began before the event is none of it.
        gap = at - max(state.last[kind], state.event)
        disturbed = if gap > @gap, do: at, else: state.disturbed
        gaps = Map.update!(state.gaps, kind, &max(&1, gap))
        count = fn {w, r} -> if kind == :write, do: {w + 1, r}, else: {w, r + 1} end
        last = Map.put(state.last, kind, max(at, state.last[kind]))

        state = %{state | last: last, gaps: gaps, disturbed: disturbed}
        tally(told(%{state | second: count.(state.second), all: count.(state.all)}))

      {_kind, at, failed} when failed != :ok and is_integer(at) ->
        tally(%{state | failed: Map.update(state.failed, failed, 1, &(&1 + 1)), disturbed: at})

      :second ->
        {writes, reads} = state.second
        seconds = Float.round((now() - state.begun) / 1000, 1)
        line = "#{seconds} s   holder #{short(holder())}   #{writes} writes and #{reads} reads a second"
        if System.get_env("DEMO_TTY") == "yes", do: IO.write("\r\e[K    #{line}"), else: IO.puts("    #{line}")
        tally(%{state | second: {0, 0}})

      {:event, text} ->
        say("\n=== #{text}")
        tally(%{state | event: now(), holder: holder(), gaps: %{write: 0, read: 0}, failed: %{}, disturbed: now()})

      {:wait, what, asker} ->
        tally(told(%{state | waiting: {what, asker}}))

      {:all, asker} ->
        send(asker, {:all, state.all})
        tally(state)
    end
  end

  # Answers the one that waits, when it is so.
  defp told(%{waiting: nil} = state), do: state

  defp told(%{waiting: {what, asker}} = state) do
    is_quiet = Enum.min([state.last.write, state.last.read]) - max(state.disturbed, state.event) > @quiet
    has_moved = what == :quiet or holder() not in [nil, state.holder]

    if is_quiet and has_moved do
      failed = Enum.map_join(state.failed, ", ", fn {why, count} -> "#{count} #{inspect(why)}" end)
      say("    no write was answered for #{state.gaps.write} ms at the longest, and no read for #{state.gaps.read} ms")
      say("    calls that failed: #{if failed == "", do: "none", else: failed}; the name is held by #{short(holder())}")
      send(asker, :told)
      %{state | waiting: nil}
    else
      state
    end
  end

  defp obey("say " <> text, tally, _), do: send(tally, {:event, text})
  defp obey("moved", tally, _), do: wait(:moved, tally)
  defp obey("quiet", tally, _), do: wait(:quiet, tally)

  defp obey("check", tally, writers) do
    for writer <- writers, do: send(writer, {:end, self()})

    written =
      for _ <- writers do
        receive do
          {:written, keys} -> keys
        end
      end

    for {key, values} <- List.flatten(written), values != [0] do
      read = GenServer.call({:global, :kv}, {:get, key})
      unless read in values, do: stop("#{inspect(key)} is read as #{inspect(read)}, and was written as #{inspect(values)}")
    end

    send(tally, {:all, self()})

    receive do
      {:all, {writes, reads}} -> say("\n#{writes} writes were answered :ok, and #{reads} reads: none was lost, and none was old.")
    end

    System.halt(0)
  end

  defp wait(what, tally) do
    send(tally, {:wait, what, self()})

    receive do
      :told -> File.write!(System.fetch_env!("DEMO_TOLD"), "told\n", [:append])
    after
      30_000 -> stop("it is not #{what} within 30 s")
    end
  end

  defp holder do
    case :global.whereis_name(:kv) do
      pid when is_pid(pid) -> node(pid)
      :undefined -> nil
    end
  end

  defp short(nil), do: "nobody"
  defp short(node), do: node |> Atom.to_string() |> String.split("@") |> hd()

  defp say(text), do: IO.puts(if System.get_env("DEMO_TTY") == "yes", do: "\r\e[K#{text}", else: text)
  defp now, do: System.monotonic_time(:millisecond)

  defp stop(why) do
    say("WRONG: #{why}")
    System.halt(1)
  end
end

Demo.Cluster.run()
