/**
 * A room that costs money, with simulated wallets: the door, the ticket, the owner's desk, the page and its
 * QR code, and what a crash between two steps leaves.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { Payer, sell } from '../harness/paying.js';
import { hook } from '../harness/person.js';
import { readCode } from '../harness/qr.js';
import { RESULTS, Server } from '../harness/server.js';
import { until } from '../harness/until.js';

const WIF = '5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss';

describe('a room that costs money', () => {
  /** @type {Server} */
  let server;

  before(async () => {
    server = await Server.start({ PAYMENTS__INVOICES_PER_ADDRESS: '200' });
  });

  after(() => server?.stop());

  test('is shut to who has not paid, by every way in, and says what to pay', async () => {
    const { room } = await sell(server);
    for (const path of ['participants', 'whep', 'whip']) {
      const { status, headers, body } = await new Payer(server, room).knock({ path });
      assert.equal(status, 402, path);
      assert.equal(headers.get('content-type'), 'application/problem+json');
      assert.equal(body.code, 'payment_required');
      assert.equal(body.invoice.state, 'new');
      assert.equal(body.invoice.amount_sat, 20_000);
      assert.ok(body.invoice.expires_at_ms > Date.now());
      assert.match(body.uri, /^BITCOIN:BCRT1[0-9A-Z]+\?amount=0\.00020000&lightning=LNBCRT/);
      assert.match(headers.get('www-authenticate') ?? '', /^L402 macaroon="[^"]+", invoice="lnbcrt[^"]+"$/);
    }
    for (const path of ['participants', 'messages', 'files', 'stats']) {
      const { status, body } = await server.call('GET', `/rooms/${room}/${path}`, { allow: [402] });
      assert.equal(status, 402, path);
      assert.equal(body.code, 'payment_required');
    }
  });

  test('lets in within two seconds of the payment, with a ticket of minutes', async () => {
    const { room } = await sell(server);
    const payer = new Payer(server, room);
    const { body } = await payer.knock();
    assert.equal((await payer.access()).status, 402, 'not before');
    const paidAt = Date.now();
    await payer.pretend(body.invoice.id);
    await until('there is a ticket', async () => (await payer.access()).status === 200);
    const took = Date.now() - paidAt;
    assert.ok(took < 2000, `it took ${took} ms`);
    const { body: ticket } = await payer.access();
    const minutes = (ticket.token_expires_at_ms - Date.now()) / 60_000;
    assert.ok(minutes > 3 && minutes <= 5.1, `a token of ${minutes} minutes`);
    assert.ok(ticket.until_ms > Date.now() + 59 * 60_000 - took);
    assert.equal(ticket.receipts.length, 1);
    const receipt = await fetch(`${server.url}${ticket.receipts[0]}`);
    assert.match(receipt.headers.get('content-disposition') ?? '', /^attachment; filename="receipt-/);
    const text = await receipt.text();
    for (const words of [room, ticket.viewer, '60 minutes', '20000 sats', 'by Lightning, payment hash'])
      assert.ok(text.includes(words), `${words} in\n${text}`);
    const unpaid = (await new Payer(server, room).knock()).body.invoice.id;
    const none = await server.call('GET', `/rooms/${room}/invoices/${unpaid}/receipt`, { allow: [404] });
    assert.equal(none.status, 404);
    assert.equal(await payer.enter(), 201);
    assert.equal((await payer.knock()).status, 402, 'without the ticket it is somebody else');
  });

  test('counts blocks, parts, surplus and replacements', async () => {
    const { room } = await sell(server, { price: { sats: 150_000 } });
    const payer = new Payer(server, room);
    const { id } = (await payer.knock()).body.invoice;
    await payer.pretend(id, { rail: 'onchain', sats: 100_000, confirmations: 2 });
    const partial = await until('a part is seen', async () => {
      const invoice = await payer.invoice(id);
      return invoice.flags.partial && invoice;
    });
    assert.equal(partial.remaining_sat, 50_000);
    await payer.pretend(id, { rail: 'onchain', sats: 60_000, confirmations: 1 });
    await payer.reaches(id, 'processing');
    await payer.pretend(id, { rail: 'onchain', sats: 60_000, confirmations: 2 });
    const settled = await payer.reaches(id, 'settled');
    assert.ok(settled.flags.over);
    await payer.pretend(id, { rail: 'onchain', sats: 100_000, confirmations: null });
    await payer.reaches(id, 'reversed');
    assert.equal((await payer.access()).status, 402);
    await payer.pretend(id, { rail: 'onchain', sats: 100_000, confirmations: 3 });
    await payer.reaches(id, 'settled');
  });

  test('follows an invoice by server-sent events', async () => {
    const { room } = await sell(server);
    const payer = new Payer(server, room);
    const { id } = (await payer.knock()).body.invoice;
    const stop = new AbortController();
    const answer = await fetch(`${server.url}/v1/rooms/${room}/invoices/${id}/events`, {
      signal: stop.signal,
    });
    assert.match(answer.headers.get('content-type') ?? '', /^text\/event-stream/);
    /** @type {string[]} */
    const states = [];
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    while (!states.includes('settled')) {
      const chunk = await reader?.read();
      text += chunk?.value ?? '';
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) if (line.startsWith('data: ')) states.push(JSON.parse(line.slice(6)).state);
      if (states.length === 1) await payer.pretend(id);
    }
    stop.abort();
    assert.equal(states[0], 'new');
  });

  test('gives its owner the means, and puts out whom the owner revokes', async () => {
    const { room, token } = await sell(server);
    const payer = new Payer(server, room);
    const { id } = (await payer.knock()).body.invoice;
    await server.call('POST', `/rooms/${room}/invoices/${id}/mark`, {
      body: { reason: 'cash, in hand' },
      token,
    });
    assert.equal(await payer.enter(), 201);
    const viewer = payer.claim?.viewer;
    const people = async () => (await server.call('GET', `/rooms/${room}/participants`, { token })).body;
    const isIn = async () =>
      (await people()).some((/** @type {{ identity: string }} */ one) => one.identity === viewer);
    assert.ok(await isIn());
    const path = `/rooms/${room}/subscribers/${viewer}`;
    await server.call('POST', path, { body: { action: 'revoke', reason: 'rude' }, token });
    await until('it is put out', async () => !(await isIn()));
    assert.equal((await payer.access()).status, 403);
    await server.call('POST', path, { body: { action: 'restore' }, token });
    assert.equal(await payer.enter(), 201);
    const { body } = await server.call('GET', `/rooms/${room}/subscribers`, { token });
    assert.equal(body.length, 1);
    assert.equal(body[0].subscription.state, 'active');
    const csv = await fetch(`${server.url}/v1/rooms/${room}/subscribers?format=csv`, {
      headers: { authorization: `Bearer ${token}` },
    });
    assert.match(await csv.text(), new RegExp(`\r\n${viewer},active,0,${id},settled,20000,20000,.*,marked,`));
    const stranger = await server.call('GET', `/rooms/${room}/subscribers`, {
      token: (await payer.access()).body.token,
      allow: [403],
    });
    assert.equal(stranger.status, 403);
  });

  test('takes no private key, and never says it again', async () => {
    const { room, token } = await sell(server);
    const { status, body } = await server.call('PUT', `/rooms/${room}/payout`, {
      body: { descriptor: `wpkh(${WIF})` },
      token,
      allow: [400],
    });
    assert.equal(status, 400);
    assert.match(body.detail, /private/);
    assert.ok(!JSON.stringify(body).includes(WIF) && !server.log(2000).includes(WIF));
  });

  test('tells its owner by signed webhooks, in order, and calls no private network', async () => {
    const { room, token } = await sell(server);
    /** @type {{ event: string, good: boolean }[]} */
    const heard = [];
    let secret = '';
    const receiver = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8').on('data', (text) => {
        body += text;
      });
      request.on('end', () => {
        const [, at, mac] =
          /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(request.headers['antiphon-signature'])) ?? [];
        const right = createHmac('sha256', secret).update(`${at}.${body}`).digest('hex');
        const { id, event } = JSON.parse(body);
        const delivery = String(request.headers['antiphon-delivery']);
        const fresh = Math.abs(Number(at) - Date.now() / 1000) < 60;
        heard.push({
          event: event.kind,
          good: mac === right && fresh && id && /^[0-9a-f]{32}$/.test(delivery),
        });
        response.end();
      });
    });
    receiver.listen(0, '127.0.0.1');
    await once(receiver, 'listening');
    const { port } = /** @type {import('node:net').AddressInfo} */ (receiver.address());
    for (const url of [
      'https://10.0.0.1/',
      'https://169.254.169.254/x',
      'http://example.org/',
      'https://a:b@c.org/',
    ]) {
      const { status } = await server.call('PUT', `/rooms/${room}/webhook`, {
        body: { url },
        token,
        allow: [400],
      });
      assert.equal(status, 400, url);
    }
    const hook = await server.call('PUT', `/rooms/${room}/webhook`, {
      body: { url: `http://127.0.0.1:${port}/` },
      token,
    });
    secret = hook.body.secret;
    const payer = new Payer(server, room);
    const { id } = (await payer.knock()).body.invoice;
    await payer.pretend(id);
    await until('the settlement is told', async () => heard.some(({ event }) => event === 'invoice.settled'));
    receiver.close();
    assert.deepEqual(
      heard.map(({ event }) => event),
      [
        'offer.set',
        'webhook.set',
        'invoice.created',
        'invoice.offered',
        'payment.changed',
        'invoice.settled',
      ],
    );
    assert.ok(heard.slice(2).every(({ good }) => good));
  });

  test('refuses forged claims and foreign tickets', async () => {
    const [one, other] = [await sell(server), await sell(server)];
    const payer = new Payer(server, one.room);
    const { id } = (await payer.knock()).body.invoice;
    await payer.pretend(id);
    await payer.reaches(id, 'settled');
    const thief = new Payer(server, one.room);
    thief.claim = { viewer: payer.claim?.viewer ?? '', claim: '0'.repeat(32) };
    assert.equal((await thief.access()).status, 401);
    const { body } = await payer.access();
    const elsewhere = new Payer(server, other.room);
    assert.equal((await elsewhere.knock({ authorization: `Bearer ${body.token}` })).status, 403);
    assert.equal((await elsewhere.knock({ authorization: 'L402 AAAA:00' })).status, 401);
  });

  test('costs nothing again when its owner says so', async () => {
    const { room, token } = await sell(server);
    assert.equal((await new Payer(server, room).knock()).status, 402);
    await server.call('PATCH', `/rooms/${room}`, { body: { price: null }, token });
    assert.equal((await new Payer(server, room).knock()).status, 201);
  });

  test('counts its invoices', async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    for (const state of ['new', 'settled', 'reversed', 'processing'])
      assert.match(text, new RegExp(`antiphon_invoices_total\\{state="${state}"\\} [1-9]`));
  });
});

