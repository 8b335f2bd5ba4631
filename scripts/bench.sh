#!/usr/bin/env bash
# Measures forwarding on this machine: the packet path alone (criterion, to stderr), then a release server on
# one core against the load tool on another (benches/network.sh), one JSON object for each room shape of
# docs/PERFORMANCE.md. Arguments, if any, are the load tool's: one run with those instead.
#
#   PACKET_PATH=0      leaves criterion out
#   SECONDS_EACH=20    measured seconds of each run
#   ANTIPHON=...       another build's binary, to compare with; TOOL=... for the load tool; NETWORK=loopback, SHARDS=1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source benches/network.sh
source benches/antiphon.sh

seconds=${SECONDS_EACH:-20}
http=${HTTP_PORT:-17880}
antiphon=${ANTIPHON:-target/release/antiphon}
tool=${TOOL:-target/release/antiphon}
data=$(mktemp -d)
server=
stop() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  server=
}
trap 'stop; network_down; rm -rf "$data"' EXIT

if [ "${PACKET_PATH:-1}" = 1 ]; then cargo bench --locked --bench packet_path -- --quick >&2; fi

network_up

# A fresh server for each run, so that its memory starts from nothing.
run() {
  echo "bench: $*" >&2
  antiphon_start "$antiphon" "$http" "$data"
  server=$started
  "${in_tool[@]}" "$tool" bench forward --url "http://$server_address:$http" --server-pid "$server" "$@"
  stop
}

if [ $# -gt 0 ]; then
  run "$@"
else
  run --rooms 1 --publishers 1 --subscribers 50 --seconds "$seconds"
  run --rooms 10 --publishers 3 --subscribers 3 --seconds "$seconds"
fi
