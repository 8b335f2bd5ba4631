/**
 * A real S3-compatible server, moto's, with one bucket, in memory.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { freePort, TREE } from './server.js';
import { until } from './until.js';

const BUCKET = 'antiphon';

export class S3Server {
  /** @param {import('node:child_process').ChildProcess} child @param {number} port */
  constructor(child, port) {
    this.child = child;
    this.url = `http://127.0.0.1:${port}`;
  }

  static async start() {
    const port = await freePort();
    const program = join(TREE, '.tools/venv/bin/moto_server');
    const child = spawn(program, ['-H', '127.0.0.1', '-p', String(port)], { stdio: 'ignore' });
    const server = new S3Server(child, port);
    child.on('error', () => {});
    await until('the S3 server is there', async () => {
      if (child.exitCode !== null) throw new Error('moto_server ended: run scripts/setup.sh test');
      const made = await fetch(`${server.url}/${BUCKET}`, { method: 'PUT' }).catch(() => undefined);
      return made?.ok;
    });
    return server;
  }

  /** What a node is to be told to keep its files here. */
  get settings() {
    return {
      FILES__S3__BUCKET: BUCKET,
      FILES__S3__REGION: 'us-east-1',
      FILES__S3__ENDPOINT: this.url,
      FILES__S3__ALLOW_HTTP: 'true',
      FILES__S3__ACCESS_KEY_ID: 'test',
      FILES__S3__SECRET_ACCESS_KEY: 'test',
    };
  }

  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    await ended;
  }
}
