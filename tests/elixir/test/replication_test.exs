defmodule ReplicationTest do
  # Both variants promise the same; what differs is how servers are named.
  use ExUnit.Case

  for variant <- [KeyValueStoreReplicated, KeyValueStoreDistributed] do
    describe "#{inspect(variant)}" do
      setup do
        for name <- [:master, :slave1, :slave2] do
          start_supervised!(%{id: name, start: {unquote(variant), :start_link, [name]}})
        end

        :ok
      end

      test "keeps, gives and deletes at the primary" do
        assert unquote(variant).get(:name) == nil
        assert unquote(variant).put(:name, "Mafalda") == :ok
        assert unquote(variant).get(:name) == "Mafalda"
        assert unquote(variant).delete(:name) == :ok
        assert unquote(variant).get(:name) == nil
      end

      test "casts every write to every slave" do
        for name <- [:slave1, :slave2], do: assert(unquote(variant).add_slave(name) == :ok)
        unquote(variant).put(:name, "Mafalda")
        assert read(unquote(variant), :slave1, :name) == "Mafalda"
        assert read(unquote(variant), :slave2, :name) == "Mafalda"
      end

      test "survives a delete with slaves, and casts it to them" do
        for name <- [:slave1, :slave2], do: unquote(variant).add_slave(name)
        primary = GenServer.whereis(address(unquote(variant), :master))
        unquote(variant).put(:name, "Mafalda")
        assert unquote(variant).delete(:name) == :ok
        assert GenServer.whereis(address(unquote(variant), :master)) == primary
        assert read(unquote(variant), :slave1, :name) == nil
        assert read(unquote(variant), :slave2, :name) == nil
      end

      test "sends nothing of the time before a slave was added" do
        unquote(variant).put(:early, 1)
        unquote(variant).add_slave(:slave1)
        unquote(variant).put(:late, 2)
        assert read(unquote(variant), :slave1, :late) == 2
        assert read(unquote(variant), :slave1, :early) == nil
      end

      test "sends a write once to a slave that was added twice" do
        register(address(unquote(variant), :observer), self())
        for _ <- 1..2, do: unquote(variant).add_slave(:observer)
        unquote(variant).put(:name, "Mafalda")
        assert_receive {:"$gen_cast", {:replicate_put, :name, "Mafalda"}}
        unquote(variant).delete(:name)
        assert_receive {:"$gen_cast", {:replicate_delete, :name}}
        refute_received _
      end
    end
  end

  test "a slave is anything that GenServer.cast takes" do
    start_supervised!(%{id: :master, start: {KeyValueStoreReplicated, :start_link, [:master]}})
    Process.register(self(), :observer)

    for slave <- [self(), :observer, {:observer, node()}] do
      assert KeyValueStoreReplicated.add_slave(slave) == :ok
    end

    KeyValueStoreReplicated.put(1, 2)
    for _ <- 1..3, do: assert_receive({:"$gen_cast", {:replicate_put, 1, 2}})
    refute_received _
  end

  defp address(KeyValueStoreReplicated, name), do: name
  defp address(KeyValueStoreDistributed, name), do: {:global, name}

  # The primary casts before it answers, and a call to the slave on the same node comes behind the cast.
  defp read(variant, name, key), do: GenServer.call(address(variant, name), {:get, key})

  defp register({:global, name}, pid), do: :yes = :global.register_name(name, pid)
  defp register(name, pid), do: Process.register(pid, name)
end
