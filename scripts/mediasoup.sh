#!/usr/bin/env bash
# Builds the worker of the mediasoup server that `make bench-peers` compares with, from the sources in its npm
# package, into target/mediasoup, and prints where it is. Takes some minutes, once.
#
# The package's own build fetches archives of the libraries that the worker uses. Here they are Debian's, by
# the wrappers in benches/peers/mediasoup/subprojects; only libsrtp is compiled, from Debian's sources, as
# Debian's package of it is not on OpenSSL. `scripts/setup.sh peers` installs what is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH"

say() { echo "mediasoup: $*" >&2; }
die() { say "$*"; exit 1; }

here=benches/peers/mediasoup
out=$PWD/target/mediasoup
worker=$out/mediasoup-worker
# Optimized as the package's own build has it.
settings=(--buildtype release -Db_ndebug=true --wrap-mode nodownload)
suite=trixie
libsrtp=libsrtp2_2.7.0.orig.tar.gz
libsrtp_sha256=54facb1727a557c2a76b91194dcb2d0a453aaf8e2d0cbbf1e3c2848c323e28ad

# ------------------------------------------------------------------------------- what there is, and must be
wanted=$({
  echo "${settings[@]}" $libsrtp_sha256
  find $here/package-lock.json $here/subprojects -type f | sort | xargs cat
} | sha256sum)
built=$(cat "$out/built" 2>/dev/null || true)
if [ "$built" = "$wanted" ] && [ -x "$worker" ] && [ -d $here/node_modules/mediasoup ]; then
  echo "$worker"
  exit 0
fi

for command in node npm c++ ninja flatc pkg-config apt-get; do
  command -v "$command" >/dev/null || die "$command is needed"
done
for library in openssl libuv usrsctp flatbuffers absl_flat_hash_map liburing; do
  pkg-config --exists "$library" || die "the headers of $library are needed"
done
meson=.tools/venv/bin/meson
[ -x $meson ] || meson=$(command -v meson) || die "meson is needed"

# -------------------------------------------------------------------------------------------------- sources
say "fetching what it is built from"
# Not its scripts: they would fetch or build a worker of their own.
(cd $here && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >&2) ||
  die "the npm package cannot be had"

# fetch_libsrtp: its archive from a Debian that has it, without a change to this machine's list of sources.
fetch_libsrtp() {
  local apt=$out/apt options
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
    "http://deb.debian.org/debian $suite main" >"$apt/sources.list"
  options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=$(id -un)")
  apt-get "${options[@]}" update >&2 || return
  (cd "$out" && apt-get "${options[@]}" source --tar-only libsrtp2 >&2)
}

is_libsrtp() { echo "$libsrtp_sha256  $out/$libsrtp" | sha256sum --check --status 2>/dev/null; }

mkdir -p "$out"
is_libsrtp || fetch_libsrtp || die "Debian's sources of libsrtp cannot be had"
is_libsrtp || die "$out/$libsrtp is not what was expected"

rm -rf "$out/source" "$out/build" "$out/built"
cp -r $here/node_modules/mediasoup/worker "$out/source"
rm -rf "$out/source/subprojects"
cp -r $here/subprojects "$out/source/subprojects"
mkdir "$out/source/subprojects/libsrtp2"
tar -xzf "$out/$libsrtp" -C "$out/source/subprojects/libsrtp2" --strip-components=1

# A callback of the worker's answers 1 to whatever OpenSSL asks of its memory BIO, also to whether the kernel does
# TLS there. An OpenSSL that can have it, as Debian's, would write without a buffer; the worker's own cannot.
dtls=$out/source/src/RTC/DtlsTransport.cpp
sed -i 's/(operationType == BIO_CB_RETURN)/((operationType \& BIO_CB_RETURN) != 0)/' "$dtls"
grep -q 'operationType & BIO_CB_RETURN' "$dtls" || die "$dtls is not as it was"

# ---------------------------------------------------------------------------------------------------- build
say "building the worker"
build() {
  $meson setup "${settings[@]}" "$out/build" "$out/source" || return
  # Nothing makes the other targets wait for what this one writes.
  $meson compile -C "$out/build" flatbuffers-generator || return
  $meson compile -C "$out/build" mediasoup-worker
}
if ! build >"$out/build.log" 2>&1; then
  tail -n 30 "$out/build.log" >&2
  die "the build failed, see $out/build.log"
fi
cp "$out/build/mediasoup-worker" "$worker"
echo "$wanted" >"$out/built"
echo "$worker"
