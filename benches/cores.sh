#!/usr/bin/env bash
# Whether a packet costs the same on one shard and on many: a release server with 1, 2, 4 ... shards, each on a core of its
# own, and as many load tools, each on another core, in network namespaces joined by a veth pair. What arrives is handled on
# the core of the thread that reads it (receive flow steering), as a network card with as many queues would have it. First
# rooms that fill the shards alike, then one room that is spread over all. One JSON object for each run, and a line to stderr.
#
#   SHARDS="1 2 4 7"   numbers of shards; by default up to half of the cores, less one for everything else
#   SECONDS_EACH=5     measured seconds of each run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source benches/network.sh
source benches/antiphon.sh

die() { echo "bench: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "network namespaces need root"
half=$(($(nproc) / 2))
[ "$half" -gt 1 ] || die "shards and load tools on cores of their own need four cores or more"
seconds=${SECONDS_EACH:-5}
http=17880
data=$(mktemp -d)
server=
stop() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  server=
}
trap 'stop; network_down; rm -rf "$data"' EXIT

if [ -z "${SHARDS:-}" ]; then
  SHARDS=1
  for ((count = 2; count < half - 1; count *= 2)); do SHARDS+=" $count"; done
  SHARDS+=" $((half - 1))"
fi

network_up
# flows NETNS INTERFACE FIRST LAST: what arrives there is handled on these cores, each flow where it is read.
flows() {
  local mask=0 core
  for ((core = $3; core <= $4; core++)); do mask=$((mask | 1 << core)); done
  ip netns exec "$1" sh -c "printf '%x' $mask >/sys/class/net/$2/queues/rx-0/rps_cpus
    echo 32768 >/sys/class/net/$2/queues/rx-0/rps_flow_cnt"
}
echo 32768 >/proc/sys/net/core/rps_sock_flow_entries

# run NAME SHARDS TOOLS TOOL-OPTION...: a fresh server on the first cores, tools on those from the middle on.
run() {
  local name=$1 count=$2 tools=$3 tool
  shift 3
  flows $server_netns bench0 0 $((count - 1))
  flows $tool_netns bench1 "$half" $((half + tools - 1))
  SHARDS=$count antiphon_config $http "$data" >"$data/antiphon.toml"
  ip netns exec $server_netns taskset -c "0-$((count - 1))" \
    target/release/antiphon serve --config "$data/antiphon.toml" 2>"$data/log" &
  server=$!
  local deadline=$((SECONDS + 20)) url=http://$server_address:$http jobs=()
  until ip netns exec $tool_netns curl -fsS -o /dev/null "$url/readyz" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null && [ $SECONDS -lt $deadline ] || die "$(cat "$data/log")"
    sleep 0.2
  done
  for ((tool = 0; tool < tools; tool++)); do
    ip netns exec $tool_netns taskset -c $((half + tool)) target/release/antiphon bench forward --url "$url" \
      --server-pid "$server" --join-rate 100 --seconds "$seconds" "$@" >"$data/run.$tool.json" &
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
print("bench:", name, shards, "shards,", result["cpu_us_per_forwarded_packet"], "us", file=sys.stderr)
PYTHON
  rm -f "$data"/run.*.json
}

for count in $SHARDS; do run rooms "$count" "$count" --rooms 4 --publishers 1 --subscribers 100; done
export ANTIPHON_MEDIA__SPREAD_AT=0
for count in $SHARDS; do run spread "$count" 1 --rooms 1 --publishers 1 --subscribers 1000 --bitrate 300000; done
