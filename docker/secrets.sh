#!/usr/bin/env bash
# Prints secrets for docker/compose.yaml, new ones each time:
#
#   docker/secrets.sh >docker/.env && docker compose --env-file docker/.env -f docker/compose.yaml up --build
set -euo pipefail
umask 077
secret() { head -c 32 /dev/urandom | base64 | tr -d '=+/\n'; }
echo "ANTIPHON_KEY=$(secret)"
echo "TURN_SECRET=$(secret)"
echo "RELAY_KEY=$(secret)"
echo "GRAFANA_PASSWORD=$(secret)"
