#!/usr/bin/env escript
%% Makes the seeds of the fuzz targets: what this BEAM says to a kvnode and to an epmd, recorded on the way, and terms as
%% it writes them.
%%
%%   ERL_EPMD_PORT=PORT escript seeds.escript KVNODE FOLDER
%%
%% It listens at PORT as if it were the epmd, and passes on what comes to one of kvnode's at PORT + 2, which knows
%% kvnode's node by the port of a relay; the node itself is registered at PORT + 1. Names and numbers are those that
%% targets/node.rs has.
-mode(compile).

-define(NODE, 'k@127.0.0.1').
-define(ME, 'b@127.0.0.1').
-define(COOKIE, "seeds").
-define(CREATION, 5).
-define(FLAGS, 16#d07df7fbd).

main([Program, Folder]) ->
    Port = list_to_integer(os:getenv("ERL_EPMD_PORT")),
    [filelib:ensure_dir(filename:join([Folder, Target, "x"])) || Target <- ["term", "key", "text", "node", "epmd", "handshake"]],
    Epmds = [run(Program, ["epmd", "--port", integer_to_list(At)], Port) || At <- [Port + 1, Port + 2]],
    Node = run(Program, ["--name", atom_to_list(?NODE), "--cookie", ?COOKIE, "--bind", "127.0.0.1", "--local", "kv",
                         "--global", "kvg"], Port + 1),
    try record(Program, Port) of
        {Creation, In, Out, Epmd} -> made(Folder), write_recorded(Folder, Creation, In, Out, Epmd)
    after
        [stop(Started) || Started <- [Node | Epmds]]
    end,
    halt(0).

%% Talks to the node by way of relays; gives the node's creation and what each relay has recorded.
record(Program, Port) ->
    Relayed = until(fun() -> port_of("k", Port + 1) end),
    Epmd = relay(Port, Port + 2),
    In = relay(0, Relayed),
    _Registered = until(fun() -> register_node("k", relay_port(In), Port + 2) end),
    {ok, _} = net_kernel:start([?ME, longnames]),
    erlang:set_cookie(list_to_atom(?COOKIE)),
    Creation = session(),
    %% The other way round: one of kvnode's commands connects to us.
    Mine = until(fun() -> port_of("b", Port + 2) end),
    Out = relay(0, Mine),
    _Known = until(fun() -> register_node("b", relay_port(Out), Port + 1) end),
    ended(run(Program, ["ping", "--node", atom_to_list(?ME), "--cookie", ?COOKIE], Port + 1)),
    {Creation, recorded(In), recorded(Out), recorded(Epmd)}.

write_recorded(Folder, Creation, [{_, Said, _} | _], Out, Epmd) ->
    {Hello, Frames} = handshake(Said, 2),
    write(Folder, "handshake", "serve", [99, Hello]),
    [write(Folder, "handshake", "dial", [99, element(1, handshake(Answers, 3))]) || {_, _, Answers} <- Out],
    Ours = [binary:replace(Frame, <<Creation:32>>, <<?CREATION:32>>, [global]) || Frame <- frames(Frames)],
    number(Folder, "node", "frame", Ours),
    %% Several in one go: what comes after a call stands on what it left.
    number(Folder, "node", "run", [lists:sublist(Ours, At, 8) || At <- lists:seq(1, length(Ours), 8)]),
    number(Folder, "epmd", "asked", [[0, Request] || {_, <<_:16, Request/binary>>, _} <- Epmd]).

%% What a BEAM does with a node, everything once; gives the creation of kvnode's node.
session() ->
    process_flag(trap_exit, true),
    pong = net_adm:ping(?NODE),
    Kv = {kv, ?NODE},
    Pid = rpc:call(?NODE, erlang, whereis, [kv]),
    Bytes = bytes(Pid),
    <<Creation:32>> = binary:part(Bytes, byte_size(Bytes), -4),
    [begin
         ok = gen_server:call(To, {put, Key, {value, Key, self(), make_ref()}}),
         gen_server:call(To, {get, Key}),
         ok = gen_server:call(To, {delete, Key})
     end || To <- [Kv, Pid], Key <- [key, "text", <<"bin">>, 1.5, -7, 1 bsl 80, #{a => [1]}, {t, [x | y]}, fun lists:map/2]],
    Monitor = monitor(process, Kv), Other = monitor(process, Pid),
    link(Pid), unlink(Pid),
    demonitor(Monitor), demonitor(Other),
    gen_server:multi_call([?NODE], kv, {get, key}, 2000),
    [catch gen_server:call(Kv, Request, 1000) || Request <- [unknown, {frob, 1}, {get}, {put, a, b, c}]],
    gen_server:cast(Kv, {put, cast, 1}), gen_server:cast(Pid, unknown), Pid ! hello, Kv ! {info, 1},
    [catch sys:Function(Kv, 2000) || Function <- [get_state, get_status, suspend, resume]],
    catch sys:statistics(Kv, get, 2000), catch sys:replace_state(Kv, fun(S) -> S end, 2000),
    [catch erpc:call(?NODE, M, F, A, 2000) || {M, F, A} <- calls()],
    [rpc:cast(?NODE, M, F, A) || {M, F, A} <- calls()],
    catch erpc:multicall([?NODE], erlang, node, [], 2000),
    _ = spawn_request(?NODE, erlang, node, [], [monitor, link, {reply_tag, a}]),
    _ = spawn_request(?NODE, no, such, [], [{priority, low}, bad]),
    {rex, ?NODE} ! {self(), {call, erlang, node, [], user}},
    catch gen_server:call({global, kvg}, {get, a}, 2000),
    global:register_name(seed, self()), global:sync(), global:unregister_name(seed),
    {Linked, Ref} = spawn_monitor(fun() -> link(Pid), exit(bye) end),
    receive {'DOWN', Ref, _, Linked, _} -> ok end,
    exit(Pid, normal), exit(Pid, hello),
    pong = net_adm:ping(?NODE),
    erlang:disconnect_node(?NODE),
    Creation.

calls() ->
    [{erlang, node, []}, {erlang, whereis, [kv]}, {erlang, process_info, [self()]}, {no, such, [1]}, {erlang, nodes, [[connected]]},
     {gen_server, call, [kv, {get, a}]}, {'Elixir.GenServer', call, [kv, {put, a, 1}]}, {'Elixir.GenServer', cast, [kv, x]},
     {'Elixir.KeyValueStoreDistributed', put, [a, 1]}, {'Elixir.KeyValueStore', get, [a]}, {global, whereis_name, [kvg]}].

%% What nobody says to a kvnode in passing.
made(Folder) ->
    Terms = [0, -1, 255, 256, 1 bsl 31, -(1 bsl 70), 1.5, a, list_to_atom([233]), "text", [1000, $a], [], {}, {a, [b | c]},
             <<"bin">>, <<1:7>>, #{}, #{a => 1, b => #{}}, self(), make_ref(), fun lists:map/2, fun(X) -> X end,
             hd(erlang:ports()), lists:duplicate(300, 7), [[[[]]]], list_to_tuple(lists:seq(1, 300)),
             {put, key, <<"value">>}, maps:from_list([{N, N} || N <- lists:seq(1, 40)])],
    number(Folder, "term", "made", [bytes(Term) || Term <- Terms]),
    number(Folder, "key", "made", [[bytes(Term), bytes(Other)] || {Term, Other} <- lists:zip(Terms, tl(Terms) ++ [0])]),
    <<131, Packed/binary>> = term_to_binary(lists:duplicate(9999, $a), [compressed]),
    write(Folder, "term", "packed", Packed),
    Kv = bytes({6, self(), '', kv}),
    [A, B] = [<<131, 69, 9:64, 2:64, 0, Kv/binary, 104, 3, 100, 0, 9, "$gen">>, <<131, 70, 9:64, 1:64, "_cast", (bytes({put, a, 1}))/binary>>],
    write(Folder, "node", "fragments", [<<(byte_size(Part)):32, Part/binary>> || Part <- [A, B]]),
    Alive = <<120, 4000:16, 77, 0, 0, 6:16, 5:16, 1:16, $a, 0:16>>,
    write(Folder, "epmd", "alive", [0, Alive, 255, 1, $n, 255, 1, $z, $a, 255, 0, $d]),
    write(Folder, "epmd", "stop", [0, $k, 255, 0, $s, $a]),
    Challenge = <<$N, ?FLAGS:64, 9:32, 7:32, 3:16, "m@h">>,
    write(Folder, "handshake", "alive", [99, <<6:16>>, "salive", <<(byte_size(Challenge)):16>>, Challenge, <<17:16>>, $a, <<0:128>>]),
    number(Folder, "text", "typed", [
        "{:put, :nombre, \"Mafalda\"}", "[a: 1, b: [2.5e-3 | :x]]", "%{k: nil, \"a\" => %{}}", "<<1, 2::size(4), \"ab\", 3::16>>",
        "&Foo.+/2", "~c\"abc\"", "'\\u20AC'", "\"\\x41\\u{43}\\s\\0\"", "0xdead_BEEF", "-0b1", "0o17", "?\\n", ":\"a b\"",
        "#PID<0.95.0>", "#Reference<k@h.1.2.3>", "#Port<0.5>", "A.B2", "{1, [a: 2],}", "123456789012345678901234567890", "é"]).

bytes(Term) ->
    <<131, Bytes/binary>> = term_to_binary(Term),
    Bytes.

%% Packets with a length of 16 bits, as they came, and what comes after them.
handshake(Bytes, Count) -> handshake(Bytes, Count, 0).

handshake(Bytes, 0, Len) ->
    split_binary(Bytes, Len);
handshake(Bytes, Count, Len) ->
    <<_:Len/binary, Next:16, _/binary>> = Bytes,
    handshake(Bytes, Count - 1, Len + 2 + Next).

%% Frames with their lengths, without ticks.
frames(<<Len:32, Frame:Len/binary, Rest/binary>>) when Len > 0 -> [<<Len:32, Frame/binary>> | frames(Rest)];
frames(<<0:32, Rest/binary>>) -> frames(Rest);
frames(_) -> [].

number(Folder, Target, Name, Seeds) ->
    lists:foldl(fun(Seed, N) -> write(Folder, Target, Name ++ integer_to_list(N), Seed), N + 1 end, 1, Seeds).

write(Folder, Target, Name, Bytes) ->
    ok = file:write_file(filename:join([Folder, Target, Name]), unicode_or_bytes(Bytes)).

unicode_or_bytes(Bytes) ->
    try iolist_to_binary(Bytes) catch error:badarg -> unicode:characters_to_binary(Bytes) end.

%% A port at which connections are passed on to another, and recorded.
relay(At, To) ->
    Options = [binary, {active, true}, {ip, {127, 0, 0, 1}}, {reuseaddr, true}],
    {ok, Listener} = gen_tcp:listen(At, Options),
    {ok, Port} = inet:port(Listener),
    Keeper = spawn(fun() -> keep(Port, []) end),
    spawn(fun() -> accept(Listener, To, Keeper) end),
    %% The process that listens ends with the socket.
    ok = gen_tcp:controlling_process(Listener, Keeper),
    Keeper.

accept(Listener, To, Keeper) ->
    {ok, Asker} = gen_tcp:accept(Listener),
    Relay = spawn(fun() ->
        receive go -> ok end,
        {ok, Asked} = gen_tcp:connect({127, 0, 0, 1}, To, [binary, {active, true}]),
        pass(Asker, Asked, [], [], Keeper)
    end),
    ok = gen_tcp:controlling_process(Asker, Relay),
    Relay ! go,
    accept(Listener, To, Keeper).

pass(Asker, Asked, Said, Answered, Keeper) ->
    receive
        {tcp, Asker, Bytes} -> gen_tcp:send(Asked, Bytes), pass(Asker, Asked, [Said, Bytes], Answered, Keeper);
        {tcp, Asked, Bytes} -> gen_tcp:send(Asker, Bytes), pass(Asker, Asked, Said, [Answered, Bytes], Keeper);
        {report, From} -> From ! {self(), iolist_to_binary(Said), iolist_to_binary(Answered)}, pass(Asker, Asked, Said, Answered, Keeper);
        Ended when element(1, Ended) =:= tcp_closed; element(1, Ended) =:= tcp_error ->
            gen_tcp:close(Asker), gen_tcp:close(Asked),
            Keeper ! {recorded, {self(), iolist_to_binary(Said), iolist_to_binary(Answered)}}
    end.

keep(Port, Recorded) ->
    receive
        {recorded, One} -> keep(Port, [One | Recorded]);
        {port, From} -> From ! {self(), Port}, keep(Port, Recorded);
        {all, From} -> From ! {self(), lists:reverse(Recorded)}, keep(Port, Recorded)
    end.

relay_port(Keeper) -> ask(Keeper, port).

%% All connections of a relay that have ended; there is one at least.
recorded(Keeper) ->
    until(fun() -> case ask(Keeper, all) of [] -> false; Recorded -> Recorded end end).

ask(Keeper, What) ->
    Keeper ! {What, self()},
    receive {Keeper, Answer} -> Answer end.

%% erl_dist_protocol, "EPMD Protocol": ALIVE2_REQ, for as long as the socket is open.
register_node(Name, Port, Epmd) ->
    Request = <<120, Port:16, 77, 0, 6:16, 5:16, (length(Name)):16, (list_to_binary(Name))/binary, 0:16>>,
    case gen_tcp:connect({127, 0, 0, 1}, Epmd, [binary, {active, false}]) of
        {ok, Socket} ->
            ok = gen_tcp:send(Socket, <<(byte_size(Request)):16, Request/binary>>),
            {ok, <<118, 0, _/binary>>} = gen_tcp:recv(Socket, 0, 5000),
            Socket;
        {error, econnrefused} -> false
    end.

%% PORT_PLEASE2_REQ
port_of(Name, Epmd) ->
    case gen_tcp:connect({127, 0, 0, 1}, Epmd, [binary, {active, false}]) of
        {ok, Socket} ->
            ok = gen_tcp:send(Socket, [<<(length(Name) + 1):16, 122>>, Name]),
            Answer = gen_tcp:recv(Socket, 0, 5000),
            gen_tcp:close(Socket),
            case Answer of
                {ok, <<119, 0, Port:16, _/binary>>} -> Port;
                _ -> false
            end;
        {error, econnrefused} -> false
    end.

until(Fun) -> until(Fun, 200).

until(_, 0) -> error(never);
until(Fun, Tries) ->
    case Fun() of
        false -> receive after 50 -> until(Fun, Tries - 1) end;
        Value -> Value
    end.

run(Program, Arguments, EpmdPort) ->
    open_port({spawn_executable, Program}, [{args, Arguments}, exit_status, binary, stderr_to_stdout,
        {env, [{"ERL_EPMD_PORT", integer_to_list(EpmdPort)}, {"ERL_EPMD_ADDRESS", false}]}]).

ended(Port) ->
    receive
        {Port, {exit_status, 0}} -> ok;
        {Port, {exit_status, _}} -> error(Port);
        {Port, {data, Text}} -> io:put_chars(Text), ended(Port)
    end.

stop(Port) ->
    {os_pid, Pid} = erlang:port_info(Port, os_pid),
    os:cmd("kill " ++ integer_to_list(Pid)).
