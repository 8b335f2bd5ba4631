/**
 * Files in the page: dropped, pasted and chosen; seen by the others and by who comes late; held, gone on
 * with, stopped, deleted.
 *
 * @import { Person } from '../harness/person.js'
 * @import { Page } from 'playwright-core'
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { hook } from '../harness/person.js';
import { until } from '../harness/until.js';
import { put, randomFile, scratch, sha256 } from '../harness/uploads.js';
import { setUp } from '../harness/world.js';

const ROOM = 'file-room';
const MIB = 2 ** 20;
/** As much as goes over the data channel, in two parts; and one byte more. */
const PASTED = 'é'.repeat(32 * 1024);
const LARGE = `${PASTED}!`;
const fixture = (/** @type {string} */ name) => new URL(`../fixtures/${name}`, import.meta.url).pathname;

describe('files in the page', { timeout: 180_000 }, () => {
  const world = setUp();
  /** @type {Person} */ let ada;
  /** @type {Person} */ let ben;
  /** @type {Awaited<ReturnType<typeof scratch>>} */ let folder;

  before(async () => {
    folder = await scratch();
    [ada, ben] = [await world.chromium.person('Ada'), await world.chromium.person('Ben')];
    await ada.join(world.server, ROOM);
    await ben.join(world.server, ROOM);
  });

  after(() => folder?.remove());

  /** @param {Person} person @returns {Page} */
  const page = (person) => /** @type {any} */ (person.page).playwright;

  /** Waits for a file on somebody's screen. @param {Person} person @param {string} name */
  async function seesFile(person, name) {
    await person.sees(`${hook('file-item')}[data-name="${name}"]`, { what: `${person.name} sees ${name}` });
    return page(person).locator(`${hook('file-item')}[data-name="${name}"]`);
  }

  /**
   * Drops or pastes a file, as the system would. @param {'drop' | 'paste'} how @param {string} name
   * @param {string} text
   */
  async function bring(how, name, text) {
    await ada.page.evaluate(
      ([kind, called, words]) => {
        const data = new DataTransfer();
        data.items.add(new File([words ?? ''], called ?? '', { type: 'text/plain' }));
        const target = document.querySelector('[data-testid="chat-input"]') ?? document.body;
        if (kind === 'paste') {
          target.dispatchEvent(
            new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }),
          );
          return;
        }
        for (const type of ['dragenter', 'dragover', 'drop'])
          target.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
      },
      [how, name, text],
    );
  }

  test('what is chosen, dropped or pasted is in the chat of all, and of who comes late', async () => {
    const posts = /** @type {string[]} */ ([]);
    page(ada).on('request', (request) => {
      if (request.method() === 'POST' && request.url().endsWith('/files')) posts.push(request.url());
    });
    await page(ada).setInputFiles(hook('file-input'), [
      fixture('clip.mp4'),
      fixture('tone.mp3'),
      fixture('upright.jpg'),
    ]);
    await bring('drop', 'dropped.txt', 'dropped words');
    await bring('paste', 'pasted.txt', PASTED);
    await bring('drop', 'large.txt', LARGE);
    const late = await world.chromium.person('Late');
    await Promise.all(
      ['clip.mp4', 'tone.mp3', 'upright.jpg', 'dropped.txt', 'pasted.txt', 'large.txt'].map((name) =>
        seesFile(ben, name),
      ),
    );
    await late.join(world.server, ROOM);
    for (const name of ['clip.mp4', 'dropped.txt', 'upright.jpg']) await seesFile(late, name);
    await late.close();
    await ada.sees(hook('file-upload'), { gone: true });
    assert.equal(posts.length, 1, 'what has up to 64 KiB goes over the data channel');
    const { body } = await world.server.call('GET', `/rooms/${ROOM}/files`);
    const hashes = Object.fromEntries(body.files.map((/** @type {any} */ file) => [file.name, file.sha256]));
    assert.deepEqual([hashes['pasted.txt'], hashes['large.txt']], [sha256(PASTED), sha256(LARGE)]);
  });

  test('pictures, sound and video show what they are', async () => {
    const { body } = await world.server.call('GET', `/rooms/${ROOM}/files`);
    const by = Object.fromEntries(body.files.map((/** @type {any} */ file) => [file.name, file]));
    const { 'clip.mp4': clip, 'tone.mp3': tone, 'upright.jpg': picture } = by;
    assert.deepEqual(
      [clip.media_type, clip.width, clip.height, clip.thumbnail],
      ['video/mp4', 160, 90, true],
    );
    assert.ok(Math.abs(clip.duration_ms - 3000) < 200, `${clip.duration_ms} ms`);
    assert.deepEqual([tone.media_type, tone.thumbnail], ['audio/mpeg', false]);
    assert.ok(Math.abs(tone.duration_ms - 2000) < 200, `${tone.duration_ms} ms`);
    // It was taken with the camera held upright.
    assert.deepEqual([picture.width, picture.height, picture.thumbnail], [32, 64, true]);
    const shown = await seesFile(ben, 'upright.jpg');
    await until('the picture is drawn upright', () =>
      shown.locator('img').evaluate((/** @type {HTMLImageElement} */ img) => img.naturalHeight === 64),
    );
  });

  test('a video plays in the chat', async () => {
    const clip = await seesFile(ben, 'clip.mp4');
    await clip.getByRole('button', { name: 'Play clip.mp4' }).click();
    const seeable = () =>
      clip.locator('video').evaluate((/** @type {HTMLVideoElement} */ video) => video.duration > 2);
    // Debian's Chromium plays H.264; one that does not would say so.
    await until('the video is loaded', seeable, { show: () => ben.describe() });
  });

  test('a file is saved as it was sent, under its name', async () => {
    const file = await seesFile(ben, 'dropped.txt');
    const [download] = await Promise.all([
      page(ben).waitForEvent('download'),
      file.locator(hook('file-download')).click(),
    ]);
    assert.equal(download.suggestedFilename(), 'dropped.txt');
    assert.equal(await readFile(await download.path(), 'utf8'), 'dropped words');
  });

  test('an upload is held, outlasts the line and the page, and goes on where it was', async () => {
    const path = `${folder.path}/large.bin`;
    const hash = await randomFile(path, 48 * MIB);
    const network = await page(ada).context().newCDPSession(page(ada));
    const throttle = (/** @type {boolean} */ offline, rate = 4 * MIB) =>
      network.send('Network.emulateNetworkConditions', {
        offline,
        latency: 0,
        downloadThroughput: -1,
        uploadThroughput: rate,
      });
    await network.send('Network.enable');
    await throttle(false);
    await page(ada).setInputFiles(hook('file-input'), path);
    const upload = page(ada).locator(hook('file-upload'));
    const sent = async () => Number(await upload.locator('progress').getAttribute('value'));
    await until('some of it is sent', async () => (await sent()) > 8);
    await ada.press('file-pause');
    await ada.sees(`${hook('file-upload')}[data-state="paused"]`);
    await ada.press('file-resume');
    await ada.sees(`${hook('file-upload')}[data-state="sending"]`);
    await until('more of it is sent', async () => (await sent()) > 16);
    await ada.page.goto(`${world.server.url}/`);
    await ada.join(world.server, ROOM);
    await ada.sees(hook('file-left'), { what: 'the page remembers what was left behind' });
    await throttle(false, -1);
    const offsets = /** @type {number[]} */ ([]);
    page(ada).on('request', (request) => {
      const offset = request.method() === 'PATCH' ? request.headers()['upload-offset'] : undefined;
      if (offset !== undefined) offsets.push(Number(offset));
    });
    await page(ada).setInputFiles(hook('file-input'), path);
    await seesFile(ben, 'large.bin');
    assert.ok((offsets[0] ?? 0) > 4 * MIB, `it went on at ${offsets[0]}`);
    const { body } = await world.server.call('GET', `/rooms/${ROOM}/files`);
    assert.equal(body.files[0].sha256, hash);
    await ada.sees(hook('file-left'), { gone: true });
  });

  test('its author deletes a file, and nobody else but the owner', async () => {
    const mine = await put(world.server, ROOM, 'of-ben.txt', 'words of Ben', 'Ben');
    assert.equal(mine.sha256, sha256('words of Ben'));
    for (const person of [ada, ben]) await seesFile(person, 'of-ben.txt');
    const message = page(ben).locator(`${hook('chat-message')}[data-id="${mine.id}"]`);
    await message.hover();
    await message.getByRole('button', { name: 'More about this message' }).click();
    await message.getByText('Delete', { exact: true }).click();
    for (const person of [ada, ben])
      await person.sees(`${hook('file-item')}[data-name="of-ben.txt"]`, { gone: true });
    assert.equal((await fetch(world.server.url + mine.url)).status, 410);
  });

  test('what is refused is said in words', async () => {
    const url = `${world.server.url}/v1/rooms/${ROOM}/files`;
    await page(ada).route(`${url}*`, (route) =>
      route.request().method() === 'POST'
        ? route.fulfill({
            status: 413,
            contentType: 'application/problem+json',
            body: JSON.stringify({
              status: 413,
              code: 'quota_exceeded',
              detail: 'the room has 0 bytes left',
            }),
          })
        : route.fallback(),
    );
    // One that is too large for the data channel.
    await bring('drop', 'too-much.txt', 'words '.repeat(20_000));
    await ada.sees(`${hook('file-upload')}[data-state="failed"]`);
    assert.match(await ada.text(), /the room has 0 bytes left/i);
    await ada.press('file-cancel');
    await ada.sees(hook('file-upload'), { gone: true });
    await page(ada).unrouteAll();
  });
});
