#!/usr/bin/env bash
# A real Kafka for tests and `make up`: one broker (KRaft, its own controller) on 127.0.0.1, its jars from Maven Central.
#
#   kafka.sh fetch    bring the jars, once, into .tools/
#   kafka.sh up       start it, and wait until it serves; nothing to do if it runs
#   kafka.sh status   its process id
#   kafka.sh freeze   SIGSTOP: a broker that hangs      kafka.sh thaw    SIGCONT
#   kafka.sh down     SIGTERM                           kafka.sh kill9   SIGKILL: a crash
#   kafka.sh wipe     down, and delete its data
#
# Settings: KAFKA_PORT (9092; the controller has the next one), KAFKA_DIR (default data/kafka), KAFKA_HEAP (256m).
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

version=4.4.0
jars=${KAFKA_JARS:-$tree/.tools/kafka-$version}
port=${KAFKA_PORT:-9092}
dir=${KAFKA_DIR:-data/kafka}
heap=${KAFKA_HEAP:-256m}
pid_file=$dir/kafka.pid
log=$dir/kafka.log

say() { echo "kafka: $*" >&2; }
die() { say "$*"; exit 1; }
# A zombie does not count.
runs() { [ -r "/proc/$1/status" ] && ! grep -q '^State:.*Z' "/proc/$1/status"; }
alive() { [ -s "$pid_file" ] && runs "$(cat "$pid_file")"; }

fetch() {
  [ -f "$jars/.complete" ] && return
  command -v mvn >/dev/null || die "there is no mvn; scripts/setup.sh test installs it"
  say "fetching Kafka $version from Maven Central"
  local work
  work=$(mktemp -d)
  cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>antiphon</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  mkdir -p "$jars"
  mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars" >&2 ||
    die "mvn could not fetch Kafka $version"
  touch "$jars/.complete"
  rm -r "$work"
}

format() {
  mkdir -p "$dir/data"
  cat >"$dir/kafka.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=16777216
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
PROPERTIES
  [ -f "$dir/data/meta.properties" ] && return
  local id
  # Letters and digits alone: one that began with '-' would be taken for an option.
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c 1-22)
  java -Xmx96m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" kafka.tools.StorageTool \
    format -t "$id" -c "$dir/kafka.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; return 1; }
}

up() {
  if alive; then return; fi
  command -v java >/dev/null || die "there is no java; scripts/setup.sh test installs it"
  fetch
  format
  : >"$log"
  setsid java -Xms64m "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=info -cp "$jars/*" kafka.Kafka "$dir/kafka.properties" \
    >"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
  for _ in $(seq 1 900); do
    alive || { tail -n 20 "$log" >&2; die "it stopped while starting"; }
    if grep -q 'Kafka Server started' "$log"; then return; fi
    sleep 0.1
  done
  die "not up after 90 s; see $log"
}

stop_with() {
  alive || { rm -f "$pid_file"; return 0; }
  local pid
  pid=$(cat "$pid_file")
  kill -CONT "$pid"
  kill "-$1" "$pid"
  for _ in $(seq 1 300); do
    runs "$pid" || { rm -f "$pid_file"; return 0; }
    sleep 0.1
  done
  die "process $pid is still there 30 s after SIG$1"
}

case ${1:-} in
  fetch) fetch ;;
  up) up ;;
  status) alive && cat "$pid_file" ;;
  freeze) alive && kill -STOP "$(cat "$pid_file")" ;;
  thaw) alive && kill -CONT "$(cat "$pid_file")" ;;
  down) stop_with TERM ;;
  kill9) stop_with KILL ;;
  wipe) stop_with TERM; rm -rf "$dir" ;;
  *) sed -n '2,11p' "$0" >&2; exit 2 ;;
esac
