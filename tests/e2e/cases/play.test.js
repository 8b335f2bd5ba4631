/**
 * A file as a participant: sent into the room, played to all by its owner, paused, sought in, ended; and
 * everything that is no film.
 *
 * @import { Person } from '../harness/person.js'
 * @import { Page } from 'playwright-core'
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { film, lay, REORDERED, seesColour } from '../harness/film.js';
import { hook } from '../harness/person.js';
import { until } from '../harness/until.js';
import { scratch } from '../harness/uploads.js';
import { setUp } from '../harness/world.js';

const ROOM = 'film-room';
const FILM = 'film.mp4';
/** Seconds of each colour. */
const COLOUR_S = 6;
const OTHER = 'other.mp4';
const PHONE = 'phone.mp4';

describe('a file that is played', { timeout: 180_000 }, () => {
  const world = setUp({ settings: { PLAY__PLAYERS_PER_ROOM_MAX: '2' } });
  /** @type {Person} */ let ada;
  /** @type {Person} */ let ben;
  /** @type {Awaited<ReturnType<typeof scratch>>} */ let folder;

  before(async () => {
    folder = await scratch();
    await film(join(folder.path, FILM), COLOUR_S);
    await film(join(folder.path, OTHER), COLOUR_S, REORDERED);
    await lay(join(folder.path, FILM), join(folder.path, PHONE));
    [ada, ben] = [await world.chromium.person('Ada'), await world.chromium.person('Ben')];
    await ada.join(world.server, ROOM);
    await ben.join(world.server, ROOM);
  });
  after(() => folder?.remove());

  /** @param {Person} person @returns {Page} */
  const page = (person) => /** @type {any} */ (person.page).playwright;
  const players = async () => (await world.server.call('GET', `/rooms/${ROOM}/play`)).body;
  /** @param {string} name */
  const idOf = async (name) => {
    const { files } = (await world.server.call('GET', `/rooms/${ROOM}/files`)).body;
    return files.find((/** @type {any} */ file) => file.name === name)?.id;
  };
  /** @param {string} name */
  const send = async (name) => {
    await page(ada).setInputFiles(hook('file-input'), [join(folder.path, name)]);
    return await until(`${name} is in the room`, () => idOf(name));
  };
  /** @param {object} body @param {number} status */
  const refused = async (body, status) => {
    const answer = await world.server.call('POST', `/rooms/${ROOM}/play`, { body, allow: [status] });
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    return answer.body.code;
  };

  test('its owner has it played by a button, and all see and hear it', { timeout: 90_000 }, async () => {
    await send(FILM);
    const card = `${hook('file-item')}[data-name="${FILM}"]`;
    await ben.sees(card);
    assert.equal(
      await page(ben)
        .locator(`${card} ${hook('file-play')}`)
        .count(),
      0,
      'Ben rules nothing',
    );
    await ada.sees(card);
    await page(ada)
      .locator(`${card} ${hook('file-play')}`)
      .click();
    for (const person of [ada, ben]) {
      await person.watches(FILM, { source: 'screen' });
      await seesColour(person, FILM, 'screen', 'red');
    }
    const [player] = await players();
    assert.deepEqual([player.name, player.video, player.audio, player.copied], [FILM, true, true, true]);
    assert.ok(Math.abs(player.duration_ms - COLOUR_S * 3_000) < 200, JSON.stringify(player));
    // Ada's microphone, and the film's tone.
    await ben.hears(2);
    const stats = (await world.server.call('GET', `/rooms/${ROOM}/stats`)).body;
    const sent = stats.participants.find((/** @type {any} */ one) => one.identity === FILM);
    assert.equal(sent.role, 'player');
    const codecs = sent.sends.map((/** @type {any} */ track) => track.codec);
    assert.deepEqual(codecs.sort(), ['h264', 'opus']);
  });

  test('it stands where its owner stops it, for who comes late too', { timeout: 90_000 }, async () => {
    await ada.press('player-toggle');
    await ben.sees(`${hook('player')}[data-paused]`);
    const frames = async () => (await ben.video(FILM, 'screen'))?.frames;
    let before = -1;
    await until('no more pictures come', async () => {
      const now = await frames();
      const stands = now === before;
      before = now;
      return stands;
    });
    const [{ id }] = await players();
    const path = `/rooms/${ROOM}/play/${id}`;
    const changed = await world.server.call('PATCH', path, { body: { position_ms: COLOUR_S * 2_500 } });
    assert.deepEqual([changed.body.paused, changed.body.position_ms], [true, COLOUR_S * 2_500]);
    await seesColour(ben, FILM, 'screen', 'blue');
    const late = await world.chromium.person('Late');
    await late.join(world.server, ROOM);
    await seesColour(late, FILM, 'screen', 'blue');
    await late.close();
  });

  test('only its owner moves it, and not past its end', { timeout: 30_000 }, async () => {
    const [{ id }] = await players();
    const path = `/rooms/${ROOM}/play/${id}`;
    for (const button of ['player-toggle', 'player-seek', 'player-stop'])
      assert.equal(await page(ben).locator(hook(button)).count(), 0, button);
    const beyond = { body: { position_ms: COLOUR_S * 3_000 + 60_000 }, allow: [400] };
    assert.equal((await world.server.call('PATCH', path, beyond)).body.code, 'malformed');
    const odd = { body: { speed: 2 }, allow: [400] };
    assert.equal((await world.server.call('PATCH', path, odd)).body.code, 'malformed');
    const nobody = { body: { paused: true }, allow: [404] };
    assert.equal((await world.server.call('PATCH', `/rooms/${ROOM}/play/999`, nobody)).status, 404);
  });

  test('it goes on and leaves by itself at its end', { timeout: 60_000 }, async () => {
    await ada.press('player-toggle');
    await ben.watches(FILM, { source: 'screen' });
    await until('the film is over', async () => (await players()).length === 0, { show: players });
    await ben.sees(`${hook('tile')}[data-participant="${FILM}"]`, { gone: true });
  });

  test('what browsers do not decode is coded anew, and sought in', { timeout: 90_000 }, async () => {
    await send(OTHER);
    const body = { file: await idOf(OTHER), paused: true };
    const player = (await world.server.call('POST', `/rooms/${ROOM}/play`, { body })).body;
    assert.deepEqual([player.copied, player.paused], [false, true]);
    await seesColour(ben, OTHER, 'screen', 'red');
    const path = `/rooms/${ROOM}/play/${player.id}`;
    const change = { body: { position_ms: COLOUR_S * 1_500, paused: false } };
    assert.equal((await world.server.call('PATCH', path, change)).body.paused, false);
    await seesColour(ben, OTHER, 'screen', 'lime');
    await ben.watches(OTHER, { source: 'screen' });
    await ada.press('player-stop');
    await ben.sees(`${hook('tile')}[data-participant="${OTHER}"]`, { gone: true });
    assert.deepEqual(await players(), []);
  });

  test('a film of a phone is upright, and so is its thumbnail', { timeout: 90_000 }, async () => {
    const file = await send(PHONE);
    const { files } = (await world.server.call('GET', `/rooms/${ROOM}/files`)).body;
    const { width, height, url } = files.find((/** @type {any} */ one) => one.id === file);
    assert.deepEqual([width, height], [180, 320]);
    const path = join(folder.path, 'thumbnail.jpg');
    const thumbnail = await fetch(`${world.server.url}${url}/thumbnail`);
    assert.equal(thumbnail.status, 200);
    await writeFile(path, new Uint8Array(await thumbnail.arrayBuffer()));
    const show = ['-v', 'error', '-show_entries', 'stream=width,height', '-of', 'csv=p=0', path];
    const [wide, high] = (await promisify(execFile)('ffprobe', show)).stdout.split(',').map(Number);
    assert.ok((wide ?? 0) < (high ?? 0), `${wide} x ${high}`);
    const player = (await world.server.call('POST', `/rooms/${ROOM}/play`, { body: { file } })).body;
    assert.equal(player.copied, false);
    await seesColour(ben, PHONE, 'screen', 'red');
    const tile = `[data-testid="tile"][data-participant="${PHONE}"] video`;
    const size = await ben.page.evaluate((video) => {
      const { videoWidth, videoHeight } = /** @type {HTMLVideoElement} */ (document.querySelector(video));
      return [videoWidth, videoHeight];
    }, tile);
    assert.deepEqual(size, [180, 320]);
    await world.server.call('DELETE', `/rooms/${ROOM}/play/${player.id}`);
  });

  test('what cannot be played is refused, and said why', { timeout: 90_000 }, async () => {
    const whole = await readFile(join(folder.path, FILM));
    await writeFile(join(folder.path, 'cut.mp4'), whole.subarray(0, whole.length / 2));
    await writeFile(join(folder.path, 'words.txt'), 'no film');
    for (const name of ['cut.mp4', 'words.txt'])
      assert.equal(await refused({ file: await send(name) }, 415), 'unsupported_media_type', name);
    assert.equal(await refused({ file: 'no-such-file' }, 404), 'not_found');
    assert.equal(await refused({ file: '../../etc/passwd' }, 400), 'malformed');
    assert.equal(await refused({ url: 'http://127.0.0.1/film.mp4' }, 400), 'malformed');
    const file = await idOf(FILM);
    for (let count = 0; count < 2; count += 1)
      await world.server.call('POST', `/rooms/${ROOM}/play`, { body: { file, paused: true } });
    assert.equal(await refused({ file }, 413), 'quota_exceeded');
    const names = (await players()).map((/** @type {any} */ player) => player.participant);
    assert.deepEqual(names, [FILM, `${FILM}-2`], 'one is told from the other');
    const removed = await world.server.call('DELETE', `/rooms/${ROOM}/participants/${FILM}`);
    assert.equal(removed.status, 204);
    await until('who is removed plays no more', async () => (await players()).length === 1);
    const elsewhere = { body: { file }, allow: [404] };
    assert.equal((await world.server.call('POST', '/rooms/no-such-room/play', elsewhere)).status, 404);
  });
});
