defmodule KvNodeTest.Compare do
  @moduledoc """
  What a BEAM can do to a process and to a node, done to a server that may be a GenServer or a kvnode store.

  `run/2` gives a list of `{what, observation}`, in which nothing is left that differs from one run to the next: pids,
  references and node names are replaced. Two servers behave alike when their lists are equal. Every step that may end
  a server has a server of its own, named `:s1`, `:s2` and so on, so that each is restarted as seldom as can be.
  """

  @patience 20_000

  @doc "Starts the servers on a BEAM, under a supervisor, as kvnode starts its stores."
  def start_servers(count) do
    children =
      for n <- 1..count do
        %{id: n, start: {KeyValueStoreReplicated, :start_link, [:"s#{n}"]}}
      end

    global = %{id: :kv, start: {KeyValueStoreDistributed, :start_link, [:kv]}}
    plain = %{id: :plain, start: {KeyValueStore, :start_link, []}}
    # A crash that a test wants is not to fill the log.
    :logger.set_primary_config(:level, :none)
    parent = self()

    spawn(fn ->
      options = [strategy: :one_for_one, max_restarts: 1_000]
      {:ok, _} = Supervisor.start_link([global, plain | children], options)
      send(parent, :started)
      Process.sleep(:infinity)
    end)

    receive do
      :started -> :ok
    after
      @patience -> :timeout
    end
  end

  @doc "Does everything to the servers of `node`; `third` is one more BEAM. Gives lines of `what = observation`."
  def run(node, third) do
    Process.put(:node, node)
    Process.put(:server, 0)
    parts = [&exits/1, &links/1, &monitors/1, &sys/1, &stops/1, &calls/1, &relayed/1, &names/1, &traced/1, &nodes/1]

    for part <- parts, {what, observation} <- part.(third) do
      "#{what} = #{inspect(tidy(observation, node, third), limit: :infinity, printable_limit: :infinity, width: :infinity)}"
    end
    |> Enum.join("\n")
    |> Base.encode16(case: :lower)
  end

  # --- helpers

  defp fresh do
    n = Process.get(:server) + 1
    Process.put(:server, n)
    server = {:"s#{n}", Process.get(:node)}
    {server, pid_of(server)}
  end

  defp pid_of({name, node}), do: :erpc.call(node, :erlang, :whereis, [name], @patience)

  # The server's next pid, once it has been started again.
  defp again(server, old) do
    soon(fn ->
      pid = pid_of(server)
      if is_pid(pid) and pid != old, do: pid
    end)
  end

  defp soon(fun, tries \\ 400) do
    case fun.() do
      nothing when nothing in [nil, false] and tries > 0 ->
        Process.sleep(25)
        soon(fun, tries - 1)

      found ->
        found
    end
  end

  defp message(timeout \\ @patience) do
    receive do
      message -> message
    after
      timeout -> :nothing
    end
  end

  defp messages(count), do: for(_ <- 1..count, do: message())

  # What is in the mailbox once the server has certainly handled what it was sent.
  defp leftover(server) do
    catching(fn -> GenServer.call(server, {:get, :leftover}, @patience) end)
    rest([])
  end

  defp rest(found) do
    case message(100) do
      :nothing -> Enum.reverse(found)
      message -> rest([message | found])
    end
  end

  # From OTP 28 on.
  defp priorities?, do: List.to_integer(:erlang.system_info(:otp_release)) >= 28

  defp send_with(to, message, options) do
    :erlang.send(to, message, if(priorities?(), do: options, else: []))
  end

  defp catching(fun) do
    fun.()
  rescue
    error -> {:raised, error.__struct__, Exception.message(error)}
  catch
    kind, reason -> {kind, reason}
  end

  # Runs in a process of its own, which is gone afterwards with its links, monitors and messages.
  defp alone(fun) do
    keep = {Process.get(:node), Process.get(:server)}

    task =
      Task.async(fn ->
        {node, server} = keep
        Process.put(:node, node)
        Process.put(:server, server)
        {catching(fun), Process.get(:server)}
      end)

    {result, server} = Task.await(task, 60_000)
    Process.put(:server, server)
    result
  end

  defp observe(what, fun), do: {what, alone(fun)}

  # `true` when the data is still there, `:lost` when the server was started again.
  defp data(server), do: if(GenServer.call(server, {:get, :kept}, @patience) == 1, do: :kept, else: :lost)
  defp keep(server), do: GenServer.call(server, {:put, :kept, 1}, @patience)

  defp tidy(term, node, third) do
    case term do
      ^node -> :the_node
      ^third -> :third_node
      pid when is_pid(pid) -> if node(pid) == node, do: :a_pid_there, else: :a_pid
      ref when is_reference(ref) -> :a_ref
      port when is_port(port) -> :a_port
      fun when is_function(fun) -> :a_fun
      %module{} = struct -> {module, tidy(Map.from_struct(struct), node, third)}
      map when is_map(map) -> Map.new(map, fn {k, v} -> {tidy(k, node, third), tidy(v, node, third)} end)
      tuple when is_tuple(tuple) -> tuple |> Tuple.to_list() |> Enum.map(&tidy(&1, node, third)) |> List.to_tuple()
      [head | tail] -> [tidy(head, node, third) | tidy(tail, node, third)]
      text when is_binary(text) -> tidy_text(text, node)
      other -> if other == node(), do: :this_node, else: other
    end
  end

  defp tidy_text(text, node) do
    if String.valid?(text), do: String.replace(text, [to_string(node), to_string(node())], "NODE"), else: text
  end

  # --- exit signals

  defp exits(_third) do
    big = {:big, String.duplicate("x", 200_000)}

    for_reasons =
      for {name, reason} <- [kill: :kill, shutdown: :shutdown, tuple: {:custom, [1, "two"]}, noproc: :noproc, big: big] do
        observe("exit #{name}", fn ->
          {server, pid} = fresh()
          keep(server)
          ref = Process.monitor(pid)
          true = Process.exit(pid, reason)
          {:DOWN, ^ref, :process, ^pid, down} = message()
          next = again(server, pid)
          down = if down == big, do: :the_big_one, else: down
          {down, is_pid(next), data(server), Process.exit(pid, :kill)}
        end)
      end

    [
      observe("exit normal is ignored", fn ->
        {server, pid} = fresh()
        keep(server)
        Process.monitor(pid)
        Process.exit(pid, :normal)
        {data(server), pid_of(server) == pid, leftover(server)}
      end),
      observe("a killed server's name has nobody or the next one", fn ->
        {server, pid} = fresh()
        keep(server)
        Process.exit(pid, :kill)
        first = catching(fn -> GenServer.call(pid, {:get, :kept}) end)
        again(server, pid)
        {elem(first, 0), elem(elem(first, 1), 0) in [:killed, :noproc], data(server)}
      end),
      observe("a killed global server has its name again", fn ->
        pid = soon(fn -> with :undefined <- :global.whereis_name(:kv), do: nil end)
        :ok = GenServer.call({:global, :kv}, {:put, :kept, 1})
        ref = Process.monitor(pid)
        Process.exit(pid, :kill)
        {:DOWN, ^ref, _, _, reason} = message()

        next =
          soon(fn ->
            found = :global.whereis_name(:kv)
            if is_pid(found) and found != pid, do: found
          end)

        {reason, is_pid(next), GenServer.call({:global, :kv}, {:get, :kept})}
      end)
      | for_reasons
    ]
  end

  # --- links

  defp links(_third) do
    [
      observe("link, then killed", fn ->
        Process.flag(:trap_exit, true)
        {server, pid} = fresh()
        keep(server)
        Process.link(pid)
        Process.exit(pid, :kill)
        {:EXIT, ^pid, reason} = message()
        again(server, pid)
        {reason, data(server)}
      end),
      observe("link, then stopped normally", fn ->
        Process.flag(:trap_exit, true)
        {server, pid} = fresh()
        Process.link(pid)
        GenServer.stop(server)
        result = message()
        again(server, pid)
        result
      end),
      observe("a link that does not trap", fn ->
        {server, pid} = fresh()
        {linker, ref} = spawn_monitor(fn -> Process.link(pid) && message() end)
        soon(fn -> GenServer.call(server, {:get, 1}) == nil end)
        wait_linked(linker)
        Process.exit(pid, {:went, :away})
        result = message()
        again(server, pid)
        {result, elem(result, 1) == ref}
      end),
      observe("the linked process ends normally", fn ->
        {server, pid} = fresh()
        keep(server)
        {_, _} = spawn_monitor(fn -> Process.link(pid) end)
        {:DOWN, _, _, _, :normal} = message()
        {data(server), pid_of(server) == pid}
      end),
      observe("the linked process crashes", fn ->
        {server, pid} = fresh()
        keep(server)
        ref = Process.monitor(pid)
        spawn(fn -> Process.link(pid) && exit({:boom, 1}) end)
        {:DOWN, ^ref, _, _, reason} = message()
        again(server, pid)
        {reason, data(server)}
      end),
      observe("the linked process is killed", fn ->
        {server, pid} = fresh()
        ref = Process.monitor(pid)
        linker = spawn(fn -> Process.link(pid) && message() end)
        wait_linked(linker)
        Process.exit(linker, :kill)
        {:DOWN, ^ref, _, _, reason} = message()
        again(server, pid)
        reason
      end),
      observe("unlinked, then the process crashes", fn ->
        {server, pid} = fresh()
        keep(server)

        {_, ref} =
          spawn_monitor(fn ->
            Process.link(pid)
            Process.unlink(pid)
            exit(:boom)
          end)

        {:DOWN, ^ref, _, _, :boom} = message()
        {data(server), pid_of(server) == pid}
      end),
      observe("unlinked, then killed", fn ->
        Process.flag(:trap_exit, true)
        {server, pid} = fresh()
        for _ <- 1..50, do: Process.link(pid) && Process.unlink(pid)
        Process.exit(pid, :kill)
        again(server, pid)
        leftover(server)
      end),
      observe("a link to what has ended", fn ->
        Process.flag(:trap_exit, true)
        {server, pid} = fresh()
        Process.exit(pid, :kill)
        again(server, pid)
        Process.link(pid)
        message()
      end),
      observe("a link, and the connection is lost", fn ->
        Process.flag(:trap_exit, true)
        {server, pid} = fresh()
        keep(server)
        Process.link(pid)
        wait_linked(self())
        GenServer.call(server, {:get, 1})
        Node.disconnect(Process.get(:node))
        lost = message()
        again(server, pid)
        {lost, data(server)}
      end)
    ]
  end

  defp wait_linked(pid) do
    soon(fn -> match?({:links, [_ | _]}, Process.info(pid, :links)) end)
  end

  # --- monitors

  defp monitors(third) do
    [
      observe("many monitors of many processes fire once", fn ->
        {server, pid} = fresh()
        here = self()

        watch = fn ->
          refs = for target <- [pid, server, pid], do: Process.monitor(target)
          gone = Process.monitor(pid)
          Process.demonitor(gone)
          GenServer.call(server, {:get, 1})
          send(here, :watching)
          downs = for _ <- refs, do: message()
          send(here, {:downs, Enum.sort(for {:DOWN, _, :process, what, reason} <- downs, do: {is_pid(what), reason}), rest([])})
        end

        for n <- 1..20, do: if(rem(n, 2) == 0, do: Node.spawn(third, watch), else: spawn(watch))
        for _ <- 1..20, do: :watching = message()
        Process.exit(pid, :kill)
        Enum.frequencies(messages(20))
      end),
      observe("a monitor by name says the name", fn ->
        {server, pid} = fresh()
        Process.monitor(server)
        GenServer.stop(server, :shutdown)
        result = message()
        again(server, pid)
        result
      end),
      observe("a monitor of a name that nobody has", fn ->
        Process.monitor({:nobody_at_all, Process.get(:node)})
        message()
      end),
      observe("a monitor of what has ended", fn ->
        {server, pid} = fresh()
        Process.exit(pid, :shutdown)
        again(server, pid)
        Process.monitor(pid)
        message()
      end),
      observe("a monitor that was taken back", fn ->
        {server, pid} = fresh()
        ref = Process.monitor(pid)
        true = Process.demonitor(ref)
        Process.exit(pid, :kill)
        again(server, pid)
        leftover(server)
      end),
      observe("a monitor, and the connection is lost", fn ->
        {server, pid} = fresh()
        Process.monitor(pid)
        Process.monitor(server)
        GenServer.call(server, {:get, 1})
        Node.disconnect(Process.get(:node))
        result = Enum.sort(messages(2))
        {result, pid_of(server) == pid}
      end)
    ]
  end

  # --- sys

  defp sys(_third) do
    {server, pid} = fresh()
    keep(server)
    plain = {KeyValueStore, Process.get(:node)}

    [
      observe("get_state", fn -> :sys.get_state(server) end),
      observe("get_state by pid and with a time-out", fn -> :sys.get_state(pid, 10_000) end),
      observe("get_state of KeyValueStore", fn ->
        GenServer.call(plain, {:put, "k", 1.5})
        :sys.get_state(plain)
      end),
      observe("get_state with a slave", fn ->
        {other, _} = fresh()
        :ok = GenServer.call(other, {:add_slave, {:nobody_at_all, node()}})
        :ok = GenServer.call(other, {:add_slave, {:global, :nobody_at_all}})
        :sys.get_state(other)
      end),
      observe("get_state of nobody", fn -> :sys.get_state({:nobody_at_all, Process.get(:node)}) end),
      observe("get_state of many pairs", fn ->
        {other, _} = fresh()
        for n <- 1..1_000, do: GenServer.call(other, {:put, {n, "key"}, [n, %{n => n}]})
        state = :sys.get_state(other)
        {map_size(state.data), state.data == Map.new(1..1_000, &{{&1, "key"}, [&1, %{&1 => &1}]})}
      end),
      observe("get_state of a large state", fn ->
        {other, _} = fresh()
        :ok = GenServer.call(other, {:put, :large, String.duplicate("x", 5_000_000)})
        state = :sys.get_state(other)
        {Map.keys(state) |> Enum.sort(), state.slaves}
      end),
      observe("get_status", fn -> status(:sys.get_status(server)) end),
      observe("get_status, suspended", fn ->
        :ok = :sys.suspend(server)
        status = status(:sys.get_status(server))
        :ok = :sys.resume(server)
        status
      end),
      observe("replace_state with a function that is not there", fn ->
        # On either side the function's module is not loaded.
        {catching(fn -> :sys.replace_state(server, :erlang.make_fun(:nowhere, :no, 1)) end) |> raised_reason(), :sys.get_state(server)}
      end),
      observe("replace_state", fn ->
        result = catching(fn -> :sys.replace_state(server, &Map.put(&1, :more, 1)) end) |> raised_reason()
        # For what comes after.
        catching(fn -> :sys.replace_state(server, &Map.delete(&1, :more)) end)
        result
      end),
      observe("suspended: calls wait, sys does not", fn ->
        {other, other_pid} = fresh()
        keep(other)
        :ok = :sys.suspend(other)
        :ok = :sys.suspend(other)
        early = catching(fn -> GenServer.call(other, {:put, :late, :never_seen}, 100) end)
        for n <- 1..5, do: GenServer.cast(other, {:replicate_put, :n, n})
        ids = for n <- 6..8, do: :gen_server.send_request(other_pid, {:put, :n, n})
        id = :gen_server.send_request(other, {:get, :n})
        while = {:sys.get_state(other), elem(:sys.get_status(other), 0), data_suspended(other)}
        :ok = :sys.resume(other)
        :ok = :sys.resume(other)
        answers = for id <- ids ++ [id], do: :gen_server.wait_response(id, @patience)
        {elem(early, 0), elem(elem(early, 1), 0), while, answers, GenServer.call(other, {:get, :late}), leftover(other)}
      end),
      observe("suspended by one node, resumed by another process, called by many", fn ->
        {other, _} = fresh()
        :ok = :sys.suspend(other)
        tasks = for n <- 1..10, do: Task.async(fn -> GenServer.call(other, {:put, n, n}, @patience) end)
        Process.sleep(100)
        Task.await(Task.async(fn -> :sys.resume(other) end))
        {Enum.map(tasks, &Task.await(&1, @patience)), GenServer.call(other, {:get, 10})}
      end),
      observe("suspended, then killed", fn ->
        {other, other_pid} = fresh()
        :ok = :sys.suspend(other)
        task = Task.async(fn -> catching(fn -> GenServer.call(other_pid, {:get, 1}, @patience) end) end)
        Process.sleep(100)
        Process.exit(other_pid, :kill)
        result = Task.await(task, @patience)
        again(other, other_pid)
        {result, GenServer.call(other, {:get, 1})}
      end),
      observe("suspended, then exit normal", fn ->
        {other, other_pid} = fresh()
        :ok = :sys.suspend(other)
        Process.exit(other_pid, :normal)
        :ok = :sys.resume(other)
        {GenServer.call(other, {:get, 1}), pid_of(other) == other_pid}
      end),
      observe("change_code of a running server", fn -> :sys.change_code(server, KeyValueStore, :old, []) end),
      observe("change_code of a suspended server", fn ->
        :ok = :sys.suspend(server)
        result = :sys.change_code(server, KeyValueStoreReplicated, :old, [])
        :ok = :sys.resume(server)
        {result, :sys.get_state(server)}
      end),
      observe("statistics off", fn -> {:sys.statistics(server, :get), :sys.statistics(server, false)} end),
      observe("statistics on", fn ->
        :ok = :sys.statistics(server, true)
        result = :sys.statistics(server, :get)
        :ok = :sys.statistics(server, false)
        with {:ok, list} when is_list(list) <- result, do: Enum.map(list, &elem(&1, 0))
      end),
      observe("log off", fn -> {:sys.log(server, :get), :sys.log(server, :print), :sys.log(server, false)} end),
      observe("log on", fn ->
        :ok = :sys.log(server, true)
        :ok = :sys.log(server, {true, 5})
        GenServer.cast(server, {:replicate_put, :logged, 1})
        {:ok, events} = :sys.log(server, :get)
        :ok = :sys.log(server, false)
        GenServer.cast(server, {:replicate_delete, :logged})
        length(events)
      end),
      observe("log_to_file", fn -> {:sys.log_to_file(server, ~c"/nowhere/at/all"), :sys.log_to_file(server, false)} end),
      observe("install and remove", fn ->
        fun = fn state, _event, _extra -> state end
        {:sys.install(server, {fun, 1}), :sys.install(server, {:id, fun, 1}), :sys.remove(server, :id), :sys.remove(server, fun)}
      end),
      observe("no_debug", fn -> :sys.no_debug(server) end),
      observe("trace off", fn -> :sys.trace(server, false) end),
      observe("an unknown system message", fn ->
        {:gen.call(server, :system, :what_is_this), :gen.call(server, :system, {:debug, :what}), :gen.call(server, :system, {:debug, {:what, 1}})}
      end),
      observe("after all that", fn -> {data(server), pid_of(server) == pid, :sys.get_state(server)} end)
    ]
  end

  defp data_suspended(server), do: catching(fn -> GenServer.call(server, {:get, :kept}, 50) end) |> elem(0)

  defp raised_reason({:raised, struct, message}), do: {struct, message}
  defp raised_reason(other), do: other

  # The shape, without what a process has of its own.
  defp status({:status, pid, {:module, module}, [dictionary, sys_state, parent, debug, misc]}) do
    keys = dictionary |> Keyword.keys() |> Enum.sort()
    {pid, module, Enum.filter(keys, &(&1 in [:"$initial_call", :"$ancestors"])), sys_state, is_pid(parent), debug, misc}
  end

  # --- stops

  defp stops(_third) do
    stop = fn what, fun ->
      observe("stop #{what}", fn ->
        {server, pid} = fresh()
        keep(server)
        ref = Process.monitor(pid)
        result = catching(fn -> fun.(server) end)
        {:DOWN, ^ref, :process, ^pid, reason} = message()
        again(server, pid)
        {result, reason, data(server), rest([])}
      end)
    end

    [
      stop.("normally", &GenServer.stop/1),
      stop.("for a reason", &GenServer.stop(&1, {:shutdown, :enough})),
      stop.("with a time-out", &GenServer.stop(&1, :shutdown, 10_000)),
      stop.("for an odd reason", &GenServer.stop(&1, {:odd, %{map: 1}, 2.5}, 10_000)),
      stop.("by sys:terminate", &:sys.terminate(&1, :ended)),
      stop.("while suspended", fn server -> {:sys.suspend(server), GenServer.stop(server, :shutdown)} end),
      observe("stop nobody", fn -> GenServer.stop({:nobody_at_all, Process.get(:node)}) end),
      observe("stop what has ended", fn ->
        {server, pid} = fresh()
        GenServer.stop(pid)
        again(server, pid)
        catching(fn -> GenServer.stop(pid) end)
      end)
    ]
  end

  # --- calls

  defp calls(_third) do
    node = Process.get(:node)
    {server, pid} = fresh()
    {name, _} = server
    keep(server)
    # The connection was lost in between, and with it the name for a while.
    soon(fn -> is_pid(:global.whereis_name(:kv)) end)

    [
      observe("multi_call", fn -> GenServer.multi_call([node, node()], name, {:get, :kept}, @patience) end),
      observe("multi_call of a name that nobody has", fn -> GenServer.multi_call([node], :nobody_at_all, {:get, 1}, @patience) end),
      observe("abcast", fn ->
        :abcast = GenServer.abcast([node], name, {:replicate_put, :abcast, 1})
        {GenServer.call(server, {:get, :abcast}), leftover(server)}
      end),
      observe("abcast to a name that nobody has", fn -> GenServer.abcast([node], :nobody_at_all, :hello) end),
      observe("send_request and receive_response", fn ->
        id = :gen_server.send_request(server, {:get, :kept})
        :gen_server.receive_response(id, @patience)
      end),
      observe("send_request and wait_response", fn ->
        id = :gen_server.send_request(pid, {:get, :kept})
        {:gen_server.wait_response(id, @patience), leftover(server)}
      end),
      observe("send_request and check_response", fn ->
        id = :gen_server.send_request({:global, :kv}, {:get, :nothing})
        {:gen_server.check_response(:other, id), :gen_server.check_response(message(), id)}
      end),
      observe("send_request to a name that nobody has", fn ->
        id = :gen_server.send_request({:nobody_at_all, node}, :hello)
        :gen_server.wait_response(id, @patience)
      end),
      observe("send_request, and the server is killed", fn ->
        {other, other_pid} = fresh()
        :ok = :sys.suspend(other)
        id = :gen_server.send_request(other_pid, {:get, 1})
        Process.exit(other_pid, :kill)
        result = :gen_server.wait_response(id, @patience)
        again(other, other_pid)
        result
      end),
      observe("a collection of requests", fn ->
        ids = :gen_server.reqids_new()
        ids = Enum.reduce(1..10, ids, &:gen_server.send_request(server, {:get, if(rem(&1, 2) == 0, do: :kept)}, &1, &2))
        ids = :gen_server.send_request({:nobody_at_all, node}, :hello, :nobody, ids)
        {:gen_server.reqids_size(ids), Enum.sort(collect(ids, []))}
      end),
      observe("a call whose time-out has passed", fn ->
        :ok = :sys.suspend(server)
        results = for n <- 1..3, do: catching(fn -> GenServer.call(server, {:put, :too_late, n}, 30) end) |> elem(0)
        :ok = :sys.resume(server)
        {results, GenServer.call(server, {:get, :too_late}), leftover(server)}
      end),
      observe("a call to a name that nobody has", fn -> GenServer.call({:nobody_at_all, node}, {:get, 1}) end),
      observe("a call to a global name that nobody has", fn -> GenServer.call({:global, :nobody_at_all}, {:get, 1}) end),
      observe("a caller that is gone before its answer", fn ->
        :ok = :sys.suspend(server)
        {caller, ref} = spawn_monitor(fn -> GenServer.call(server, {:put, :by_the_dead, 1}) end)
        soon(fn -> match?({:status, :waiting}, Process.info(caller, :status)) end)
        Process.sleep(50)
        Process.exit(caller, :kill)
        {:DOWN, ^ref, _, _, :killed} = message()
        :ok = :sys.resume(server)
        {GenServer.call(server, {:get, :by_the_dead}), leftover(server)}
      end),
      observe("a plain message", fn ->
        {other, other_pid} = fresh()
        keep(other)
        send(other_pid, :hello)
        send(other, {:hello, self()})
        {data(other), pid_of(other) == other_pid}
      end),
      observe("messages with priority", fn ->
        {other, other_pid} = fresh()
        keep(other)
        cast = fn to, n, options -> send_with(to, {:"$gen_cast", {:replicate_put, :order, n}}, options) end
        :ok = :sys.suspend(other)
        # They have priority at a priority alias, which nobody has made here, and are in order elsewhere.
        sent = for {to, n} <- [{other_pid, 1}, {other, 2}], do: {cast.(to, n, []), cast.(to, {n, :last}, [:priority])}
        :ok = :sys.resume(other)
        {sent, GenServer.call(other, {:get, :order}), leftover(other)}
      end),
      observe("an exit signal with priority", fn ->
        {other, other_pid} = fresh()
        Process.monitor(other_pid)
        if priorities?(), do: apply(:erlang, :exit, [other_pid, :prompt, [:priority]]), else: Process.exit(other_pid, :prompt)
        result = message()
        again(other, other_pid)
        result
      end),
      observe("a call that it does not know", fn ->
        {other, other_pid} = fresh()
        keep(other)
        {:exit, {reason, {GenServer, :call, _}}} = catching(fn -> GenServer.call(other, :what_is_this) end)
        answered = GenServer.call(again_or_same(other, other_pid), {:get, :kept})
        {if(is_tuple(reason), do: elem(reason, 0), else: reason), answered}
      end),
      observe("a cast that it does not know", fn ->
        {other, other_pid} = fresh()
        keep(other)
        ref = Process.monitor(other_pid)
        GenServer.cast(other, :what_is_this)
        down = receive(do: ({:DOWN, ^ref, _, _, _} -> :ended), after: (500 -> :lives))
        GenServer.call(again_or_same(other, other_pid), {:get, 1})
        down
      end)
    ]
  end

  # The server's pid once it answers, whether or not it was started again.
  defp again_or_same(server, _old) do
    soon(fn ->
      case catching(fn -> GenServer.call(server, {:get, :anything}) end) do
        {:exit, _} -> nil
        _ -> server
      end
    end)
  end

  defp collect(ids, found) do
    case :gen_server.receive_response(ids, @patience, true) do
      :no_request -> found
      {result, label, ids} -> collect(ids, [{label, result} | found])
    end
  end

  # --- calls that a third process on a third node passes on

  defp relayed(third) do
    {server, _} = fresh()
    keep(server)

    [
      observe("a call passed on by a third node", fn ->
        relay =
          Node.spawn(third, fn ->
            for _ <- 1..2 do
              receive do
                {:"$gen_call", _, _} = call -> send(server, call)
              end
            end

            # The caller watches the relay: it lives for as long as it may be waited for.
            message()
          end)

        {GenServer.call(relay, {:get, :kept}, @patience), GenServer.call(relay, {:put, :relayed, 1}, @patience), leftover(server)}
      end),
      observe("a system message passed on by a third node", fn ->
        relay =
          Node.spawn(third, fn ->
            receive do
              {:system, _, _} = message -> send(server, message)
            end

            message()
          end)

        :sys.get_state(relay, @patience)
      end)
    ]
  end

  # --- names in global, groups, group leaders

  defp names(third) do
    {server, pid} = fresh()
    keep(server)

    [
      observe("registered in global by others", fn ->
        yes = :global.register_name(:borrowed, pid)
        no = :global.register_name(:borrowed, self())
        there = soon(fn -> :erpc.call(third, :global, :whereis_name, [:borrowed]) == pid end)
        {yes, no, there, data({:global, :borrowed})}
      end),
      observe("re-registered in global by others", fn ->
        {other, other_pid} = fresh()
        :yes = :global.re_register_name(:borrowed, other_pid)
        result = data({:global, :borrowed})
        :yes = :global.re_register_name(:borrowed, pid)
        {result, data({:global, :borrowed}), data(other)}
      end),
      observe("unregistered in global by others", fn ->
        :global.unregister_name(:borrowed)
        {:global.whereis_name(:borrowed), data(server), pid_of(server) == pid}
      end),
      observe("a borrowed name ends with the process", fn ->
        {other, other_pid} = fresh()
        :yes = :global.register_name(:borrowed, other_pid)
        Process.exit(other_pid, :kill)
        again(other, other_pid)
        soon(fn -> :global.whereis_name(:borrowed) == :undefined end)
      end),
      observe("global sync and locks", fn ->
        {:global.sync(), :global.trans({:lock, self()}, fn -> :locked end), :global.trans({:lock, self()}, fn -> :locked end, [node(), Process.get(:node)] -- [Process.get(:node)])}
      end),
      observe("a group of pg", fn ->
        {:ok, _} = :pg.start(:compare)
        catching(fn -> :pg.join(:compare, :group, pid) end) |> elem(0)
      end),
      observe("a group leader", fn ->
        true = :erlang.group_leader(self(), pid)
        {data(server), pid_of(server) == pid, leftover(server)}
      end)
    ]
  end

  # --- sequential tracing: every signal comes in its traced form

  defp traced(_third) do
    traced = fn fun ->
      :seq_trace.set_token(:label, {:any, "label"})
      :seq_trace.set_token(:send, true)
      result = catching(fun)
      :seq_trace.set_token([])
      result
    end

    [
      observe("traced calls, casts and messages", fn ->
        {server, pid} = fresh()
        keep(server)

        traced.(fn ->
          :ok = GenServer.call(pid, {:put, 1, 2})
          GenServer.cast(server, {:replicate_put, 2, 3})
          GenServer.cast(pid, {:replicate_put, 3, 4})
          send(pid, :hello)
          {for(k <- 1..3, do: GenServer.call(server, {:get, k})), :sys.get_state(server)}
        end)
      end),
      observe("a traced exit signal", fn ->
        {server, pid} = fresh()
        Process.monitor(pid)
        traced.(fn -> Process.exit(pid, {:traced, 1}) end)
        result = message()
        again(server, pid)
        result
      end),
      observe("a traced link", fn ->
        {server, pid} = fresh()
        Process.monitor(pid)

        spawn(fn ->
          Process.link(pid)
          :seq_trace.set_token(:send, true)
          exit({:traced, 2})
        end)

        result = message()
        again(server, pid)
        result
      end),
      observe("a traced remote call", fn ->
        {server, pid} = fresh()
        {name, node} = server
        traced.(fn -> {:erpc.call(node, :erlang, :whereis, [name]) == pid, :rpc.call(node, :erlang, :whereis, [name]) == pid} end)
      end)
    ]
  end

  # --- nodes

  defp nodes(third) do
    node = Process.get(:node)

    [
      observe("ping", fn -> {Node.ping(node), :net_adm.ping(node), Node.ping(:"nobody@#{hostname()}")} end),
      observe("the node is seen", fn -> {node in Node.list(:connected), node in Node.list(:hidden)} end),
      observe("monitored, disconnected and connected again", fn ->
        Node.ping(node)
        Node.monitor(node, true)
        true = Node.disconnect(node)
        down = message()
        {down, Node.ping(node), Node.connect(node), node in Node.list(:connected), Node.monitor(node, true), rest([])}
      end),
      observe("nodes monitored", fn ->
        Node.ping(node)
        :ok = :net_kernel.monitor_nodes(true, node_type: :all)
        Node.disconnect(node)
        down = message()
        Node.ping(node)
        up = message()
        :ok = :net_kernel.monitor_nodes(false, node_type: :all)
        Node.ping(node)
        Node.list()
        {down, up, rest([])}
      end),
      observe("hidden nodes monitored", fn ->
        Node.ping(node)
        :ok = :net_kernel.monitor_nodes(true, node_type: :hidden)
        Node.disconnect(node)
        Node.ping(node)
        for({what, _, _} <- rest([]), do: what)
      end),
      observe("other nodes are still there", fn ->
        {third in Node.list(), node() in :erpc.call(third, Node, :list, []), soon(fn -> is_pid(:global.whereis_name(:kv)) end)}
      end)
    ]
  end

  defp hostname, do: node() |> to_string() |> String.split("@") |> List.last()
end
