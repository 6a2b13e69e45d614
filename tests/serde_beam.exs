# Judges terms that Rust types were written as, and sends terms that they are read from. For serde_beam.rs.
#
#   folder/terms    what is to be read: each after the name that tells its type in Rust
#   folder/back     the same, once they have been in Rust
#   folder/written  what was written from Rust: each after the Elixir expression that it should be
#
# Every part has its length in 32 bits before it.

defmodule MyApp.User do
  defstruct name: nil, age: 0, tags: [], address: nil
end

defmodule MyApp.Address do
  defstruct [:street, zip: ~c"1000"]
end

defmodule MyApp.Wallet do
  defstruct big: 0, small: 0
end

defmodule Parts do
  def write(path, parts), do: File.write!(path, for(part <- parts, do: [<<byte_size(part)::32>>, part]))

  def read(path), do: split(File.read!(path))

  defp split(<<len::32, part::binary-size(len), rest::binary>>), do: [part | split(rest)]
  defp split(<<>>), do: []
end

[folder] = System.argv()

user =
  struct!(MyApp.User,
    name: "Mafalda ñandú 日本 🙂",
    age: 6,
    tags: [:sopa, :"no quiero", nil, MyApp.User],
    address: struct!(MyApp.Address, street: "Chile 371")
  )

terms = [
  {"user", user},
  {"user", %{user | address: nil, tags: []}},
  {"users", for(n <- 1..100, do: %{user | age: n, name: "user #{n}"})},
  {"wallet", struct!(MyApp.Wallet, big: 170_141_183_460_469_231_731_687_303_715_884_105_727, small: -128)},
  {"wallet", struct!(MyApp.Wallet, big: -170_141_183_460_469_231_731_687_303_715_884_105_728, small: 127)},
  {"wallet", struct!(MyApp.Wallet, big: 1_267_650_600_228_229_401_496_703_205_376, small: 0)},
  {"integers", [0, 255, 256, -1, 2_147_483_647, 2_147_483_648, -2_147_483_648, -2_147_483_649]},
  {"integers", [9_223_372_036_854_775_807, -9_223_372_036_854_775_808]},
  {"floats", [1.0, -1.5, 0.1, 1.0e300, 5.0e-324, 1.7976931348623157e308]},
  {"charlist", ~c"abc"},
  {"charlist", ~c"日本 é"},
  {"charlist", []},
  {"charlist", List.duplicate(?a, 65_535)},
  {"charlist", List.duplicate(?a, 65_536)},
  {"binaries", [<<>>, "text", <<255, 0, 254>>, :binary.copy(<<7>>, 100_000)]},
  {"keywords", [timeout: 5000, name: "x", timeout: 1]},
  {"keywords", []},
  {"options", [timeout: 5000, retries: nil]},
  {"map", Map.new(1..100, &{&1, "value #{&1}"})},
  {"map", Map.new(1..32, &{&1, "#{&1}"})},
  {"map", %{}},
  {"atoms", Map.new(1..50, &{:"key_#{&1}", &1 / 2})},
  {"tuples", [{:a, 1, "x"}, {:"é", -5, ""}]},
  {"requests", [:stop, {:get, "k"}, {:put, "k", {1, [2.5]}}, {:expire, %{key: "k", after_ms: nil}}]},
  {"requests", [{:put, "k", fn -> user end}, {:put, "k", [1 | 2]}, {:put, "k", <<5::3>>}, {:put, "k", self()}]},
  {"results", [{:ok, 5}, {:error, :enoent}, {:error, :timeout}]},
  {"dones", [:ok, {:error, "why"}]},
  {"identifiers", {self(), make_ref(), [hd(:erlang.processes())]}},
  {"term", %{{1, 2} => &Enum.map/2, [1 | :x] => hd(:erlang.ports()), <<1::1>> => -(2 ** 3000)}},
  {"fetches",
   [
     %{pause: 1500, limit: :infinity, proxy: :undefined, body: <<0, 255>>},
     %{pause: 0, limit: 18_446_744_073_709_551_616, proxy: "x", body: ""}
   ]},
  {"several", [{:ok, 5, "five"}, {:error, :enoent, 12}]},
  {"struct", user},
  {"structs", [user.address, struct!(MyApp.Wallet, []), 1..5//2, ~D[2024-02-29]]},
  {"shapes", [%{__struct__: Circle, radius: 1.5}, %{__struct__: Square, side: 2}]}
]

Parts.write(
  Path.join(folder, "terms"),
  Enum.flat_map(terms, fn {name, term} ->
    <<131, bytes::binary>> = :erlang.term_to_binary(term)
    [name, bytes]
  end)
)

IO.puts("terms #{length(terms)}")
IO.read(:stdio, :line)

back = Parts.read(Path.join(folder, "back"))
length(back) == length(terms) || raise "#{length(back)} came back"

for {bytes, {name, term}} <- Enum.zip(back, terms) do
  back = :erlang.binary_to_term(<<131, bytes::binary>>)
  back === term || raise "#{name} came back as #{inspect(back)} instead of #{inspect(term)}"
end

written = Enum.chunk_every(Parts.read(Path.join(folder, "written")), 2)

for [code, bytes] <- written do
  {wanted, _} = Code.eval_string(code)
  term = :erlang.binary_to_term(<<131, bytes::binary>>)
  term === wanted || raise "#{inspect(term)} was written where #{code} was meant"
  # The forms are those that a BEAM writes; but the pairs of a map may stand in any order.
  <<131, own::binary>> = :erlang.term_to_binary(term, minor_version: 2)
  String.contains?(code, ["%", "Map"]) or own == bytes || raise "#{code} is #{inspect(bytes)}, and from here #{inspect(own)}"
end

IO.puts("judged #{length(terms)} #{length(written)}")
