/**
 * Sound and picture of a real browser are together in its recording, while its top layer goes and comes back.
 *
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { apartMs, beepsOf, flashAndBeep, flashesOf, picturesOf, SOURCE } from '../harness/flash.js';
import { quantile } from '../harness/hls.js';
import { until } from '../harness/until.js';
import { setUp } from '../harness/world.js';

const ROOM = 'flashing';
/** A picture is so far at most from its sound, and from where it would be in any other layer. */
const APART_MS_MAX = 40;
/** Pictures from before a recording, which what follows builds on, stand closer at its beginning. */
const CLOSER_S = 0.01;
/** Two pictures follow each other within so much, whatever becomes of a layer. */
const BREAK_S_MAX = 1;
/** How long each layer is watched: some flashes. */
const WATCHED_MS = 5_000;
/** Pictures of each stretch that are measured at least. */
const PICTURES_MIN = 30;
/** Of a page whose tile takes no more than the lower layer. */
const SMALL = { width: 320, height: 240 };
const run = promisify(execFile);

/** @param {number[]} values */
const inOrder = (values) => values.toSorted((one, other) => one - other);

/** What has FFmpeg decode all of a file, with times as they are. @param {string} path */
const decode = (path) => [
  ...['-v', 'error', '-xerror', '-i', path],
  ...['-vsync', 'passthrough', '-enc_time_base', '-1', '-f', 'null', '-'],
];

/** Runs in the page: what is withheld is not sent, though the page asks for it. */
function withhold() {
  const { setParameters } = RTCRtpSender.prototype;
  RTCRtpSender.prototype.setParameters = function (parameters, ...more) {
    for (const encoding of parameters.encodings ?? [])
      if (encoding.rid && encoding.rid === /** @type {any} */ (window).withheld) encoding.active = false;
    return setParameters.call(this, parameters, ...more);
  };
}

