/**
 * Real nodes that are one cluster, on a real Redis and a real Kafka of their own.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BINARY, freePort, Server } from './server.js';
import { until } from './until.js';

const SCRIPTS = resolve(dirname(fileURLToPath(import.meta.url)), '../../../scripts');
const REDIS = join(SCRIPTS, 'redis.sh');
const KAFKA = join(SCRIPTS, 'kafka.sh');
const run = promisify(execFile);

/**
 * Of every node, by `SECTION__KEY`, or of each by its number from 1 on.
 *
 * @typedef {Record<string, string> | ((number: number) => Record<string, string>)} Settings
 */

export class Cluster {
  /** @type {Server[]} */
  nodes = [];
  /** @type {NodeJS.ProcessEnv} */
  #env = {};
  #directory = '';

  /**
   * Starts Redis, Kafka and `count` nodes, and waits until they know each other.
   *
   * @param {number} count
   * @param {Settings} [settings]
   */
  static async start(count, settings = {}) {
    const cluster = new Cluster();
    cluster.#directory = await mkdtemp(join(tmpdir(), 'antiphon-cluster-'));
    const [port, brokers] = await Promise.all([freePort(), freePort()]);
    cluster.#env = {
      ...process.env,
      REDIS_PORT: String(port),
      REDIS_DIR: join(cluster.#directory, 'redis'),
      KAFKA_PORT: String(brokers),
      KAFKA_DIR: join(cluster.#directory, 'kafka'),
    };
    try {
      await cluster.#start(count, port, brokers, settings);
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /**
   * @param {number} count
   * @param {number} port Redis's
   * @param {number} brokers Kafka's
   * @param {Settings} settings
   */
  async #start(count, port, brokers, settings) {
    const options = { env: this.#env };
    await Promise.all([run(REDIS, ['up'], options), run(KAFKA, ['up'], options)]);
    for (let number = 1; number <= count; number += 1) {
      const http = await freePort();
      this.nodes.push(
        await Server.start({
          HTTP__LISTEN: `127.0.0.1:${http}`,
          MEDIA__SHARDS: '1',
          MCU__ENABLED: 'false',
          CLUSTER__REDIS_URL: `redis://127.0.0.1:${port}`,
          CLUSTER__NODE_ID: `node-${number}`,
          CLUSTER__URL: `http://127.0.0.1:${http}`,
          CLUSTER__LEASE_MS: '2000',
          CLUSTER__KAFKA_BROKERS: `127.0.0.1:${brokers}`,
          CLUSTER__KAFKA_PARTITIONS: '2',
          // Each in a region of its own, so that viewers are served where they come.
          CLUSTER__REGION: `region-${number}`,
          CLUSTER__RELAY__KEY: 'a-secret-of-32-bytes-that-all-share',
          CLUSTER__RELAY__LISTEN: `127.0.0.1:${await freePort()}`,
          ...(typeof settings === 'function' ? settings(number) : settings),
        }),
      );
    }
    await this.allKnow();
  }

  /** Waits until all nodes know each other. */
  async allKnow() {
    const wanted = `antiphon_placement_nodes ${this.nodes.length}`;
    await until('all nodes know each other', async () => {
      const texts = this.nodes.map(async (node) => (await fetch(`${node.url}/metrics`)).text());
      return (await Promise.all(texts)).every((text) => text.includes(wanted));
    });
  }

  /**
   * Makes rooms until one lives on this node, and says its name.
   *
   * @param {Server} node
   * @param {Record<string, unknown>} [wish] what else it is to be
   */
  async roomOn(node, wish) {
    const headers = { 'content-type': 'application/json' };
    const options = wish === undefined ? {} : { headers, body: JSON.stringify(wish) };
    for (;;) {
      const answer = await fetch(`${node.url}/v1/rooms`, { method: 'POST', ...options });
      const { name } = await answer.json();
      if (new URL(answer.url).origin === node.url) return String(name);
    }
  }

  /** The node that keeps the ledger, once one does; of two that say so, none. */
  async keeper() {
    return until('one node keeps the ledger', async () => {
      const say = async (/** @type {Server} */ node) => {
        const within = { signal: AbortSignal.timeout(2000) };
        const answer = await fetch(`${node.url}/metrics`, within).catch(() => undefined);
        return /^antiphon_ledger_keeper 1$/m.test((await answer?.text()) ?? '') ? node : undefined;
      };
      const keepers = (await Promise.all(this.nodes.map(say))).filter((node) => node !== undefined);
      return keepers.length === 1 && keepers[0];
    });
  }

  /** Kafka hangs: it is there and answers nothing. */
  async freezeLog() {
    await run(KAFKA, ['freeze'], { env: this.#env });
  }

  async thawLog() {
    await run(KAFKA, ['thaw'], { env: this.#env });
  }

  /** Has the shared log audited: what must not be in it, in words, and what counted for nobody. */
  async audit() {
    const env = {
      ...process.env,
      ANTIPHON_CLUSTER__REDIS_URL: `redis://127.0.0.1:${this.#env.REDIS_PORT}`,
      ANTIPHON_CLUSTER__NODE_ID: 'operator',
      ANTIPHON_CLUSTER__URL: 'http://127.0.0.1:1',
      ANTIPHON_AUTH__GUESTS: 'true',
      ANTIPHON_CLUSTER__KAFKA_BROKERS: `127.0.0.1:${this.#env.KAFKA_PORT}`,
    };
    const { stdout } = await run(BINARY, ['events', 'verify'], { env });
    return JSON.parse(stdout);
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.stop()));
    const options = { env: this.#env };
    await Promise.all([run(REDIS, ['kill9'], options), run(KAFKA, ['kill9'], options)]);
    await rm(this.#directory, { recursive: true, force: true });
  }
}
