#!/usr/bin/env bash
# One shard on one core under more and more load, from as many load tools as there are cores for them (benches/many_cores.sh):
# what a packet costs, how late it is, and what is lost. One JSON object for each run.
#
#   ROUNDS=1               times that all of it is done
#   LOADS="PUBLISHERS,VIEWERS,ROOMS ..."   rooms of each tool; by default up to about 90 % of a core
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source benches/network.sh
source benches/antiphon.sh
source benches/many_cores.sh

tools=$((half - 1))
loads=${LOADS:-"1,50,1 3,3,8 3,3,11 3,3,12 1,70,2"}
for ((round = 0; round < ${ROUNDS:-1}; round++)); do
  for load in $loads; do
    IFS=, read -r publishers viewers rooms <<<"$load"
    run "$((rooms * tools)) x $publishers x $viewers" 1 "$tools" --rooms "$rooms" --publishers "$publishers" --subscribers "$viewers"
  done
done
