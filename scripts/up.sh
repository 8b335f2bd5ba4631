#!/usr/bin/env bash
# A cluster on this machine: a real Redis, a real Kafka and three nodes, open to anyone here as with `serve --dev`.
#
#   up.sh up      start what does not run, and print where to go
#   up.sh status  what runs
#   up.sh down    stop just these; what they know stays in data/up
#   up.sh wipe    down, and delete data/up
#
# Settings: UP_DIR (data/up), UP_PORT (7890: node N serves HTTP on it plus N), UP_NODES (3),
# ANTIPHON (target/release/antiphon).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir=${UP_DIR:-$PWD/data/up}
port=${UP_PORT:-7890}
nodes=${UP_NODES:-3}
binary=${ANTIPHON:-target/release/antiphon}
export REDIS_PORT=$((port + 100)) REDIS_DIR=$dir/redis KAFKA_PORT=$((port + 110)) KAFKA_DIR=$dir/kafka

say() { echo "up: $*" >&2; }
die() { say "$*"; exit 1; }
# A zombie does not count.
runs() { [ -s "$1" ] && [ -r "/proc/$(cat "$1")/status" ] && ! grep -q '^State:.*Z' "/proc/$(cat "$1")/status"; }
url_of() { echo "http://127.0.0.1:$((port + $1))"; }

start_node() {
  local number=$1 home=$dir/node-$1
  runs "$home.pid" && return
  mkdir -p "$home"
  # Each node has its own ports: HTTP, ICE-TCP, and from the third on one for each shard.
  setsid env \
    ANTIPHON_HTTP__LISTEN="127.0.0.1:$((port + number))" \
    ANTIPHON_MEDIA__TCP_PORT=$((port + 20 + number)) \
    ANTIPHON_MEDIA__UDP_PORT=$((port + 30 + number * 8)) \
    ANTIPHON_MEDIA__SHARDS=1 \
    ANTIPHON_NODE__DATA_DIR="$home" \
    ANTIPHON_NODE__NAME="node-$number" \
    ANTIPHON_CLUSTER__NODE_ID="node-$number" \
    ANTIPHON_CLUSTER__URL="$(url_of "$number")" \
    ANTIPHON_CLUSTER__REDIS_URL="redis://127.0.0.1:$REDIS_PORT" \
    ANTIPHON_CLUSTER__KAFKA_BROKERS="127.0.0.1:$KAFKA_PORT" \
    ANTIPHON_CLUSTER__RELAY__KEY="known-to-all-and-for-this-machine-only" \
    ANTIPHON_CLUSTER__RELAY__LISTEN="127.0.0.1:$((port + 10 + number))" \
    "$binary" serve --dev >>"$home.log" 2>&1 </dev/null &
  echo $! >"$home.pid"
}

wait_for() {
  local number=$1
  for _ in $(seq 1 300); do
    runs "$dir/node-$number.pid" || { tail -n 10 "$dir/node-$number.log" >&2; die "node-$number stopped"; }
    if curl -fsS -o /dev/null "$(url_of "$number")/readyz" 2>/dev/null; then return; fi
    sleep 0.1
  done
  die "node-$number is not ready after 30 s; see $dir/node-$number.log"
}

up() {
  [ -x "$binary" ] || die "there is no $binary; make build makes it"
  mkdir -p "$dir"
  scripts/redis.sh up
  scripts/kafka.sh up
  for number in $(seq 1 "$nodes"); do start_node "$number"; done
  for number in $(seq 1 "$nodes"); do wait_for "$number"; done
  say "Redis on 127.0.0.1:$REDIS_PORT, Kafka on 127.0.0.1:$KAFKA_PORT, logs in $dir"
  for number in $(seq 1 "$nodes"); do url_of "$number"; done
}

status() {
  scripts/redis.sh status >/dev/null && echo "Redis runs" || echo "Redis is down"
  scripts/kafka.sh status >/dev/null && echo "Kafka runs" || echo "Kafka is down"
  for number in $(seq 1 "$nodes"); do
    if runs "$dir/node-$number.pid"; then echo "$(url_of "$number") runs"; else echo "$(url_of "$number") is down"; fi
  done
}

down() {
  for number in $(seq 1 "$nodes"); do
    if runs "$dir/node-$number.pid"; then kill -TERM "$(cat "$dir/node-$number.pid")"; fi
  done
  for number in $(seq 1 "$nodes"); do
    for _ in $(seq 1 400); do
      runs "$dir/node-$number.pid" || break
      sleep 0.1
    done
    if runs "$dir/node-$number.pid"; then kill -KILL "$(cat "$dir/node-$number.pid")"; fi
    rm -f "$dir/node-$number.pid"
  done
  scripts/kafka.sh down
  scripts/redis.sh down
}

case ${1:-} in
  up) up ;;
  status) status ;;
  down) down ;;
  wipe) down; rm -rf "$dir" ;;
  *) sed -n '2,11p' "$0" >&2; exit 2 ;;
esac
