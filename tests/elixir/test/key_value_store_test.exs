defmodule KeyValueStoreTest do
  use ExUnit.Case

  setup do
    %{
      store:
        start_supervised!(%{id: KeyValueStore, start: {KeyValueStore, :start_link, [%{a: 1}]}})
    }
  end

  test "starts with the pairs that it is given" do
    assert KeyValueStore.get(:a) == 1
  end

  test "gives back what was put, nil for what was not" do
    assert KeyValueStore.get(:name) == nil
    assert KeyValueStore.put(:name, "Mafalda") == :ok
    assert KeyValueStore.get(:name) == "Mafalda"
    assert KeyValueStore.put(:name, "Felipe") == :ok
    assert KeyValueStore.get(:name) == "Felipe"
  end

  test "forgets what is deleted, and takes the delete of what is not there" do
    assert KeyValueStore.delete(:a) == :ok
    assert KeyValueStore.get(:a) == nil
    assert KeyValueStore.delete(:a) == :ok
  end

  test "is registered under its module, so that other nodes reach it by {name, node}", %{
    store: store
  } do
    assert Process.whereis(KeyValueStore) == store
    assert GenServer.call({KeyValueStore, node()}, {:get, :a}) == 1
  end

  test "takes 1 and 1.0 as two keys" do
    KeyValueStore.put(1, :integer)
    KeyValueStore.put(1.0, :float)
    assert {KeyValueStore.get(1), KeyValueStore.get(1.0)} == {:integer, :float}
  end
end
