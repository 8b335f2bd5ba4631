#!/usr/bin/env bash
# Sourced by run.sh: starts one of the servers to compare, each on $server_address with ports of its own and its files
# under $work. After `start NAME`: $server is its process, $measured the one that carries its media, $url where
# it is joined, $target how.
#
# Every server has bandwidth estimation, NACK and resending on. With the load tool mediasoup settles on AES-256-GCM, the
# others on AES-128-GCM; each run's `srtp_profiles` says so.

# janus_config LOOPS: LOOPS threads for all media; 0 is Janus's default, a thread for each client.
janus_config() {
  local dir=$work/janus lib
  lib=$(dirname "$(dpkg -L janus | grep -m 1 '/libjanus_videoroom\.so')")/..
  rm -rf "$dir"
  mkdir -p "$dir"/{plugins,transports,none}
  ln -s "$lib"/plugins/libjanus_videoroom.so* "$dir/plugins/"
  ln -s "$lib"/transports/libjanus_http.so* "$dir/transports/"
  cat >"$dir/janus.jcfg" <<EOF
general: {
  configs_folder = "$dir"
  plugins_folder = "$dir/plugins"
  transports_folder = "$dir/transports"
  events_folder = "$dir/none"
  loggers_folder = "$dir/none"
  debug_level = 2
  $([ "$1" = 0 ] || echo "event_loops = $1")
}
nat: {
  ice_enforce_list = "$server_interface"
}
EOF
  cat >"$dir/janus.transport.http.jcfg" <<EOF
general: {
  json = "compact"
  base_path = "/janus"
  http = true
  port = 17888
  ip = "$server_address"
}
admin: {
  admin_http = false
}
EOF
}

# livekit_config NAME: one UDP port (its muxing mode) and no TCP; livekit-batch with batched writes as its sample
# configuration has them. Otherwise its defaults.
livekit_config() {
  cat >"$work/livekit.yaml" <<EOF
port: 17890
bind_addresses: ["$server_address"]
keys: { devkey: "a-secret-for-loopback-only-0123456789" }
logging: { level: error }
room: { auto_create: true }
rtc:
  udp_port: 17892
  node_ip: $server_address
  use_external_ip: false
  enable_loopback_candidate: true
  interfaces: { includes: [$server_interface] }
EOF
  if [ "$1" = livekit-batch ]; then printf '  batch_io: { batch_size: 128, max_flush_interval: 2ms }\n' >>"$work/livekit.yaml"; fi
}

# launch COMMAND...: starts a server on the first core.
launch() {
  "${in_server[@]}" "$@" >"$work/$name.log" 2>&1 &
  server=$!
  measured=$server
}

# ready URL: waits until the server answers there.
ready() {
  local deadline=$((SECONDS + 20))
  until "${in_tool[@]}" curl -sS -o /dev/null "$1" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null && [ $SECONDS -lt $deadline ] || { tail -n 20 "$work/$name.log" >&2; return 1; }
    sleep 0.2
  done
}

start() {
  name=$1
  case $name in
    antiphon)
      target=whip url=http://$server_address:17880
      rm -rf "$work/antiphon" && mkdir "$work/antiphon"
      antiphon_config 17880 "$work/antiphon" >"$work/antiphon.toml"
      launch "${ANTIPHON:-target/release/antiphon}" serve --config "$work/antiphon.toml"
      ready $url/readyz
      ;;
    janus | janus-threads)
      target=janus url=http://$server_address:17888
      janus_config "$([ "$name" = janus ] && echo 1 || echo 0)"
      launch janus -F "$work/janus" -C "$work/janus/janus.jcfg"
      ready $url/janus/info
      ;;
    livekit | livekit-batch)
      target=livekit url=http://$server_address:17890
      livekit_config "$name"
      launch "$livekit_server" --config "$work/livekit.yaml"
      ready $url/
      ;;
    mediasoup | mediasoup-uring)
      target=whip url=http://$server_address:17895
      launch env MEDIASOUP_WORKER_BIN="$mediasoup_worker" \
        node benches/peers/mediasoup/server.mjs "$server_address" 17895 17897 "${name#mediasoup-}"
      ready $url/pid
      measured=$("${in_tool[@]}" curl -sS $url/pid)
      ;;
  esac
}

# Janus can hang in its own shutdown, so none is asked twice.
stop() {
  if [ -n "${server:-}" ]; then
    kill -KILL "$server" "$measured" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  server= measured=
}
