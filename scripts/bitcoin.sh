#!/usr/bin/env bash
# Real Bitcoin and Lightning nodes on this machine's loopback, with worthless money (regtest): for tests and for
# trying out rooms that cost something. Can be repeated; installs nothing system-wide.
#
#   scripts/bitcoin.sh chain             a Bitcoin node, with a payer's wallet that has money
#   scripts/bitcoin.sh up                the same, two Lightning nodes, and a channel from the viewer to the owner
#   scripts/bitcoin.sh down              ends what this script started
#   scripts/bitcoin.sh stop NAME | crash NAME | start NAME      one of chain, viewer, owner: for outages
#   scripts/bitcoin.sh env               the settings for antiphon, one a line
#
#   mine N | send ADDRESS SATS | doublespend ADDRESS SATS | replace TXID | reorg N | height |
#   received ADDRESS                     on-chain
#   pay BOLT11 | invoices                the viewer pays by Lightning; what the owner's node was paid
#   cli METHOD...                        the Bitcoin node's own client
#
# The Bitcoin node is Debian's bitcoin-knots, unpacked with its libraries (seconds). Lightning is lnd, built from its
# Go module: some ten minutes the first time.
# ANTIPHON_BITCOIN_BIN keeps programs (~/.cache/antiphon-bitcoin), ANTIPHON_BITCOIN_DIR one net's data
# (/tmp/antiphon-bitcoin), ANTIPHON_BITCOIN_PORT the first of thirty ports (28500).
set -euo pipefail

BIN=${ANTIPHON_BITCOIN_BIN:-$HOME/.cache/antiphon-bitcoin}
DIR=${ANTIPHON_BITCOIN_DIR:-/tmp/antiphon-bitcoin}
PORT=${ANTIPHON_BITCOIN_PORT:-28500}
LND_VERSION=v0.20.1-beta
USER_NAME=antiphon PASSWORD=loopback
CHANNEL_SATS=5000000
NOBODY=mfcGAzvis9JQAb6avB6WBGiGrgWzLxuGaC

say() { echo "bitcoin: $*" >&2; }
die() { echo "bitcoin: $*" >&2; exit 1; }
# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || die "not within time: $what"
    read -rt 0.2 <> <(:) || :
  done
}

