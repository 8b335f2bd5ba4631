/**
 * A room as people use it: three in Chromium and one in Firefox see, hear and write to each other, share a
 * screen, mute and are muted, leave and come back.
 *
 * @import { Person } from '../harness/person.js'
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SMALL_CAMERA, startChromium, startFirefox } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

const ROOM = 'four-friends';
/** Both browsers offer AES-CM, AES-128-GCM and AES-256-GCM; the server picks the one that costs least. */
const GCM = /AEAD_AES_128_GCM$/;

describe('four people in one room', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;
  /** @type {Browser} */
  let firefox;
  /** @type {Person[]} */
  let people;
  /** @type {Person} */ let ada;
  /** @type {Person} */ let ben;
  /** @type {Person} */ let cleo;
  /** @type {Person} */ let finn;
  /** What has been written so far. @type {string[]} */
  const written = [];

  before(async () => {
    [server, chromium, firefox] = await Promise.all([Server.start(), startChromium(), startFirefox()]);
    ada = await chromium.person('Ada');
    ben = await chromium.person('Ben');
    cleo = await chromium.person('Cleo');
    finn = await firefox.person('Finn');
    people = [ada, ben, cleo, finn];
  });

  after(async () => {
    await Promise.all([chromium?.close(), firefox?.close()]);
    await server?.stop();
  });

  test('everyone decodes the video of all others, in the camera’s shape', { timeout: 180_000 }, async () => {
    for (const person of people) await person.join(server, ROOM);
    for (const person of people) {
      for (const other of people.filter((each) => each !== person)) {
        const video = await person.watches(other.name, { seconds: 60 });
        const shape = video.width / video.height;
        assert.ok(Math.abs(shape - SMALL_CAMERA.width / SMALL_CAMERA.height) < 0.35, JSON.stringify(video));
        assert.ok(video.height >= 90 && video.height <= 720, `${video.height} lines`);
      }
    }
  });

  test('everyone hears three others', { timeout: 60_000 }, async () => {
    for (const person of people) await person.hears(3);
  });

  test('media is protected by AES-128-GCM in Chromium and Firefox', { timeout: 30_000 }, async () => {
    for (const person of people) {
      const transports = await person.transports();
      assert.equal(transports.length, 1, `${person.name}: ${JSON.stringify(transports)}`);
      assert.equal(transports[0].dtls, 'connected');
      assert.match(transports[0].srtp, GCM, person.name);
    }
  });

  test('all read the same messages in the same order', { timeout: 60_000 }, async () => {
    for (const [at, person] of people.entries()) {
      written.push(`message ${at} from ${person.name} <b>&amp;</b>`);
      await person.says(written.at(-1) ?? '');
      await Promise.all(people.map((each) => each.reads(written)));
    }
  });

  test('messages sent at the same moment stand in one order for all', { timeout: 60_000 }, async () => {
    await Promise.all(people.map((person) => person.says(`together, ${person.name}`)));
    const order = await until('four more messages', async () => {
      const texts = await ada.messages();
      return texts.length === written.length + people.length ? texts : undefined;
    });
    for (const line of order.slice(written.length)) {
      const said = /together, \w+/.exec(line)?.[0];
      assert.ok(said !== undefined, line);
      written.push(said);
    }
    await Promise.all(people.map((person) => person.reads(written)));
  });

  test('a late joiner reads what was written before', { timeout: 60_000 }, async () => {
    const dora = await chromium.person('Dora');
    await dora.join(server, ROOM);
    await dora.reads(written);
    await dora.press('leave');
    await dora.close();
    await ada.sees(tile('Dora'), { gone: true });
  });

  test('a muted microphone is silent for the others, and comes back', { timeout: 90_000 }, async () => {
    await ben.press('toggle-microphone');
    await isMuted(ben, true);
    await cleo.hearsOnly(2);
    await ben.press('toggle-microphone');
    await isMuted(ben, false);
    await cleo.hears(3);
  });

  test('the owner mutes somebody, who may speak again', { timeout: 90_000 }, async () => {
    // Ada made the room by being the first in it.
    const page = /** @type {any} */ (ada.page).playwright;
    await ada.press('toggle-people');
    await page.getByRole('button', { name: 'What to do about Cleo' }).click();
    await page.getByText('Mute', { exact: true }).click();
    await isMuted(cleo, true);
    await finn.hearsOnly(2);
    await ada.press('toggle-chat');
    await cleo.press('toggle-microphone');
    await isMuted(cleo, false);
    await ada.hears(3);
  });

  test('a camera that is turned off and on again is seen again', { timeout: 60_000 }, async () => {
    await ben.press('toggle-camera');
    await until(
      'the room knows that Ben’s camera is off',
      async () => (await track('Ben', 'camera'))?.muted !== false,
    );
    await ben.press('toggle-camera');
    await until(
      'the room knows that Ben’s camera is on',
      async () => (await track('Ben', 'camera'))?.muted === false,
    );
    await finn.watches('Ben');
  });

  test('who turns on a camera that the browser does not send is told so', { timeout: 60_000 }, async () => {
    await ben.press('toggle-camera');
    await until(
      'the room knows that Ben’s camera is off',
      async () => (await track('Ben', 'camera'))?.muted !== false,
    );
    await ben.page.evaluate(() => {
      const replace = RTCRtpSender.prototype.replaceTrack;
      RTCRtpSender.prototype.replaceTrack = () => {
        RTCRtpSender.prototype.replaceTrack = replace;
        return Promise.reject(new Error('no encoder is left'));
      };
    }, undefined);
    await ben.press('toggle-camera');
    await until('Ben is told so', async () =>
      (await ben.text()).includes('Your browser does not send your camera: no encoder is left'),
    );
    // By then the refusal is over: the next time it is sent.
    await ben.press('toggle-camera');
    await until(
      'the room knows that Ben’s camera is off again',
      async () => (await track('Ben', 'camera'))?.muted !== false,
    );
    await ben.press('toggle-camera');
    await finn.watches('Ben');
  });

  test('a shared screen reaches everyone, and ends', { timeout: 90_000 }, async () => {
    await ada.press('share-screen');
    for (const person of [ben, cleo, finn]) await person.watches('Ada', { source: 'screen', seconds: 45 });
    await ada.press('share-screen');
    await until('the screen is no track of Ada’s', async () => (await track('Ada', 'screen')) === undefined);
    for (const person of [ben, finn])
      await person.sees(`${tile('Ada')}[data-source="screen"]`, { gone: true });
  });

  test('who leaves is gone, and is seen again after coming back', { timeout: 90_000 }, async () => {
    await cleo.press('leave');
    for (const person of [ada, ben, finn]) await person.sees(tile('Cleo'), { gone: true });
    await cleo.join(server, ROOM);
    for (const person of [ada, ben, finn]) await person.watches('Cleo');
    for (const person of [ada, ben, finn]) await cleo.watches(person.name);
    await cleo.reads(written);
  });

  test('no page has complained', () => {
    for (const person of people) assert.deepEqual(person.page.complaints(), [], person.name);
  });

  /** @param {string} name */
  const tile = (name) => `${hook('tile')}[data-participant="${name}"]`;

  /**
   * What the room says about a track.
   *
   * @param {string} name
   * @param {string} source
   */
  async function track(name, source) {
    const all = (await server.call('GET', `/rooms/${ROOM}/participants`)).body;
    const participant = all.find((/** @type {any} */ each) => each.identity === name);
    return participant?.tracks.find((/** @type {any} */ each) => each.source === source);
  }

  /**
   * @param {Person} person
   * @param {boolean} muted
   */
  async function isMuted(person, muted) {
    await until(
      `the room says that ${person.name} is ${muted ? '' : 'not '}muted`,
      async () => (await track(person.name, 'microphone'))?.muted === muted,
    );
  }
});
