#!/usr/bin/env bash
# Sourced by the benches: a network in which each side pays for its own half of a packet's way.
#
# On loopback the sender of a datagram does the receiver's work too, up to its socket, and splits its GSO runs, where
# otherwise a network card or another machine would. Here server and load tool sit in two network namespaces joined by a
# veth pair, and what arrives at either end is handled on the core of that end (receive packet steering), so the account
# of the server's threads holds what the server has to do and no more. The same for every server that is measured.
#
# After `network_up`: $server_address is where servers listen, ${in_server[@]} and ${in_tool[@]} start a command on
# its side and core. Without root, `ip` or a second core it says so, and everything is on loopback and its cores.
# `NETWORK=loopback` asks for that. `network_down` removes all of it. `TOOL_CORE=8` has the tool on another core than 1,
# where 0 and 1 are two threads of one.

server_address=127.0.0.1
server_interface=lo
in_server=() in_tool=()
network=loopback
tool_core=${TOOL_CORE:-1}
server_netns=antiphon-bench-server tool_netns=antiphon-bench-tool

# steer NETNS INTERFACE CORE: lets this core handle what arrives there.
steer() {
  ip netns exec "$1" sh -c "printf '%x' $((1 << $3)) >/sys/class/net/$2/queues/rx-0/rps_cpus"
}

network_up() {
  if [ "$(nproc)" -gt 1 ] && command -v taskset >/dev/null; then
    in_server=(taskset -c 0) in_tool=(taskset -c "$tool_core")
  fi
  if [ "${NETWORK:-veth}" = loopback ]; then return; fi
  if [ "$(id -u)" != 0 ] || [ "$(nproc)" = 1 ] || ! command -v ip >/dev/null || ! command -v taskset >/dev/null; then
    echo "bench: network namespaces need root, two cores, and the packages iproute2 and util-linux: on loopback, where" \
      "a server pays for its clients' receiving too" >&2
    return
  fi
  network_down
  ip netns add $server_netns
  ip netns add $tool_netns
  ip link add bench0 netns $server_netns type veth peer name bench1 netns $tool_netns
  ip -n $server_netns address add 10.199.0.1/24 dev bench0
  ip -n $tool_netns address add 10.199.0.2/24 dev bench1
  local netns
  for netns in $server_netns:bench0 $server_netns:lo $tool_netns:bench1 $tool_netns:lo; do
    ip -n "${netns%:*}" link set "${netns#*:}" up
  done
  steer $server_netns bench0 0
  steer $tool_netns bench1 "$tool_core"
  # The bare limit is one process, so it stays on one side: on this one's loopback, with its receivers' work steered away.
  steer $tool_netns lo "$tool_core"
  server_address=10.199.0.1 server_interface=bench0 network=veth
  in_server=(ip netns exec $server_netns taskset -c 0)
  in_tool=(ip netns exec $tool_netns taskset -c "$tool_core")
}

network_down() {
  ip netns delete $server_netns 2>/dev/null || true
  ip netns delete $tool_netns 2>/dev/null || true
}
