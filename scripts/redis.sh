#!/usr/bin/env bash
# A real Redis for tests and `make up`: Debian's redis-server on 127.0.0.1, with its data in a directory of its own.
#
#   redis.sh up       start it, and wait until it answers; nothing to do if it runs
#   redis.sh status   its process id
#   redis.sh freeze   SIGSTOP: a server that hangs      redis.sh thaw    SIGCONT
#   redis.sh empty    FLUSHALL: what it knew is gone
#   redis.sh down     SIGTERM                           redis.sh kill9   SIGKILL: a crash
#   redis.sh wipe     down, and delete its data
#
# Settings: REDIS_PORT (6390), REDIS_DIR (the directory; default data/redis), REDIS_SAVE ("no" keeps nothing on disk),
# REDIS_EXTRA (more of redis-server's options).
set -euo pipefail

port=${REDIS_PORT:-6390}
dir=${REDIS_DIR:-data/redis}
pid_file=$dir/redis.pid
log=$dir/redis.log

say() { echo "redis: $*" >&2; }
die() { say "$*"; exit 1; }
# A zombie does not count.
runs() { [ -r "/proc/$1/status" ] && ! grep -q '^State:.*Z' "/proc/$1/status"; }
alive() { [ -s "$pid_file" ] && runs "$(cat "$pid_file")"; }
ask() { redis-cli -h 127.0.0.1 -p "$port" "$@"; }

up() {
  if alive; then return; fi
  command -v redis-server >/dev/null || die "there is no redis-server; scripts/setup.sh test installs it"
  mkdir -p "$dir"
  local keep=(--appendonly yes)
  [ "${REDIS_SAVE:-yes}" = yes ] || keep=(--appendonly no --save "")
  local extra=()
  read -r -a extra <<<"${REDIS_EXTRA:-}"
  setsid redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --daemonize no \
    --logfile "" "${keep[@]}" "${extra[@]}" >"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
  for _ in $(seq 1 200); do
    alive || { tail -n 5 "$log" >&2; die "it stopped while starting"; }
    if [ "$(ask ping 2>/dev/null)" = PONG ]; then return; fi
    sleep 0.05
  done
  die "no answer after 10 s; see $log"
}

stop_with() {
  alive || { rm -f "$pid_file"; return 0; }
  local pid
  pid=$(cat "$pid_file")
  kill -CONT "$pid"
  kill "-$1" "$pid"
  for _ in $(seq 1 200); do
    runs "$pid" || { rm -f "$pid_file"; return 0; }
    sleep 0.05
  done
  die "process $pid is still there 10 s after SIG$1"
}

case ${1:-} in
  up) up ;;
  status) alive && cat "$pid_file" ;;
  freeze) alive && kill -STOP "$(cat "$pid_file")" ;;
  thaw) alive && kill -CONT "$(cat "$pid_file")" ;;
  empty) ask flushall >/dev/null ;;
  down) stop_with TERM ;;
  kill9) stop_with KILL ;;
  wipe) stop_with TERM; rm -rf "$dir" ;;
  *) sed -n '2,12p' "$0" >&2; exit 2 ;;
esac
