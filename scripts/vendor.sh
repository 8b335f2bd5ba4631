#!/usr/bin/env bash
# Makes vendor/dimpl out of the crate as it was published and vendor/dimpl.patch; vendor/README.md says why.
#
#   scripts/vendor.sh          makes vendor/dimpl anew
#   scripts/vendor.sh check    fails where vendor/dimpl is not exactly that
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.9.0
sum=b2c7b707106416bb46237cf25b702975015079fc5fa8791232b639bc4619c2de
# What it takes to build it, and its licences. Its tests want OpenSSL and wolfSSL.
kept=(Cargo.toml LICENSE-APACHE.txt LICENSE-MIT.txt src)

die() { echo "vendor: $*" >&2; exit 1; }
published() {
  local cache=${CARGO_HOME:-$HOME/.cargo}/registry/cache/
  find "$cache" -name "dimpl-$version.crate" -print -quit 2>/dev/null || true
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# This tree's own lock file names the copy, so cargo gets the original for a crate that wants nothing else.
crate=$(published)
if [ -z "$crate" ]; then
  mkdir -p "$work/fetch/src"
  touch "$work/fetch/src/lib.rs"
  cat >"$work/fetch/Cargo.toml" <<TOML
[package]
name = "fetch"
edition = "2024"
[dependencies]
dimpl = { version = "=$version", default-features = false }
TOML
  cargo fetch --quiet --manifest-path "$work/fetch/Cargo.toml"
  crate=$(published)
fi
[ -n "$crate" ] || die "cargo has not got dimpl $version"
[ "$(sha256sum "$crate" | cut -c 1-64)" = "$sum" ] || die "$crate is not what was published as dimpl $version"

mkdir "$work/dimpl"
tar -xzf "$crate" -C "$work/dimpl" --strip-components=1 "${kept[@]/#/dimpl-$version/}"
patch --quiet --directory="$work/dimpl" --strip=1 --no-backup-if-mismatch --fuzz=0 <vendor/dimpl.patch

case ${1:-} in
  check)
    diff -r "$work/dimpl" vendor/dimpl >&2 ||
      die "vendor/dimpl is not dimpl $version with vendor/dimpl.patch; scripts/vendor.sh makes it anew"
    ;;
  "")
    rm -rf vendor/dimpl
    cp -r "$work/dimpl" vendor/dimpl
    ;;
  *) die "usage: scripts/vendor.sh [check]" ;;
esac
