/**
 * Where the network or the server is not at its best: UDP is not let through, or the server stood still.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startChromium, startFirefox } from '../harness/browsers.js';
import { Server } from '../harness/server.js';
import { startTurn } from '../harness/turn.js';

/** How long the server stands still: long enough for browsers to notice, shorter than ICE's patience. */
const PAUSE_MS = 5000;

describe('over ICE-TCP only', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;
  /** @type {Browser} */
  let firefox;

  before(async () => {
    [server, chromium, firefox] = await Promise.all([
      Server.start({ MEDIA__UDP: 'false' }),
      startChromium(),
      startFirefox(),
    ]);
  });

  after(async () => {
    await Promise.all([chromium?.close(), firefox?.close()]);
    await server?.stop();
  });

  test('Chromium and Firefox see and hear each other', { timeout: 120_000 }, async () => {
    const ada = await chromium.person('Ada');
    const finn = await firefox.person('Finn');
    await ada.join(server, 'tcp-only');
    await finn.join(server, 'tcp-only');
    await ada.watches('Finn', { seconds: 45 });
    await finn.watches('Ada', { seconds: 45 });
    await ada.hears(1);
    await finn.hears(1);
    for (const person of [ada, finn]) {
      const [transport] = await person.transports();
      assert.equal(transport.protocol, 'tcp', `${person.name}: ${JSON.stringify(transport)}`);
    }
  });
});

describe('a network that lets nothing through but a relay', () => {
  /** @type {Server} */
  let server;
  /** @type {Awaited<ReturnType<typeof startChromium>>} */
  let chromium;
  /** @type {Awaited<ReturnType<typeof startTurn>>} */
  let turn;

  before(async () => {
    turn = await startTurn();
    [server, chromium] = await Promise.all([Server.start(turn.settings), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await Promise.all([server?.stop(), turn?.stop()]);
  });

  test('the node tells of coturn, and people see each other by it', { timeout: 120_000 }, async () => {
    const ada = await chromium.person('Ada', { relayed: true });
    const ben = await chromium.person('Ben');
    await ada.join(server, 'relayed');
    await ben.join(server, 'relayed');
    await ada.watches('Ben');
    await ben.watches('Ada');
    assert.equal((await ada.transports())[0].candidateType, 'relay');
    assert.notEqual((await ben.transports())[0].candidateType, 'relay');
  });

  test('a relay lets nobody in whom the node did not send', async () => {
    const answer = await fetch(`${server.url}/v1/rooms/relayed/ice-servers`);
    assert.equal(answer.headers.get('cache-control'), 'no-store');
    const [{ username, credential }] = (await answer.json()).ice_servers;
    const seconds = Number(username.split(':')[0]) - Date.now() / 1000;
    assert.ok(seconds > 3600 && seconds < 86_400, 'it holds for hours');
    const ada = await chromium.person('Eve');
    await ada.page.goto(`${server.url}/`);
    const gathered = (/** @type {{ urls: string, username: string, credential: string }} */ entry) =>
      ada.page.evaluate(async (/** @type {any} */ iceServer) => {
        const pc = new RTCPeerConnection({ iceServers: [iceServer], iceTransportPolicy: 'relay' });
        pc.createDataChannel('any');
        let candidates = 0;
        pc.addEventListener('icecandidate', ({ candidate }) => {
          if (candidate?.candidate) candidates += 1;
        });
        const complete = new Promise((resolve) =>
          pc.addEventListener('icegatheringstatechange', () => {
            if (pc.iceGatheringState === 'complete') resolve(undefined);
          }),
        );
        await pc.setLocalDescription();
        await complete;
        pc.close();
        return candidates;
      }, entry);
    const urls = (turn.settings.TURN__URLS.split(',')[0] ?? '').trim();
    assert.ok((await gathered({ urls, username, credential })) > 0);
    assert.equal(await gathered({ urls, username, credential: 'made up' }), 0);
    assert.equal(await gathered({ urls, username: `${Math.round(seconds)}:0`, credential }), 0);
  });
});

describe('a server that stood still for five seconds', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;

  before(async () => {
    [server, chromium] = await Promise.all([Server.start(), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await server?.stop();
  });

  test('goes on with the same people, pictures and messages', { timeout: 120_000 }, async () => {
    const ada = await chromium.person('Ada');
    const ben = await chromium.person('Ben');
    await ada.join(server, 'paused');
    await ben.join(server, 'paused');
    await ada.watches('Ben');
    await ben.watches('Ada');
    await ada.says('before');
    await ben.reads(['before']);

    server.pause();
    await delay(PAUSE_MS);
    server.resume();

    await ada.watches('Ben', { seconds: 20 });
    await ben.watches('Ada', { seconds: 20 });
    await ben.says('after');
    for (const person of [ada, ben]) await person.reads(['before', 'after']);
    const { body } = await server.call('GET', '/rooms/paused/participants');
    assert.deepEqual(body.map((/** @type {any} */ each) => each.identity).sort(), ['Ada', 'Ben']);
  });
});
