# Sorts terms of all kinds, and says which of them are neighbours that are equal. For order_beam.rs.
#
#   folder/sorted   for each term, in the order of :lists.sort/1: its length in 32 bits, its encoding, and a byte:
#                   0: less than the next; 1: == the next; 2: === the next

defmodule Terms do
  @moduledoc "Terms by chance, of every kind, many of them near to each other."
  import Bitwise

  @numbers [0, 1, -1, 2, 255, 256, -255, -256, 65_535, 4_294_967_296, 9_007_199_254_740_992, 9_007_199_254_740_993] ++
             [18_446_744_073_709_551_615, -9_007_199_254_740_993, (1 <<< 1023), (1 <<< 1023) + 1] ++
             [-(1 <<< 1023), ((1 <<< 2500) + 77), -((1 <<< 2500) + 77), 0.0, 1.0, -1.0, 0.5, -0.5, 1.5] ++
             [1.0e308, -1.0e308, 5.0e-324, -5.0e-324, 2.2250738585072014e-308, 9_007_199_254_740_992.0, 1.0e-20, 3.0e20]

  @atoms [:a, :b, :ab, :"", :"a b", :é, :日本, :A, nil, true, false, :"a\0b", :a@b]

  def number do
    case :rand.uniform(5) do
      1 -> :rand.uniform(10) - 5
      2 -> (:rand.uniform(10) - 5) * 1.0
      3 -> :rand.normal() * :math.pow(10, :rand.uniform(40) - 20)
      4 -> round(:rand.normal() * :math.pow(2, :rand.uniform(100)))
      5 -> Enum.random(@numbers)
    end
  end

  def bits do
    bytes = for _ <- 1..:rand.uniform(3), into: "", do: <<Enum.random([0, 0, 1, 127, 128, 254, 255])>>
    bits = :rand.uniform(8)
    bytes = binary_part(bytes, 0, byte_size(bytes) - 1)
    if :rand.uniform(3) == 1, do: <<bytes::binary, Enum.random([0, 1, 255])::size(bits)>>, else: bytes
  end

  def leaf do
    case :rand.uniform(8) do
      n when n <= 3 -> number()
      4 -> Enum.random(@atoms)
      5 -> bits()
      6 -> []
      7 -> Enum.random(Process.get(:things))
      8 -> Enum.random(Process.get(:remote))
    end
  end

  def term(0), do: leaf()

  def term(depth) do
    case :rand.uniform(9) do
      n when n <= 3 -> leaf()
      4 -> List.to_tuple(terms(depth))
      5 -> terms(depth)
      6 -> [leaf() | term(depth - 1)]
      7 -> Map.new(terms(depth), &{key(&1), term(depth - 1)})
      8 -> for _ <- 1..:rand.uniform(4), do: :rand.uniform(256) - 1
      9 -> {term(depth - 1), number()}
    end
  end

  # From OTP 26 on maps are compared by their keys as these lie in memory, and a map in such a key has its atoms in the order of their
  # numbers in this node: no other node could know it. (`:lists.sort/1` of the maps themselves does not see these numbers.)
  defp key(term), do: if(by_numbers?(term), do: leaf(), else: term)

  defp by_numbers?(map) when is_map(map) do
    Enum.count(Map.keys(map), &is_atom/1) > 1 or
      Enum.any?(map, fn {key, value} -> by_numbers?(key) or by_numbers?(value) end)
  end

  defp by_numbers?(tuple) when is_tuple(tuple), do: by_numbers?(Tuple.to_list(tuple))
  defp by_numbers?([head | tail]), do: by_numbers?(head) or by_numbers?(tail)
  defp by_numbers?(_), do: false

  defp terms(depth), do: for(_ <- Enum.take([1, 2, 3], :rand.uniform(4) - 1), do: term(depth - 1))
end

[folder] = System.argv()
seed = :erlang.phash2({:erlang.system_time(), self()})
:rand.seed(:exsss, seed)

# Of this node, and of others, as they come over the wire.
port = hd(Port.list())
things = [self(), spawn(fn -> :ok end), spawn(fn -> :ok end), make_ref(), make_ref(), port] ++ Enum.take(Port.list(), 3)
Process.put(:things, things)

remote =
  for node <- [:a@h, :b@h, :aa@h], creation <- [1, 2], number <- [1, 2, 300] do
    atom = Atom.to_string(node)
    name = <<119, byte_size(atom), atom::binary>>

    for {tag, rest} <- [
          {<<88>>, <<number::32, 7 - rem(number, 5)::32, creation::32>>},
          {<<89>>, <<number::32, creation::32>>}
        ] do
      :erlang.binary_to_term(<<131, tag::binary, name::binary, rest::binary>>)
    end ++
      for words <- [[number, 5, 9], [5, number, 9], [9, 5, number], [number, 0, 0]] do
        words = for word <- words, into: "", do: <<word::32>>
        :erlang.binary_to_term(<<131, 90, 3::16, name::binary, creation::32, words::binary>>)
      end
  end

Process.put(:remote, List.flatten(remote))

wide = for n <- [33, 40, 100], do: Map.new(1..n, &{Enum.random([&1, &1 * 1.0, {&1}]), Terms.number()})
more = for map <- wide, _ <- 1..5, do: Map.put(map, Enum.random(Map.keys(map)), Terms.number())
more = more ++ for map <- wide, _ <- 1..5, do: map |> Map.delete(Enum.random(Map.keys(map))) |> Map.put(Terms.leaf(), 1)

terms = (for _ <- 1..6_000, do: Terms.term(Enum.random(0..3))) ++ things ++ Process.get(:remote) ++ wide ++ more
sorted = :lists.sort(terms)
nexts = tl(sorted) ++ [:none]

records =
  for {term, next} <- Enum.zip(sorted, nexts) do
    bytes = binary_part(:erlang.term_to_binary(term), 1, byte_size(:erlang.term_to_binary(term)) - 1)

    mark =
      cond do
        next === term -> 2
        next == term -> 1
        true -> 0
      end

    [<<byte_size(bytes)::32>>, bytes, mark]
  end

File.write!(Path.join(folder, "sorted"), records)
IO.puts("sorted #{length(terms)} by seed #{seed}")
IO.gets("")
IO.puts("done")
