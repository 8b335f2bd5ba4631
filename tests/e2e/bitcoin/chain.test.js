/**
 * Payments on a real chain: bitcoind watches the owner's public key, and everything that can happen to a
 * transaction happens. In the end the ledger and the node agree to the satoshi.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Net, OWNER_KEY, reconcile } from '../harness/net.js';
import { Payer, sell } from '../harness/paying.js';
import { killedIn, Notices } from '../harness/saga.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

describe('payments by a Bitcoin node', () => {
  /** @type {Net} */
  let net;
  /** @type {Server} */
  let server;
  /** @type {{ room: string, token: string }} */
  let shop;

  before(async () => {
    net = await Net.start('chain');
    const settings = await net.settings({ lightning: false });
    server = await Server.start({ ...settings, PAYMENTS__DESCRIPTOR: OWNER_KEY });
    shop = await sell(server, { price: { sats: 150_000 } });
  });

  after(async () => {
    await server?.stop();
    await net?.stop();
  });

  async function arrive() {
    const payer = new Payer(server, shop.room);
    const { status, body } = await payer.knock();
    assert.equal(status, 402);
    assert.equal(body.simulated, false);
    return { payer, id: body.invoice.id, address: body.invoice.address };
  }

  test('0, 1 and 2 confirmations', async () => {
    const { payer, id, address } = await arrive();
    await net.send(address, 150_000);
    await payer.reaches(id, 'processing');
    assert.equal((await payer.access()).status, 402, 'seen is not paid');
    await net.mine(1);
    await until('one block is seen', async () => (await payer.invoice(id)).payments[0].confirmations === 1);
    assert.equal((await payer.invoice(id)).state, 'processing');
    await net.mine(1);
    await payer.reaches(id, 'settled');
    assert.equal(await payer.enter(), 201);
  });

  test('too little and then the rest; too much', async () => {
    const [under, over] = [await arrive(), await arrive()];
    await net.send(under.address, 100_000);
    await until('a part is seen', async () => (await under.payer.invoice(under.id)).flags.partial);
    assert.equal((await under.payer.invoice(under.id)).remaining_sat, 50_000);
    await net.send(under.address, 50_000);
    await net.send(over.address, 170_000);
    await net.mine(2);
    const settled = await under.payer.reaches(under.id, 'settled');
    assert.equal(settled.payments.length, 2);
    assert.ok((await over.payer.reaches(over.id, 'settled')).flags.over);
    const { body } = await server.call('POST', `/rooms/${shop.room}/invoices`, { body: over.payer.claim });
    assert.equal(body.invoice.amount_sat, 130_000, 'credit goes first');
  });

  test('a double spend counts for nothing', async () => {
    const { payer, id, address } = await arrive();
    await net.run('doublespend', address, '150000');
    await until('it is known as replaced', async () => (await payer.invoice(id)).flags.replaced, {
      seconds: 60,
    });
    assert.equal((await payer.invoice(id)).state, 'new');
    await net.mine(3);
    assert.equal((await payer.access()).status, 402);
  });

  test('a two-block reorganisation takes back, and its new blocks give again', async () => {
    const { payer, id, address } = await arrive();
    await net.send(address, 150_000);
    await net.mine(2);
    await payer.reaches(id, 'settled');
    assert.equal(await payer.enter(), 201);
    await net.run('reorg', '2');
    await payer.reaches(id, 'reversed');
    assert.equal((await payer.access()).status, 402);
    const { viewer } = payer.claim ?? {};
    await until('the viewer is put out', async () => {
      const { body } = await server.call('GET', `/rooms/${shop.room}/participants`, { token: shop.token });
      return !body.some((/** @type {{ identity: string }} */ one) => one.identity === viewer);
    });
    await net.mine(2);
    await payer.reaches(id, 'settled');
    assert.equal((await payer.access()).status, 200);
  });

  test('what was paid while the server was down is found', async () => {
    const { payer, id, address } = await arrive();
    await server.crash();
    await net.send(address, 150_000);
    await net.mine(3);
    await server.restart();
    await payer.reaches(id, 'settled');
    assert.equal((await payer.access()).status, 200);
  });

  test('an outage of the node loses nothing', async () => {
    const { payer, id, address } = await arrive();
    await net.send(address, 150_000);
    await payer.reaches(id, 'processing');
    await net.run('stop', 'chain');
    const late = new Payer(server, shop.room);
    const { status, body } = await late.knock();
    assert.equal(status, 402, 'addresses are made without the node');
    await net.run('start', 'chain');
    await net.mine(2);
    await payer.reaches(id, 'settled', 60);
    await net.send(body.invoice.address, 150_000);
    await net.mine(2);
    await late.reaches(body.invoice.id, 'settled', 60);
  });

  test('killed between any two steps, it goes on with the next', async (context) => {
    const notices = await Notices.start();
    try {
      const small = await sell(server);
      await server.call('PUT', `/rooms/${small.room}/webhook`, {
        body: { url: notices.url },
        token: small.token,
      });
      for (const gap of [
        'before invoice.created',
        'after invoice.created',
        'before payment.changed',
        'after payment.changed',
        'before invoice.settled',
        'after invoice.settled',
        'access.granted',
        'notice of invoice.created',
        'notice of invoice.settled',
      ])
        await context.test(gap, () => killedIn({ net, server, shop: small, notices }, gap, 'onchain'));
    } finally {
      notices.stop();
    }
  });

  test('the ledger and the node agree to the satoshi, also after a restart', async () => {
    const found = await reconcile(net, server, shop);
    assert.deepEqual(found.differences, []);
    assert.ok(found.total_msat > 0);
    await server.crash();
    await server.restart();
    const again = await reconcile(net, server, shop);
    assert.deepEqual(again.differences, []);
    assert.equal(again.total_msat, found.total_msat);
    // Settled ones are watched for a hundred blocks, and then no more.
    const statuses = async () => {
      const { subscribers } = await reconcile(net, server, shop);
      const invoices = subscribers.flatMap((/** @type {{ invoices: any[] }} */ one) => one.invoices);
      const payments = invoices.flatMap((/** @type {{ payments: any[] }} */ one) => one.payments);
      return new Set(payments.map((/** @type {{ status: string }} */ one) => one.status));
    };
    assert.ok((await statuses()).has('final'));
    await net.mine(100);
    await until('all are deep', async () => !(await statuses()).has('final'));
  });
});
