/**
 * Small files that go over the data channel, by the page's own means: in the chat where they were dropped,
 * the same for who comes late, under the rules of all files, there once whatever becomes of the connection.
 *
 * @import { Person } from '../harness/person.js'
 * @import { Page } from 'playwright-core'
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, test } from 'node:test';
import { PNG } from 'pngjs';
import { startChromium } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { leadThrough, startRelay } from '../harness/relay.js';
import { freePort, Server } from '../harness/server.js';
import { until } from '../harness/until.js';
import { filesOf, sha256 } from '../harness/uploads.js';
import { setUp } from '../harness/world.js';

/** The most that goes over the data channel, in two parts. */
const SMALL_MAX = 64 * 1024;

/** @typedef {{ name: string, type?: string, bytes: Buffer }} Brought */

/** @param {Person} person @returns {Page} */
const page = (person) => /** @type {any} */ (person.page).playwright;

/** A picture that nothing can make smaller. @param {number} width @param {number} height */
function noise(width, height) {
  const png = new PNG({ width, height, colorType: 2 });
  // Whatever its colours, nothing is seen through it.
  png.data = Buffer.from(randomBytes(width * height * 4).map((value, at) => (at % 4 === 3 ? 255 : value)));
  return PNG.sync.write(png, { colorType: 2, filterType: 0 });
}

/**
 * Drops or pastes files, as the system would: all at once.
 *
 * @param {Person} person @param {'drop' | 'paste'} how @param {...Brought} files
 */
async function bring(person, how, ...files) {
  const plain = files.map(({ name, type = '', bytes }) => ({ name, type, bytes: bytes.toString('base64') }));
  await person.page.evaluate(
    ({ kind, brought }) => {
      const data = new DataTransfer();
      for (const { name, type, bytes } of brought) {
        const contents = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
        data.items.add(new File([contents], name, { type }));
      }
      const target = document.querySelector('[data-testid="chat-input"]') ?? document.body;
      const options = { bubbles: true, cancelable: true };
      if (kind === 'paste') {
        target.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, ...options }));
        return;
      }
      for (const event of ['dragenter', 'dragover', 'drop'])
        target.dispatchEvent(new DragEvent(event, { dataTransfer: data, ...options }));
    },
    { kind: how, brought: plain },
  );
}

/** A file on somebody's screen. @param {Person} person @param {string} name */
const itemOf = (person, name) => page(person).locator(`${hook('file-item')}[data-name="${name}"]`);

/** @param {Person} person @param {string} name */
async function seesFile(person, name) {
  await person.sees(`${hook('file-item')}[data-name="${name}"]`, { what: `${person.name} sees ${name}` });
  return itemOf(person, name);
}

/** What somebody saves of a file: its name, and its hash. @param {Person} person @param {string} name */
async function saved(person, name) {
  const item = await seesFile(person, name);
  const [download] = await Promise.all([
    page(person).waitForEvent('download'),
    item.locator(hook('file-download')).click(),
  ]);
  return { name: download.suggestedFilename(), hash: sha256(await readFile(await download.path())) };
}

/** How a file goes that is not in the room. @param {Person} person */
const sending = (person) =>
  page(person)
    .locator(hook('file-upload'))
    .evaluateAll((rows) =>
      rows.map((row) => ({ state: row.getAttribute('data-state'), text: row.textContent ?? '' })),
    );

/** @param {Server} server @param {string} room @returns {Promise<any[]>} */
const listed = async (server, room) => (await server.call('GET', `/rooms/${room}/files`)).body.files;

/**
 * Runs in the page, before its own scripts. `window.channel` counts the parts that were sent; what it is told
 * to lose is lost: parts but the first, or what the server says of files.
 */
function watchChannel() {
  const channel = { parts: 0, loseParts: false, loseAnswers: false, asked: /** @type {unknown[]} */ ([]) };
  Object.assign(window, { channel });
  const { send } = RTCDataChannel.prototype;
  RTCDataChannel.prototype.send = function (/** @type {any} */ text) {
    const message = typeof text === 'string' ? JSON.parse(text) : {};
    if (message.type === 'file.send') {
      channel.asked.push(message.request);
      if (channel.loseParts && message.offset > 0) return;
      channel.parts += 1;
    }
    send.call(this, text);
  };
  const { createDataChannel } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.createDataChannel = function (label, options) {
    // What was lost was lost with its connection.
    channel.loseAnswers = false;
    const made = createDataChannel.call(this, label, options);
    made.addEventListener('message', (event) => {
      if (!channel.loseAnswers || typeof event.data !== 'string') return;
      const { type, request, message } = JSON.parse(event.data);
      const isAnswer = type === 'ok' && channel.asked.includes(request);
      if (isAnswer || (type === 'chat.message' && message.file)) event.stopImmediatePropagation();
    });
    return made;
  };
}

