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
import { coloursOf, film } from '../harness/film.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';
import { put, scratch } from '../harness/uploads.js';

const FILM = 'film.mp4';
const COLOUR_S = 2;
const PICTURES_PER_S = 25;
const PICTURES = COLOUR_S * 3 * PICTURES_PER_S;
/** A picture of the film. */
const PICTURE_S = 1 / PICTURES_PER_S;
/** A mixer shows somebody who comes, and what they send, within so much, on a machine that has other work. */
const SHOWN_WITHIN_S = 0.5;
/** How often the film is played into a mix. */
const ROUNDS = 3;
const run = promisify(execFile);

describe('recordings that are kept', { timeout: 180_000 }, () => {
  /** @type {Server} */ let server;
  /** @type {Awaited<ReturnType<typeof scratch>>} */ let folder;

  before(async () => {
    folder = await scratch();
    await film(join(folder.path, FILM), COLOUR_S);
    // A byte of recordings is all that a room may have: a second one does not begin.
    server = await Server.start({
      RECORDINGS__ROOM_BYTES_MAX: '1',
      RECORDINGS__RETENTION_DAYS: '1',
      RECORDINGS__DISK_FREE_MIN_BYTES: '0',
      MCU__CORES_NEEDED: '0',
    });
  });
  after(async () => {
    await server?.stop();
    await folder?.remove();
  });

  /** @param {string} room */
  const list = async (room) => (await server.call('GET', `/rooms/${room}/recordings`)).body.recordings;
  /** Plays the film in a room. @param {string} room */
  const play = async (room) => {
    const { id } = await put(server, room, FILM, await readFile(join(folder.path, FILM)));
    await server.call('POST', `/rooms/${room}/play`, { body: { file: id } });
  };
  /** @param {string} room */
  const isOver = async (room) => {
    const players = async () => (await server.call('GET', `/rooms/${room}/play`)).body;
    await until('the film is over', async () => (await players()).length === 0, { show: players });
  };
  /**
   * Opens a room, begins a recording there and, once it runs, the film.
   *
   * @param {string} room
   * @param {object} [body]
   */
  const record = async (room, body = {}) => {
    await put(server, room, 'first.txt', 'a file opens the room');
    const { id, mix } = (await server.call('POST', `/rooms/${room}/recordings`, { body })).body;
    await until('the recorder runs', async () => {
      return (await server.call('GET', `/rooms/${room}`)).body.recording?.active;
    });
    if (mix) {
      const files = async () => (await list(room)).find((/** @type {any} */ one) => one.id === id)?.files;
      const isMix = (/** @type {any} */ { content }) => content === 'mix';
      await until('the mix is recorded', async () => (await files())?.some(isMix), { show: files });
    }
    await play(room);
    return id;
  };
  /** A second of it is on the disk. @param {string} room */
  const isWritten = (room) =>
    until('a second of it is on the disk', async () => {
      const [recording] = await list(room);
      return recording.files.some((/** @type {any} */ one) => one.content === 'video' && one.bytes > 2_000);
    });
  /** @param {string} room @param {string} id */
  const finished = async (room, id) => {
    const find = async () => (await list(room)).find((/** @type {any} */ one) => one.id === id);
    await until('it is finished', async () => (await find())?.state === 'finished', {
      seconds: 60,
      show: async () => [await find(), server.log(20)],
    });
    return await find();
  };
  /** @param {string} room @param {string} id */
  const stopped = async (room, id) => {
    await server.call('POST', `/rooms/${room}/recordings/${id}/stop`);
    return await finished(room, id);
  };
  /** @param {string} room @param {string} id */
  const folderOf = (room, id) => join(server.dataDir, 'recordings', room, id);
  /** The picture of a recording: how many frames, and their first and last times. @param {any} recording */
  const pictureOf = async (recording) => {
    const { name } = recording.files.find((/** @type {any} */ one) => one.content === 'video');
    const path = join(folderOf(recording.room, recording.id), name);
    const show = ['-select_streams', 'v:0', '-show_entries', 'frame=pts_time', '-of', 'csv=p=0'];
    const { stdout, stderr } = await run('ffprobe', ['-v', 'error', ...show, path]);
    assert.equal(stderr, '', `${name} does not decode`);
    const times = stdout.split('\n').map(Number.parseFloat).filter(Number.isFinite);
    return { frames: times.length, first: Number(times[0]), last: Number(times.at(-1)) };
  };

  test('one has every picture of what was recorded, and its length', { timeout: 90_000 }, async (t) => {
    const room = 'kept-whole';
    const id = await record(room);
    await isOver(room);
    const recording = await stopped(room, id);
    const { frames, first, last } = await pictureOf(recording);
    const seconds = last - first + PICTURE_S;
    assert.equal(frames, PICTURES);
    assert.ok(Math.abs(seconds - COLOUR_S * 3) <= PICTURE_S, `${seconds} s`);
    // Each file ends with the film, as far from the recording's beginning as that is.
    const tracks = recording.files.filter((/** @type {any} */ one) => /video|audio/.test(one.content));
    assert.equal(tracks.length, 2);
    for (const { name, content, start_ms, end_ms } of tracks) {
      const path = join(folderOf(room, id), name);
      const { stdout } = await run('ffprobe', [
        ...['-v', 'error', '-show_entries', 'format=duration', '-of', 'csv=p=0', path],
      ]);
      const length = Number(stdout) - start_ms / 1000;
      t.diagnostic(`${name}: ${length.toFixed(3)} s of ${COLOUR_S * 3}, from ${start_ms} to ${end_ms} ms`);
      assert.ok(Math.abs(length - COLOUR_S * 3) <= PICTURE_S, `${content}: ${length} s`);
    }
  });

  test('a room that has as many as it may begins none', { timeout: 60_000 }, async () => {
    const room = 'kept-full';
    const id = await record(room);
    await isWritten(room);
    await stopped(room, id);
    const full = await server.call('POST', `/rooms/${room}/recordings`, { allow: [413] });
    assert.equal(full.body.code, 'quota_exceeded');
    assert.match(full.body.detail, /delete/);
    await server.call('DELETE', `/rooms/${room}/recordings/${id}`);
    assert.deepEqual(await list(room), []);
  });

  test('the mix is as long as the call, and shows the film as long as it is', {
    timeout: 120_000,
  }, async (t) => {
    const room = 'kept-mix';
    const id = await record(room, { mix: true, tracks: false });
    await isOver(room);
    for (let round = 1; round < ROUNDS; round += 1) {
      await play(room);
      await isOver(room);
    }
    const { files, started_at_ms, ended_at_ms } = await stopped(room, id);
    const { name } = files.find((/** @type {any} */ one) => one.content === 'mix');
    const path = join(folderOf(room, id), name);
    const show = ['-show_entries', 'format=duration:stream=codec_type,start_time,duration', '-of', 'json'];
    const { format, streams } = JSON.parse((await run('ffprobe', ['-v', 'error', ...show, path])).stdout);
    const call = (ended_at_ms - started_at_ms) / 1000;
    const seen = await coloursOf(path);
    t.diagnostic(`${format.duration} s of a call of ${call} s; ${JSON.stringify([streams, seen])}`);
    assert.ok(Math.abs(Number(format.duration) - call) <= PICTURE_S, `${format.duration} s of ${call}`);
    assert.deepEqual(
      seen.map(({ colour }) => colour),
      Array(ROUNDS).fill(['red', 'lime', 'blue']).flat(),
    );
    const lengths = seen.map(({ colour, from, to }) => ({ colour, seconds: (to - from) / 1000 }));
    const of = (/** @type {string} */ which) =>
      lengths.filter(({ colour }) => colour === which).map(({ seconds }) => seconds);
    // A mix shows what it gets when it gets it: on a busy machine a picture is late, and its colour begins or
    // ends so much later. A time that is counted wrongly would be wrong in each round.
    const off = of('lime').map((seconds) => Math.abs(seconds - COLOUR_S));
    t.diagnostic(`the film's middle is seen for ${of('lime').map((seconds) => seconds.toFixed(3))} s`);
    assert.ok(Math.min(...off) <= PICTURE_S, `${of('lime')} s of ${COLOUR_S}`);
    // What a mixer takes to show who comes, and does not show of who has gone, is at a film's two ends.
    for (const { colour, seconds } of lengths)
      assert.ok(Math.abs(seconds - COLOUR_S) < SHOWN_WITHIN_S, `${colour} for ${seconds} s`);
  });

  test('one that was cut with its node is put in order by the next', { timeout: 90_000 }, async () => {
    const room = 'kept-cut';
    const id = await record(room);
    await isWritten(room);
    // The machine stops: neither the recorder nor its node has time for anything.
    const { stdout } = await run('ps', ['-o', 'pid=,args=', '--ppid', String(server.pid)]);
    const line = stdout.split('\n').find((one) => one.trim().endsWith(' record'));
    const recorder = Number.parseInt(line ?? '', 10);
    assert.ok(recorder > 0, stdout);
    process.kill(recorder, 'SIGSTOP');
    await server.crash();
    process.kill(recorder, 'SIGKILL');
    const path = folderOf(room, id);
    const told = JSON.parse(await readFile(join(path, 'recording.json'), 'utf8'));
    assert.equal(told.state, 'recording');
    // It was a while ago, or a recorder that is to go on with it could be on its way.
    const before = new Date(Date.now() - 60_000);
    for (const name of await readdir(path)) await utimes(join(path, name), before, before);
    await server.restart();
    const recording = await finished(room, id);
    assert.equal(recording.reason, 'failed');
    assert.ok(
      recording.files.every((/** @type {any} */ one) => one.complete),
      JSON.stringify(recording),
    );
    const { frames } = await pictureOf(recording);
    assert.ok(frames >= PICTURES_PER_S / 2, `${frames} frames`);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    assert.match(metrics, /antiphon_recordings_repaired_total [1-9]/);
  });

  test('one whose time is over is gone', { timeout: 60_000 }, async () => {
    const room = 'kept-old';
    const id = await record(room);
    await isWritten(room);
    await stopped(room, id);
    await server.crash();
    await server.restartLater(20);
    assert.equal((await list(room)).length, 1, 'a day is not over');
    await server.crash();
    await server.restartLater(50);
    await until('it is removed', async () => (await list(room)).length === 0, { show: () => list(room) });
    assert.deepEqual(await readdir(join(server.dataDir, 'recordings', room)), []);
  });
});
