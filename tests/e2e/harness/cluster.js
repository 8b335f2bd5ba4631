/**
 * Real nodes that are one cluster, on a real Redis and a real Kafka of their own.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort, Server } from './server.js';
import { until } from './until.js';

const SCRIPTS = resolve(dirname(fileURLToPath(import.meta.url)), '../../../scripts');
const REDIS = join(SCRIPTS, 'redis.sh');
const KAFKA = join(SCRIPTS, 'kafka.sh');
const run = promisify(execFile);

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
   */
  static async start(count) {
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
      await cluster.#start(count, port, brokers);
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
   */
  async #start(count, port, brokers) {
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
        }),
      );
    }
    await this.#allKnow();
  }

  async #allKnow() {
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
   */
  async roomOn(node) {
    for (;;) {
      const answer = await fetch(`${node.url}/v1/rooms`, { method: 'POST' });
      const { name } = await answer.json();
      if (new URL(answer.url).origin === node.url) return String(name);
    }
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.stop()));
    const options = { env: this.#env };
    await Promise.all([run(REDIS, ['kill9'], options), run(KAFKA, ['kill9'], options)]);
    await rm(this.#directory, { recursive: true, force: true });
  }
}
