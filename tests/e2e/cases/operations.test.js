/**
 * What operators watch: every figure of the dashboard and the alarms is one that a node has, and Prometheus
 * takes them all.
 *
 * @import { Server } from '../harness/server.js'
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startPrometheus, testRules } from '../harness/prometheus.js';
import { Server as RealServer, TREE } from '../harness/server.js';

const DOCKER = join(TREE, 'docker');
const ALERTS = join(DOCKER, 'prometheus/alerts.yml');
const TESTS = join(DOCKER, 'prometheus/alerts_test.yml');
const DASHBOARD = join(DOCKER, 'grafana/dashboards/antiphon.json');

/** Every query of the dashboard, for all nodes. */
async function queries() {
  const { panels } = JSON.parse(await readFile(DASHBOARD, 'utf8'));
  return panels
    .flatMap((/** @type {any} */ panel) => panel.targets ?? [])
    .map((/** @type {any} */ target) => target.expr.replaceAll('$instance', '.+'));
}

describe('what operators watch', { timeout: 60_000 }, () => {
  /** @type {Server} */ let server;
  /** @type {Awaited<ReturnType<typeof startPrometheus>>} */ let prometheus;

  before(async () => {
    server = await RealServer.start();
    prometheus = await startPrometheus(new URL(server.url).host, ALERTS);
  });

  after(async () => {
    await prometheus?.stop();
    await server?.stop();
  });

  test('dashboard and alarms ask for figures that a node has', async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    const known = new Set([...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name));
    // What has its first sample when somebody joins, streams or lodges here is in the catalogue till then.
    const catalogue = await readFile(join(TREE, 'src/telemetry/catalogue.rs'), 'utf8');
    for (const [, name] of catalogue.matchAll(/"(antiphon_[a-z_]+)",\s+ByOwner/g)) known.add(name);
    const asked = `${(await queries()).join('\n')}\n${await readFile(ALERTS, 'utf8')}`;
    const names = new Set([...asked.matchAll(/antiphon_[a-z_]+/g)].map(([name]) => name));
    assert.ok(names.size > 15, 'the dashboard asks for something');
    for (const name of names)
      assert.ok(known.has(name.replace(/_bucket$/, '')), `${name} is not in /metrics`);
  });

  test('Prometheus understands every query of the dashboard', async () => {
    for (const query of await queries()) {
      const answer = await prometheus.ask(`/query?query=${encodeURIComponent(query)}`);
      assert.equal(answer.status, 'success', `${query}: ${answer.error}`);
    }
    const { data } = await prometheus.ask(
      `/query?query=${encodeURIComponent('sum(antiphon_shard_busy_ratio >= bool 0)')}`,
    );
    assert.ok(Number(data.result[0].value[1]) >= 1, 'each shard tells of itself');
  });

  test('a well node raises no alarm, and each alarm comes when it should', async () => {
    const { data } = await prometheus.ask('/rules');
    const rules = data.groups[0].rules;
    assert.ok(rules.length >= 20);
    const manual = await readFile(join(TREE, 'docs/OPERATIONS.md'), 'utf8');
    const tried = await readFile(TESTS, 'utf8');
    for (const rule of rules) {
      assert.ok(manual.includes(`| \`${rule.name}\` |`), `${rule.name} is explained`);
      assert.ok(tried.includes(`alertname: ${rule.name}\n`), `${rule.name} is tried`);
      assert.equal(rule.health === 'err', false, rule.lastError);
      assert.equal(rule.state, 'inactive', rule.name);
    }
    testRules(TESTS);
  });
});
