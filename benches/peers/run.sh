#!/usr/bin/env bash
# Compares forwarding with other servers on this machine: each in turn on the first core, the load tool on the
# second, in network namespaces of their own (benches/network.sh), the same synthetic rooms, in rounds (A/B/A/B), and
# the bare limit in the same run. Writes every run, summary.json and summary.html into target/bench-peers/.
#
#   ROUNDS=5          rounds
#   SECONDS_EACH=15   measured seconds of each run
#   SERVERS="..."     of antiphon livekit livekit-batch janus janus-threads mediasoup mediasoup-uring;
#                     by default those of "antiphon livekit janus mediasoup" that are there
#   ANTIPHON=...      another build's server, as target/profiled/antiphon
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source benches/network.sh
source benches/antiphon.sh
source benches/peers/servers.sh

rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-15}
bench=(target/release/antiphon bench)
out=target/bench-peers
work=$(mktemp -d)
export PATH="$PWD/.tools/bin:$PATH"
livekit_server=$PWD/.tools/bin/livekit-server
mediasoup_worker=$PWD/target/mediasoup/mediasoup-worker
livekit_secret=a-secret-for-loopback-only-0123456789
server= measured=
trap 'stop; network_down; rm -rf "$work"' EXIT

say() { echo "bench-peers: $*" >&2; }

network_up
bare_cores=() in_bare=()
if [ "$network" = veth ]; then in_bare=(ip netns exec "$tool_netns"); fi
if [ ${#in_tool[@]} -gt 0 ]; then bare_cores=(--core 0 --receiver-core "$tool_core"); fi

# What can be measured here.
servers=()
for name in ${SERVERS:-antiphon livekit janus mediasoup}; do
  case $name in
    antiphon) ;;
    livekit | livekit-batch)
      [ -x "$livekit_server" ] || { say "no $livekit_server (scripts/livekit.sh builds it): leaving out $name"; continue; }
      ;;
    janus | janus-threads)
      command -v janus >/dev/null && command -v dpkg >/dev/null ||
        { say "Debian's package janus is needed: leaving out $name"; continue; }
      # It offers no address of the loopback interface, even where its configuration names it.
      [ "$network" = veth ] || { say "Janus needs the network namespaces: leaving out $name"; continue; }
      ;;
    mediasoup | mediasoup-uring)
      [ -x "$mediasoup_worker" ] && [ -d benches/peers/mediasoup/node_modules ] && command -v node >/dev/null ||
        { say "no $mediasoup_worker (scripts/mediasoup.sh builds it) or no Node.js: leaving out $name"; continue; }
      ;;
    *) say "no server $name is known"; exit 2 ;;
  esac
  servers+=("$name")
done

rm -rf "$out"
mkdir -p "$out"

# workload NAME ROOM-OPTION...: every server and the bare limit once.
workload() {
  local shape=$1
  shift
  for name in "${servers[@]}"; do
    say "round $round of $rounds, $shape: $name"
    start "$name"
    "${in_tool[@]}" "${bench[@]}" forward --target "$target" --url "$url" --api-secret "$livekit_secret" \
      --server-pid "$measured" --seconds "$seconds" "$@" >"$work/run.json" ||
      say "$name failed in round $round; its run is kept as it is"
    stop
    if [ -s "$work/run.json" ]; then mv "$work/run.json" "$out/$name.$shape.$round.json"; fi
  done
  say "round $round of $rounds, $shape: bare limit"
  "${in_bare[@]}" "${bench[@]}" bare "${bare_cores[@]}" --seconds "$seconds" "$@" >"$out/bare.$shape.$round.json"
}

for round in $(seq "$rounds"); do
  workload 1x50 --rooms 1 --publishers 1 --subscribers 50
  workload 10x3 --rooms 10 --publishers 3 --subscribers 3
done
"${bench[@]}" summary "$out"
say "the page is $out/summary.html"
