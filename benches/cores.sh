#!/usr/bin/env bash
# Whether a packet costs the same on one shard and on many: a release server with 1, 2, 4 ... shards and as many load tools
# (benches/many_cores.sh). First rooms that fill the shards alike, then one room of a thousand that is spread over all, then
# one that grows with them, so that each has as much to do as a single one. One JSON object for each run.
#
#   SHARDS="1 2 4 7"   numbers of shards; by default up to half of the cores, less one for everything else
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source benches/network.sh
source benches/antiphon.sh
source benches/many_cores.sh

[ "$half" -gt 2 ] || die "shards on cores of their own, and as many load tools, need six cores or more"
if [ -z "${SHARDS:-}" ]; then
  SHARDS=1
  for ((count = 2; count < half - 1; count *= 2)); do SHARDS+=" $count"; done
  SHARDS+=" $((half - 1))"
fi

for count in $SHARDS; do run rooms "$count" "$count" --rooms 4 --publishers 1 --subscribers 100; done
export ANTIPHON_MEDIA__SPREAD_AT=0
for count in $SHARDS; do run spread "$count" 1 --rooms 1 --publishers 1 --subscribers 1000 --bitrate 300000; done
for count in $SHARDS; do
  run "spread alike" "$count" 1 --rooms 1 --publishers 1 --subscribers $((150 * count)) --bitrate 300000
done
