/**
 * The real server, started on ports and a data directory of its own and stopped by its own process id.
 *
 * `ANTIPHON_BIN` names the binary; without it the debug build is taken.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './until.js';

/** The root of the repository. */
export const TREE = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
export const BINARY = process.env.ANTIPHON_BIN ?? join(TREE, 'target/debug/antiphon');
/** Where servers leave their logs, and pages that failed a picture. */
export const RESULTS = resolve(dirname(fileURLToPath(import.meta.url)), '../test-results');
/** Debian's library that shifts a process's wall clock. */
const FAKETIME = '/usr/$LIB/faketime/libfaketimeMT.so.1';
/** Lines of the server's log that are kept. */
const LOG_LINES_MAX = 2000;

/** A TCP port that is free now, together with the ones after it. */
export async function freePort() {
  const probe = createServer();
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

export class Server {
  /** @type {import('node:child_process').ChildProcess} */
  #child;
  /** @type {string[]} */
  #log = [];
  /** @type {NodeJS.ProcessEnv} */
  #env;

  /**
   * @param {NodeJS.ProcessEnv} env
   * @param {string} url
   * @param {string} dataDir
   */
  constructor(env, url, dataDir) {
    this.#env = env;
    this.url = url;
    this.dataDir = dataDir;
    this.#child = this.#spawn();
  }

  /** @param {NodeJS.ProcessEnv} [more] of environment */
  #spawn(more) {
    const child = spawn(BINARY, ['serve', '--dev'], {
      env: { ...this.#env, ...more },
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: this.dataDir,
    });
    child.on('error', (error) => this.#log.push(`cannot start ${BINARY}: ${error.message}`));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
        this.#log.push(...text.split('\n').filter(Boolean));
        this.#log.splice(0, this.#log.length - LOG_LINES_MAX);
      });
    }
    return child;
  }

  /**
   * Starts a server and waits until it is ready.
   *
   * @param {Record<string, string>} [settings] more configuration, by `SECTION__KEY`. Its
   *   `NODE__DATA_DIR`, if any, is removed, too, when the server stops.
   */
  static async start(settings = {}) {
    const [http, tcp, udp] = await Promise.all([freePort(), freePort(), freePort()]);
    const dataDir = settings.NODE__DATA_DIR ?? (await mkdtemp(join(tmpdir(), 'antiphon-e2e-')));
    const configuration = {
      HTTP__LISTEN: `127.0.0.1:${http}`,
      MEDIA__TCP_PORT: String(tcp),
      MEDIA__UDP_PORT: String(udp),
      NODE__DATA_DIR: dataDir,
      NODE__DRAIN_SECONDS: '0',
      ...settings,
    };
    const env = { ...process.env };
    for (const [key, value] of Object.entries(configuration)) env[`ANTIPHON_${key}`] = value;
    const server = new Server(env, `http://${configuration.HTTP__LISTEN}`, dataDir);
    try {
      await server.#ready();
    } catch (error) {
      await server.stop();
      throw new Error(`${error}\n${server.log()}`);
    }
    return server;
  }

  async #ready() {
    await until('the server is ready', async () => {
      if (this.#child.exitCode !== null || this.#child.pid === undefined)
        throw new Error('the server ended at its start');
      const answer = await fetch(`${this.url}/readyz`).catch(() => undefined);
      return answer?.ok;
    });
  }

  /** It is not there any more: it ended, or something killed it. */
  get ended() {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Ends the process as a crash does, with no time for anything. */
  async crash() {
    if (this.ended) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  /**
   * Starts it again after a crash, on the same ports and data.
   *
   * @param {NodeJS.ProcessEnv} [more] of environment, for this life of it
   */
  async restart(more) {
    this.#child = this.#spawn(more);
    await this.#ready();
  }

  /**
   * Starts it again after a crash, with a wall clock that is ahead.
   *
   * @param {number} hours
   */
  async restartLater(hours) {
    await this.restart({ LD_PRELOAD: FAKETIME, FAKETIME: `+${hours}h`, FAKETIME_DONT_FAKE_MONOTONIC: '1' });
  }

  /** The last lines of what the server said. */
  log(lines = 60) {
    return this.#log.slice(-lines).join('\n');
  }

  /** The process id, for what a test does to the process itself. */
  get pid() {
    if (this.#child.pid === undefined) throw new Error('the server does not run');
    return this.#child.pid;
  }

  /** Stops the process in its tracks, as a suspended virtual machine does. */
  pause() {
    process.kill(this.pid, 'SIGSTOP');
  }

  resume() {
    process.kill(this.pid, 'SIGCONT');
  }

  /**
   * A call of the HTTP API; fails on a status outside 2xx unless `allow` has it.
   *
   * @param {string} method
   * @param {string} path below `/v1`
   * @param {{ body?: unknown, token?: string, allow?: number[] }} [options]
   */
  async call(method, path, { body, token, allow = [] } = {}) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (body !== undefined) headers['content-type'] = 'application/json';
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    const answer = await fetch(`${this.url}/v1${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok && !allow.includes(answer.status)) {
      throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    }
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) };
  }

  /** Sends SIGTERM, waits for the end, keeps the log and removes the data. Killed after five seconds. */
  async stop() {
    if (this.#child.exitCode === null && this.#child.signalCode === null && this.#child.pid !== undefined) {
      this.#child.kill('SIGCONT');
      this.#child.kill('SIGTERM');
      const ended = once(this.#child, 'exit');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
      await ended;
      clearTimeout(timer);
    }
    await rm(this.dataDir, { recursive: true, force: true });
    await mkdir(RESULTS, { recursive: true });
    await writeFile(join(RESULTS, `server-${new URL(this.url).port}.log`), this.log(LOG_LINES_MAX));
  }
}
