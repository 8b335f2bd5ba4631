#!/usr/bin/env bash
# Measures forwarding on this machine: the packet path alone (criterion, to stderr), then a release server on
# one core against the load tool on another, one JSON object for each room shape of docs/PERFORMANCE.md.
# Arguments, if any, are the load tool's: one run with those instead. PACKET_PATH=0 leaves criterion out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${SECONDS_EACH:-20}
http=${HTTP_PORT:-17880}
data=$(mktemp -d)
server=
stop() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  server=
}
trap 'stop; rm -rf "$data"' EXIT

if [ "${PACKET_PATH:-1}" = 1 ]; then cargo bench --locked --bench packet_path -- --quick >&2; fi

# With one core there is nothing to pin: both share it, and the CPU shares in the report say so.
on_server=() on_tool=()
if [ "$(nproc)" -gt 1 ] && command -v taskset >/dev/null; then on_server=(taskset -c 0) on_tool=(taskset -c 1); fi

export ANTIPHON_HTTP__LISTEN=127.0.0.1:$http ANTIPHON_MEDIA__UDP_PORT=$((http + 2)) ANTIPHON_MEDIA__TCP_PORT=$((http + 1))
export ANTIPHON_MEDIA__SHARDS=1 ANTIPHON_NODE__DATA_DIR=$data ANTIPHON_LOG__FILTER=warn
export ANTIPHON_LIMITS__JOINS_PER_SECOND=1000

# A fresh server for each run, so that its memory starts from nothing.
run() {
  echo "bench: $*" >&2
  "${on_server[@]}" target/release/antiphon serve --dev 2>"$data/log" &
  server=$!
  local deadline=$((SECONDS + 20))
  until curl -fsS -o /dev/null "http://127.0.0.1:$http/readyz" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null && [ $SECONDS -lt $deadline ] || { cat "$data/log" >&2; exit 1; }
    sleep 0.2
  done
  "${on_tool[@]}" target/release/antiphon bench forward --url "http://127.0.0.1:$http" --server-pid "$server" "$@"
  stop
}

if [ $# -gt 0 ]; then
  run "$@"
else
  run --rooms 1 --publishers 1 --subscribers 50 --seconds "$seconds"
  run --rooms 10 --publishers 3 --subscribers 3 --seconds "$seconds"
fi
