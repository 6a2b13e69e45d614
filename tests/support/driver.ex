defmodule KvNodeTest.Driver do
  @moduledoc """
  Evaluates on a real node what a Rust test asks for (tests/support/beam.rs has the other end).

  A request is a line `ID MODE HEX`, with the code's bytes in hexadecimal. MODE `main` evaluates in one
  long-lived process that keeps its bindings and its mailbox; `spawn` evaluates in a process of its own,
  with the bindings that `main` had when it was last idle. An answer is a line
  `MARK ID ok HEX`, or `MARK ID KIND HEX HEX` with the inspected reason and a readable text.
  The end of the input ends the node: nothing outlives the test that started it.
  """

  @mark "\u0001kv "

  def main do
    parent = self()
    spawn_link(fn -> read(parent) end)
    answer(0, "ok", [inspect(node())])
    serve(start_evaluator(), nil)
  end

  defp read(parent) do
    send(parent, {:line, IO.read(:stdio, :line)})
    read(parent)
  end

  # `busy` is the id of the request that the evaluator works on.
  defp serve({evaluator, monitor} = main, busy) do
    receive do
      {:line, line} when is_binary(line) ->
        [id, mode, hex] = String.split(line)
        code = Base.decode16!(hex, case: :lower)
        send(evaluator, {__MODULE__, String.to_integer(id), mode, code})
        serve(main, busy)

      {:line, _eof_or_error} ->
        System.halt(0)

      {:busy, id} ->
        serve(main, id)

      {:DOWN, ^monitor, :process, _, reason} ->
        # A link took the evaluator with it: the request that it worked on ends with the reason.
        if busy, do: failure(busy, :exit, reason, [])
        serve(start_evaluator(), nil)
    end
  end

  defp start_evaluator do
    parent = self()
    spawn_monitor(fn -> evaluator(parent, []) end)
  end

  defp evaluator(parent, binding) do
    receive do
      {__MODULE__, id, "spawn", code} ->
        spawn(fn -> evaluate(id, code, binding) end)
        evaluator(parent, binding)

      {__MODULE__, id, "main", code} ->
        send(parent, {:busy, id})
        binding = evaluate(id, code, binding)
        send(parent, {:busy, nil})
        evaluator(parent, binding)
    end
  end

  defp evaluate(id, code, binding) do
    {value, binding} = Code.eval_string(code, binding, file: "test")
    answer(id, "ok", [inspect(value, limit: :infinity, printable_limit: :infinity, width: :infinity)])
    binding
  catch
    kind, reason ->
      failure(id, kind, reason, __STACKTRACE__)
      binding
  end

  defp failure(id, kind, reason, stack) do
    answer(id, Atom.to_string(kind), [inspect(reason), Exception.format(kind, reason, stack)])
  end

  defp answer(id, kind, texts) do
    hex = texts |> Enum.map(&Base.encode16(&1, case: :lower)) |> Enum.join(" ")
    IO.write("#{@mark}#{id} #{kind} #{hex}\n")
  end
end