describe('payments and a server that is killed', () => {
  test('nothing that was promised or paid is lost', async () => {
    const server = await Server.start();
    try {
      const { room } = await sell(server);
      const payer = new Payer(server, room);
      const { invoice } = (await payer.knock()).body;
      await server.crash();
      await server.restart();
      const again = await payer.invoice(invoice.id);
      assert.equal(again.address, invoice.address);
      assert.equal(again.bolt11, invoice.bolt11);
      const { body } = await payer.access();
      assert.equal(body.invoice.id, invoice.id, 'one invoice, not two');
      await payer.pretend(invoice.id, { rail: 'onchain', confirmations: 1 });
      await payer.reaches(invoice.id, 'settled');
      await server.crash();
      await server.restart();
      assert.equal((await payer.access()).status, 200);
      const second = new Payer(server, room);
      const { body: next } = await second.knock();
      assert.notEqual(next.invoice.address, invoice.address, 'no address twice');
    } finally {
      await server.stop();
    }
  });
});

describe('the paywall on the page', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;

  before(async () => {
    [server, chromium] = await Promise.all([Server.start(), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await server?.stop();
  });

  test('shows a code that scans, follows the payment, and opens the door', async () => {
    const { room, token } = await sell(server);
    const person = await chromium.person('Vera');
    await person.page.goto(`${server.url}/r/${room}?name=Vera&join=1`);
    await person.sees(hook('paywall'));
    await person.sees(hook('pay-qr'));
    await person.sees(hook('simulated'));
    const picture = join(RESULTS, 'paywall.png');
    const read = await until('the code can be read', async () => {
      await person.page.screenshot(picture);
      return readCode(picture);
    });
    const shown = await person.page.evaluate((selector) => {
      return /** @type {HTMLElement} */ (document.querySelector(selector)).dataset.uri;
    }, hook('pay-qr'));
    assert.equal(read, shown);
    assert.match(read, /^BITCOIN:BCRT1[0-9A-Z]+\?amount=0\.00020000&lightning=LNBCRT/);
    const [subscriber] = (await server.call('GET', `/rooms/${room}/subscribers`, { token })).body;
    await new Payer(server, room).pretend(subscriber.invoices[0].id);
    await person.inRoom();
    await person.sees(hook('paid-time'));
    await person.page.screenshot(join(RESULTS, 'paid.png'));
    await person.page.click(hook('renew'));
    await person.sees(hook('receipt'));

    const path = `/rooms/${room}/subscribers/${subscriber.subscription.viewer}`;
    await server.call('POST', path, { body: { action: 'revoke', reason: 'rude' }, token });
    await person.sees(hook('ended'));
    await person.close();
  });

  test('an owner sets the price and sees who came', async () => {
    const { body } = await server.call('POST', '/rooms', { body: {} });
    const owner = await chromium.person('Olga');
    await owner.page.goto(`${server.url}/r/${body.name}?name=Olga&join=1#token=${body.owner_token}`);
    await owner.inRoom();
    await owner.page.click(hook('open-sales'));
    await owner.sees(hook('sales'));
    await owner.sees(hook('payout-address'));
    await owner.page.click(hook('price-save'));
    await until('the room costs something', async () => {
      return (await server.call('GET', `/rooms/${body.name}`)).body.price?.price.sats === 1000;
    });
    const payer = new Payer(server, body.name);
    const { invoice } = (await payer.knock()).body;
    await payer.pretend(invoice.id);
    await payer.reaches(invoice.id, 'settled');
    await until('the subscriber is listed', async () => {
      await owner.page.evaluate(() => {
        const buttons = [...document.querySelectorAll('button')];
        buttons.find((button) => button.textContent?.includes('Look again'))?.click();
      }, undefined);
      return (await owner.text()).includes('1,000 sats received');
    });
    await owner.page.screenshot(join(RESULTS, 'sales.png'));
    await owner.close();
  });
});
