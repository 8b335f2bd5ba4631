/**
 * A file and a recording that are sold: by the API, by L402, and on the page.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { Payer, sell } from '../harness/paying.js';
import { hook } from '../harness/person.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

const PRICE = { price: { sats: 5_000 }, period: { days: 30 } };

describe('contents that cost money', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;

  before(async () => {
    [server, chromium] = await Promise.all([
      Server.start({
        PAYMENTS__INVOICES_PER_ADDRESS: '200',
        MCU__FRAMES_PER_SECOND: '15',
        MCU__CORES_NEEDED: '0',
      }),
      startChromium(),
    ]);
  });

  after(async () => {
    await chromium?.close();
    await server?.stop();
  });

  /** A room with a file in it, which is sold. */
  async function fileForSale() {
    const { body } = await server.call('POST', '/rooms', { body: {} });
    const [room, token, bytes] = [body.name, body.owner_token, randomBytes(100_000)];
    const authorization = `Bearer ${token}`;
    const metadata = `filename ${Buffer.from('talk.bin').toString('base64')}`;
    const made = await fetch(`${server.url}/v1/rooms/${room}/files`, {
      method: 'POST',
      headers: {
        authorization,
        'tus-resumable': '1.0.0',
        'upload-length': String(bytes.length),
        'upload-metadata': metadata,
      },
    });
    assert.equal(made.status, 201);
    const location = new URL(made.headers.get('location') ?? '', made.url);
    const sent = await fetch(location, {
      method: 'PATCH',
      headers: {
        authorization,
        'tus-resumable': '1.0.0',
        'upload-offset': '0',
        'content-type': 'application/offset+octet-stream',
      },
      body: bytes,
    });
    assert.equal(sent.status, 204);
    const path = location.pathname.replace('/v1', '');
    await server.call('PUT', `${path}/price`, { body: { price: PRICE }, token });
    return { room, token, path, bytes, url: location.href, page: `/r${path.replace('/rooms', '')}` };
  }

  test('a file answers 402 with an invoice, and ranges of it to its buyer', async () => {
    const { room, token, path, bytes, url } = await fileForSale();
    const asked = await fetch(url);
    const challenge = await asked.json();
    assert.equal(asked.status, 402);
    assert.equal(challenge.code, 'payment_required');
    assert.equal(challenge.invoice.amount_sat, 5_000);
    assert.match(
      asked.headers.get('www-authenticate') ?? '',
      /^L402 macaroon="[^"]+", invoice="lnbcrt[^"]+"$/,
    );
    for (const method of ['link', 'thumbnail']) {
      const answer = await fetch(`${url}/${method}`, { method: method === 'link' ? 'POST' : 'GET' });
      assert.equal(answer.status, 402, `no way around by ${method}`);
    }
    assert.equal(
      (await fetch(url, { headers: { authorization: `Bearer ${token}` } })).status,
      200,
      'its owner',
    );

    const claim = { viewer: challenge.viewer, claim: challenge.claim };
    const access = () => server.call('POST', `${path}/access`, { body: claim, allow: [402] });
    const payer = new Payer(server, room);
    await payer.pretend(challenge.invoice.id, { rail: 'onchain', sats: 5_000, confirmations: 0 });
    await payer.reaches(challenge.invoice.id, 'processing');
    assert.equal((await access()).status, 402, 'seen is not paid: what was fetched cannot be taken back');
    await payer.pretend(challenge.invoice.id, { rail: 'onchain', sats: 5_000, confirmations: 1 });
    const { body: bought } = await until('it is bought', async () => {
      const answer = await access();
      return answer.status === 200 && answer;
    });
    assert.ok(bought.until_ms > Date.now() + 29 * 24 * 3600 * 1000);
    const [file] = bought.files;
    assert.ok(file.expires_at_ms <= Date.now() + 10 * 60 * 1000 + 1000, 'the address is of minutes');
    const whole = await fetch(`${server.url}${file.url}`);
    assert.equal(whole.status, 200);
    assert.ok(Buffer.from(await whole.arrayBuffer()).equals(bytes));
    const part = await fetch(`${server.url}${file.url}`, { headers: { range: 'bytes=1000-1999' } });
    assert.equal(part.status, 206);
    assert.ok(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(1000, 2000)));
    const stolen = file.url.replace(/viewer=[^&]+/, 'viewer=somebody-else');
    assert.equal((await fetch(`${server.url}${stolen}`)).status, 401);

    // What the chain takes back is not served, by an address that was good before either.
    await payer.pretend(challenge.invoice.id, { rail: 'onchain', sats: 5_000, confirmations: null });
    await payer.reaches(challenge.invoice.id, 'reversed');
    assert.equal((await fetch(`${server.url}${file.url}`)).status, 402);
    await payer.pretend(challenge.invoice.id, { rail: 'onchain', sats: 5_000, confirmations: 2 });
    await payer.reaches(challenge.invoice.id, 'settled');
    assert.equal((await fetch(`${server.url}${file.url}`)).status, 200);
    const revoke = { action: 'revoke', reason: 'shared it', content: { file: path.split('/').at(-1) } };
    await server.call('POST', `/rooms/${room}/subscribers/${claim.viewer}`, { body: revoke, token });
    assert.equal((await fetch(`${server.url}${file.url}`)).status, 402);
  });

  test('terms that would give a file away are refused, and an unknown file is not sold', async () => {
    const { room, token, path } = await fileForSale();
    for (const extra of [{ zero_conf: true }, { trial_seconds: 60 }, { preview_seconds: 60 }]) {
      const body = { price: { ...PRICE, ...extra } };
      const { status } = await server.call('PUT', `${path}/price`, { body, token, allow: [400] });
      assert.equal(status, 400);
    }
    const body = { price: PRICE };
    for (const nothing of ['files/nothing', 'recordings/nothing']) {
      const options = { body, token, allow: [404] };
      assert.equal((await server.call('PUT', `/rooms/${room}/${nothing}/price`, options)).status, 404);
      const asked = await server.call('POST', `/rooms/${room}/${nothing}/access`, { allow: [404] });
      assert.equal(asked.status, 404, 'and nobody is asked to pay for it');
    }
    const stranger = await server.call('PUT', `${path}/price`, {
      body,
      token: (await server.call('POST', '/rooms', { body: {} })).body.owner_token,
      allow: [403],
    });
    assert.equal(stranger.status, 403);
  });

  test('a file is bought on its page', async () => {
    const { room, token, page } = await fileForSale();
    const person = await chromium.person('Bea');
    await person.page.goto(`${server.url}${page}`);
    await person.sees(hook('pay-qr'));
    const { body } = await server.call('GET', `/rooms/${room}/subscribers`, { token });
    assert.ok(body[0].content.file);
    await new Payer(server, room).pretend(body[0].invoices[0].id);
    await person.sees(`${hook('content-file')}[data-name="talk.bin"]`);
    // The browser remembers.
    await person.page.goto(`${server.url}${page}`);
    await person.sees(hook('content-download'));
    await person.close();
  });

  test('a recording is sold by its owner on the page, and plays for its buyer', {
    timeout: 180_000,
  }, async () => {
    const { body } = await server.call('POST', '/rooms', { body: {} });
    const [room, token] = [body.name, body.owner_token];
    const owner = await chromium.person('Olga');
    await owner.page.goto(`${server.url}/r/${room}?name=Olga&join=1#token=${token}`);
    await owner.inRoom();
    const made = await server.call('POST', `/rooms/${room}/recordings`, { body: { tracks: true }, token });
    const path = `/rooms/${room}/recordings/${made.body.id}`;
    // It is listed once its recorder has begun to write.
    const recording = async () => (await server.call('GET', path, { token, allow: [404] })).body;
    await until('picture and sound are recorded', async () => (await recording()).files?.length >= 2, {
      show: recording,
    });
    await server.call('POST', `${path}/stop`, { token });
    await until('it is finished', async () => (await recording()).state === 'finished', { seconds: 60 });
    await owner.press('record-menu');
    await owner.press('recordings-open');
    await owner.press('content-sell');
    await owner.press('price-save');
    await owner.sees(hook('content-link'));
    assert.equal((await server.call('GET', `${path}/price`)).body.price.price.sats, 1_000);
    await owner.close();

    const buyer = await chromium.person('Bea');
    await buyer.page.goto(`${server.url}/r${path.replace('/rooms', '')}`);
    await buyer.sees(hook('pay-qr'));
    const [subscriber] = (await server.call('GET', `/rooms/${room}/subscribers`, { token })).body;
    assert.equal(subscriber.content.recording, made.body.id);
    await new Payer(server, room).pretend(subscriber.invoices[0].id);
    await buyer.sees(`video${hook('content-player')}`);
    const played = await until('the video plays', () =>
      buyer.page.evaluate(async (selector) => {
        const video = /** @type {HTMLVideoElement} */ (document.querySelector(`video${selector}`));
        video.muted = true;
        await video.play();
        return video.currentTime > 0 && video.videoHeight;
      }, hook('content-player')),
    );
    assert.ok(played > 0);
    await buyer.close();
  });

  test('a stream is watched by who has paid, for as long as that holds', { timeout: 120_000 }, async () => {
    const { room, token } = await sell(server);
    const call = (/** @type {string} */ method, /** @type {string} */ path, options = {}) =>
      server.call(method, `/rooms/${room}/${path}`, { allow: [401, 402, 403, 404], ...options });
    const owner = await chromium.person('Olga');
    await owner.page.goto(`${server.url}/r/${room}?name=Olga&join=1#token=${token}`);
    await owner.inRoom();
    const payer = new Payer(server, room);
    const { body } = await payer.knock();
    assert.equal((await call('POST', 'hls', { token })).status, 201);
    const index = `${server.url}/v1/rooms/${room}/hls/index.m3u8`;
    assert.equal((await fetch(index)).status, 402);
    await payer.pretend(body.invoice.id);
    const ticket = await until('there is a ticket', async () => {
      const { status, body } = await payer.access();
      return status === 200 && body.token;
    });
    // What its owner does with the room, nobody does for having paid.
    const bodies = {
      hls: {},
      restreams: { url: 'rtmp://127.0.0.1:9/live/key' },
      recordings: {},
      play: { file: 'x' },
    };
    for (const [path, body] of Object.entries(bodies))
      assert.equal((await call('POST', path, { body, token: ticket })).status, 403, path);
    const master = await until(
      'who has paid gets the stream',
      async () => {
        const answer = await fetch(`${index}?token=${ticket}`);
        return answer.status === 200 && (await answer.text());
      },
      { seconds: 40, show: () => server.log(20) },
    );
    const [first] = master.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    const playlist = new URL(first ?? '', index);
    assert.equal((await fetch(playlist)).status, 200);
    const revoked = { body: { action: 'revoke', reason: 'rude' }, token };
    await server.call('POST', `/rooms/${room}/subscribers/${payer.claim?.viewer}`, revoked);
    await until('its pass is worth nothing', async () => (await fetch(playlist)).status === 402);
    await owner.close();
  });

  test('an L402 token without its preimage opens nothing', async () => {
    const [one, other] = [await fileForSale(), await fileForSale()];
    const asked = await fetch(one.url);
    const [, macaroon] = /macaroon="([^"]+)"/.exec(asked.headers.get('www-authenticate') ?? '') ?? [];
    // Without the preimage, which only a payment gives, the macaroon is worth nothing.
    for (const url of [one.url, other.url]) {
      const answer = await fetch(url, { headers: { authorization: `L402 ${macaroon}:${'0'.repeat(64)}` } });
      assert.equal(answer.status, 401);
    }
  });
});
