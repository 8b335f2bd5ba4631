/**
 * A real RTMP server: Debian's nginx with its RTMP module, on a port and in a folder of its own.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './server.js';
import { until } from './until.js';

const MODULE = '/usr/lib/nginx/modules/ngx_rtmp_module.so';

/** @param {number} port */
const configuration = (port) => `
load_module ${MODULE};
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 64; }
rtmp {
  server {
    listen 127.0.0.1:${port};
    application live { live on; }
  }
}
`;

/** @param {number} port */
const answers = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });

export class RtmpServer {
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #child;

  /**
   * @param {string} folder
   * @param {number} port
   */
  constructor(folder, port) {
    this.folder = folder;
    this.port = port;
  }

  static async start() {
    const server = new RtmpServer(await mkdtemp(join(tmpdir(), 'antiphon-rtmp-')), await freePort());
    await writeFile(join(server.folder, 'nginx.conf'), configuration(server.port));
    await server.run();
    return server;
  }

  /** Runs it, also again. */
  async run() {
    const args = ['-p', this.folder, '-c', 'nginx.conf', '-e', 'stderr'];
    const child = spawn('/usr/sbin/nginx', args, { stdio: 'ignore' });
    this.#child = child;
    await until('the RTMP server is there', async () => {
      if (child.exitCode !== null) throw new Error('nginx ended at its start: is libnginx-mod-rtmp there?');
      return await answers(this.port);
    });
  }

  /** Ends it at once, with all its connections. */
  async end() {
    const child = this.#child;
    if (!child || child.exitCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }

  async stop() {
    await this.end();
    await rm(this.folder, { recursive: true, force: true });
  }

  /**
   * What is published under a key, seen by a subscriber for some seconds.
   *
   * @param {string} key
   */
  async probe(key) {
    const url = `rtmp://127.0.0.1:${this.port}/live/${key}`;
    const show = ['-show_entries', 'stream=codec_name,width,height,sample_rate', '-of', 'json'];
    const { stdout } = await promisify(execFile)('ffprobe', ['-v', 'error', ...show, url], {
      timeout: 20_000,
    });
    return JSON.parse(stdout).streams;
  }
}
