#!/usr/bin/env bash
# Checks form: rustfmt, clippy, the copy of dimpl, the dependencies' licences and advisories, the client's types
# and lint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { echo "== $*"; }

step "rustfmt"
cargo fmt --check
step "clippy"
mkdir -p web/dist
cargo clippy --locked --all-targets --quiet -- -D warnings
step "the copy of dimpl"
scripts/vendor.sh check
step "licences, sources and duplicates of the dependencies"
cargo deny --log-level error --config .ci/deny.toml check bans licenses sources
step "advisories about the dependencies"
# The advisory database lives in a git repository of its own. Without a way there nothing can be said; an
# advisory that is found is an error.
if timeout 20 curl -fsS -o /dev/null https://github.com/rustsec/advisory-db 2>/dev/null; then
  cargo deny --log-level error --config .ci/deny.toml check advisories
else
  echo "skipped: the advisory database cannot be reached from here"
fi
for folder in web tests/e2e; do
  step "types and lint of $folder"
  (cd "$folder" && npm run --silent check)
done
echo "check: all well"
