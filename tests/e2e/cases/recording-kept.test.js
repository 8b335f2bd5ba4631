/**
 * What becomes of recordings: as long as what was recorded, no more than a room may have, put in order after
 * a crash, gone when their time is over. A film is what is recorded, so every picture of it is known.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { film } from '../harness/film.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';
import { put, scratch } from '../harness/uploads.js';

const ROOM = 'kept-room';
const FILM = 'film.mp4';
const COLOUR_S = 2;
const PICTURES_PER_S = 25;
const PICTURES = COLOUR_S * 3 * PICTURES_PER_S;
/**
 * The first pictures are placed by when they were read, which takes the recorder longer while it makes their
 * files: 45 ms here.
 */
const LENGTH_OFF_MAX_S = 0.1;
const run = promisify(execFile);

describe('recordings that are kept', { timeout: 180_000 }, () => {
  /** @type {Server} */ let server;
  /** @type {Awaited<ReturnType<typeof scratch>>} */ let folder;
  /** @type {string} */ let file;

  before(async () => {
    folder = await scratch();
    await film(join(folder.path, FILM), COLOUR_S);
    // A byte of recordings is all that a room may have: a second one does not begin.
    server = await Server.start({
      RECORDINGS__ROOM_BYTES_MAX: '1',
      RECORDINGS__RETENTION_DAYS: '1',
      RECORDINGS__DISK_FREE_MIN_BYTES: '0',
    });
    file = (await put(server, ROOM, FILM, await readFile(join(folder.path, FILM)))).id;
  });
  after(async () => {
    await server?.stop();
    await folder?.remove();
  });

  const list = async () => (await server.call('GET', `/rooms/${ROOM}/recordings`)).body.recordings;
  const players = async () => (await server.call('GET', `/rooms/${ROOM}/play`)).body;
  /** Begins a recording and, once it runs, the film. */
  const record = async () => {
    const { id } = (await server.call('POST', `/rooms/${ROOM}/recordings`)).body;
    await until('the recorder runs', async () => {
      return (await server.call('GET', `/rooms/${ROOM}`)).body.recording?.active;
    });
    await server.call('POST', `/rooms/${ROOM}/play`, { body: { file } });
    return id;
  };
  /** @param {string} id */
  const finished = async (id) => {
    const find = async () => (await list()).find((/** @type {any} */ one) => one.id === id);
    await until('it is finished', async () => (await find())?.state === 'finished', {
      seconds: 60,
      show: async () => [await find(), server.log(20)],
    });
    return await find();
  };
  /** @param {string} id */
  const folderOf = (id) => join(server.dataDir, 'recordings', ROOM, id);
  /** The picture of a recording: how many frames, and their first and last times. @param {any} recording */
  const pictureOf = async (recording) => {
    const { name } = recording.files.find((/** @type {any} */ one) => one.content === 'video');
    const path = join(folderOf(recording.id), name);
    const show = ['-select_streams', 'v:0', '-show_entries', 'frame=pts_time', '-of', 'csv=p=0'];
    const { stdout, stderr } = await run('ffprobe', ['-v', 'error', ...show, path]);
    assert.equal(stderr, '', `${name} does not decode`);
    const times = stdout.split('\n').map(Number.parseFloat).filter(Number.isFinite);
    return { frames: times.length, first: Number(times[0]), last: Number(times.at(-1)) };
  };

  test('one has every picture of what was recorded, and its length', { timeout: 90_000 }, async (t) => {
    const id = await record();
    await until('the film is over', async () => (await players()).length === 0, { show: players });
    await server.call('POST', `/rooms/${ROOM}/recordings/${id}/stop`);
    const { frames, first, last } = await pictureOf(await finished(id));
    const seconds = last - first + 1 / PICTURES_PER_S;
    t.diagnostic(`${frames} frames of ${PICTURES} in ${seconds.toFixed(3)} s of ${COLOUR_S * 3}`);
    assert.equal(frames, PICTURES);
    assert.ok(Math.abs(seconds - COLOUR_S * 3) <= LENGTH_OFF_MAX_S, `${seconds} s`);
  });

  test('a room that has as many as it may begins none', { timeout: 30_000 }, async () => {
    const [{ id }] = await list();
    const full = await server.call('POST', `/rooms/${ROOM}/recordings`, { allow: [413] });
    assert.equal(full.body.code, 'quota_exceeded');
    assert.match(full.body.detail, /delete/);
    await server.call('DELETE', `/rooms/${ROOM}/recordings/${id}`);
    assert.deepEqual(await list(), []);
  });

  test('one that was cut with its node is put in order by the next', { timeout: 90_000 }, async () => {
    const id = await record();
    await until('a second of it is on the disk', async () => {
      const [recording] = await list();
      return recording.files.some((/** @type {any} */ one) => one.content === 'video' && one.bytes > 2_000);
    });
    // The machine stops: neither the recorder nor its node has time for anything.
    const { stdout } = await run('ps', ['-o', 'pid=,args=', '--ppid', String(server.pid)]);
    const line = stdout.split('\n').find((one) => one.trim().endsWith(' record'));
    const recorder = Number.parseInt(line ?? '', 10);
    assert.ok(recorder > 0, stdout);
    process.kill(recorder, 'SIGSTOP');
    await server.crash();
    process.kill(recorder, 'SIGKILL');
    const path = folderOf(id);
    const told = JSON.parse(await readFile(join(path, 'recording.json'), 'utf8'));
    assert.equal(told.state, 'recording');
    // It was a while ago, or a recorder that is to go on with it could be on its way.
    const before = new Date(Date.now() - 60_000);
    for (const name of await readdir(path)) await utimes(join(path, name), before, before);
    await server.restart();
    const recording = await finished(id);
    assert.equal(recording.reason, 'failed');
    assert.ok(
      recording.files.every((/** @type {any} */ one) => one.complete),
      JSON.stringify(recording),
    );
    const { frames } = await pictureOf(recording);
    assert.ok(frames >= PICTURES_PER_S / 2, `${frames} frames`);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    assert.match(metrics, /antiphon_recordings_repaired_total 1/);
  });

  test('one whose time is over is gone', { timeout: 60_000 }, async () => {
    assert.equal((await list()).length, 1);
    await server.crash();
    await server.restartLater(20);
    assert.equal((await list()).length, 1, 'a day is not over');
    await server.crash();
    await server.restartLater(50);
    await until('it is removed', async () => (await list()).length === 0, { show: list });
    assert.deepEqual(await readdir(join(server.dataDir, 'recordings', ROOM)), []);
  });
});
