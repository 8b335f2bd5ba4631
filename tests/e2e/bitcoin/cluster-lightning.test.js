/**
 * Payments by Lightning on a cluster of two nodes: paid under the eyes of one, in on the other; and the one
 * that watches killed between the invoice and its payment.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Cluster } from '../harness/cluster.js';
import { Net, OWNER_KEY, reconcile } from '../harness/net.js';
import { Payer, sell } from '../harness/paying.js';
import { Notices } from '../harness/saga.js';
import { until } from '../harness/until.js';

const PRICE_SATS = 20_000;

describe('payments by Lightning on a cluster', () => {
  /** @type {Net} */
  let net;
  /** @type {Cluster} */
  let cluster;
  /** @type {Notices} */
  let notices;

  before(async () => {
    [net, notices] = await Promise.all([Net.start('up'), Notices.start()]);
    cluster = await Cluster.start(2, {
      ...(await net.settings()),
      PAYMENTS__DESCRIPTOR: OWNER_KEY,
      PAYMENTS__KEY: 'one-secret-of-32-bytes-for-all-nodes',
    });
  });

  after(async () => {
    notices?.stop();
    await cluster?.stop();
    await net?.stop();
  });

  /** A room on the node that does not watch, and somebody with an invoice at its door. */
  async function begin() {
    const keeper = await cluster.keeper();
    const home = cluster.nodes.find((node) => node !== keeper) ?? assert.fail('there are two nodes');
    const shop = { ...(await sell(home, { price: { sats: PRICE_SATS } })), node: home };
    const hook = { body: { url: notices.url }, token: shop.token };
    await home.call('PUT', `/rooms/${shop.room}/webhook`, hook);
    const payer = new Payer(home, shop.room);
    const { body } = await payer.knock();
    return { keeper, home, shop, payer, invoice: body.invoice };
  }

  /** @param {string} bolt11 */
  async function pay(bolt11) {
    assert.match(await net.run('pay', bolt11), /^[0-9a-f]{64}$/, 'the viewer can pay');
  }

  test('paid under the eyes of one node, in on the other within two seconds', async (context) => {
    const { home, shop, payer, invoice } = await begin();
    await pay(invoice.bolt11);
    const paidAt = Date.now();
    await until('in', async () => (await payer.enter()) === 201, { seconds: 5 });
    const took = Date.now() - paidAt;
    context.diagnostic(`from the payment's end to the seat on another node: ${took} ms`);
    assert.ok(took < 2000, `${took} ms`);
    assert.deepEqual((await reconcile(net, home, shop)).differences, []);
  });

  test('the node that watches is killed before the payment, and the other settles it', async (context) => {
    const { keeper, home, shop, payer, invoice } = await begin();
    await keeper.crash();
    context.after(() => keeper.restart());
    await pay(invoice.bolt11);
    await payer.reaches(invoice.id, 'settled');
    assert.equal(await payer.enter(), 201);
    assert.equal(await cluster.keeper(), home);
    // It goes on with invoices of its own, derived from the secret that both have.
    const next = new Payer(home, shop.room);
    const { body } = await next.knock();
    await pay(body.invoice.bolt11);
    await next.reaches(body.invoice.id, 'settled');
    await until('both are told', () =>
      [invoice.id, body.invoice.id].every((id) => notices.of('invoice.settled', id).length === 1),
    );
    const found = await reconcile(net, home, shop);
    assert.deepEqual(found.differences, []);
    assert.equal(found.total_msat, 2 * PRICE_SATS * 1000);
  });
});
