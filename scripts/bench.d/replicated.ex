defmodule BenchReplicated do
  @moduledoc """
  The Elixir system's own server for scripts/bench, as a primary or as a slave: registered as `:kv`, says that it is
  ready, and ends with its stdin.
  """

  def main do
    {:ok, _} = KeyValueStoreReplicated.start_link(:kv)
    IO.puts("ready")
    IO.read(:stdio, :line)
    System.halt(0)
  end
end
