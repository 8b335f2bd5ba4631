#!/usr/bin/env bash
# One shard on one core under more and more load, from load tools on cores of their own (benches/many_cores.sh; with two cores
# from one tool): what a packet costs, how late it is, and what is lost. One JSON object for each run.
#
#   ROUNDS=1               times that all of it is done
#   LOADS="PUBLISHERS,VIEWERS,ROOMS ..."   rooms of all tools together; by default up to about 90 % of a core
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source benches/network.sh
source benches/antiphon.sh
source benches/many_cores.sh

tools=$((half > 1 ? half - 1 : 1))
loads=${LOADS:-"1,50,7 1,50,14 1,50,20 3,3,56 3,3,77"}
for ((round = 0; round < ${ROUNDS:-1}; round++)); do
  for load in $loads; do
    IFS=, read -r publishers viewers rooms <<<"$load"
    each=$(((rooms + tools - 1) / tools))
    run "$((each * tools)) x $publishers x $viewers" 1 "$tools" --read-runs --rooms "$each" --publishers "$publishers" --subscribers "$viewers"
  done
done
