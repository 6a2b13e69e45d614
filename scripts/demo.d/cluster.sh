# scripts/demo --cluster: one store in three members of etcd, served by two kvnodes; a BEAM calls it all the time while what serves it dies.
# shellcheck shell=bash disable=SC2154 # what is not set here scripts/demo has set: tmp, host, kvnode, pids

for program in etcd etcdctl; do
  command -v $program >/dev/null || fail "needs $program: install etcd-server and etcd-client, or run scripts/test as root"
done
began=$SECONDS
export ETCDCTL_API=3

declare -A client peer member
initial=
for n in 1 2 3; do
  client[$n]=$(free_port)
  peer[$n]=$(free_port)
  initial+=${initial:+,}e$n=http://127.0.0.1:${peer[$n]}
done
endpoints=http://127.0.0.1:${client[1]},http://127.0.0.1:${client[2]},http://127.0.0.1:${client[3]}

# start_etcd N: a member, with what it had before
start_etcd() {
  local n=$1 at=http://127.0.0.1
  etcd --name "e$n" --data-dir "$tmp/e$n" --listen-client-urls "$at:${client[$n]}" --advertise-client-urls "$at:${client[$n]}" \
    --listen-peer-urls "$at:${peer[$n]}" --initial-advertise-peer-urls "$at:${peer[$n]}" --initial-cluster "$initial" \
    >>"$tmp/e$n.log" 2>&1 &
  member[$n]=$!
  pids+=($!)
}

# The number of the member that leads.
leader() {
  local n
  for n in 1 2 3; do
    if etcdctl --endpoints "http://127.0.0.1:${client[$n]}" endpoint status 2>/dev/null | grep -q ', true,'; then
      echo "$n"
      return
    fi
  done
}

healthy() {
  for _ in $(seq 200); do
    etcdctl --endpoints "$1" endpoint health >/dev/null 2>&1 && return
    sleep 0.05
  done
  fail "etcd at $1 is not healthy"
}

# start_kv NAME: a kvnode, in the background; its process id is in kv[NAME]
declare -A kv
start_kv() {
  "$kvnode" --sname "$1" --cookie secret --engine etcd --etcd "$endpoints" --store "global:kv,local:$1" --connect "app@$host" \
    >"$tmp/$1.out" 2>>"$tmp/$1.log" &
  kv[$1]=$!
  pids+=($!)
  wait_for "$tmp/$1.out" "{:get, " $!
}

# The name of the kvnode that holds the store's name, and the other one.
holder() { etcdctl --endpoints "$endpoints" get --print-value-only kvnode/global:kv/h | awk 'NF { split($5, node, "@"); print node[1] }'; }
other() { if [ "$1" = kv1 ]; then echo kv2; else echo kv1; fi; }

# shoot PID: it is ours no more. (The shell would say that it was killed.)
shoot() {
  local pid left=()
  { kill -9 "$1" && wait "$1" || true; } 2>/dev/null
  for pid in "${pids[@]}"; do [ "$pid" = "$1" ] || left+=("$pid"); done
  pids=("${left[@]}")
}

# tell LINE...: to the callers
tell() { printf '%s\n' "$@" >&8; }
# answered: until the callers have said what they have seen
told=0
answered() {
  told=$((told + 1))
  for _ in $(seq 800); do
    [ "$(wc -l <"$tmp/told")" -ge $told ] && return
    kill -0 "$app" 2>/dev/null || fail "the callers have ended"
    sleep 0.05
  done
  fail "the callers have said nothing"
}

printf '=== One store, three members of etcd, two kvnodes, and a BEAM that writes and reads all the time\n'
for n in 1 2 3; do start_etcd $n; done
healthy "$endpoints"
printf '\n$ etcd --name e1 …    and e2, e3; e%s leads\n' "$(leader)"
for name in kv1 kv2; do
  printf '$ kvnode --sname %s --engine etcd --etcd %s --store global:kv,local:%s --connect app@%s\n' $name "$endpoints" $name "$host"
  start_kv $name
done

mkfifo "$tmp/lines"
: >"$tmp/told"
DEMO_TTY=
if [ -t 1 ]; then DEMO_TTY=yes; fi
export DEMO_TTY DEMO_TOLD=$tmp/told
printf '$ iex --sname app --cookie secret    six processes: put, get, put, get …; two: get, get …\n'
elixir --sname app --cookie secret scripts/demo.d/cluster.exs <"$tmp/lines" 2>&1 &
app=$!
pids+=($!)
exec 8>"$tmp/lines"
tell quiet
answered

lead=$(leader)
tell "say kill -9 of e$lead, the member of etcd that leads"
shoot "${member[$lead]}"
tell quiet
answered
start_etcd "$lead"
healthy "http://127.0.0.1:${client[$lead]}"

had=$(holder)
tell "say kill -9 of $had, which holds the name; e$lead is back"
shoot "${kv[$had]}"
tell moved
answered
start_kv "$had"

has=$(holder)
tell "say SIGSTOP to $has, which holds the name: its machine hangs; $had is back"
kill -STOP "${kv[$has]}"
tell moved
answered

tell "say SIGCONT to $has: it finds that it has lost the name, and waits from here on"
mark=$(wc -l <"$tmp/$has.log")
kill -CONT "${kv[$has]}"
for _ in $(seq 200); do
  tail -n +$((mark + 1)) "$tmp/$has.log" | grep -qE "another node has the store's global names|global names are given up" && break
  sleep 0.05
done
tell quiet
answered

tell check
wait "$app" || fail "the callers have seen something wrong"
exec 8>&-
# While etcd is there: the name is given back.
for name in kv1 kv2; do kill "${kv[$name]}" && wait "${kv[$name]}" || true; done
printf 'All of it took %s s.\n' $((SECONDS - began))
