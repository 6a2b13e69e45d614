defmodule BenchCluster do
  @moduledoc """
  The loads of scripts/bench cluster, of stores alone. A line of stdin asks for a load, a line of stdout has its figures:

      ready gen WHERE
      puts gen WHERE MILLISECONDS CALLERS
      gets gen WHERE MILLISECONDS CALLERS KEYS
      takes_linearizable gen WHERE
      linearizable_gets gen WHERE MILLISECONDS CALLERS KEYS

  WHERE is a node. Times are in nanoseconds. What fails is answered by `error` and the reason.
  """

  @keys 1000
  # Fewer than a store in etcd takes at once.
  @pairs 100
  @timeout 60_000

  def main do
    BenchCommands.serve(__MODULE__, &BenchCommands.of_server(&1, fn where -> where end))
  end

  defdelegate puts(server, milliseconds, callers), to: BenchDurable
  defdelegate gets(server, milliseconds, callers, keys), to: BenchDurable

  @doc "Puts what is got."
  def ready({:gen, where}) do
    for numbers <- Enum.chunk_every(0..(@keys - 1), @pairs) do
      pairs = for number <- numbers, do: {BenchDurable.key(number), BenchDurable.value()}
      :ok = GenServer.call(store(where), {:put_many, pairs}, @timeout)
    end

    [calls: @keys]
  end

  @doc "Whether the store knows of gets that are linearizable."
  def takes_linearizable({:gen, where}) do
    [takes: if(get(store(where), BenchDurable.key(0)) == :refused, do: 0, else: 1)]
  catch
    # What a store does not know ends the call of it.
    :exit, {{:bad_call, _}, _} -> [takes: 0]
  end

  @doc "As gets: each has all that was answered at any node before it was asked for."
  def linearizable_gets({:gen, where} = server, milliseconds, callers, keys) do
    to = store(where)

    BenchDurable.run(server, milliseconds, callers, fn _ ->
      100 = byte_size(get(to, BenchDurable.key(:rand.uniform(keys) - 1)))
    end)
  end

  defp get(to, key) do
    case GenServer.call(to, {:get, key, consistency: :linearizable}, @timeout) do
      value when is_binary(value) -> value
      {:error, {:unknown_option, _}} -> :refused
    end
  end

  defp store(where), do: {:kv, String.to_atom(where)}
end
