/**
 * A call that is recorded: begun by its owner's button, seen by all, ended, fetched, and judged by FFmpeg.
 *
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { hook } from '../harness/person.js';
import { until } from '../harness/until.js';
import { setUp } from '../harness/world.js';

const run = promisify(execFile);
const ROOM = 'recorded-room';
/** What is recorded at the least. */
const RECORDED_MS = 5_000;
/** A picture and a sound of one person end within so much of each other: three browsers share one machine. */
const ENDS_MS_MAX = 1_500;

/** @typedef {{ name: string, content: string, identity?: string, start_ms: number, end_ms: number }} File */

describe('a room that is recorded', () => {
  const world = setUp();
  /** @type {Person} */
  let ada;
  /** @type {Person} */
  let ben;
  /** @type {Person} */
  let cleo;
  /** @type {string} */
  let folder;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'antiphon-recording-'));
    ada = await world.chromium.person('Ada');
    ben = await world.chromium.person('Ben');
    cleo = await world.chromium.person('Cleo');
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /** The recordings of the room, newest first. @returns {Promise<any[]>} */
  const recordings = async () =>
    (await world.server.call('GET', `/rooms/${ROOM}/recordings`)).body.recordings;

  /** @param {string} path */
  async function fetched(path, headers = {}) {
    const response = await fetch(`${world.server.url}${path}`, { headers });
    assert.ok(response.ok, `${path}: ${response.status}`);
    return response;
  }

  test('its owner begins by a button, and all see the sign', { timeout: 90_000 }, async () => {
    await ada.join(world.server, ROOM);
    await ben.join(world.server, ROOM);
    await ada.watches('Ben');
    await ben.watches('Ada');
    assert.ok(!(await ben.page.evaluate((menu) => document.querySelector(menu), hook('record-menu'))));
    await ada.press('record-menu');
    await ada.press('record-start');
    for (const person of [ada, ben]) {
      await person.sees(hook('recording-sign'), { what: `${person.name} sees the sign` });
    }
    await until('the recorder runs', async () => {
      const { recording } = (await world.server.call('GET', `/rooms/${ROOM}`)).body;
      return recording?.active === true;
    });
    await cleo.join(world.server, ROOM);
    await cleo.sees(hook('recording-sign'), { what: 'who comes later sees the sign' });
  });

  test('it stops by a button, and FFmpeg finds every picture', { timeout: 120_000 }, async (t) => {
    await until('everyone’s picture and sound is recorded', async () => {
      const files = /** @type {File[]} */ ((await recordings())[0].files);
      return ['Ada', 'Ben'].every((who) => files.filter(({ identity }) => identity === who).length >= 2);
    });
    const since = Date.now();
    await until('enough was recorded', () => Date.now() - since > RECORDED_MS, { seconds: 30 });
    await ada.press('record-menu');
    await ada.press('record-stop');
    for (const person of [ada, ben, cleo]) {
      await person.sees(hook('recording-sign'), { gone: true, what: `${person.name} sees no sign any more` });
    }
    await until('it is finished', async () => (await recordings())[0].state === 'finished', {
      seconds: 60,
      show: recordings,
    });
    const [recording] = await recordings();
    assert.equal(recording.reason, 'stopped');
    /** @type {File[]} */
    const files = recording.files;
    for (const who of ['Ada', 'Ben']) {
      const ends = [];
      for (const content of ['video', 'audio']) {
        const file = files.find((one) => one.identity === who && one.content === content);
        assert.ok(file, `${content} of ${who} in ${JSON.stringify(files)}`);
        const path = join(folder, file.name);
        const response = await fetched(`${recording.url}/files/${file.name}`);
        await writeFile(path, new Uint8Array(await response.arrayBuffer()));
        const { stderr } = await run('ffmpeg', ['-v', 'error', '-xerror', '-i', path, '-f', 'null', '-']);
        assert.equal(stderr, '', `${file.name} does not decode`);
        const { stdout } = await run('ffprobe', [
          ...['-v', 'error', '-count_frames', '-of', 'json'],
          ...['-show_entries', 'stream=codec_name,nb_read_frames:format=duration', path],
        ]);
        const { streams, format } = JSON.parse(stdout);
        t.diagnostic(
          `${file.name}: ${streams[0].codec_name}, ${streams[0].nb_read_frames} frames, from ${file.start_ms} ms to ${format.duration} s`,
        );
        assert.ok(Number(streams[0].nb_read_frames) > (content === 'video' ? 25 : 150), stdout);
        ends.push(Number(format.duration) * 1000);
      }
      const [picture, sound] = /** @type {[number, number]} */ (/** @type {unknown} */ (ends));
      assert.ok(Math.abs(picture - sound) < ENDS_MS_MAX, `${who}: ${ends}`);
    }
    assert.ok(
      files.some((file) => file.content === 'chapters'),
      'who came later is a chapter',
    );
    const [first] = files;
    assert.ok(first);
    const part = await fetched(`${recording.url}/files/${first.name}`, { Range: 'bytes=0-3' });
    assert.equal(part.status, 206);
    assert.deepEqual([...new Uint8Array(await part.arrayBuffer())], [0x1a, 0x45, 0xdf, 0xa3]);
  });

  test('the page lists it, gives it and deletes it', { timeout: 60_000 }, async () => {
    await ada.press('record-menu');
    await ada.press('recordings-open');
    await ada.sees(`${hook('recording-item')}[data-state="finished"]`);
    await ada.page.evaluate(() => {
      /** @type {any} */ (window).saved = [];
      HTMLAnchorElement.prototype.click = function () {
        /** @type {any} */ (window).saved.push(this.href);
      };
    }, undefined);
    await ada.press('recording-download');
    await until('an address to save from', async () => {
      const saved = await ada.page.evaluate(() => /** @type {any} */ (window).saved[0], undefined);
      return saved !== undefined && (await fetch(saved)).status === 200;
    });
    await ada.press('recording-delete');
    await ada.sees(hook('recording-item'), { gone: true });
    assert.deepEqual(await recordings(), []);
  });

  test('where people are asked, who declines is left out', { timeout: 120_000 }, async () => {
    const changed = await world.server.call('PATCH', `/rooms/${ROOM}`, {
      body: { recording_consent: 'ask' },
    });
    assert.equal(changed.status, 200);
    const started = await world.server.call('POST', `/rooms/${ROOM}/recordings`);
    assert.equal(started.status, 201);
    const options = { body: { mix: true }, allow: [409] };
    const mixed = await world.server.call('POST', `/rooms/${ROOM}/recordings`, options);
    assert.equal(mixed.body.code, 'already_recording');
    await ben.press('consent-agree');
    await cleo.press('consent-decline');
    await until(
      'Ben is recorded',
      async () => (await recordings())[0].files.some((/** @type {File} */ file) => file.identity === 'Ben'),
      { seconds: 30, show: recordings },
    );
    const stopped = await world.server.call('POST', `/rooms/${ROOM}/recordings/${started.body.id}/stop`);
    assert.equal(stopped.status, 200);
    const whose = (await recordings())[0].files.map((/** @type {File} */ file) => file.identity);
    assert.deepEqual([...new Set(whose.filter(Boolean))], ['Ben']);
  });
});