/** @param {Person} person @param {{ loseParts?: boolean, loseAnswers?: boolean }} what */
const lose = (person, what) =>
  person.page.evaluate((change) => void Object.assign(/** @type {any} */ (window).channel, change), what);

/** @param {Person} person @returns {Promise<number>} */
const partsOf = (person) => person.page.evaluate(() => /** @type {any} */ (window).channel.parts, undefined);

/** Begins uploads over HTTP. @param {Person} person */
function watchPosts(person) {
  const posts = /** @type {string[]} */ ([]);
  page(person).on('request', (request) => {
    if (request.method() === 'POST' && request.url().endsWith('/files')) posts.push(request.url());
  });
  return posts;
}

/** Deletes what somebody sent, by the message's menu. @param {Person} person @param {string} name */
async function removes(person, name) {
  const message = page(person)
    .locator(hook('chat-message'))
    .filter({ has: itemOf(person, name) });
  await message.hover();
  await message.getByRole('button', { name: 'More about this message' }).click();
  const choice = page(person).getByText('Delete', { exact: true });
  const may = (await choice.count()) > 0;
  if (may) await choice.click();
  else await page(person).keyboard.press('Escape');
  return may;
}

describe('small files over the data channel', { timeout: 120_000 }, () => {
  const ROOM = 'small-files';
  const world = setUp();
  /** @type {Person} */ let ada;
  /** @type {Person} */ let ben;
  /** @type {string[]} */ let posts;

  before(async () => {
    [ada, ben] = [await world.chromium.person('Ada'), await world.chromium.person('Ben')];
    for (const person of [ada, ben]) await page(person).addInitScript(watchChannel);
    posts = watchPosts(ben);
    await ada.join(world.server, ROOM);
    await ben.join(world.server, ROOM);
  });

  test('a picture is in the chat where it was dropped, byte for byte, and for who comes late', async () => {
    const picture = noise(144, 108);
    assert.ok(picture.length > 45_000 && picture.length < SMALL_MAX, `${picture.length} bytes`);
    await ada.says('before it');
    await ben.reads(['before it']);
    await bring(ben, 'paste', { name: 'shot.png', type: 'image/png', bytes: picture });
    await seesFile(ada, 'shot.png');
    await ada.says('after it');
    const order = ['before it', 'shot.png', 'after it'];
    await Promise.all([ada, ben].map((person) => person.reads(order)));
    const late = await world.chromium.person('Late');
    await late.join(world.server, ROOM);
    await late.reads(order);
    for (const person of [ada, late]) {
      const shown = itemOf(person, 'shot.png').locator('img');
      await until(`${person.name} sees the picture itself`, () =>
        shown.evaluate((/** @type {HTMLImageElement} */ img) => img.naturalWidth === 144),
      );
      assert.deepEqual(await saved(person, 'shot.png'), { name: 'shot.png', hash: sha256(picture) });
    }
    assert.match(await itemOf(ada, 'shot.png').innerText(), /144 × 108/);
    assert.deepEqual([await partsOf(ben), posts], [2, []], 'in two parts over the data channel');
    assert.deepEqual(await sending(ben), []);
    await late.close();
  });

  test('several at once are all there, the large one over HTTP', async () => {
    const files = ['one.png', 'two.png', 'three.png'].map((name) => ({ name, bytes: noise(145, 110) }));
    const most = { name: 'most.bin', bytes: randomBytes(SMALL_MAX) };
    const more = { name: 'more.bin', bytes: randomBytes(SMALL_MAX + 1) };
    const none = { name: 'none.txt', bytes: Buffer.alloc(0) };
    const before = await partsOf(ben);
    const all = [...files, most, more, none];
    await bring(ben, 'drop', ...all);
    for (const { name } of all) await seesFile(ada, name);
    const found = Object.fromEntries((await listed(world.server, ROOM)).map((one) => [one.name, one.sha256]));
    for (const { name, bytes } of all) assert.equal(found[name], sha256(bytes), name);
    assert.deepEqual([(await partsOf(ben)) - before, posts.length], [9, 1]);
    await ben.sees(hook('file-upload'), { gone: true });
  });

  test('no name leads anywhere, and no file acts in the page’s origin', async () => {
    const script = '<script>document.title = "taken"</script>';
    const svg = `<svg xmlns="http://www.w3.org/2000/svg">${script}</svg>`;
    for (const [name, text, kept, type] of /** @type {[string, string, string, string][]} */ ([
      ['../../etc/passwd', 'root:x:0:0', 'passwd', 'text/plain'],
      ['logo.svg', svg, 'logo.svg', 'image/svg+xml'],
      ['photo.png', `<!doctype html>${script}`, 'photo.png', 'text/html'],
      ['a\u202egpj.exe', 'MZ', 'agpj.exe', 'text/plain'],
    ])) {
      await bring(ben, 'drop', { name, type: 'image/png', bytes: Buffer.from(text) });
      const item = await seesFile(ada, kept);
      assert.equal(await item.getAttribute('data-type'), type, name);
      assert.equal(await item.locator('img').count(), 0, `${name} is shown as what it is`);
      assert.deepEqual(await saved(ada, kept), { name: kept, hash: sha256(text) });
      const [file] = await listed(world.server, ROOM);
      const { headers } = await fetch(world.server.url + file.url);
      assert.equal(headers.get('content-security-policy'), "sandbox; default-src 'none'");
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
      assert.match(headers.get('content-disposition') ?? '', /^attachment; filename="/);
      const isText = type === 'text/plain';
      assert.equal(
        headers.get('content-type'),
        isText ? 'text/plain; charset=utf-8' : 'application/octet-stream',
      );
    }
    assert.notEqual(await page(ada).title(), 'taken');
  });

  test('its author deletes it, nobody else but the owner', async () => {
    await bring(ben, 'drop', { name: 'mine.txt', bytes: Buffer.from('words of Ben') });
    const cleo = await world.chromium.person('Cleo');
    await cleo.join(world.server, ROOM);
    await seesFile(cleo, 'mine.txt');
    const [file] = await listed(world.server, ROOM);
    assert.equal(await removes(cleo, 'mine.txt'), false);
    assert.equal(await removes(ben, 'mine.txt'), true);
    for (const person of [ada, ben, cleo])
      await person.sees(`${hook('file-item')}[data-name="mine.txt"]`, { gone: true });
    assert.equal((await fetch(world.server.url + file.url)).status, 410);
    await bring(ben, 'drop', { name: 'more.txt', bytes: Buffer.from('more words') });
    await seesFile(ada, 'more.txt');
    assert.equal(await removes(ada, 'more.txt'), true, 'the owner may');
    await cleo.sees(`${hook('file-item')}[data-name="more.txt"]`, { gone: true });
    await cleo.close();
  });
});

describe('small files and what there is room for', { timeout: 60_000 }, () => {
  const ROOM = 'small-quota';
  const world = setUp({
    settings: { FILES__FILE_BYTES_MAX: '60000', FILES__ROOM_BYTES_MAX: '100000' },
  });

  test('what is too much is refused in words, and goes when there is room', async () => {
    const ada = await world.chromium.person('Ada');
    await ada.join(world.server, ROOM);
    const refused = async (/** @type {RegExp} */ words) => {
      await ada.sees(`${hook('file-upload')}[data-state="failed"]`);
      const [row] = await sending(ada);
      assert.match(row?.text ?? '', words);
    };
    await bring(ada, 'drop', { name: 'large.bin', bytes: randomBytes(60_001) });
    await refused(/^large\.bin.*A file has at most 58\.5 KiB here\./);
    await ada.press('file-cancel');
    await ada.sees(hook('file-upload'), { gone: true });
    await bring(ada, 'drop', { name: 'first.bin', bytes: randomBytes(60_000) });
    await seesFile(ada, 'first.bin');
    const second = randomBytes(50_000);
    await bring(ada, 'drop', { name: 'second.bin', bytes: second });
    await refused(/^second\.bin.*The room has 39 KiB left of 97\.6 KiB for files.*delete some first\./);
    assert.equal((await listed(world.server, ROOM)).length, 1);
    assert.equal(await itemOf(ada, 'second.bin').count(), 0, 'it is not shown as sent');
    assert.equal(await removes(ada, 'first.bin'), true);
    await ada.sees(`${hook('file-item')}[data-name="first.bin"]`, { gone: true });
    await ada.press('file-resume');
    await seesFile(ada, 'second.bin');
    await ada.sees(hook('file-upload'), { gone: true });
    const files = await listed(world.server, ROOM);
    assert.deepEqual([files.length, files[0].sha256], [1, sha256(second)]);
  });
});

describe('small files and connections that are lost', { timeout: 180_000 }, () => {
  const ROOM = 'small-lost';
  /** @type {Server} */ let server;
  /** @type {Awaited<ReturnType<typeof startChromium>>} */ let chromium;
  /** @type {Awaited<ReturnType<typeof startRelay>>} */ let relay;
  /** @type {Person} */ let ada;
  /** @type {Person} */ let ben;

  before(async () => {
    const udp = await freePort();
    relay = await startRelay(udp);
    [server, chromium] = await Promise.all([
      Server.start({ MEDIA__UDP_PORT: String(udp), MEDIA__SHARDS: '1' }),
      startChromium(),
    ]);
    [ada, ben] = [await chromium.person('Ada'), await chromium.person('Ben')];
    await page(ada).addInitScript(leadThrough, relay.port);
    await page(ada).addInitScript(watchChannel);
    await ada.join(server, ROOM);
    await ben.join(server, ROOM);
  });

  after(async () => {
    relay?.close();
    await chromium?.close();
    await server?.stop();
  });

  afterEach(() => relay.mend());

  test('one whose second half was lost is not shown as sent, and comes when the network does', async (t) => {
    const picture = noise(144, 108);
    await lose(ada, { loseParts: true });
    await bring(ada, 'drop', { name: 'half.png', type: 'image/png', bytes: picture });
    await until('its first part went', async () => (await partsOf(ada)) === 1);
    relay.cut();
    await ada.sees(hook('reconnecting'), { what: 'the page says that it is reconnecting' });
    await ada.sees(hook('file-upload'), { what: 'the file is still on its way' });
    for (const person of [ada, ben]) assert.equal(await itemOf(person, 'half.png').count(), 0);
    t.diagnostic(JSON.stringify(await sending(ada)));
    await lose(ada, { loseParts: false });
    relay.mend();
    await ada.sees(hook('reconnecting'), { gone: true });
    for (const person of [ada, ben]) await seesFile(person, 'half.png');
    await ada.sees(hook('file-upload'), { gone: true });
    const files = await listed(server, ROOM);
    assert.deepEqual(
      files.map(({ name, sha256: hash }) => [name, hash]),
      [['half.png', sha256(picture)]],
    );
  });

  test('one that was dropped while there is no server waits for it', async () => {
    await server.crash();
    const text = Buffer.from('written in the dark');
    await ada.sees(hook('reconnecting'), { what: 'the page says that it is reconnecting' });
    await bring(ada, 'drop', { name: 'dark.txt', bytes: text });
    await ada.sees(hook('file-upload'), { what: 'the file waits' });
    assert.match((await sending(ada))[0]?.text ?? '', /dark\.txt.*Will be sent when connected again/);
    await server.restart();
    for (const person of [ada, ben]) await seesFile(person, 'dark.txt');
    await ada.sees(hook('file-upload'), { gone: true });
  });

  test('one whose answer was lost with the server is in the room once', async () => {
    await lose(ada, { loseAnswers: true });
    await bring(ada, 'drop', { name: 'once.txt', bytes: Buffer.from('said once') });
    await seesFile(ben, 'once.txt');
    assert.equal(await itemOf(ada, 'once.txt').count(), 0, 'her page has not heard of it');
    const before = await partsOf(ada);
    await server.crash();
    await server.restart();
    await seesFile(ada, 'once.txt');
    await until('her page asks again', async () => (await partsOf(ada)) > before);
    await ada.sees(hook('file-upload'), { gone: true });
    const names = (await listed(server, ROOM)).map(({ name }) => name);
    assert.deepEqual(names, ['once.txt', 'dark.txt', 'half.png']);
    for (const { id } of await listed(server, ROOM))
      assert.equal((await fetch(`${filesOf(server, ROOM)}/${id}`)).status, 200);
  });
});
