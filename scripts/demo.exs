# Types the lines of stdin into this node, as one would into iex, and shows and checks what each gives:
# "code ==> value", where the value is Elixir code too. Ends with exit code 1 at the first that is wrong.

defmodule Demo do
  # A name or a replicated write is there a moment after what caused it.
  def soon(fun, wanted, tries \\ 400) do
    case fun.() do
      value when value === wanted or tries == 0 ->
        value

      _ ->
        Process.sleep(25)
        soon(fun, wanted, tries - 1)
    end
  end

  def type(line, binding) do
    [code, value] = String.split(line, " ==> ")
    {wanted, _} = Code.eval_string(value)
    IO.puts("iex(#{node()})> #{code}")
    {got, _} = Code.eval_string(code, binding)
    IO.puts(inspect(got))

    unless got === wanted do
      IO.puts(:stderr, "#{code} should give #{value}")
      System.halt(1)
    end
  end
end

binding = [
  soon: &Demo.soon/2,
  found: fn name -> Demo.soon(fn -> :global.whereis_name(name) != :undefined end, true) end
]

:stdio |> IO.stream(:line) |> Enum.each(&Demo.type(String.trim(&1), binding))