describe('a recording of somebody who flashes and beeps', () => {
  const world = setUp();
  /** @type {Person} */ let ada;
  /** @type {Person} */ let ben;

  before(async () => {
    ada = await world.chromium.person('Ada', { camera: null });
    const { playwright } = /** @type {any} */ (ada.page);
    await playwright.addInitScript(flashAndBeep, SOURCE);
    await playwright.addInitScript(withhold);
    await ada.join(world.server, ROOM);
    // Who has little room for her picture takes a lower layer, so that there is one.
    ben = await world.chromium.person('Ben', { viewport: SMALL });
    await ben.join(world.server, ROOM);
    await ben.watches('Ada');
  });

  after(() => Promise.all([ada?.close(), ben?.close()]));

  /** Her encodings that ever were sent, the largest first. */
  const layers = async () =>
    (await ada.outbound())
      .filter((/** @type {any} */ { kind, frames }) => kind === 'video' && frames > 0)
      .sort((/** @type {any} */ one, /** @type {any} */ other) => other.height - one.height);

  /**
   * Has her browser send an encoding or not, whatever is wished, as one that is short of bandwidth does.
   *
   * @param {string} rid
   * @param {boolean} active
   */
  const switchLayer = (rid, active) =>
    ada.page.evaluate(
      async ([which, is]) => {
        Object.assign(window, { withheld: is ? undefined : which });
        const connections = /** @type {RTCPeerConnection[]} */ (
          /** @type {any} */ (window).probe.connections
        );
        for (const sender of connections.flatMap((connection) => connection.getSenders())) {
          const parameters = sender.getParameters();
          const encoding = parameters.encodings?.find((one) => one.rid === which);
          if (sender.track?.kind !== 'video' || !encoding) continue;
          encoding.active = is;
          await sender.setParameters(parameters);
        }
      },
      /** @type {[string, boolean]} */ ([rid, active]),
    );

  test('they are together in each layer, and no switch makes a long break', {
    timeout: 120_000,
  }, async (t) => {
    const { id } = (await world.server.call('POST', `/rooms/${ROOM}/recordings`)).body;
    const show = async () => (await world.server.call('GET', `/rooms/${ROOM}/recordings/${id}`)).body;
    const list = async () => (await world.server.call('GET', `/rooms/${ROOM}/recordings`)).body.recordings;
    assert.deepEqual([(await show()).state, (await list()).length], ['recording', 1], 'it is there at once');
    await until('both are recorded', async () => (await show()).files.length >= 4, { show });
    const top = await until(
      'the top layer is sent beside the one that Ben takes',
      async () => {
        const [largest, ...others] = (await layers()).filter(({ active, height }) => active && height > 0);
        return others.length > 0 && largest;
      },
      { seconds: 45, show: async () => [await layers(), await ben.video('Ada')] },
    );
    const watch = async () => {
      const since = Date.now();
      await until('enough was recorded', () => Date.now() - since > WATCHED_MS);
    };
    const frames = async () => (await layers()).find((one) => one.rid === top.rid)?.frames ?? 0;
    const before = await frames();
    await until('the top layer is sent', async () => (await frames()) > before + 10, { show: layers });
    await watch();
    await switchLayer(top.rid, false);
    await watch();
    const rested = await frames();
    await switchLayer(top.rid, true);
    await until('the top layer is sent again', async () => (await frames()) > rested, { show: layers });
    await watch();
    await world.server.call('POST', `/rooms/${ROOM}/recordings/${id}/stop`);
    await until('it is finished', async () => (await show()).state === 'finished', { seconds: 60, show });

    /** @type {any[]} */
    const files = (await show()).files;
    const only = (/** @type {string} */ content) => {
      const [file, ...others] = files.filter((one) => one.content === content && one.identity === 'Ada');
      assert.ok(file && others.length === 0, JSON.stringify(files));
      return join(world.server.dataDir, 'recordings', ROOM, id, file.name);
    };
    const [picture, sound] = [only('video'), only('audio')];
    const pictures = await picturesOf(picture);
    const beeps = await beepsOf(sound);
    // Stretches of one size after the other: when each begins, and its lines.
    const sizes = pictures.filter(({ height }, at) => height !== pictures[at - 1]?.height);
    const steps = pictures.slice(1).map(({ at }, index) => at - Number(pictures[index]?.at));
    t.diagnostic(sizes.map(({ at, height }) => `${height} lines from ${at} s`).join(', '));
    t.diagnostic(`${beeps.length} beeps, ${flashesOf(pictures).length} flashes`);
    t.diagnostic(`${pictures.length} pictures, the longest break ${Math.max(...steps).toFixed(3)} s`);
    const largest = Math.max(...sizes.map(({ height }) => height));
    const begins = sizes.findIndex(({ height }) => height === largest);
    const falls = sizes.findIndex(({ height }, at) => at > begins && height < largest);
    const rises = sizes.findLastIndex(({ height }) => height === largest);
    assert.ok(falls > begins && rises > falls, 'it goes down and up again');
    const [beganAt, fellAt, roseAt] = [begins, falls, rises].map((at) => Number(sizes[at]?.at));
    const first = pictures.findIndex(({ at }, index) => at - (pictures[index - 1]?.at ?? 0) > CLOSER_S);
    const apart = apartMs(pictures.slice(first), beeps);
    const stretches = [
      { name: 'top', from: Number(beganAt), to: Number(fellAt) },
      { name: 'lower', from: Number(fellAt), to: Number(roseAt) },
      { name: 'top again', from: Number(roseAt), to: Number.POSITIVE_INFINITY },
    ].map(({ name, from, to }) => {
      const of = apart.filter(({ at }) => at >= from && at < to);
      const [clock, sound] = [of.map(({ clock }) => clock), of.map(({ apart }) => apart)].map(inOrder);
      return { name, clock: clock ?? [], sound: sound ?? [] };
    });
    const usual = quantile(stretches[0]?.clock ?? [], 0.5);
    for (const { name, clock, sound } of stretches) {
      const [least, most] = [0, 1].map((share) => quantile(clock, share) - usual);
      t.diagnostic(
        `${name}: ${clock.length} pictures, ${least} to ${most} ms from where the source’s clock has them, ` +
          `${[0, 0.5, 1].map((share) => quantile(sound, share).toFixed(0))} ms after their sound (least, half, most)`,
      );
    }
    for (const path of [picture, sound])
      assert.equal((await run('ffmpeg', decode(path))).stderr, '', `${path} does not decode`);
    for (const { name, clock, sound } of stretches) {
      assert.ok(clock.length >= PICTURES_MIN, `${name}: ${clock.length} pictures`);
      const far = clock.filter((ms) => Math.abs(ms - usual) > APART_MS_MAX);
      assert.deepEqual(far, [], `${name}: pictures are not where they were`);
      const away = sound.filter((ms) => Math.abs(ms) > APART_MS_MAX);
      assert.deepEqual(away, [], `${name}: pictures are away from their sound`);
    }
    assert.ok(Math.min(...steps) > 0, 'times rise');
    assert.ok(Math.max(...steps) < BREAK_S_MAX, `a break of ${Math.max(...steps)} s`);
  });
});
