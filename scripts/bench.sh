#!/usr/bin/env bash
# Measures forwarding on this machine: a release server on ports of its own and the load tool against it, one
# JSON object for each room shape, as in docs/PERFORMANCE.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${SECONDS_EACH:-20}
http=${HTTP_PORT:-17880}
data=$(mktemp -d)
export ANTIPHON_HTTP__LISTEN=127.0.0.1:$http ANTIPHON_MEDIA__UDP_PORT=$((http + 2)) ANTIPHON_MEDIA__TCP_PORT=$((http + 1))
export ANTIPHON_NODE__DATA_DIR=$data ANTIPHON_LOG__FILTER=warn ANTIPHON_LIMITS__JOINS_PER_SECOND=1000
target/release/antiphon serve --dev 2>"$data/log" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$data"' EXIT

deadline=$((SECONDS + 20))
until curl -fsS -o /dev/null "http://127.0.0.1:$http/readyz" 2>/dev/null; do
  kill -0 "$server" 2>/dev/null && [ $SECONDS -lt $deadline ] || { cat "$data/log" >&2; exit 1; }
  sleep 0.2
done

# rooms publishers subscribers
while read -r rooms publishers subscribers; do
  echo "bench: $rooms rooms, $publishers publishers and $subscribers viewers in each, $seconds s" >&2
  target/release/antiphon bench forward --target whip --url "http://127.0.0.1:$http" --server-pid "$server" \
    --rooms "$rooms" --publishers "$publishers" --subscribers "$subscribers" --seconds "$seconds"
done <<<'1 1 50
10 3 3'
