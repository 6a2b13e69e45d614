defmodule BenchReplicated do
  @moduledoc """
  The Elixir system's own servers for scripts/bench, as primaries or as slaves: registered as `:kv` and `:copy`, say that
  they are ready, and end with their stdin.
  """

  def main do
    {:ok, _} = KeyValueStoreReplicated.start_link(:kv)
    {:ok, _} = KeyValueStoreReplicated.start_link(:copy)
    IO.puts("ready")
    IO.read(:stdio, :line)
    System.halt(0)
  end
end
