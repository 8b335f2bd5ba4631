#!/usr/bin/env bash
# Runs every test, in the order in which each part is needed, and ends with the sum of what they counted.
#
#   scripts/test.sh [SUITE...]    suites: client, rust, browsers; all of them without an argument
#
# One compilation serves all: the end-to-end tests drive the binary that `cargo test` has built. A suite that
# fails does not stop the next one, unless that one needs it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(client rust browsers)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 broken=()

# count LOG: adds up the closing lines of cargo test, node's runner and vitest; prints "PASSED FAILED".
count() {
  sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
    /^test result:/ { for (i = 2; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i } }
    /^(ℹ|#) pass [0-9]+$/ { p += $3 }
    /^(ℹ|#) fail [0-9]+$/ { f += $3 }
    /^ +Tests  .*\([0-9]+\)$/ { for (i = 2; i <= NF; i++) { if ($i == "passed") p += $(i-1); if ($i == "failed") f += $(i-1) } }
    END { print p + 0, f + 0 }'
}

# suite NAME COMMAND...: runs one, with its output shown, and counts.
suite() {
  local name=$1 log=$logs/$1 start=$SECONDS p f code
  shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  read -r p f < <(count "$log")
  # A suite that failed without a failed test did not get as far as running them.
  if [ "$code" != 0 ] && [ "$f" = 0 ]; then f=1; fi
  [ "$code" = 0 ] || broken+=("$name")
  passed=$((passed + p)) failed=$((failed + f))
  printf '== %s: %s passed, %s failed, %s s\n' "$name" "$p" "$f" "$((SECONDS - start))"
  return "$code"
}

client() { (cd web && npm run --silent build && npm test --silent); }
# What gates is the same each time; other seeds are for sweeps, and what they find is committed as a test.
rust() { cargo fmt --check && PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20261123} cargo test --locked --no-fail-fast; }
browsers() { (cd tests/e2e && ANTIPHON_BIN=${ANTIPHON_BIN:-$PWD/../../target/debug/antiphon} npm test --silent); }

for name in "${suites[@]}"; do
  case $name in
    client | rust | browsers) suite "$name" "$name" ;;
    *) echo "test.sh: no suite named $name" >&2; exit 2 ;;
  esac
done

echo
[ ${#broken[@]} = 0 ] || echo "failed: ${broken[*]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
