# Types the lines of stdin into this node, as one would into iex, shows what each gives, and checks it. A line is
# "code ==> value", or "code ~~> value" where the value is there a moment later: when a name has reached this node, or
# a write the slave. Ends with exit code 1 at the first value that is wrong.

defmodule Demo do
  def type(line) do
    {code, wanted, tries} =
      case String.split(line, [" ==> ", " ~~> "]) do
        [code, wanted] -> {code, wanted, if(line =~ " ~~> ", do: 400, else: 0)}
      end

    IO.puts("iex(#{node()})> #{code}")
    {wanted, _} = Code.eval_string(wanted)
    got = evaluate(code, wanted, tries)
    IO.puts(inspect(got))

    unless got === wanted do
      IO.puts(:stderr, "#{code} should give #{inspect(wanted)}")
      System.halt(1)
    end
  end

  defp evaluate(code, wanted, tries) do
    case attempt(code) do
      got when got === wanted or tries == 0 ->
        got

      _ ->
        Process.sleep(25)
        evaluate(code, wanted, tries - 1)
    end
  end

  # A name that has not reached this node yet makes a call exit or fail, which is a value to be tried again like any other.
  defp attempt(code) do
    {got, _} = Code.eval_string(code)
    got
  catch
    kind, reason -> {kind, reason}
  end
end

:stdio |> IO.stream(:line) |> Enum.each(&Demo.type(String.trim(&1)))
