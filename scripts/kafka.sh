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
# Settings: KAFKA_PORT (9092; the controller has the next one), KAFKA_HOST (127.0.0.1: where it listens, by its address),
# KAFKA_DIR (default data/kafka), KAFKA_HEAP (256m), KAFKA_CONTROLLER ("apart" gives the controller a process of its own:
# it goes on while the broker is frozen, and takes its partitions' leader from them), KAFKA_PROTOCOL (PLAINTEXT; SASL_SSL
# needs KAFKA_KEYSTORE, a PEM file with a key and its certificate for KAFKA_HOST, KAFKA_CA, the authority that signed it, and
# KAFKA_USER with KAFKA_PASSWORD, who may come in by SCRAM or PLAIN).
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

version=4.4.0
jars=${KAFKA_JARS:-$tree/.tools/kafka-$version}
port=${KAFKA_PORT:-9092}
host=${KAFKA_HOST:-127.0.0.1}
dir=${KAFKA_DIR:-data/kafka}
heap=${KAFKA_HEAP:-256m}
pid_file=$dir/kafka.pid
log=$dir/kafka.log
protocol=${KAFKA_PROTOCOL:-PLAINTEXT}
apart=
[ "${KAFKA_CONTROLLER:-}" != apart ] || apart=yes
controller_pid_file=$dir/controller.pid

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

# common FILE NODE: what both processes are told.
common() {
  local controller=1
  [ -z "$apart" ] || controller=2
  cat >"$1" <<PROPERTIES
node.id=$2
controller.quorum.voters=$controller@127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
PROPERTIES
}

# The broker's part: who may come in, and how.
listener() {
  cat <<PROPERTIES
advertised.listeners=$protocol://$host:$port
inter.broker.listener.name=$protocol
listener.security.protocol.map=$protocol:$protocol,CONTROLLER:PLAINTEXT
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
PROPERTIES
  [ "$protocol" = SASL_SSL ] || return 0
  local name=${protocol,,} module=org.apache.kafka.common.security
  cat <<PROPERTIES
ssl.keystore.type=PEM
ssl.keystore.location=${KAFKA_KEYSTORE:?a PEM file with a key and its certificate}
ssl.truststore.type=PEM
ssl.truststore.location=${KAFKA_CA:?a PEM file with the authority that signed it}
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.$name.plain.sasl.jaas.config=$module.plain.PlainLoginModule required \
  username="${KAFKA_USER:?}" password="${KAFKA_PASSWORD:?}" user_$KAFKA_USER="$KAFKA_PASSWORD";
listener.name.$name.scram-sha-256.sasl.jaas.config=$module.scram.ScramLoginModule required;
listener.name.$name.scram-sha-512.sasl.jaas.config=$module.scram.ScramLoginModule required;
PROPERTIES
}

storage() {
  java -Xmx96m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" kafka.tools.StorageTool "$@" \
    >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; return 1; }
}

format() {
  mkdir -p "$dir/data"
  common "$dir/kafka.properties" 1
  {
    listener
    echo "log.dirs=$dir/data"
    if [ -n "$apart" ]; then
      printf 'process.roles=broker\nlisteners=%s\n' "$protocol://$host:$port"
    else
      printf 'process.roles=broker,controller\nlisteners=%s\n' \
        "$protocol://$host:$port,CONTROLLER://127.0.0.1:$((port + 1))"
    fi
  } >>"$dir/kafka.properties"
  if [ -n "$apart" ]; then
    mkdir -p "$dir/controller"
    common "$dir/controller.properties" 2
    cat >>"$dir/controller.properties" <<PROPERTIES
process.roles=controller
listeners=CONTROLLER://127.0.0.1:$((port + 1))
listener.security.protocol.map=$protocol:$protocol,CONTROLLER:PLAINTEXT
log.dirs=$dir/controller
PROPERTIES
  fi
  [ -f "$dir/data/meta.properties" ] && return
  local id user=()
  # Letters and digits alone: one that began with '-' would be taken for an option.
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c 1-22)
  [ "$protocol" != SASL_SSL ] || user=(--add-scram "SCRAM-SHA-256=[name=$KAFKA_USER,password=$KAFKA_PASSWORD]"
    --add-scram "SCRAM-SHA-512=[name=$KAFKA_USER,password=$KAFKA_PASSWORD]")
  storage format -t "$id" -c "$dir/kafka.properties" "${user[@]}"
  [ -z "$apart" ] || storage format -t "$id" -c "$dir/controller.properties"
}

# run NAME HEAP: starts a process of Kafka, by NAME.properties.
run() {
  setsid java -Xms64m "-Xmx$2" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=info -cp "$jars/*" kafka.Kafka "$dir/$1.properties" \
    >"$dir/$1.log" 2>&1 </dev/null &
  echo $! >"$dir/$1.pid"
}

up() {
  if alive; then return; fi
  command -v java >/dev/null || die "there is no java; scripts/setup.sh test installs it"
  fetch
  format
  : >"$log"
  [ -z "$apart" ] || run controller 96m
  run kafka "$heap"
  for _ in $(seq 1 900); do
    alive || { tail -n 20 "$log" >&2; die "it stopped while starting"; }
    if grep -q 'Kafka Server started' "$log"; then return; fi
    sleep 0.1
  done
  die "not up after 90 s; see $log"
}

# stop_with SIGNAL PID_FILE
stop_with() {
  local pid
  { [ -s "$2" ] && pid=$(cat "$2") && runs "$pid"; } || { rm -f "$2"; return 0; }
  kill -CONT "$pid"
  kill "-$1" "$pid"
  for _ in $(seq 1 300); do
    runs "$pid" || { rm -f "$2"; return 0; }
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
  down) stop_with TERM "$pid_file"; stop_with TERM "$controller_pid_file" ;;
  kill9) stop_with KILL "$pid_file"; stop_with KILL "$controller_pid_file" ;;
  wipe) stop_with TERM "$pid_file"; stop_with TERM "$controller_pid_file"; rm -rf "$dir" ;;
  *) sed -n '2,16p' "$0" >&2; exit 2 ;;
esac
