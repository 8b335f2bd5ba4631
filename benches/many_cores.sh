#!/usr/bin/env bash
# Sourced by the benches of many cores, after network.sh and antiphon.sh: a server with some shards, each on a core of
# its own, and load tools, each on another core, in network namespaces joined by a veth pair. What arrives is handled on the
# core of the thread that reads it (receive flow steering), as a network card with as many queues would have it. A single
# tool that many shards send to has the other half's cores for that, as all shards would wait for one queue otherwise.
# Of a core that runs two threads one is used: two shards on one core would cost more each, and say nothing of shards.
#
#   SECONDS_EACH=5     measured seconds of each run
#   ANTIPHON=...       another build's binary for the server, to compare with; TOOL=... for the tools

die() { echo "bench: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "network namespaces need root"
mapfile -t cores < <(cut -d , -f 1 /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list | cut -d - -f 1 | sort -nu)
half=$((${#cores[@]} / 2))
[ "$half" -gt 0 ] || die "a shard and a load tool on cores of their own need two cores or more"
seconds=${SECONDS_EACH:-5}
antiphon=${ANTIPHON:-target/release/antiphon}
tool=${TOOL:-$antiphon}
http=17880
data=$(mktemp -d)
server=
stop() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  server=
}
trap 'stop; network_down; rm -rf "$data"' EXIT
network_up
echo "bench: $(nproc) threads, of which one each of cores ${cores[*]} is used" >&2

# flows NETNS INTERFACE FLOWS CORE...: what arrives there is handled on these cores, so many flows each where it is read,
# and with none any flow on any of them.
flows() {
  local mask=0 core
  for core in "${@:4}"; do mask=$((mask | 1 << core)); done
  ip netns exec "$1" sh -c "printf '%x' $mask >/sys/class/net/$2/queues/rx-0/rps_cpus
    echo $3 >/sys/class/net/$2/queues/rx-0/rps_flow_cnt"
}
echo 32768 >/proc/sys/net/core/rps_sock_flow_entries
# Many cores send at once to the one of a load tool; what waits there for it must not be lost.
echo 30000 >/proc/sys/net/core/netdev_max_backlog

# run NAME SHARDS TOOLS TOOL-OPTION...: a fresh server on the first cores, tools on those from the middle on. Prints one JSON
# object, and a line to stderr.
run() {
  local name=$1 count=$2 tools=$3 number
  shift 3
  local shards=("${cores[@]:0:count}") readers=("${cores[@]:half}")
  flows $server_netns bench0 32768 "${shards[@]}"
  if [ "$tools" -lt "$count" ]; then
    flows $tool_netns bench1 0 "${readers[@]:0:count}"
  else
    flows $tool_netns bench1 32768 "${readers[@]:0:tools}"
  fi
  SHARDS=$count antiphon_config $http "$data" >"$data/antiphon.toml"
  ip netns exec $server_netns taskset -c "$(IFS=,; echo "${shards[*]}")" \
    "$antiphon" serve --config "$data/antiphon.toml" 2>"$data/log" &
  server=$!
  local deadline=$((SECONDS + 20)) url=http://$server_address:$http jobs=()
  until ip netns exec $tool_netns curl -fsS -o /dev/null "$url/readyz" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null && [ $SECONDS -lt $deadline ] || die "$(cat "$data/log")"
    sleep 0.2
  done
  for ((number = 0; number < tools; number++)); do
    ip netns exec $tool_netns taskset -c "${readers[number]}" "$tool" bench forward --url "$url" \
      --server-pid "$server" --join-rate 100 --seconds "$seconds" "$@" >"$data/run.$number.json" &
    jobs+=($!)
  done
  wait "${jobs[@]}"
  stop
  python3 - "$name" "$count" "$data"/run.*.json <<'PYTHON'
import json, sys
name, shards, runs = sys.argv[1], int(sys.argv[2]), [json.load(open(path)) for path in sys.argv[3:]]
# Each tool reads the same server's account over the same window, and counts its own packets.
rate = sum(run["received_packets_per_second"] for run in runs)
cores = sum(run["server"]["cpu_seconds"] / run["seconds"] for run in runs) / len(runs)
worst = lambda key: max(run["latency_ms"][key] for run in runs)
result = {
    "run": name, "shards": shards, "packets_per_second": round(rate), "server_cores": round(cores, 3),
    "cpu_us_per_forwarded_packet": round(cores / rate * 1e6, 3), "lost": sum(run["packets"]["lost"] for run in runs),
    "latency_ms": {key: round(worst(key), 2) for key in ("p50", "p99", "p999")},
    "generator_cpu_share": round(max(run["generator"]["cpu_share"] for run in runs), 2),
}
print(json.dumps(result))
print("bench:", name, shards, "shards,", result["cpu_us_per_forwarded_packet"], "us,", result["latency_ms"], file=sys.stderr)
PYTHON
  rm -f "$data"/run.*.json
}
