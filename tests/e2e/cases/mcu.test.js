/**
 * A room mixed and forwarded, switched live: for one by the buttons in the page, for all by the owner, and
 * back to everyone's own picture for as long as the mixer is gone.
 *
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import {
  choose,
  compared,
  contributors,
  corner,
  observe,
  observed,
  picture,
  png,
  switchToMix,
} from '../harness/mix.js';
import { hook } from '../harness/person.js';
import { RESULTS } from '../harness/server.js';
import { until } from '../harness/until.js';
import { setUp } from '../harness/world.js';

const ROOM = 'mixed-room';
const NAMES = ['Ada', 'Ben', 'Cleo', 'Dan'];
/** Who the tile of the mix is of. */
const MIXER = 'mixer';
/** A mixer that is started first has a process and its codecs to load. */
const START_S = 20;
// Four browsers and the mixer share the machine, so these are well above what people get.
const SWITCH_MAX_MS = 3000;
const SILENCE_MAX_MS = 2000;
const FALL_BACK_MAX_MS = 3000;
/** Switches that are timed. */
const ROUNDS = 3;

describe('a room that is mixed', () => {
  // Fewer pictures than people would get: four browsers and a mixer share one small machine.
  const world = setUp({ settings: { MCU__FRAMES_PER_SECOND: '15', MCU__CORES_NEEDED: '0' } });
  /** @type {Person[]} */
  let people;
  /** The owner, as the first who came. @type {Person} */
  let ada;
  /** Who switches. @type {Person} */
  let ben;

  before(async () => {
    people = [];
    for (const name of NAMES) people.push(await world.chromium.person(name));
    [ada, ben] = /** @type {[Person, Person]} */ (/** @type {unknown} */ (people));
  });

  test('everyone has a tile of each', { timeout: 180_000 }, async () => {
    for (const person of people) await person.join(world.server, ROOM);
    for (const person of people) await hasTiles(person, { seconds: 60 });
    for (const person of people) {
      await person.hears(3);
      await observe(person);
    }
  });

  test('one has the mix as the only tile, the others as before', { timeout: 120_000 }, async (t) => {
    const started = await switchToMix(ben, START_S);
    t.diagnostic(`with the start of the mixer: ${JSON.stringify(started)}`);
    await hasMix(ben);
    assert.equal(await pressed(ben), 'mode-mcu');
    for (const person of people.filter((each) => each !== ben)) {
      assert.deepEqual((await person.tiles()).sort(), NAMES, person.name);
      assert.equal(await pressed(person), 'mode-sfu');
      await person.watches('Ben');
    }
    await ben.hears(1);
    await mkdir(RESULTS, { recursive: true });
    await ben.page.screenshot(join(RESULTS, 'mixed.png'));
  });

  test('one has the others again after switching back', { timeout: 90_000 }, async () => {
    await ben.press('mode-sfu');
    await hasTiles(ben);
    assert.equal(await pressed(ben), 'mode-sfu');
    await ben.hears(3);
  });

  test('a switch takes a moment, and no sound is lost', { timeout: 120_000 }, async (t) => {
    // One who stays keeps the mixer running.
    const cleo = /** @type {Person} */ (people[2]);
    await switchToMix(cleo, START_S);
    const times = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      times.push(await switchToMix(ben));
      await hasMix(ben);
      await ben.press('mode-sfu');
      await hasTiles(ben);
    }
    const { silenceMaxMs, tiles } = await observed(ben);
    t.diagnostic(`switches to the mix: ${JSON.stringify(times)}`);
    t.diagnostic(`longest silence: ${Math.round(silenceMaxMs)} ms`);
    t.diagnostic(`tiles: ${JSON.stringify(tiles)}`);
    for (const { pictureMs } of times) assert.ok(pictureMs < SWITCH_MAX_MS, JSON.stringify(times));
    assert.ok(silenceMaxMs <= SILENCE_MAX_MS, `${silenceMaxMs} ms of silence`);
    await cleo.press('mode-follow');
    await hasTiles(cleo);
  });

  test('one may compare how the room comes in, forwarded and mixed', { timeout: 120_000 }, async (t) => {
    await ben.press('toggle-stats');
    await measured(ben, 'sfu');
    assert.equal((await compared(ben, 'mcu')).downlink, '–', 'nothing is said of what was not measured');
    await ben.press('compare-measure-mcu');
    await measured(ben, 'mcu', START_S);
    await hasMix(ben);
    const both = { sfu: await compared(ben, 'sfu'), mcu: await compared(ben, 'mcu') };
    t.diagnostic(JSON.stringify(both));
    assert.match(both.sfu.pictures, /^3, up to [0-9]+p$/);
    assert.match(both.mcu.pictures, /^1 × [0-9]+p$/);
    assert.match(both.sfu.age, / ago$/);
    for (const one of Object.values(both)) {
      assert.match(one.downlink, /bit\/s$/);
      for (const time of [one.decoding, one.buffer, one.delay]) assert.match(time, /^[0-9]+ ms/);
    }
    await ben.page.screenshot(join(RESULTS, 'compared.png'));
    await ben.press('toggle-stats');
    await ben.press('mode-sfu');
    await hasTiles(ben);
  });

  test('the owner has it mixed for all but who chose otherwise', { timeout: 120_000 }, async () => {
    await ada.press('picture');
    await ada.press('room-mode-mcu');
    for (const person of people.filter((each) => each !== ben)) await hasMix(person, { seconds: START_S });
    // Ben pressed SFU, and is offered to follow.
    assert.deepEqual((await ben.tiles()).sort(), NAMES);
    await ben.press('mode-follow');
    await hasMix(ben, { seconds: START_S });
    await ben.sees(hook('mode-follow'), { gone: true });
  });

  test('all are told of the layout that the owner picks', { timeout: 60_000 }, async () => {
    for (const kind of ['presenter', 'picture_in_picture', 'grid', 'speaker']) {
      await ada.press('picture');
      await ada.press(`layout-${kind}`);
      for (const person of people) {
        await until(
          `${person.name} knows the layout ${kind}`,
          async () => (await person.room())?.layout?.kind === kind,
          { seconds: 5, show: () => person.room() },
        );
      }
    }
    for (const person of people) await hasMix(person);
  });

  test('packets of the mix name who is in it, and its background is the owner’s', {
    timeout: 60_000,
  }, async () => {
    const change = async (/** @type {object} */ body) => {
      const { status } = await world.server.call('PATCH', `/rooms/${ROOM}`, { body });
      assert.equal(status, 200);
    };
    await change({ layout: { kind: 'grid' } });
    const { body } = await world.server.call('GET', `/rooms/${ROOM}/participants`);
    const csrcs = body.map((/** @type {any} */ each) => each.csrc).sort();
    await until(
      'Ben’s browser knows who is seen',
      async () => String((await contributors(ben)).sort()) === String(csrcs),
      { seconds: 10, show: () => contributors(ben) },
    );
    const boxes = [{ x: 250, y: 250, width: 500, height: 500 }];
    await change({ layout: { kind: 'custom', boxes }, background: '#e01020' });
    await until(
      'the corner of the mix that Ben gets is red',
      async () => {
        const seen = await corner(ben);
        return [224, 16, 32].every((value, at) => Math.abs(value - (seen[at] ?? 0)) < 30);
      },
      { seconds: 10, show: () => corner(ben) },
    );
    const backdrop = async (/** @type {string} */ method, /** @type {Buffer | undefined} */ file) => {
      const body = file && new Blob([new Uint8Array(file)]);
      return (await fetch(`${world.server.url}/v1/rooms/${ROOM}/backdrop`, { method, body })).status;
    };
    assert.equal(await backdrop('PUT', Buffer.from('no picture')), 415);
    assert.equal(await backdrop('PUT', Buffer.alloc((1 << 20) + 1)), 413);
    assert.equal(await backdrop('PUT', await png(ben, '#2040e0')), 204);
    await until(
      'the corner of the mix that Ben gets is blue',
      async () => {
        const seen = await corner(ben);
        return [32, 64, 224].every((value, at) => Math.abs(value - (seen[at] ?? 0)) < 30);
      },
      { seconds: 10, show: () => corner(ben) },
    );
    await ben.page.screenshot(join(RESULTS, 'mixed-blue.png'));
    assert.equal(await backdrop('DELETE', undefined), 204);
    await change({ layout: { kind: 'grid' }, background: '#11141a' });
  });

  test('the owner puts a picture behind the mix from the page, and takes it away', {
    timeout: 60_000,
  }, async () => {
    const hasColour = async (/** @type {string} */ what, /** @type {number[]} */ colour) =>
      await until(
        `the corner of the mix that Ben gets is ${what}`,
        async () => {
          const seen = await corner(ben);
          return colour.every((value, at) => Math.abs(value - (seen[at] ?? 0)) < 30);
        },
        { seconds: 10, show: () => corner(ben) },
      );
    const boxes = [{ x: 200, y: 200, width: 600, height: 600 }];
    const layout = { kind: 'custom', boxes };
    await world.server.call('PATCH', `/rooms/${ROOM}`, { body: { layout } });
    await ada.press('picture');
    await ada.page.screenshot(join(RESULTS, 'picture-menu.png'));
    await choose(ada, 'mix-backdrop', await png(ada, '#108040'));
    await hasColour('green', [16, 128, 64]);
    for (const person of people) {
      assert.equal((await person.room()).has_backdrop, true, person.name);
      await person.sees(hook('picture'), { gone: person !== ada });
    }
    await ada.page.screenshot(join(RESULTS, 'mixed-backdrop.png'));
    await ada.press('picture');
    await choose(ada, 'mix-backdrop', Buffer.from('no picture'));
    await until('Ada is told that this is no picture', async () => /is no picture/.test(await ada.text()));
    await ada.press('picture');
    await ada.press('mix-no-backdrop');
    await hasColour('dark', [17, 20, 26]);
    await world.server.call('PATCH', `/rooms/${ROOM}`, { body: { layout: { kind: 'grid' } } });
  });

  test('a mixer that stands still is not waited for, and is replaced', { timeout: 120_000 }, async (t) => {
    const mixer = await mixerProcess();
    const stoppedAt = Date.now();
    process.kill(mixer, 'SIGSTOP');
    await fallBack(t, stoppedAt);
    for (const person of people) await hasMix(person, { seconds: START_S });
    assert.notEqual(await mixerProcess(), mixer, 'another process mixes');
  });

  test('a mixer that is killed costs some of the mix, and nobody their call', {
    timeout: 120_000,
  }, async (t) => {
    const mixer = await mixerProcess();
    const killedAt = Date.now();
    process.kill(mixer, 'SIGKILL');
    await fallBack(t, killedAt);
    for (const person of people) {
      await hasMix(person, { seconds: START_S });
      const { tiles } = await observed(person);
      t.diagnostic(`${person.name} has the mix after ${(tiles.at(-1)?.atMs ?? 0) - killedAt} ms`);
    }
    assert.notEqual(await mixerProcess(), mixer, 'another process mixes');
    const { body } = await world.server.call('GET', `/rooms/${ROOM}/participants`);
    const present = body.filter((/** @type {any} */ each) => each.connected);
    const names = present.map((/** @type {any} */ each) => each.identity);
    for (const name of NAMES) assert.ok(names.includes(name), `${name} is in the room: ${names}`);
  });

  test('no page has complained', () => {
    for (const person of people) assert.deepEqual(person.page.complaints(), [], person.name);
  });

  /**
   * Waits until somebody has a tile of each, and the three others play.
   *
   * @param {Person} person
   * @param {{ seconds?: number }} [options]
   */
  async function hasTiles(person, { seconds = 15 } = {}) {
    await until(
      `${person.name} has a tile of each`,
      async () => String((await person.tiles()).sort()) === String(NAMES),
      { seconds, show: () => person.tiles() },
    );
    for (const name of NAMES.filter((each) => each !== person.name)) await person.watches(name, { seconds });
  }

  /**
   * Waits until somebody has the mix as the only tile, and checks that it plays and shows something.
   *
   * @param {Person} person
   * @param {{ seconds?: number }} [options]
   */
  async function hasMix(person, { seconds = 10 } = {}) {
    await until(
      `${person.name} has the mix as the only tile`,
      async () => String(await person.tiles()) === MIXER,
      { seconds, show: async () => ({ tiles: await person.tiles(), server: await person.serverSide() }) },
    );
    await person.watches(MIXER);
    await until(
      `the mix that ${person.name} gets is large, and more than one flat colour`,
      async () => {
        const seen = await picture(person, MIXER);
        return seen.width >= 640 && seen.colours > 2 && seen.most < 0.98;
      },
      { seconds: 5, show: () => picture(person, MIXER) },
    );
  }

  /**
   * Waits until the panel has measured a mode just now.
   *
   * @param {Person} person
   * @param {'sfu' | 'mcu'} mode
   * @param {number} [seconds]
   */
  async function measured(person, mode, seconds = 20) {
    await until(
      `${person.name} has measured ${mode}`,
      async () => (await compared(person, mode)).age === 'now',
      { seconds, show: () => compared(person, mode) },
    );
  }

  /**
   * Which mode the page says that somebody has.
   *
   * @param {Person} person
   */
  async function pressed(person) {
    return await person.page.evaluate(
      () =>
        document.querySelector('[data-testid^="mode-"][aria-pressed="true"]')?.getAttribute('data-testid'),
      undefined,
    );
  }

  /**
   * Waits until everyone has tiles again after the mixer has failed, and checks that it was soon.
   *
   * @param {import('node:test').TestContext} t
   * @param {number} failedAt
   */
  async function fallBack(t, failedAt) {
    for (const person of people) {
      const fellBack = await until(
        `${person.name} has tiles in place of the mix`,
        async () => {
          const { tiles } = await observed(person);
          return tiles.find((one) => one.atMs >= failedAt && String(one.tiles) === String(NAMES));
        },
        { seconds: 10, show: () => observed(person) },
      );
      const afterMs = fellBack.atMs - failedAt;
      t.diagnostic(`${person.name} has tiles after ${afterMs} ms`);
      assert.ok(afterMs < FALL_BACK_MAX_MS, `${person.name} has tiles after ${afterMs} ms`);
    }
  }

  /** The one process of the server's that mixes. */
  async function mixerProcess() {
    const { stdout } = await promisify(execFile)('pgrep', ['-P', String(world.server.pid), '-f', ' mix$']);
    const ids = stdout.trim().split('\n').map(Number);
    assert.equal(ids.length, 1, stdout);
    return ids[0] ?? 0;
  }
});
