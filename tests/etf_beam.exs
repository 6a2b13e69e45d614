# Encodes terms in every way that this BEAM knows, and judges what becomes of them. For etf_beam.rs.
#
#   folder/encoded    for each term: its number of encodings, each with its length; its inspected text; its phash2
#   folder/shown      for each further term: one encoding, its inspected text
#   folder/canonical  for each term of the first file, from the other side: its canonical bytes
#   folder/changed    bytes that the other side takes for a term, and their canonical bytes
#
# Numbers and lengths have 32 bits; a text that cannot be compared is one of 0xFFFFFFFF bytes.

defmodule Wide do
  @moduledoc "Every term in the widest, oldest, oddest encoding that is still it."
  import Bitwise

  def encode(term), do: IO.iodata_to_binary([131 | wide(term)])

  defp wide(n) when is_integer(n) do
    digits = :binary.encode_unsigned(abs(n), :little) <> <<0, 0>>
    [<<111, byte_size(digits)::32, if(n < 0, do: 255, else: 0)>>, digits]
  end

  defp wide(f) when is_float(f) do
    text = :erlang.float_to_binary(f, scientific: 20)
    [99, text, :binary.copy(<<0>>, 31 - byte_size(text))]
  end

  defp wide(a) when is_atom(a) do
    text = Atom.to_string(a)

    case :unicode.characters_to_binary(text, :utf8, :latin1) do
      latin1 when is_binary(latin1) -> [<<100, byte_size(latin1)::16>>, latin1]
      _ -> [<<118, byte_size(text)::16>>, text]
    end
  end

  defp wide(<<>>), do: <<109, 0::32>>
  defp wide(b) when is_binary(b), do: [<<77, byte_size(b)::32, 8>>, b]

  defp wide(b) when is_bitstring(b) do
    bits = rem(bit_size(b), 8)
    [<<77, byte_size(b)::32, bits>>, <<b::bitstring, (1 <<< (8 - bits)) - 1::size(8 - bits)>>]
  end

  defp wide(t) when is_tuple(t), do: [<<105, tuple_size(t)::32>> | Enum.map(Tuple.to_list(t), &wide/1)]
  defp wide([]), do: <<108, 0::32, 106>>
  defp wide([head | tail]), do: [<<108, 1::32>>, wide(head) | wide(tail)]

  defp wide(m) when is_map(m) do
    pairs = Enum.reverse(:maps.to_list(m))
    [<<116, length(pairs)::32>> | Enum.map(pairs, fn {k, v} -> [wide(k) | wide(v)] end)]
  end

  defp wide(f) when is_function(f) do
    info = Function.info(f)

    if info[:type] == :external,
      do: [113, wide(info[:module]), wide(info[:name]), 97, info[:arity]],
      else: plain(f)
  end

  defp wide(other), do: plain(other)

  defp plain(term) do
    <<131, bytes::binary>> = :erlang.term_to_binary(term)
    bytes
  end
end

