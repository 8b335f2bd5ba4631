/**
 * Streams by RTMP, as an encoder without WHIP sends them: FFmpeg's command line pushes, Chromium watches.
 *
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { PLAIN, push, REORDERED, seesColour } from '../harness/film.js';
import { sell } from '../harness/paying.js';
import { hook } from '../harness/person.js';
import { freePort, TREE } from '../harness/server.js';
import { until } from '../harness/until.js';
import { setUp } from '../harness/world.js';

const ROOM = 'rtmp-room';
const RTMP = await freePort();
const KEY = { id: 'k1', secret: 'a-secret-of-thirty-two-bytes-or-so' };
const run = promisify(execFile);

const world = setUp({
  settings: {
    RTMP__ENABLED: 'true',
    RTMP__LISTEN: '127.0.0.1',
    RTMP__PORT: String(RTMP),
    RTMP__STREAMS_MAX: '2',
    [`AUTH__KEYS__${KEY.id.toUpperCase()}`]: KEY.secret,
  },
});
/** @param {string} room @param {string} key */
const url = (room, key) => `rtmp://127.0.0.1:${RTMP}/${room}/${key}`;

describe('a stream by RTMP', { timeout: 180_000 }, () => {
  /** @type {Person} */ let ben;
  /** @type {ReturnType<typeof push>[]} */
  const pushes = [];
  /** @type {typeof push} */
  const pushed = (...args) => {
    const one = push(...args);
    pushes.push(one);
    return one;
  };
  const participants = async () => {
    const answer = await world.server.call('GET', `/rooms/${ROOM}/participants`, { allow: [404] });
    return answer.status === 404
      ? []
      : answer.body.map((/** @type {any} */ participant) => participant.identity);
  };
  /** A token by the command line. @param {string} identity @param {string[]} more */
  const token = async (identity, ...more) => {
    const binary = process.env.ANTIPHON_BIN ?? `${TREE}/target/debug/antiphon`;
    const env = { ...process.env, [`ANTIPHON_AUTH__KEYS__${KEY.id.toUpperCase()}`]: KEY.secret };
    const args = ['token', '--room', ROOM, '--identity', identity, ...more];
    return (await run(binary, args, { env })).stdout.trim();
  };

  before(async () => {
    ben = await world.chromium.person('Ben');
  });
  after(() => Promise.all(pushes.map((one) => one.stop())));

  test('opens its room, and its H.264 goes on as it is', { timeout: 90_000 }, async () => {
    const obs = pushed(url(ROOM, await token('obs')), 'lime', PLAIN);
    await until('the encoder is in the room', async () => (await participants()).includes('obs'), {
      show: async () => [obs.said(), world.server.log(20)],
    });
    await ben.join(world.server, ROOM);
    await ben.watches('obs');
    await seesColour(ben, 'obs', 'camera', 'lime');
    await ben.hears(1);
    const stats = (await world.server.call('GET', `/rooms/${ROOM}/stats`)).body;
    const sent = stats.participants.find((/** @type {any} */ one) => one.identity === 'obs');
    assert.equal(sent.role, 'publisher');
    const codecs = sent.sends.map((/** @type {any} */ track) => track.codec);
    assert.deepEqual(codecs.sort(), ['h264', 'opus']);
  });

  test('one with pictures out of order is coded anew', { timeout: 90_000 }, async () => {
    // The key may come with a query, and the room after another part, as encoders have it.
    pushed(`rtmp://127.0.0.1:${RTMP}/live/${ROOM}/${await token('editor')}?x=1`, 'blue', REORDERED);
    await ben.watches('editor');
    await seesColour(ben, 'editor', 'camera', 'blue');
  });

  test('more than the node takes are turned away', { timeout: 60_000 }, async () => {
    const third = pushed(url(ROOM, await token('third')), 'red');
    await third.ended;
    assert.ok(!(await participants()).includes('third'));
  });

  test('who is removed is pushed out, who ends leaves', { timeout: 60_000 }, async () => {
    const [obs, editor] = pushes;
    await world.server.call('DELETE', `/rooms/${ROOM}/participants/obs`);
    await obs?.ended;
    await ben.sees(`${hook('tile')}[data-participant="obs"]`, { gone: true });
    await editor?.stop();
    await ben.sees(`${hook('tile')}[data-participant="editor"]`, { gone: true });
  });

  test('a token counts as at WHIP', { timeout: 60_000 }, async () => {
    const mute = pushed(url(ROOM, await token('mute', '--no-publish')), 'red');
    await mute.ended;
    const other = pushed(url('other-room', await token('other')), 'red');
    await other.ended;
    const odd = pushed(url('a', 'key'), 'red');
    await odd.ended;
    assert.deepEqual(await participants(), ['Ben']);
    assert.match(world.server.log(2000), /an RTMP stream was refused.*forbidden/);
  });

  test('a room that costs money is shut to who has not paid', { timeout: 60_000 }, async () => {
    const sold = await sell(world.server);
    const guest = pushed(url(sold.room, 'guest'), 'red');
    await guest.ended;
    assert.match(world.server.log(2000), /an RTMP stream was refused.*payment_required/);
    const owner = pushed(url(sold.room, sold.token), 'red');
    await until('its owner publishes', async () => {
      const { body } = await world.server.call('GET', `/rooms/${sold.room}`);
      return body.participants > 0 || body.publishers > 0;
    });
    await owner.stop();
  });

  test('RTMP that is made to break its reader does no harm', { timeout: 60_000 }, async () => {
    const message = (
      /** @type {number} */ id,
      /** @type {number} */ kind,
      /** @type {Buffer} */ body,
      sent = body,
    ) => {
      const head = Buffer.from([id, 0, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0]);
      head.writeUIntBE(body.length, 4, 3);
      return Buffer.concat([head, sent]);
    };
    const first = (/** @type {number} */ length) => Buffer.alloc(length).subarray(0, 128);
    const chunkSize = message(2, 1, Buffer.from([0, 0xff, 0xff, 0xff]));
    for (const hostile of [
      // Chunks of one message between another's, and one message within another.
      [message(4, 9, Buffer.alloc(200), first(200)), message(6, 9, Buffer.alloc(20))],
      [message(4, 9, Buffer.alloc(200), first(200)), message(4, 9, Buffer.alloc(20))],
      // A command of one value; one of sixty thousand objects, each within the other.
      [message(3, 20, Buffer.from([2, 0, 1, 0x78]))],
      [chunkSize, message(3, 20, Buffer.alloc(240_000, Buffer.from([3, 0, 1, 0x61])))],
    ])
      await afterHandshake(Buffer.concat(hostile));
    assert.equal((await fetch(`${world.server.url}/readyz`)).status, 200);
    assert.doesNotMatch(world.server.log(2000), /panicked/);
  });

  test('what is no RTMP does no harm', { timeout: 60_000 }, async () => {
    const secret = await token('obs');
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.alloc(100_000, 0xff),
      Buffer.alloc(1_537, 3),
    ]) {
      await new Promise((resolve) => {
        const socket = connect(RTMP, '127.0.0.1', () => socket.end(bytes));
        socket.on('close', resolve).on('error', resolve).resume();
      });
    }
    const again = pushed(url(ROOM, secret), 'red');
    await seesColour(ben, 'obs', 'camera', 'red');
    await again.stop();
    const metrics = await (await fetch(`${world.server.url}/metrics`)).text();
    const broken = /antiphon_rtmp_connections_total\{result="broken"\} ([0-9]+)/.exec(metrics)?.[1];
    assert.ok(Number(broken) >= 3, metrics.match(/antiphon_rtmp.*/g)?.join('\n'));
    assert.ok(!world.server.log(2000).includes(secret), 'no log has a key');
    const cpu = async () => (await run('ps', ['-o', 'cputimes=', '-p', String(world.server.pid)])).stdout;
    assert.ok(Number(await cpu()) < 60, 'a connection that ends early keeps nothing busy');
  });
});

/**
 * Shakes hands as RTMP does, then says this; done when the server closes.
 *
 * @param {Buffer} bytes
 */
function afterHandshake(bytes) {
  return new Promise((resolve) => {
    let [heard, shaken] = [Buffer.alloc(0), false];
    const socket = connect(RTMP, '127.0.0.1', () => {
      socket.write(Buffer.concat([Buffer.from([3]), Buffer.alloc(1_536, 7)]));
    });
    socket.on('data', (data) => {
      heard = Buffer.concat([heard, data]);
      if (shaken || heard.length < 1 + 2 * 1_536) return;
      shaken = true;
      // Its own first packet back, and then ours.
      socket.end(Buffer.concat([heard.subarray(1, 1_537), bytes]));
    });
    socket.on('close', resolve).on('error', resolve);
  });
}
