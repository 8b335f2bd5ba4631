#!/usr/bin/env bash
# What a mixer costs beside the same work by hand, on a machine with nothing else to do.
#
#   [ROUNDS=3] [SECONDS_EACH=10] [ANTIPHON_BIN=OTHER-BINARY] benches/mixer.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh bench
exec cargo bench --locked --quiet --bench mixer
