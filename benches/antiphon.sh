#!/usr/bin/env bash
# Sourced by the benches, after network.sh: how the server that is measured is configured.

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
