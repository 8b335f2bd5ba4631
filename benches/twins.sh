#!/usr/bin/env bash
# Compares two builds while both run: two servers share core 0, two load tools core 1 (benches/network.sh), so that
# whatever else the machine does happens to both. What a packet costs moves by half from minute to minute where machines
# are shared; the ratio of two builds moves by a few percent this way. It hides part of what changes for a core that sleeps
# between packets, as each server keeps the other's core awake: `ANTIPHON=... scripts/bench.sh` by turns shows that.
#
#   benches/twins.sh BEFORE AFTER [options of the load tool; --rooms 1 --publishers 1 --subscribers 50 without]
#   ROUNDS=6          rounds; the two servers change places from one to the next
#   SECONDS_EACH=6    measured seconds of each
#
# Prints, for each round, microseconds of CPU for each forwarded packet before and after, and the ratio; then the ratio's
# least, median and greatest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source benches/network.sh
source benches/antiphon.sh

[ $# -ge 2 ] || { sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
builds=("$1" "$2")
shift 2
[ $# -gt 0 ] || set -- --rooms 1 --publishers 1 --subscribers 50
tool=${TOOL:-target/release/antiphon}
data=$(mktemp -d)
servers=()
stop() {
  for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; done
  servers=()
}
trap 'stop; network_down; rm -rf "$data"' EXIT

cost() { sed -n 's/.*"cpu_ns_per_forwarded_packet": *\([0-9.]*\).*/\1/p' "$1"; }

network_up
for ((round = 0; round < ${ROUNDS:-6}; round++)); do
  tools=()
  for place in 0 1; do
    which=$(((place + round) % 2))
    ports[which]=$((17880 + 1000 * place))
    mkdir "$data/$round.$which"
    antiphon_start "${builds[which]}" "${ports[which]}" "$data/$round.$which"
    servers+=("$started") pids[which]=$started
  done
  for which in 0 1; do
    "${in_tool[@]}" "$tool" bench forward --url "http://$server_address:${ports[which]}" --server-pid "${pids[which]}" \
      --seconds "${SECONDS_EACH:-6}" "$@" >"$data/$which.json" 2>"$data/$which.log" &
    tools+=($!)
  done
  for each in "${tools[@]}"; do wait "$each" || { cat "$data"/?.log >&2; exit 1; }; done
  stop
  awk -v before="$(cost "$data/0.json")" -v after="$(cost "$data/1.json")" \
    'BEGIN { printf "%.2f %.2f %.3f\n", before / 1000, after / 1000, after / before }' | tee -a "$data/ratios"
done
sort -n -k3 "$data/ratios" | awk '{ ratio[NR] = $3 } END {
  median = (ratio[int((NR + 1) / 2)] + ratio[int(NR / 2) + 1]) / 2
  printf "after / before: %.3f [%.3f-%.3f]\n", median, ratio[1], ratio[NR] }'
