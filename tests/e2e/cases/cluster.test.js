/**
 * A node that is killed under people's calls: the page finds the room at another node by itself, with what was
 * written and sent meanwhile. One that drains: what its room's owner had streamed and recorded goes on at the
 * next. And people who are served by another node than their room's.
 *
 * @import { Browser } from '../harness/browsers.js'
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { Cluster } from '../harness/cluster.js';
import { film } from '../harness/film.js';
import { png } from '../harness/mix.js';
import { startPageServer } from '../harness/page-server.js';
import { hook } from '../harness/person.js';
import { RtmpServer, selfSigned } from '../harness/rtmp.js';
import { S3Server } from '../harness/s3.js';
import { until } from '../harness/until.js';
import { filesOf, hashOf, put, scratch, sha256 } from '../harness/uploads.js';
import { hangUp, plays, publish, view } from '../harness/whip.js';

describe('a cluster of two nodes', () => {
  /** @type {Cluster} */
  let cluster;
  /** @type {Browser} */
  let chromium;
  /** @type {S3Server} */
  let s3;

  before(async () => {
    s3 = await S3Server.start();
    const settings = {
      ...s3.settings,
      MCU__ENABLED: 'true',
      MCU__FRAMES_PER_SECOND: '15',
      MCU__CORES_NEEDED: '0',
      // Long enough to hand rooms over.
      NODE__DRAIN_SECONDS: '4',
    };
    [cluster, chromium] = await Promise.all([Cluster.start(2, settings), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await cluster?.stop();
    await s3?.stop();
  });

  /** @typedef {import('../harness/server.js').Server} Server */

  /** How what a room's owner wanted is at a node. @param {Server} node @param {string} room */
  async function look(node, room) {
    const { body } = await node.call('GET', `/rooms/${room}`, { allow: [404, 503] });
    const pushes = (await node.call('GET', `/rooms/${room}/restreams`, { allow: [404, 503] })).body;
    const players = (await node.call('GET', `/rooms/${room}/play`, { allow: [404, 503] })).body;
    return [body.hls, body.recording?.active, pushes[0]?.state, players[0]?.paused];
  }

  /** Where a room's film is at a node, less when. @param {Server} node @param {string} room */
  async function position(node, room) {
    const [{ position_ms, at_ms }] = (await node.call('GET', `/rooms/${room}/play`)).body;
    return position_ms - at_ms;
  }

  /** Waits until all of it runs at a node. @param {Server} node @param {string} room */
  const runs = (node, room) =>
    until('all of it runs', async () => String(await look(node, room)) === 'true,true,live,false', {
      seconds: 40,
      show: async () => [await look(node, room), node.log(20)],
    });

  test('a viewer of another node sees and hears the room without going there', {
    timeout: 120_000,
  }, async (t) => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const site = await startPageServer();
    t.after(() => site.close());
    const room = await cluster.roomOn(first);
    const [sender, watcher] = await Promise.all([chromium.person('sender'), chromium.person('watcher')]);
    await Promise.all([sender, watcher].map((person) => person.page.goto(site.url)));
    const published = await publish(sender, { endpoint: `${first.url}/v1/rooms/${room}/whip`, codec: 'vp8' });
    assert.equal(published.status, 201, published.body);
    const viewed = await view(watcher, `${second.url}/v1/rooms/${room}/whep`);
    assert.equal(viewed.status, 201, viewed.body);
    assert.equal(new URL(viewed.location ?? '').origin, second.url);
    await plays(watcher);
    const viewers = async () => (await first.call('GET', `/rooms/${room}`)).body.viewers;
    assert.equal(await viewers(), 1);
    assert.equal(await hangUp(watcher), 200);
    await until('the home knows that it left', async () => (await viewers()) === 0);
    await Promise.all([sender.close(), watcher.close()]);
  });

  test('people whose pages are of two nodes are in one room, each connected to its own', {
    timeout: 120_000,
  }, async () => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const room = await cluster.roomOn(first);
    const [ada, ben] = await Promise.all([chromium.person('Ada'), chromium.person('Ben')]);
    await ada.join(first, room);
    await ben.join(second, room);
    await Promise.all([ada.watches('Ben'), ben.watches('Ada')]);
    await Promise.all([ada.hears(1), ben.hears(1)]);
    const metrics = await (await fetch(`${second.url}/metrics`)).text();
    assert.match(metrics, /^antiphon_relay_lodgers 1$/m, "Ben has not gone to the room's node");
    await ben.says('from far away');
    await ada.reads(['from far away']);
    await ada.says('welcome');
    await ben.reads(['from far away', 'welcome']);
    const { body } = await first.call('GET', `/rooms/${room}/participants`);
    assert.deepEqual(body.map((/** @type {any} */ one) => one.identity).sort(), ['Ada', 'Ben']);
    await Promise.all([ada.close(), ben.close()]);
  });

  test('who comes by another node waits in the lobby, brings a file, and goes where the room is mixed', {
    timeout: 120_000,
  }, async () => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const [ada, ben] = await Promise.all([chromium.person('Ada'), chromium.person('Ben')]);
    const lodgers = async () => {
      const metrics = await (await fetch(`${second.url}/metrics`)).text();
      return Number(/^antiphon_relay_lodgers ([0-9]+)$/m.exec(metrics)?.[1]);
    };
    // Her own, as she is the first in it.
    let room = 'with-a-lobby';
    for (let number = 1; ; number += 1) {
      await ada.join(first, room);
      if (new URL((await fetch(`${first.url}/v1/rooms/${room}`)).url).origin === first.url) break;
      room = `with-a-lobby-${number}`;
    }
    await first.call('PATCH', `/rooms/${room}`, { body: { lobby: true } });
    await ben.page.goto(`${second.url}/r/${room}?name=Ben&join=1`);
    await ben.sees(hook('lobby'), { what: 'Ben waits in the lobby' });
    await ada.press('toggle-people');
    await ada.press('admit');
    await ben.inRoom();
    await Promise.all([ada.watches('Ben'), ben.watches('Ada')]);
    await ada.press('toggle-chat');
    assert.equal(await lodgers(), 1, 'Ben is connected where he came');

    const notes = { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('from another node') };
    await /** @type {any} */ (ben.page).playwright.setInputFiles(hook('file-input'), notes);
    for (const person of [ada, ben])
      await person.sees(`${hook('file-item')}[data-name="notes.txt"]`, {
        what: `${person.name} sees the file`,
      });

    await first.call('PATCH', `/rooms/${room}`, { body: { mode: 'mcu' } });
    for (const person of [ada, ben]) {
      const hasMix = async () => (await person.tiles()).join() === 'mixer';
      await until(`${person.name} has the mix`, hasMix, { seconds: 30, show: () => person.tiles() });
      await person.watches('mixer');
    }
    assert.equal(await lodgers(), 0, "the mix that leaves out oneself is made at the room's node");
    await ben.says('here now');
    const saysIt = async () => (await ada.messages()).some((line) => line.includes('here now'));
    await until('Ada reads what Ben says from there', saysIt);
    await Promise.all([ada.close(), ben.close()]);
  });

  test('streams, pushes, recordings and films go on where a room goes when its node drains', {
    timeout: 180_000,
  }, async (t) => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const certificate = selfSigned();
    const rtmp = await RtmpServer.start(certificate);
    t.after(() => Promise.all([rtmp.stop(), rm(certificate.folder, { recursive: true })]));
    const room = await cluster.roomOn(first);
    const ada = await chromium.person('Ada');
    // Her page is of the node that stays.
    await ada.join(second, room);
    const key = 'a-secret-key';
    const body = { url: `rtmp://127.0.0.1:${rtmp.port}/live/${key}` };
    await first.call('POST', `/rooms/${room}/restreams`, { body });
    await first.call('POST', `/rooms/${room}/hls`);
    await first.call('POST', `/rooms/${room}/recordings`);
    const folder = await scratch();
    t.after(() => folder.remove());
    await film(join(folder.path, 'film.mp4'), 20);
    const { id } = await put(first, room, 'film.mp4', await readFile(join(folder.path, 'film.mp4')));
    await first.call('POST', `/rooms/${room}/play`, { body: { file: id } });
    await runs(first, room);
    const [before] = (await first.call('GET', `/rooms/${room}/recordings`)).body.recordings;
    const began = await position(first, room);
    process.kill(first.pid, 'SIGTERM');
    const drainedAt = Date.now();
    await until('the room is at the other node', async () => {
      const answer = await fetch(`${second.url}/v1/rooms/${room}`).catch(() => undefined);
      return answer?.ok && new URL(answer.url).origin === second.url;
    });
    await runs(second, room);
    t.diagnostic(`all of it runs at the next node ${Date.now() - drainedAt} ms after SIGTERM`);
    const moved = (await position(second, room)) - began;
    assert.ok(Math.abs(moved) < 1_000, `the film is ${moved} ms from where it would be`);
    assert.deepEqual((await rtmp.probe(key)).map((/** @type {any} */ one) => one.codec_name).sort(), [
      'aac',
      'h264',
    ]);
    await ada.sees(hook('recording-sign'), { what: 'Ada still sees that she is recorded' });
    const master = await (await fetch(`${second.url}/v1/rooms/${room}/hls/index.m3u8`)).text();
    assert.match(master, /#EXT-X-STREAM-INF/);
    const { recordings } = (await second.call('GET', `/rooms/${room}/recordings`)).body;
    assert.notEqual(recordings[0].id, before.id, 'another recording goes on');
    const earlier = await until('what the first node recorded is there, too', async () => {
      const { body } = await second.call('GET', `/rooms/${room}/recordings`);
      return body.recordings.find(
        (/** @type {any} */ one) => one.id === before.id && one.state === 'finished',
      );
    });
    assert.equal(earlier.reason, 'closed');
    for (const node of [first, second]) assert.ok(!node.log(2000).includes(key));
    // What its owner ends stays ended.
    await second.call('DELETE', `/rooms/${room}/hls`);
    if (!first.ended) await until('the first node is gone', () => first.ended, { seconds: 10 });
    await first.restart();
    await cluster.allKnow();
    const kept = (await first.call('GET', `/rooms/${room}/recordings`)).body.recordings;
    assert.equal(kept[0].id, recordings[0].id, 'the room answers from where it is');
    await ada.close();
  });

  test('files are there at every node, also when that of their room is killed', {
    timeout: 120_000,
  }, async () => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const room = await cluster.roomOn(first);
    // By the other node: it sends clients where the room is.
    const bytes = Buffer.alloc(300_000, 'the same at every node ');
    const file = await put(second, room, 'notes.txt', bytes);
    assert.equal(file.sha256, sha256(bytes));
    for (const node of [first, second])
      assert.equal(await hashOf(`${filesOf(node, room)}/${file.id}`), file.sha256);
    await first.crash();
    await until('it is given by the node that is left', async () => {
      const answer = await fetch(`${filesOf(second, room)}/${file.id}`).catch(() => undefined);
      return answer?.ok && sha256(Buffer.from(await answer.arrayBuffer())) === file.sha256;
    });
    const { body } = await second.call('GET', `/rooms/${room}/files`);
    assert.deepEqual([body.files.length, body.files[0].name], [1, 'notes.txt']);
    await first.restart();
    await cluster.allKnow();
  });

  test('what a room streams, plays, shows and recorded is at its next node when its own is killed', {
    timeout: 180_000,
  }, async (t) => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const certificate = selfSigned();
    const rtmp = await RtmpServer.start(certificate);
    t.after(() => Promise.all([rtmp.stop(), rm(certificate.folder, { recursive: true })]));
    const room = await cluster.roomOn(first);
    const ada = await chromium.person('Ada');
    await ada.join(second, room);
    // A recording that is finished before.
    const { id } = (await first.call('POST', `/rooms/${room}/recordings`)).body;
    const path = `/rooms/${room}/recordings/${id}`;
    // Its recorder takes a moment to begin.
    const recorded = async (/** @type {Server} */ node) =>
      (await node.call('GET', path, { allow: [404] })).body;
    await until('her picture is recorded', async () => (await recorded(first)).files?.length >= 2, {
      show: () => recorded(first),
    });
    await first.call('POST', `${path}/stop`);
    await until('it is finished', async () => (await recorded(first)).state === 'finished', { seconds: 40 });
    const { files } = await recorded(first);
    const hash = (/** @type {Server} */ node, /** @type {string} */ name) =>
      hashOf(`${node.url}/v1${path}/files/${name}`);
    const hashes = await Promise.all(files.map((/** @type {any} */ { name }) => hash(first, name)));
    await until('it is in the bucket', async () => {
      return /^antiphon_recordings_archived_total [1-9]/m.test(
        await (await fetch(`${first.url}/metrics`)).text(),
      );
    });
    // And what runs.
    const body = { url: `rtmp://127.0.0.1:${rtmp.port}/live/again` };
    await first.call('POST', `/rooms/${room}/restreams`, { body });
    await first.call('POST', `/rooms/${room}/hls`);
    await first.call('POST', `/rooms/${room}/recordings`);
    const folder = await scratch();
    t.after(() => folder.remove());
    await film(join(folder.path, 'film.mp4'), 40);
    const { id: file } = await put(first, room, 'film.mp4', await readFile(join(folder.path, 'film.mp4')));
    await first.call('POST', `/rooms/${room}/play`, { body: { file } });
    const picture = new Blob([new Uint8Array(await png(ada, '#2040e0'))]);
    const laid = await fetch(`${first.url}/v1/rooms/${room}/backdrop`, { method: 'PUT', body: picture });
    assert.equal(laid.status, 204);
    await runs(first, room);
    const began = await position(first, room);
    await first.crash();
    const killedAt = Date.now();
    await until('the room is at the other node', async () => {
      const answer = await fetch(`${second.url}/v1/rooms/${room}`, { redirect: 'manual' }).catch(
        () => undefined,
      );
      return answer?.status === 200;
    });
    await runs(second, room);
    t.diagnostic(`all of it runs at the next node ${Date.now() - killedAt} ms after kill -9`);
    const moved = (await position(second, room)) - began;
    assert.ok(Math.abs(moved) < 1_000, `the film is ${moved} ms from where it would be`);
    const codecs = (await rtmp.probe('again')).map((/** @type {any} */ one) => one.codec_name).sort();
    assert.deepEqual(codecs, ['aac', 'h264']);
    const master = await (await fetch(`${second.url}/v1/rooms/${room}/hls/index.m3u8`)).text();
    assert.match(master, /#EXT-X-STREAM-INF/);
    assert.equal((await second.call('GET', `/rooms/${room}`)).body.has_backdrop, true);
    const listed = (await second.call('GET', `/rooms/${room}/recordings`)).body.recordings;
    assert.ok(listed.some((/** @type {any} */ one) => one.id === id && one.state === 'finished'));
    assert.deepEqual(
      await Promise.all(files.map((/** @type {any} */ { name }) => hash(second, name))),
      hashes,
    );
    const part = await fetch(`${second.url}/v1${path}/files/${files[0].name}`, {
      headers: { Range: 'bytes=1-3' },
    });
    assert.deepEqual([part.status, part.headers.get('content-length')], [206, '3']);
    assert.equal((await second.call('DELETE', path)).status, 204);
    assert.equal((await second.call('GET', path, { allow: [404] })).status, 404);
    await ada.close();
    await first.restart();
    await cluster.allKnow();
  });

  test('people find each other again when the node of their room is killed', {
    timeout: 180_000,
  }, async (t) => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    // Ada's page is of the node that dies, Ben's of the other.
    const room = await cluster.roomOn(first);
    const [ada, ben] = await Promise.all([chromium.person('Ada'), chromium.person('Ben')]);
    await ada.join(first, room);
    await ben.join(second, room);
    await ada.watches('Ben');
    await ben.watches('Ada');
    await ada.says('before');
    await ben.reads(['before']);
    await first.call('POST', `/rooms/${room}/recordings`);
    await ada.sees(hook('recording-sign'));
    await first.crash();
    const lostAt = Date.now();
    await ada.says('is anybody there?');
    const back = async (/** @type {Person} */ person) => {
      await person.sees(hook('reconnecting'), { seconds: 20 });
      await person.sees(hook('reconnecting'), { gone: true, seconds: 20 });
    };
    await Promise.all([back(ada), back(ben)]);
    const tookMs = Date.now() - lostAt;
    assert.ok(tookMs < 15_000, `back after ${tookMs} ms`);
    t.diagnostic(`browsers back ${tookMs} ms after kill -9, with leases of 2 s`);
    await ada.watches('Ben');
    await ben.watches('Ada');
    await ben.reads(['before', 'is anybody there?']);
    await until('it is recorded again', async () => {
      return (await second.call('GET', `/rooms/${room}`)).body.recording?.active;
    });
    const { body } = await second.call('GET', `/rooms/${room}/participants`);
    assert.deepEqual(body.map((/** @type {any} */ one) => one.identity).sort(), ['Ada', 'Ben']);
    await Promise.all([ada.close(), ben.close()]);
  });
});
