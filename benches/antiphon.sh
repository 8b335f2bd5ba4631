#!/usr/bin/env bash
# Sourced by the benches, after network.sh: how the server that is measured is configured and started.

# antiphon_config PORT DATA-DIR: prints a configuration on $server_address, with ports from PORT on. Guests come in,
# as many a second as the load tool asks; nothing outside the bench's own network reaches it.
antiphon_config() {
  cat <<EOF
[http]
listen = "$server_address:$1"
[node]
data_dir = "$2"
[media]
tcp_port = $(($1 + 1))
udp_port = $(($1 + 2))
shards = ${SHARDS:-1}
[auth]
guests = true
keys = { bench = "a-key-for-this-bench-alone-0123456789abcdef" }
[limits]
joins_per_second = 1000
[log]
filter = "warn"
EOF
}

# antiphon_start BINARY PORT DATA-DIR: starts one on the server's side and core, and leaves its process in $started once it
# answers.
antiphon_start() {
  antiphon_config "$2" "$3" >"$3/antiphon.toml"
  "${in_server[@]}" "$1" serve --config "$3/antiphon.toml" 2>"$3/log" &
  started=$!
  local deadline=$((SECONDS + 20))
  until "${in_tool[@]}" curl -fsS -o /dev/null "http://$server_address:$2/readyz" 2>/dev/null; do
    if ! kill -0 "$started" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
      cat "$3/log" >&2
      kill "$started" 2>/dev/null || true
      exit 1
    fi
    sleep 0.2
  done
}
