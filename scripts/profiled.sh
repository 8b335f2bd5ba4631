#!/usr/bin/env bash
# Builds target/profiled/antiphon by what it does most: once to count that while rooms are forwarded, and once more with
# the counts (profile-guided optimisation), which saves three to ten percent of a packet's cost (docs/PERFORMANCE.md). Twice as long as
# a build, so it is no part of one.
#
#   SECONDS_EACH=10    seconds that each kind of room is forwarded
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools
[ -x "$profdata" ] || { echo "profiled: the llvm-profdata of this Rust is needed (rustup component add llvm-tools)" >&2; exit 1; }
counts=$PWD/target/profile
built=target/profiled/$host/release/antiphon

# Naming the host keeps the flags from what runs at build time.
build() { RUSTFLAGS=$1 cargo build --release --locked --bin antiphon --target "$host" --target-dir target/profiled; }

rm -rf "$counts"
build "-Cprofile-generate=$counts"
export ANTIPHON=$built TOOL=$built PACKET_PATH=0
seconds=${SECONDS_EACH:-10}
scripts/bench.sh --rooms 1 --publishers 1 --subscribers 50 --seconds "$seconds" >/dev/null
scripts/bench.sh --rooms 10 --publishers 3 --subscribers 3 --seconds "$seconds" >/dev/null
scripts/bench.sh --rooms 5 --publishers 2 --subscribers 10 --simulcast --seconds "$seconds" >/dev/null
"$profdata" merge -o "$counts/antiphon.profdata" "$counts"/*.profraw
build "-Cprofile-use=$counts/antiphon.profdata"
install -m 755 "$built" target/profiled/antiphon
echo "profiled: target/profiled/antiphon" >&2