# ---------------------------------------------------------------------------------------------- programs
get_chain() {
  [ -x "$BIN/bitcoind" ] && [ -x "$BIN/bitcoin-cli" ] && return
  say "unpacking a Bitcoin node into $BIN"
  local apt=$BIN/apt root=$BIN/root mirror options deb program libraries
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/*$') || die "no Debian mirror is configured"
  printf "deb $mirror %s main\n" trixie trixie-backports >"$apt/sources.list"
  options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq >&2
  (cd "$apt" && apt-get "${options[@]}" download -qq bitcoin-knots libc6 libstdc++6 libgcc-s1 \
    libevent-core-2.1-7t64 libevent-extra-2.1-7t64 libevent-pthreads-2.1-7t64 libzmq5 libsqlite3-0 libsodium23 \
    libpgm-5.3-0t64 libnorm1t64 libgssapi-krb5-2 libbsd0 libmd0 libkrb5-3 libk5crypto3 libcom-err2 \
    libkrb5support0 libkeyutils1 >&2)
  for deb in "$apt"/*.deb; do dpkg-deb -x "$deb" "$root"; done
  libraries=$(dirname "$(find "$root/usr/lib" -name 'libc.so.6' | head -n 1)")
  for program in bitcoind bitcoin-cli; do
    printf '#!/bin/sh\nexec %q --library-path %q %q "$@"\n' \
      "$(find "$libraries" -name 'ld-linux*' | head -n 1)" "$libraries" "$root/usr/bin/$program" >"$BIN/$program"
    chmod +x "$BIN/$program"
  done
  rm -rf "$apt"
}

get_lnd() {
  [ -x "$BIN/lnd" ] && return
  command -v go >/dev/null || die "lnd is built with Go 1.24 or newer: install it"
  say "building lnd $LND_VERSION: ten minutes or so, once"
  local work
  work=$(mktemp -d)
  # lnd's module replaces three others, so it cannot be installed by name: a module of our own names it as a tool and
  # repeats the replacements. They belong to LND_VERSION.
  (
    cd "$work"
    go mod init antiphon.local/lnd
    go mod edit -replace github.com/ulikunitz/xz=github.com/ulikunitz/xz@v0.5.11 \
      -replace github.com/gogo/protobuf=github.com/gogo/protobuf@v1.3.2 \
      -replace google.golang.org/protobuf=github.com/lightninglabs/protobuf-go-hex-display@v1.33.0-hex-display
    go get -tool "github.com/lightningnetwork/lnd/cmd/lnd@$LND_VERSION"
    go build -trimpath -ldflags='-s -w' -tags 'invoicesrpc walletrpc chainrpc signrpc' -o "$BIN/" \
      github.com/lightningnetwork/lnd/cmd/lnd
  ) >&2
  chmod -R u+w "$work" && rm -rf "$work"
}

# ------------------------------------------------------------------------------------------------- chain
cli() {
  "$BIN/bitcoin-cli" "-datadir=$DIR/chain" -regtest "-rpcport=$((PORT + 1))" -rpcuser=$USER_NAME -rpcpassword=$PASSWORD "$@"
}
payer() { cli -rpcwallet=payer "$@"; }

start_chain() {
  mkdir -p "$DIR/chain"
  nohup "$BIN/bitcoind" "-datadir=$DIR/chain" -regtest -server -txindex -fallbackfee=0.00001 \
    -rpcuser=$USER_NAME -rpcpassword=$PASSWORD "-rpcport=$((PORT + 1))" -rpcbind=127.0.0.1 -rpcallowip=127.0.0.1 \
    "-bind=127.0.0.1:$PORT" -dnsseed=0 -listenonion=0 -natpmp=0 -upnp=0 -persistmempool=1 \
    "-zmqpubrawblock=tcp://127.0.0.1:$((PORT + 2))" "-zmqpubrawtx=tcp://127.0.0.1:$((PORT + 3))" \
    >>"$DIR/chain.out" 2>&1 &
  echo $! >"$DIR/chain.pid"
  wait_for 60 "the Bitcoin node" cli getblockcount
}

chain() {
  get_chain
  [ -e "$DIR" ] && [ ! -e "$DIR/.antiphon-bitcoin" ] && die "$DIR is not a net of this script"
  rm -rf "$DIR"
  mkdir -p "$DIR"
  touch "$DIR/.antiphon-bitcoin"
  start_chain
  cli -named createwallet wallet_name=payer load_on_startup=true >/dev/null
  # Coins of a block can be spent a hundred blocks later.
  cli generatetoaddress 110 "$(payer getnewaddress)" >/dev/null
  write_env
}

write_env() {
  {
    echo "ANTIPHON_PAYMENTS__NETWORK=regtest"
    echo "ANTIPHON_PAYMENTS__BITCOIND__URL=http://127.0.0.1:$((PORT + 1))"
    echo "ANTIPHON_PAYMENTS__BITCOIND__USER=$USER_NAME"
    echo "ANTIPHON_PAYMENTS__BITCOIND__PASSWORD=$PASSWORD"
    if [ -f "$DIR/owner/server.macaroon.hex" ]; then
      echo "ANTIPHON_PAYMENTS__LND__URL=https://127.0.0.1:$(($(base owner) + 2))"
      echo "ANTIPHON_PAYMENTS__LND__CERT_FILE=$DIR/owner/tls.cert"
      echo "ANTIPHON_PAYMENTS__LND__MACAROON=$(cat "$DIR/owner/server.macaroon.hex")"
    fi
  } >"$DIR/env"
}

mine() { cli generatetoaddress "$1" "$(payer getnewaddress)" >/dev/null; }
btc() { printf '%d.%08d' $(($1 / 100000000)) $(($1 % 100000000)); }
# Two who pay at one time do not spend the same coin.
send() { flock "$DIR/chain.pid" "$BIN/bitcoin-cli" "-datadir=$DIR/chain" -regtest "-rpcport=$((PORT + 1))" \
  -rpcuser=$USER_NAME -rpcpassword=$PASSWORD -rpcwallet=payer sendtoaddress "$1" "$(btc "$2")"; }

# replace TXID: takes the coins of an unconfirmed payment back to the payer, by a transaction with a higher fee.
replace() {
  local raw back inputs total replacement
  raw=$(payer gettransaction "$1" true true)
  back=$(payer getnewaddress)
  inputs=$(jq -c '[.decoded.vin[] | {txid, vout, sequence: 4294967293}]' <<<"$raw")
  total=$(jq '[.decoded.vout[].value] | add' <<<"$raw")
  replacement=$(payer createrawtransaction "$inputs" "[{\"$back\":$(awk "BEGIN{printf \"%.8f\", $total - 0.0005}")}]")
  cli sendrawtransaction "$(payer signrawtransactionwithwallet "$replacement" | jq -r .hex)"
}

# doublespend ADDRESS SATS: pays, then replaces that by a payment to the payer itself; prints both transactions.
doublespend() {
  local first
  first=$(send "$1" "$2")
  echo "$first"
  replace "$first"
}

# reorg N: drops the last N blocks and builds N + 1 empty ones, so that their payments are in no block any more.
reorg() {
  local i
  cli invalidateblock "$(cli getblockhash $(($(cli getblockcount) - $1 + 1)))" >/dev/null
  for ((i = 0; i <= $1; i++)); do cli generateblock $NOBODY '[]' >/dev/null; done
}

# received ADDRESS: what its outputs hold by the chain's own set of unspent outputs, in satoshis, with one block.
received() { cli scantxoutset start "[\"addr($1)\"]" | jq '.total_amount * 100000000 | round'; }

# --------------------------------------------------------------------------------------------- lightning
base() { [ "$1" = viewer ] && echo $((PORT + 10)) || echo $((PORT + 20)); }

# rest NODE METHOD PATH [CURL ARGUMENTS]
rest() {
  local node=$1 method=$2 path=$3
  shift 3
  curl -sS --max-time 60 --cacert "$DIR/$node/tls.cert" -X "$method" \
    -H "Grpc-Metadata-macaroon: $(xxd -p -c 4096 "$DIR/$node/data/chain/bitcoin/regtest/admin.macaroon")" \
    "https://127.0.0.1:$(($(base "$node") + 2))$path" "$@"
}
open_rest() { curl -sS --cacert "$DIR/$1/tls.cert" "https://127.0.0.1:$(($(base "$1") + 2))$2" "${@:3}"; }
state_is() { [ "$(open_rest "$1" /v1/state | jq -r .state)" = "$2" ]; }

run_lnd() {
  local at
  at=$(base "$1")
  mkdir -p "$DIR/$1"
  nohup "$BIN/lnd" "--lnddir=$DIR/$1" --configfile=/dev/null --bitcoin.regtest --bitcoin.node=bitcoind \
    "--bitcoind.rpchost=127.0.0.1:$((PORT + 1))" --bitcoind.rpcuser=$USER_NAME --bitcoind.rpcpass=$PASSWORD \
    "--bitcoind.zmqpubrawblock=tcp://127.0.0.1:$((PORT + 2))" "--bitcoind.zmqpubrawtx=tcp://127.0.0.1:$((PORT + 3))" \
    --nobootstrap "--listen=127.0.0.1:$at" "--rpclisten=127.0.0.1:$((at + 1))" "--restlisten=127.0.0.1:$((at + 2))" \
    --tlsextraip=127.0.0.1 --trickledelay=50 >>"$DIR/$1.out" 2>&1 &
  echo $! >"$DIR/$1.pid"
}
secret() { printf '%s' loopback-only | base64; }

new_lnd() {
  run_lnd "$1"
  wait_for 60 "$1 to listen" state_is "$1" NON_EXISTING
  local wish
  wish=$(open_rest "$1" /v1/genseed | jq --arg p "$(secret)" '{wallet_password: $p, cipher_seed_mnemonic}')
  open_rest "$1" /v1/initwallet -d "$wish" | jq -e .admin_macaroon >/dev/null || die "$1 refused its wallet"
}
start_lnd() {
  run_lnd "$1"
  wait_for 60 "$1 to listen" state_is "$1" LOCKED
  open_rest "$1" /v1/unlockwallet -d "{\"wallet_password\":\"$(secret)\"}" >/dev/null
  wait_for 90 "$1" state_is "$1" SERVER_ACTIVE
}
at_tip() { rest "$1" GET /v1/getinfo | jq -e --argjson h "$(cli getblockcount)" '.block_height == $h and .synced_to_chain'; }
funded() { rest viewer GET /v1/balance/blockchain | jq -e '(.confirmed_balance | tonumber) > 10000000'; }
peered() { rest viewer GET /v1/peers | jq -e '.peers | length > 0'; }
# Before the viewer's graph has the channel's both sides, a payment fails for want of balance.
usable() {
  rest viewer GET '/v1/channels?active_only=true' | jq -e '.channels | length > 0' &&
    rest viewer GET '/v1/graph?include_unannounced=true' | jq -e '.edges[0].node1_policy and .edges[0].node2_policy'
}

up() {
  get_lnd
  chain
  new_lnd viewer
  new_lnd owner
  wait_for 90 viewer state_is viewer SERVER_ACTIVE
  wait_for 90 owner state_is owner SERVER_ACTIVE
  send "$(rest viewer GET '/v1/newaddress?type=WITNESS_PUBKEY_HASH' | jq -r .address)" 50000000 >/dev/null
  mine 6
  wait_for 60 "the viewer's node to sync" at_tip viewer
  wait_for 60 "the owner's node to sync" at_tip owner
  wait_for 60 "the viewer's coins" funded
  local key
  key=$(rest owner GET /v1/getinfo | jq -r .identity_pubkey)
  rest viewer POST /v1/peers -d "{\"addr\":{\"pubkey\":\"$key\",\"host\":\"127.0.0.1:$(base owner)\"}}" >/dev/null
  wait_for 30 "the peer" peered
  rest viewer POST /v1/channels -d "{\"node_pubkey\":\"$(xxd -r -p <<<"$key" | base64 -w0)\",
    \"local_funding_amount\":\"$CHANNEL_SATS\"}" | jq -e .funding_txid_bytes >/dev/null || die "no channel"
  mine 6
  wait_for 60 "the channel" usable
  bake /lnrpc.Lightning/AddInvoice /invoicesrpc.Invoices/LookupInvoiceV2 /lnrpc.Lightning/SubscribeInvoices \
    /invoicesrpc.Invoices/CancelInvoice >"$DIR/owner/server.macaroon.hex"
  write_env
}

# bake CALL...: a macaroon of the owner's node for these calls, in hex.
bake() {
  local permissions
  permissions=$(printf '%s\n' "$@" | jq -R '{entity: "uri", action: .}' | jq -s '{permissions: .}')
  rest owner POST /v1/macaroon -d "$permissions" | jq -r .macaroon
}
pay() {
  rest viewer POST /v2/router/send -d "{\"payment_request\":\"$1\",\"timeout_seconds\":20,\"fee_limit_sat\":\"100\",
    \"no_inflight_updates\":true}" | tail -n 1 | jq -r 'if .result.status == "SUCCEEDED" then .result.payment_preimage
      else .error.message // .result.failure_reason // "failed" end'
}
# What the owner's node says it was paid: one line each, HASH MSAT.
invoices() {
  rest owner GET '/v1/invoices?num_max_invoices=10000' |
    jq -r '.invoices[] | select(.state == "SETTLED") | "\(.r_hash) \(.amt_paid_msat)"'
}

# -------------------------------------------------------------------------------------------------- life
stop() { # ends only the process that this script started
  local file=$DIR/$1.pid pid
  [ -f "$file" ] || return 0
  pid=$(cat "$file")
  kill "$pid" 2>/dev/null || :
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    read -rt 0.1 <> <(:) || :
  done
  kill -9 "$pid" 2>/dev/null || :
  rm -f "$file"
}
# crash NAME: SIGKILL.
crash() {
  # No other node has this chain: without what it holds in memory it would come back without its last blocks.
  [ "$1" != chain ] || cli gettxoutsetinfo none >/dev/null
  kill -9 "$(cat "$DIR/$1.pid")"
  rm "$DIR/$1.pid"
}
start() { if [ "$1" = chain ]; then start_chain; else start_lnd "$1"; fi; }
down() { stop viewer; stop owner; stop chain; }

case ${1:-} in
  chain | up)
    # A net that does not come up is taken down again.
    trap down EXIT
    "$1"
    trap - EXIT
    say "up; settings are in $DIR/env"
    ;;
  get-chain) get_chain ;;
  get) get_chain; get_lnd ;;
  env) cat "$DIR/env" ;;
  height) cli getblockcount ;;
  down | stop | crash | start | mine | send | doublespend | replace | reorg | received | pay | invoices | bake | rest | cli) "$@" ;;
  *) sed -n '2,22p' "$0"; exit 2 ;;
esac
