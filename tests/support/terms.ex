defmodule KvNodeTest.Terms do
  @moduledoc """
  Terms of every kind, those on the edges between two encodings above all.

  `portable/0` builds the same terms on every node and every OTP version; `local/0` has what only this
  node can make, its pids, references, ports and functions, or makes in its own way. No two of one list are `===`.
  """

  import Bitwise, only: [<<<: 2]

  def all, do: Enum.uniq(portable() ++ local())

  def portable do
    [integers(), floats(), atoms(), binaries(), bitstrings(), tuples(), lists(), maps(), structs(), foreign(), exports()] ++ [short_references()]
    |> Enum.concat()
    |> Enum.uniq()
  end

  defp integers do
    # The bounds of SMALL_INTEGER, INTEGER, SMALL_BIG and LARGE_BIG, and of the machine's words between them.
    edges = [0, 1, 2, 127, 128, 255, 256, 32_767, 32_768, 65_535, 65_536]
    powers = for bits <- [27, 28, 31, 32, 59, 60, 63, 64, 127, 128, 255 * 8, 256 * 8, 30_000], do: 1 <<< bits
    thousand_digits = String.duplicate("1234567890", 100) |> String.to_integer()
    around = for power <- powers, offset <- [-1, 0, 1], do: power + offset
    for n <- edges ++ around ++ [thousand_digits], sign <- [1, -1], do: sign * n
  end

  defp floats do
    [0.0, 1.0, -1.0, 0.1, 1.5, 255.0, 256.0, 1.0e16, 1.0e100, 5.0e-324, 2.2250738585072014e-308] ++
      [1.7976931348623157e308, -1.7976931348623157e308, 3.141592653589793, 4_294_967_296.0]
  end

  defp atoms do
    texts = ["", "a", "with space", "Upper", "Elixir.Foo", "ü", "ÿ", "日本語", "𐍈", "\n", "'", "\"", "nul\0"]
    long = for text <- ["a", "ü", "日", "𐍈"], count <- [63, 64, 127, 128, 255], do: String.duplicate(text, count)
    [nil, true, false, :undefined, :ok] ++ Enum.map(texts ++ long, &String.to_atom/1)
  end

  defp binaries do
    sizes = [0, 1, 2, 64, 65, 255, 256, 65_535, 65_536, 1 <<< 20]
    same = for size <- sizes, do: :binary.copy("x", size)
    same ++ [<<0>>, <<255>>, <<131, 104, 0>>, "Mafalda", "日本語", <<255, 254, 0, 0>>, :binary.copy(<<0>>, 300)]
  end

  defp bitstrings do
    short = for bits <- 1..17, rem(bits, 8) != 0, value <- [0, (1 <<< bits) - 1], do: <<value::size(bits)>>
    short ++ [<<:binary.copy("y", 65_536)::binary, 5::3>>, <<"abc", 1::7>>]
  end

  defp tuples do
    sized = for arity <- [1, 2, 3, 254, 255, 256, 300, 70_000], do: List.to_tuple(Enum.to_list(1..arity))
    [{}, {{}}, {nil}, {:put, :k, :v}, {:"$gen_call", :a, :b}, {1, 2.0, "three", ~c"four", [5], %{6 => 7}}] ++
      sized ++ [nested({}, 1_000, &{&1})]
  end

  defp lists do
    bytes = fn count -> Enum.map(1..count, &rem(&1, 256)) end

    [[], [[]], [[], [[]]], [1], [0], [255], [256], [-1, 2], [1, 2, 3], [1, 2, 300], ~c"charlist", [?a, :b], [1.0]] ++
      [[nil], ["a"], [1, [2, [3, [4]]]], [a: 1, b: 2], [{1, 2}, {3, 4}]] ++
      for(count <- [2, 254, 256, 65_534, 65_535, 65_536, 100_000], do: bytes.(count)) ++
      [Enum.to_list(1..100_000), Enum.map(1..1_000, &{&1, "#{&1}"})] ++
      [[1 | 2], [1, 2 | 3], [:a | :b], ["a", "b" | "c"], [[1 | 2] | [3 | 4]], [1 | %{a: 1}], [1 | {2}]] ++
      [[255 | 255], bytes.(300) ++ :tail, nested([], 1_000, &[&1])]
  end

  defp maps do
    # The order of a small map's atom keys is that in which a node came to know them, from OTP 26 on.
    names = for letter <- ?a..?z, do: "kvnode_order_#{<<letter>>}"
    {late, early} = Enum.split(names, rem(String.to_integer(System.otp_release()), 26))
    Enum.each(early ++ late, &String.to_atom/1)
    atoms = Enum.map(names, &String.to_atom/1)

    sized = for count <- [1, 2, 31, 32, 33, 64, 1_000, 10_000], do: Map.new(1..count, &{&1, &1 * &1})
    text_keys = for count <- [5, 32, 33, 500], do: Map.new(1..count, &{"key #{&1}", &1})
    mixed = %{1 => :integer, 1.0 => :float, "1" => :binary, ~c"1" => :charlist, :"1" => :atom, {1} => :tuple}

    [%{}, %{nil => nil}, %{%{} => %{}}, %{[] => {}}, mixed, Map.new(atoms, &{&1, &1})] ++
      [Map.new(Enum.take(atoms, 5), &{&1, 1}), %{Map.new(atoms, &{&1, 0}) => Map.new(1..40, &{&1, [1, 2, 3]})}] ++
      [%{list: [1, 2, 3], big: 1 <<< 70, deep: %{list: ~c"abc", map: %{1 => %{2 => %{3 => 4}}}}}] ++
      [Map.new(1..40, &{%{&1 => [&1]}, {&1}}), nested(%{}, 200, &%{&1 => &1 |> map_size()})] ++
      sized ++ text_keys
  end

  defp structs do
    [~D[2024-02-29], ~T[23:59:59.999], ~N[2024-02-29 12:00:00], %{__struct__: Range, first: 1, last: 10, step: 1}, %ArgumentError{message: "as a value"}]
  end

  # Pids, ports and references of nodes that are not here, in the forms that nodes have sent over the years.
  defp foreign do
    for node <- ["elsewhere@nohost", "ünïcode@nohost"],
        creation <- [1, 3, 0x6000_0001],
        encoded <- [
          <<88, atom(node)::binary, 77::32, 5::32, creation::32>>,
          <<89, atom(node)::binary, 78::32, creation::32>>,
          <<90, 3::16, atom(node)::binary, creation::32, 82::32, 83::32, 84::32>>
        ] do
      :erlang.binary_to_term(<<131, encoded::binary>>)
    end
  end

  @doc """
  References of fewer than three words, as C nodes make them. They are `===` after a round trip, but a
  BEAM may not find them as keys of its own maps again: it hashes three (seen on OTP 25 and 27).
  """
  def short_references do
    for words <- 1..2, number <- [79, 80] do
      :erlang.binary_to_term(<<131, 90, words::16, atom("elsewhere@nohost")::binary, 1::32, number::size(words)-unit(32)>>)
    end
  end

  defp atom(text), do: <<119, byte_size(text), text::binary>>

  defp exports, do: [&Map.get/2, &Map.get/3, &String.length/1, &:lists.map/2, Function.capture(:"no such", :"no such", 255)]

  def local do
    captured = {:captured, [1, 2, 3], %{a: 1}}
    {evaluated, _} = Code.eval_string("fn x -> {x, y} end", y: captured)
    port = hd(Port.list())

    funs = [fn -> :nothing end, fn x -> {x, captured} end, &identity/1, evaluated]
    refs = for _ <- 1..5, do: make_ref()
    pids = [self(), Process.whereis(:init), Process.group_leader() | Process.list()] |> Enum.uniq() |> Enum.take(30)
    remote = for node <- Node.list(:connected), pid = remote_pid(node), is_pid(pid), do: pid
    sets = [MapSet.new([1, 2, 3]), MapSet.new(1..50), %URI{host: "localhost", port: 1}]
    # References that say whose they are: of five words from OTP 27 on.
    aliases = if function_exported?(:erlang, :alias, 0), do: for(_ <- 1..3, do: apply(:erlang, :alias, [])), else: []
    within = for ref <- aliases, do: {[:in | ref], %{ref => {ref}}}
    refs = refs ++ aliases ++ within

    Enum.uniq(sets ++ funs ++ refs ++ pids ++ remote ++ [port, {self(), make_ref()}, [port | self()], %{self() => funs}])
  end

  defp remote_pid(node), do: :rpc.call(node, :erlang, :whereis, [:init], 10_000)

  defp identity(x), do: x

  defp nested(term, 0, _wrap), do: term
  defp nested(term, depth, wrap), do: nested(wrap.(term), depth - 1, wrap)
end
