defmodule FaultyKeyValueStoreTest do
  use ExUnit.Case

  defp start(fault) do
    start_supervised!(%{
      id: :faulty,
      start: {FaultyKeyValueStore, :start_link, [:faulty, fault, 2]}
    })
  end

  defp call(store, request), do: GenServer.call(store, request)

  test "without a fault it keeps, gives and deletes" do
    store = start(:none)

    for value <- 1..10 do
      assert call(store, {:put, :k, value}) == :ok
      assert call(store, {:get, :k}) == value
    end

    assert {call(store, {:delete, :k}), call(store, {:get, :k})} == {:ok, nil}
  end

  test "every second read is of the time before the last write" do
    store = start(:stale_read)
    for value <- 1..3, do: :ok = call(store, {:put, :k, value})
    assert for(_ <- 1..4, do: call(store, {:get, :k})) == [3, 2, 3, 2]
  end

  test "every second write is not done" do
    store = start(:lost_write)
    for value <- 1..4, do: :ok = call(store, {:put, :k, value})
    assert call(store, {:get, :k}) == 3
  end

  test "one key stays when all are to go" do
    store = start(:half_clear)
    for key <- 1..3, do: :ok = call(store, {:put, key, key})
    assert {call(store, :clear), call(store, {:get_many, [1, 2, 3]})} == {:ok, %{1 => 1}}
  end
end
