/**
 * A client that nobody here wrote: aiortc, a WebRTC stack in Python, publishes by WHIP and views by WHEP,
 * with itself and with a browser.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startChromium } from '../harness/browsers.js';
import { Server } from '../harness/server.js';
import { plays, publish, view } from '../harness/whip.js';

const HARNESS = resolve(dirname(fileURLToPath(import.meta.url)), '../harness');
const PYTHON = process.env.AIORTC_PYTHON ?? resolve(HARNESS, '../../../.tools/venv/bin/python');

/** One aiortc process. */
class Aiortc {
  /** @param {string[]} args */
  constructor(args) {
    this.child = spawn(PYTHON, [join(HARNESS, 'aiortc_peer.py'), ...args], { stdio: 'pipe' });
    this.complaints = '';
    this.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.complaints = (this.complaints + text).slice(-4000);
    });
    this.ended = once(this.child, 'exit');
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  /** The next object it prints. */
  async says() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`aiortc ended: ${this.complaints}`);
    return JSON.parse(value);
  }

  /** Lets it say goodbye, and answers with its exit status. */
  async finish() {
    this.child.stdin.end();
    const [status] = await this.ended;
    return status;
  }
}

describe('aiortc', () => {
  /** @type {Server} */
  let server;
  /** @type {import('../harness/browsers.js').Browser} */
  let chromium;

  before(async () => {
    [server, chromium] = await Promise.all([Server.start(), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await server?.stop();
  });

  test('publishes by WHIP, and views itself by WHEP', { timeout: 90_000 }, async () => {
    const room = `${server.url}/v1/rooms/aiortc`;
    const publisher = new Aiortc(['publish', `${room}/whip?identity=sender`]);
    assert.deepEqual(await publisher.says(), { connected: true });
    const viewer = new Aiortc(['view', `${room}/whep?identity=viewer`, '60']);
    const seen = await viewer.says();
    assert.deepEqual(seen, { counts: { audio: 60, video: 60 }, height: 480 }, viewer.complaints);
    assert.equal((await viewer.says()).deleted, 200);
    assert.equal(await viewer.finish(), 0, viewer.complaints);
    assert.equal(await publisher.finish(), 0, publisher.complaints);
  });

  test('publishes to a browser', { timeout: 90_000 }, async () => {
    const room = `${server.url}/v1/rooms/aiortc-in`;
    const publisher = new Aiortc(['publish', `${room}/whip?identity=sender`]);
    await publisher.says();
    const person = await chromium.person('viewer');
    await person.page.goto(server.url);
    assert.equal((await view(person, `${room}/whep?identity=viewer`)).status, 201);
    assert.equal((await plays(person)).height, 480);
    await person.close();
    assert.equal(await publisher.finish(), 0, publisher.complaints);
  });

  test('views a browser', { timeout: 90_000 }, async () => {
    const room = `${server.url}/v1/rooms/aiortc-out`;
    const person = await chromium.person('sender');
    await person.page.goto(server.url);
    const answer = await publish(person, { endpoint: `${room}/whip?identity=sender`, codec: 'vp8' });
    assert.equal(answer.status, 201, answer.body);
    const viewer = new Aiortc(['view', `${room}/whep?identity=viewer`, '40']);
    const seen = await viewer.says();
    assert.deepEqual(seen.counts, { audio: 40, video: 40 }, viewer.complaints);
    assert.equal(await viewer.finish(), 0, viewer.complaints);
    await person.close();
  });
});
