/**
 * A real RTMP server: Debian's nginx with its RTMP module, on a port and in a folder of its own.
 */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './server.js';
import { until } from './until.js';

const MODULE = '/usr/lib/nginx/modules/ngx_rtmp_module.so';
const TLS_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

/** @param {number} port @param {number} tlsPort */
const configuration = (port, tlsPort) => `
load_module ${MODULE};
load_module ${TLS_MODULE};
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
stream {
  server {
    listen 127.0.0.1:${tlsPort} ssl;
    ssl_certificate cert.pem;
    ssl_certificate_key key.pem;
    proxy_pass 127.0.0.1:${port};
  }
}
`;

/**
 * A certificate for `localhost`, made by OpenSSL's command line, in a folder of its own. It is its own root: a
 * node that is to trust it has `SSL_CERT_FILE` point to it.
 */
export function selfSigned() {
  const folder = mkdtempSync(join(tmpdir(), 'antiphon-cert-'));
  const at = (/** @type {string} */ name) => join(folder, name);
  const [cert, key, config] = /** @type {const} */ ([at('cert.pem'), at('key.pem'), at('openssl.cnf')]);
  const lines = ['[req]', 'distinguished_name=dn', '[dn]', '[leaf]', 'basicConstraints=CA:FALSE'];
  writeFileSync(config, [...lines, 'subjectAltName=DNS:localhost', ''].join('\n'));
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const named = ['-subj', '/CN=localhost', '-config', config, '-extensions', 'leaf'];
  execFileSync('openssl', ['req', '-x509', ...made, ...named, '-out', cert, '-keyout', key], {
    stdio: 'ignore',
  });
  return { folder, cert, key };
}

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
   * @param {number} tlsPort
   */
  constructor(folder, port, tlsPort) {
    this.folder = folder;
    this.port = port;
    this.tlsPort = tlsPort;
  }

  /** @param {{ cert: string, key: string }} certificate */
  static async start({ cert, key }) {
    const folder = await mkdtemp(join(tmpdir(), 'antiphon-rtmp-'));
    const server = new RtmpServer(folder, await freePort(), await freePort());
    await Promise.all([copyFile(cert, join(folder, 'cert.pem')), copyFile(key, join(folder, 'key.pem'))]);
    await writeFile(join(server.folder, 'nginx.conf'), configuration(server.port, server.tlsPort));
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