defmodule Terms do
  @moduledoc "What KvNodeTest.Terms does not have."

  def more do
    maps = for n <- [0, 1, 2, 31, 32, 33, 100, 1000], do: Map.new(1..n//1, &{&1, &1 * 2})
    atoms = for n <- [2, 32, 33, 200], do: Map.new(1..n, &{:"key_#{&1}", {&1}})
    mixed = Map.new([1, 1.0, :a, "a", ~c"a", {1}, [1], [1.0], %{}, %{1 => 2}, %{1.0 => 2}, [256], <<1::1>>], &{&1, &1})
    keys = [%{b: 1, a: 2}, %{2 => %{b: 1, a: %{z: 1, c: 2}}, 1 => 0}, %{%{b: 1, a: 2} => %{d: 1, c: 2}, %{} => 1}]
    deep = Enum.reduce(1..300, [], fn n, inner -> %{n => 1, :k => inner, "b" => [inner_size(n) | :t]} end)

    maps ++
      atoms ++
      keys ++
      [mixed, deep, %{mixed => mixed}, Map.new(1..200, &{%{&1 => 1, (&1 + 1) => 2}, &1})] ++
      for(n <- [65_534, 65_535, 65_536], last <- [0, 255, 256, -1], do: List.duplicate(7, n - 1) ++ [last]) ++
      [Enum.to_list(0..255), Enum.to_list(0..256), [1, 2 | 3], [1, 2 | "3"], [[1, 2] | [3, 4]], [~c"ab" | ~c"cd"]] ++
      [[1 | %{}], [a: 1, b: ~c"b"], [{:a, 1} | :b], [nil: 1, "a b": 2], [{Foo, 1}]] ++
      if(:erlang.system_info(:otp_release) >= ~c"27", do: [-0.0, [-0.0], %{-0.0 => 0.0}], else: []) ++
      if(:erlang.system_info(:otp_release) >= ~c"29", do: [record("xy"), record("yx"), %{record("xy") => [record("")]}], else: [])
  end

  # A native record: Elixir has no syntax for it.
  defp record(fields) do
    names = for <<field <- fields>>, do: <<119, 1, field>>
    values = for <<field <- fields>>, do: <<97, field>>
    :erlang.binary_to_term(IO.iodata_to_binary([<<131, 67, byte_size(fields)::32, 0, 119, 1, ?r, 119, 3, "vec">>, names, values]))
  end

  defp inner_size(n), do: rem(n, 7)

  @punctuation Enum.filter(33..126, fn c -> not (c in ?0..?9 or c in ?a..?z or c in ?A..?Z) end)

  @doc "Terms whose text is what matters."
  def shown do
    :rand.seed(:exsss, {1, 2, 3})
    floats = for _ <- 1..3000, f = float(:rand.uniform(4)), do: f
    two = for a <- @punctuation, b <- @punctuation, do: [a, b]
    three = for _ <- 1..3000, do: for(_ <- 1..3, do: Enum.random(~c"+-*/<>=&|^~!.:%{}@\\"))
    names = for _ <- 1..3000, do: for(_ <- 1..Enum.random(1..5), do: Enum.random(~c"aZ_9?!@.é "))
    modules = for _ <- 1..500, do: ~c"Elixir" ++ for(_ <- 1..Enum.random(1..6), do: Enum.random(~c".aBE_9"))
    letters = for c <- [0xC0..0x17F, 0x386..0x45F, 0x5D0..0x5EA, 0x3041..0x30FA, 0x4E00..0x4E20, 0xAC00..0xACFF], l <- c, do: l
    scripts = for _ <- 1..1000, do: [Enum.random(letters), Enum.random(~c"_a9?" ++ letters)]
    atoms = for text <- Enum.map(@punctuation, &[&1]) ++ two ++ three ++ names ++ modules ++ scripts, do: List.to_atom(text)
    strings = for c <- 0..0x3100, do: <<"x", c::utf8>>
    rare = for c <- [0xD7FF, 0xE000, 0xFDD0, 0xFEFF, 0xFFF8, 0xFFFC, 0xFFFD, 0xFFFE, 0x10000, 0x1F600, 0x10FFFF], do: <<c::utf8>>
    charlists = for c <- 0..300, do: [?x, c]

    floats ++
      atoms ++
      Enum.map(atoms, &[{&1, 1}]) ++
      Enum.map(atoms, &%{&1 => 1}) ++
      for(name <- atoms, do: Function.capture(Foo, name, 2)) ++
      strings ++
      Enum.map(strings ++ rare, &String.to_atom/1) ++
      rare ++
      charlists ++
      [~c"\#{", ~c"#", "\#{", "#", ~c"\"'\\", ["a" | "b"], {[]}, {{}, %{}}, [[[]]], "\u0000a", <<"abc", 1::3>>] ++
      [Function.capture(:"a b", :c, 1), Function.capture(:lists, :+, 255), Function.capture(nil, nil, 0)]
  end

  defp float(1), do: (:rand.uniform() - 0.5) * :math.pow(10, Enum.random(-10..20))
  defp float(2), do: Enum.random(-1_000_000..1_000_000) / :math.pow(10, Enum.random(0..12))
  defp float(3), do: Enum.random(0..100) * :math.pow(10, Enum.random(-8..25))

  defp float(4) do
    case <<:rand.uniform(0x1_0000_0000_0000_0000) - 1::64>> do
      <<f::float>> -> f
      _ -> 0.5
    end
  end
end

defmodule Main do
  def run(folder) do
    portable = Enum.uniq(KvNodeTest.Terms.portable() ++ Terms.more())
    terms = Enum.uniq(portable ++ KvNodeTest.Terms.local())
    text? = Version.match?(System.version(), ">= 1.18.0")
    File.write!(folder <> "/encoded", for(term <- terms, do: entry(encodings(term), text(term, text?), term)))
    shown = if text?, do: Terms.shown(), else: []
    File.write!(folder <> "/shown", for(term <- shown, do: entry([:erlang.term_to_binary(term)], text(term, true), term)))
    IO.puts("terms #{length(terms)} portable #{length(portable)} text #{text?}")
    IO.read(:line)
    judge(terms, File.read!(folder <> "/canonical"), 0)
    decoded = judge_changed(File.read!(folder <> "/changed"), 0)
    IO.puts("judged #{decoded}")
  end

  defp entry(encodings, text, term) do
    hash = :erlang.phash2(term, 0x1_0000_0000)
    [<<length(encodings)::32>>, for(e <- encodings, do: [<<byte_size(e)::32>>, e]), text, <<hash::32>>]
  end

  defp encodings(term) do
    options = [[], [minor_version: 0], [minor_version: 1], [minor_version: 2], [:compressed], [compressed: 9], [:deterministic]]

    encoded =
      for o <- options, do: (try do :erlang.term_to_binary(term, o) rescue ArgumentError -> :erlang.term_to_binary(term) end)

    for e <- Enum.uniq([Wide.encode(term) | encoded]) do
      if :erlang.binary_to_term(e) !== term, do: raise("not the same: #{inspect(e)} for #{inspect(term)}")
      e
    end
  end

  defp text(term, true) do
    if plain?(term) do
      text = inspect(term, limit: :infinity, printable_limit: :infinity, structs: false)
      [<<byte_size(text)::32>>, text]
    else
      <<0xFFFFFFFF::32>>
    end
  end

  defp text(_, false), do: <<0xFFFFFFFF::32>>

  # Whether its text is the same on every node.
  defp plain?([head | tail]), do: plain?(head) and plain?(tail)
  defp plain?(t) when is_tuple(t), do: Enum.all?(Tuple.to_list(t), &plain?/1)
  # A large one has an order for sending and another for printing.
  defp plain?(m) when map_size(m) > 32, do: false
  defp plain?(m) when is_map(m), do: Enum.all?(:maps.to_list(m), &plain?/1)
  defp plain?(f) when is_function(f), do: Function.info(f)[:type] == :external
  defp plain?(t), do: not (is_pid(t) or is_reference(t) or is_port(t))

  defp judge_changed(<<>>, decoded), do: decoded

  defp judge_changed(<<len::32, bytes::binary-size(len), more::32, key::binary-size(more), rest::binary>>, decoded) do
    same = try do term(bytes) === term(key) rescue ArgumentError -> :unreadable end
    if same != true, do: IO.puts("#{same}: #{inspect(bytes, limit: :infinity)} #{inspect(key, limit: :infinity)}")
    judge_changed(rest, decoded + 1)
  end

  defp term(bytes) do
    wire = <<131, bytes::binary>>
    {term, used} = :erlang.binary_to_term(wire, [:used])
    if used != byte_size(wire), do: raise(ArgumentError)
    term
  end

  defp judge([], <<>>, _), do: :ok

  defp judge([term | terms], <<len::32, canonical::binary-size(len), rest::binary>>, at) do
    back = :erlang.binary_to_term(<<131, canonical::binary>>)
    if back !== term, do: IO.puts("wrong #{at}: #{inspect(term)} became #{inspect(back)}")
    judge(terms, rest, at + 1)
  end
end

[folder] = System.argv()
Main.run(folder)
