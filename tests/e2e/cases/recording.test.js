/**
 * A call that is recorded: begun by its owner's button, seen by all, ended, fetched, and judged by FFmpeg.
 *
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { SMALL_CAMERA } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { until } from '../harness/until.js';
import { setUp } from '../harness/world.js';

const run = promisify(execFile);
const ROOM = 'recorded-room';
/** What is recorded at the least. */
const RECORDED_MS = 5_000;
/** A picture and a sound of one person end within so much of each other: three browsers share one machine. */
const ENDS_MS_MAX = 1_500;

/** And begin: a picture comes in the best layer that there is, and is not waited for. */
const BEGINS_MS_MAX = 500;

/**
 * What has FFmpeg decode all of a file. Times are taken as they are: by itself it puts pictures on the grid
 * of their usual rate, and complains of a camera that is late with one.
 *
 * @param {string} path
 */
const decode = (path) => [
  ...['-v', 'error', '-xerror', '-i', path],
  ...['-vsync', 'passthrough', '-enc_time_base', '-1', '-f', 'null', '-'],
];

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

  /**
   * A file of pictures: its times rise, and Chromium plays it to its end and in its largest size. Gives the
   * time of each, in seconds, and its height.
   *
   * @param {string} path
   */
  async function playsThrough(path) {
    const { stdout } = await run('ffprobe', [
      ...['-v', 'error', '-of', 'json', '-show_entries', 'frame=pts_time,height:stream=height', path],
    ]);
    const { frames, streams } = JSON.parse(stdout);
    const times = frames.map((/** @type {any} */ frame) => Number(frame.pts_time));
    const stood = frames.filter(
      (/** @type {any} */ _, /** @type {number} */ at) => at > 0 && times[at] <= times[at - 1],
    );
    assert.deepEqual(stood, [], `times rise: ${JSON.stringify(frames)}`);
    const largest = Math.max(...frames.map((/** @type {any} */ frame) => Number(frame.height)));
    assert.equal(streams[0].height, largest, 'the file says how large its pictures are');
    const bytes = (await readFile(path)).toString('base64');
    const player = await world.chromium.person('player');
    await player.page.goto('about:blank');
    const played = await player.page.evaluate(async (/** @type {string} */ file) => {
      const video = document.createElement('video');
      video.muted = true;
      const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
      video.src = URL.createObjectURL(new Blob([bytes], { type: 'video/webm' }));
      await new Promise((resolve, reject) => {
        video.onloadedmetadata = resolve;
        video.onerror = () => reject(new Error(video.error?.message));
      });
      // A browser that is busy sends smaller pictures in between: the largest that it plays counts.
      let height = video.videoHeight;
      video.onresize = () => {
        height = Math.max(height, video.videoHeight);
      };
      video.playbackRate = 4;
      const ended = new Promise((resolve, reject) => {
        video.onended = resolve;
        video.onerror = () => reject(new Error(video.error?.message));
      });
      await video.play();
      await ended;
      return { height, seconds: video.currentTime };
    }, bytes);
    await player.close();
    assert.equal(played.height, largest);
    assert.ok(Math.abs(played.seconds - (times.at(-1) ?? 0)) < 1, JSON.stringify(played));
    return { times, heights: frames.map((/** @type {any} */ frame) => Number(frame.height)) };
  }

  test('it stops by a button, and FFmpeg finds every picture', { timeout: 120_000 }, async (t) => {
    // Her picture goes out in several sizes.
    const heights = (await ada.outbound()).map((/** @type {any} */ { height }) => height);
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
      const starts = [];
      for (const content of ['video', 'audio']) {
        const file = files.find((one) => one.identity === who && one.content === content);
        assert.ok(file, `${content} of ${who} in ${JSON.stringify(files)}`);
        const path = join(folder, file.name);
        const response = await fetched(`${recording.url}/files/${file.name}`);
        await writeFile(path, new Uint8Array(await response.arrayBuffer()));
        const { stderr } = await run('ffmpeg', decode(path));
        assert.equal(stderr, '', `${file.name} does not decode`);
        const { stdout } = await run('ffprobe', [
          ...['-v', 'error', '-count_frames', '-of', 'json'],
          ...['-show_entries', 'stream=codec_name,height,nb_read_frames:format=duration', path],
        ]);
        const { streams, format } = JSON.parse(stdout);
        t.diagnostic(
          `${file.name}: ${streams[0].codec_name}, ${streams[0].nb_read_frames} frames, from ${file.start_ms} ms to ${format.duration} s`,
        );
        assert.ok(Number(streams[0].nb_read_frames) > (content === 'video' ? 25 : 150), stdout);
        if (who === 'Ada' && content === 'video')
          assert.equal(streams[0].height, Math.max(...heights), `the top layer of ${heights}`);
        ends.push(Number(format.duration) * 1000);
        starts.push(file.start_ms);
        if (content === 'video') await playsThrough(path);
      }
      const [picture, sound] = /** @type {[number, number]} */ (/** @type {unknown} */ (ends));
      assert.ok(Math.abs(picture - sound) < ENDS_MS_MAX, `${who}: ${ends}`);
      const [seen, heard] = /** @type {[number, number]} */ (/** @type {unknown} */ (starts));
      assert.ok(seen - heard < BEGINS_MS_MAX, `${who} is seen from ${seen} ms and heard from ${heard} ms`);
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

  test('a layer that rested is not waited for, and goes on in the same file', {
    timeout: 120_000,
  }, async (t) => {
    const eve = await world.chromium.person('Eve');
    await eve.join(world.server, 'rising');
    const pictures = async () =>
      (await eve.outbound()).filter((/** @type {any} */ { kind, frames }) => kind === 'video' && frames > 0);
    const largest = SMALL_CAMERA.height;
    const fay = await world.chromium.person('Fay');
    await fay.join(world.server, 'rising');
    await fay.watches('Eve', { height: largest, seconds: 45 });
    const isTop = (/** @type {any} */ { height }) => height === largest;
    const { rid } = await until('Eve sends it', async () => (await pictures()).find(isTop));
    await fay.close();
    const top = async () => (await pictures()).find((/** @type {any} */ one) => one.rid === rid);
    await until('it rests, as nobody watches', async () => !(await top())?.active, {
      seconds: 45,
      show: () => eve.outbound(),
    });
    const before = (await top())?.frames ?? 0;
    const { id } = (await world.server.call('POST', '/rooms/rising/recordings')).body;
    await until('Eve’s browser sends it again', async () => (await top())?.frames > before + 5, {
      seconds: 45,
      show: () => eve.outbound(),
    });
    const since = Date.now();
    await until('some of them are recorded', () => Date.now() - since > 4_000);
    await world.server.call('POST', `/rooms/rising/recordings/${id}/stop`);
    const show = async () => (await world.server.call('GET', `/rooms/rising/recordings/${id}`)).body;
    await until('it is finished', async () => (await show()).state === 'finished', { seconds: 60, show });
    /** @type {File[]} */
    const files = (await show()).files;
    const of = (/** @type {string} */ content) => files.filter((file) => file.content === content);
    const [[picture, ...others], [sound]] = [of('video'), of('audio')];
    assert.ok(picture && sound && others.length === 0, JSON.stringify(files));
    assert.ok(picture.start_ms - sound.start_ms < BEGINS_MS_MAX, JSON.stringify(files));
    const path = join(folder, picture.name);
    const response = await fetched(`/v1/rooms/rising/recordings/${id}/files/${picture.name}`);
    await writeFile(path, new Uint8Array(await response.arrayBuffer()));
    const { stderr } = await run('ffmpeg', decode(path));
    assert.equal(stderr, '', 'every picture decodes');
    const { times, heights } = await playsThrough(path);
    const rises = heights.indexOf(largest);
    t.diagnostic(
      `seen ${picture.start_ms - sound.start_ms} ms after heard, in ${heights[0]} lines; in ${largest} after ` +
        `${Math.round(1000 * ((times[rises] ?? 0) - (times[0] ?? 0)))} ms; lengths ${picture.end_ms} and ${sound.end_ms} ms`,
    );
    assert.ok(rises >= 0, `it came to its largest size: ${heights}`);
    const steps = times
      .slice(1)
      .map((/** @type {number} */ time, /** @type {number} */ at) => time - times[at]);
    // Ten a second: no moment is there twice, and none is missing where one layer follows the other.
    assert.ok(Math.min(...steps) > 0.02 && Math.max(...steps) < 0.6, `${steps}`);
    assert.ok(Math.abs(picture.end_ms - sound.end_ms) < ENDS_MS_MAX);
    await eve.close();
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
