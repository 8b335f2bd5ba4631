/**
 * What an owner can offer beside a price: a trial, a look for some time or at the lowest layer, a price in a
 * currency, renewals; and how an owner's server is told when it does not listen.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { Payer, sell } from '../harness/paying.js';
import { hook } from '../harness/person.js';
import { Notices, tokenFor } from '../harness/saga.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

const CAMERA = { width: 1280, height: 720, fps: 15 };
const LARGE = { width: 1600, height: 1000 };

describe('what a room can be sold with', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;

  before(async () => {
    [server, chromium] = await Promise.all([
      Server.start({ PAYMENTS__INVOICES_PER_ADDRESS: '200', PAYMENTS__RATES__EUR: '64000' }),
      startChromium(),
    ]);
  });

  after(async () => {
    await chromium?.close();
    await server?.stop();
  });

  /** @param {{ room: string, token: string }} shop @param {string} [viewer] */
  async function subscribers({ room, token }, viewer) {
    const { body } = await server.call('GET', `/rooms/${room}/subscribers`, { token });
    return body.filter(
      (/** @type {{ subscription: { viewer: string } }} */ one) =>
        viewer === undefined || one.subscription.viewer === viewer,
    );
  }

  test('a trial, once for each viewer and once for each address', async () => {
    const shop = await sell(server, { trial_seconds: 300 });
    const [first, second] = [new Payer(server, shop.room), new Payer(server, shop.room)];
    await first.knock();
    const { status, body } = await first.access();
    assert.equal(status, 200);
    assert.ok(body.until_ms <= Date.now() + 300_000 && body.until_ms > Date.now() + 290_000);
    assert.equal(await first.enter(), 201);
    const [mine] = await subscribers(shop, first.claim?.viewer);
    assert.equal(mine.subscription.state, 'trial');
    await second.knock();
    assert.equal((await second.access()).status, 402, 'the address has had its trial');
    // Whoever has a token of its own is known, whatever the address.
    const token = tokenFor('known by a token', shop.room);
    for (const wanted of [200, 200]) {
      const { status } = await server.call('POST', `/rooms/${shop.room}/access`, { token, allow: [402] });
      assert.equal(status, wanted);
    }
    assert.equal((await subscribers(shop, 'known by a token'))[0].subscription.state, 'trial');
  });

  test('a trial on the page, by a button', async () => {
    const { room } = await sell(server, { trial_seconds: 300 });
    const person = await chromium.person('Tria');
    await person.page.goto(`${server.url}/r/${room}?name=Tria&join=1`);
    await person.sees(hook('paywall'));
    await person.press('start-trial');
    await person.inRoom();
    await person.sees(hook('paid-time'));
    await person.close();
  });

  test('a look for some seconds ends by itself, and is not had again', async () => {
    const shop = await sell(server, { preview_seconds: 3 });
    assert.equal((await new Payer(server, shop.room).knock()).status, 201);
    const people = async () =>
      (await server.call('GET', `/rooms/${shop.room}/participants`, { token: shop.token })).body.length;
    assert.equal(await people(), 1);
    await until('the look ends', async () => (await people()) === 0);
    assert.equal((await new Payer(server, shop.room).knock()).status, 402);
  });

  test('a look at the lowest layer, and all of it once it is paid', { timeout: 180_000 }, async () => {
    const shop = await sell(server, { preview_lowest: true });
    const olga = await chromium.person('Olga', { camera: CAMERA });
    await olga.page.goto(`${server.url}/r/${shop.room}?name=Olga&join=1#token=${shop.token}`);
    await olga.inRoom();
    const vera = await chromium.person('Vera', { camera: null, viewport: LARGE });
    await vera.page.goto(`${server.url}/r/${shop.room}?name=Vera&join=1`);
    await vera.inRoom();
    await vera.sees(hook('preview'));
    const { body: people } = await server.call('GET', `/rooms/${shop.room}/participants`, {
      token: shop.token,
    });
    const isViewer = (/** @type {{ identity: string }} */ one) => one.identity.startsWith('viewer-');
    const publisher = people.find((/** @type {{ identity: string }} */ one) => !isViewer(one)).identity;
    assert.equal(people.find(isViewer).grant.lowest_layer, true);
    await vera.watches(publisher, { height: 180, seconds: 60 });
    await vera.press('preview');
    await vera.sees(hook('pay-qr'));
    const [subscriber] = await subscribers(shop);
    await new Payer(server, shop.room).pretend(subscriber.invoices[0].id);
    await vera.sees(hook('preview'), { gone: true, what: 'Vera sees all of it' });
    await vera.inRoom();
    await vera.sees(hook('paid-time'));
    await vera.watches(publisher, { height: 720, seconds: 90 });
    await vera.close();
    await olga.close();
  });

  test('a price in a currency is frozen in its invoice; one without a rate is refused', async () => {
    const fiat = (/** @type {string} */ currency) => ({ price: { fiat: { currency, cents: 500 } } });
    const shop = await sell(server, fiat('EUR'));
    const { body } = await new Payer(server, shop.room).knock();
    assert.equal(body.invoice.amount_sat, 7_813, '5 EUR at 64,000, rounded up to a satoshi');
    assert.deepEqual(body.invoice.rate, { currency: 'EUR', cents_per_btc: 6_400_000, source: 'configured' });
    const refused = await server.call('PATCH', `/rooms/${shop.room}`, {
      body: { price: { ...fiat('XYZ'), period: { days: 1 } } },
      token: shop.token,
      allow: [400],
    });
    assert.equal(refused.status, 400);
    assert.match(refused.body.detail, /no exchange rate/);
    const person = await chromium.person('Fia');
    await person.page.goto(`${server.url}/r/${shop.room}?name=Fia&join=1`);
    await person.sees(hook('pay-invoice'));
    assert.match(await person.text(), /7,813 sats\s+5\.00 EUR for 60 minutes/);
    await person.close();
  });

  test('a renewal is asked for in the room, and paid there', { timeout: 120_000 }, async () => {
    // The first reminder is due at once, so that the test waits for no period's end.
    const shop = await sell(server, { period: { minutes: 2 }, remind_seconds: 118 });
    const notices = await Notices.start();
    const hookAt = `/rooms/${shop.room}/webhook`;
    await server.call('PUT', hookAt, { body: { url: notices.url }, token: shop.token });
    const person = await chromium.person('Rena');
    await person.page.goto(`${server.url}/r/${shop.room}?name=Rena&join=1`);
    await person.sees(hook('pay-qr'));
    const [{ subscription, invoices }] = await subscribers(shop);
    const payer = new Payer(server, shop.room);
    await payer.pretend(invoices[0].id);
    await person.inRoom();
    await person.sees(`${hook('renew')}[data-due="true"]`, { what: 'the reminder is there' });
    const [before] = await subscribers(shop, subscription.viewer);
    await person.press('renew');
    await person.sees(hook('pay-qr'));
    const due = before.invoices.find((/** @type {{ state: string }} */ one) => one.state === 'new');
    assert.ok(due.expires_at_ms >= before.subscription.ends_at_ms, 'it may be paid until the end');
    await until('its owner is told', () => notices.of('subscription.due', due.id).length === 1);
    notices.stop();
    await payer.pretend(due.id);
    await person.sees(hook('pay-invoice'), { gone: true, what: 'the renewal is paid' });
    const [after] = await subscribers(shop, subscription.viewer);
    assert.equal(after.subscription.ends_at_ms, before.subscription.ends_at_ms + 120_000, 'at the old end');
    assert.equal(after.invoices.length, 2);
    await person.close();
  });

  test('credit renews by itself', async () => {
    const shop = await sell(server, { period: { minutes: 2 }, remind_seconds: 118 });
    const payer = new Payer(server, shop.room);
    const { id } = (await payer.knock()).body.invoice;
    await payer.pretend(id, { sats: 40_000 });
    const found = await until('credit has paid the next period', async () => {
      const [mine] = await subscribers(shop);
      const settled = mine.invoices.filter((/** @type {{ state: string }} */ one) => one.state === 'settled');
      return settled.length === 2 && mine;
    });
    assert.equal(found.subscription.credit_msat, 0);
    assert.ok(found.subscription.ends_at_ms > Date.now() + 200_000);
  });

  test('what nobody renews ends, is told once, and may be bought again', { timeout: 60_000 }, async () => {
    const later = await Server.start();
    const notices = await Notices.start();
    try {
      const shop = await sell(later, { grace_seconds: 600 });
      const hookAt = `/rooms/${shop.room}/webhook`;
      await later.call('PUT', hookAt, { body: { url: notices.url }, token: shop.token });
      const payer = new Payer(later, shop.room);
      const { id } = (await payer.knock()).body.invoice;
      await payer.pretend(id);
      await payer.reaches(id, 'settled');
      assert.equal(await payer.enter(), 201);
      await later.crash();
      await later.restartLater(2);
      const told = () =>
        [...notices.heard.values()].filter(({ event }) => event.kind === 'subscription.expired');
      await until('its end is told', () => told().length === 1);
      const { status, body } = await payer.access();
      assert.equal(status, 402);
      assert.equal(body.subscription.state, 'expired');
      await later.crash();
      await later.restartLater(3);
      const { invoice } = (await payer.access()).body;
      await payer.pretend(invoice.id);
      await payer.reaches(invoice.id, 'settled');
      const again = await payer.access();
      assert.equal(again.status, 200, 'from now on, not from the old end');
      assert.equal(told().length, 1, 'and the old end is not told again');
    } finally {
      notices.stop();
      await later.stop();
    }
  });

  test('an owner’s server that is away is told later, in order, and the same', {
    timeout: 90_000,
  }, async () => {
    const shop = await sell(server);
    /** @type {{ kind: string, delivery: string, status: number, body: string }[]} */
    const calls = [];
    const receiver = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8').on('data', (text) => {
        body += text;
      });
      request.on('end', () => {
        const { event } = JSON.parse(body);
        const delivery = String(request.headers['antiphon-delivery']);
        const again = calls.some((call) => call.delivery === delivery);
        // Down at first, for the first; a flat refusal of another.
        const status =
          event.kind === 'invoice.created' && !again ? 503 : event.kind === 'invoice.offered' ? 400 : 200;
        calls.push({ kind: event.kind, delivery, status, body });
        response.statusCode = status;
        response.end();
      });
    });
    receiver.listen(0, '127.0.0.1');
    await once(receiver, 'listening');
    const { port } = /** @type {import('node:net').AddressInfo} */ (receiver.address());
    await server.call('PUT', `/rooms/${shop.room}/webhook`, {
      body: { url: `http://127.0.0.1:${port}/` },
      token: shop.token,
    });
    const payer = new Payer(server, shop.room);
    const { id } = (await payer.knock()).body.invoice;
    await payer.pretend(id);
    await until('the settlement is told', () => calls.some(({ kind }) => kind === 'invoice.settled'), {
      seconds: 60,
      show: () => calls,
    });
    receiver.close();
    const of = (/** @type {string} */ kind) => calls.filter((call) => call.kind === kind);
    assert.deepEqual(
      calls.map(({ kind, status }) => `${kind} ${status}`),
      [
        'offer.set 200',
        'webhook.set 200',
        'invoice.created 503',
        'invoice.created 200',
        'invoice.offered 400',
        'payment.changed 200',
        'invoice.settled 200',
      ],
      'tried again before what comes after; given up where it was refused',
    );
    const [first, second] = of('invoice.created');
    assert.equal(first?.delivery, second?.delivery);
    assert.equal(first?.body, second?.body);
  });
});
