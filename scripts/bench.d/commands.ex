defmodule BenchCommands do
  @moduledoc """
  The command loop of the loads. A line of stdin asks for a load by its function and arguments, a line of stdout has its figures,
  `name=number` each. What fails is answered by `error` and the reason.
  """

  @doc "Carries out functions of a module until stdin ends. `read` makes their arguments of words."
  def serve(module, read) do
    IO.puts("ready")

    for line <- IO.stream(:stdio, :line) do
      IO.puts(answer(module, read, String.split(line)))
    end
  end

  @doc "The arguments of a load of a server: the server, as what `address` makes of its kind and place, and numbers."
  def of_server([kind, place | numbers], address) do
    [{String.to_atom(kind), address.(place)} | Enum.map(numbers, &String.to_integer/1)]
  end

  defp answer(module, read, [load | words]) do
    figures = apply(module, String.to_atom(load), read.(words))
    Enum.map_join(figures, " ", fn {name, number} -> "#{name}=#{number}" end)
  catch
    kind, reason -> "error " <> inspect({kind, reason, __STACKTRACE__}, limit: 20, width: :infinity)
  end
end
