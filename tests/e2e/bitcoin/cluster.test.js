/**
 * Payments on a cluster of three nodes with one real Bitcoin node: whatever node is asked, whichever watches,
 * and whatever becomes of that one, each payment settles once. In the end the ledger of every node and the
 * Bitcoin node agree to the satoshi.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Cluster } from '../harness/cluster.js';
import { Net, OWNER_KEY, reconcile } from '../harness/net.js';
import { follow, Payer, sell } from '../harness/paying.js';
import { Notices } from '../harness/saga.js';
import { until } from '../harness/until.js';

const PRICE_SATS = 20_000;

describe('payments on a cluster', () => {
  /** @type {Net} */
  let net;
  /** @type {Cluster} */
  let cluster;
  /** @type {Notices} */
  let notices;

  before(async () => {
    [net, notices] = await Promise.all([Net.start('chain'), Notices.start()]);
    cluster = await Cluster.start(3, {
      ...(await net.settings({ lightning: false })),
      PAYMENTS__DESCRIPTOR: OWNER_KEY,
      PAYMENTS__KEY: 'one-secret-of-32-bytes-for-all-nodes',
      PAYMENTS__INVOICES_PER_ADDRESS: '1000',
    });
  });

  after(async () => {
    notices?.stop();
    await cluster?.stop();
    await net?.stop();
  });

  /** The node that keeps the ledger, and the others. */
  async function parts() {
    const keeper = await cluster.keeper();
    const others = cluster.nodes.filter((node) => node !== keeper);
    return { keeper, others };
  }

  /**
   * A room that costs money and lives on this node, with a webhook.
   *
   * @param {import('../harness/server.js').Server} node
   */
  async function open(node) {
    const shop = await sell(node, { price: { sats: PRICE_SATS } });
    await node.call('PUT', `/rooms/${shop.room}/webhook`, { body: { url: notices.url }, token: shop.token });
    return { ...shop, node };
  }

  /** @param {{ node: import('../harness/server.js').Server, room: string }} shop */
  async function arrive({ node, room }) {
    const payer = new Payer(node, room);
    const { status, body } = await payer.knock();
    assert.equal(status, 402);
    return { payer, id: body.invoice.id, address: body.invoice.address };
  }

  test('paid under the eyes of one node, in on another within two seconds', async (context) => {
    const { others } = await parts();
    const [home, third] = others;
    assert.ok(home && third);
    const shop = await open(home);
    const { payer, id, address } = await arrive(shop);
    const states = follow(third, shop.room, id);
    await net.send(address, PRICE_SATS);
    await payer.reaches(id, 'processing');
    assert.equal((await payer.access()).status, 402, 'seen is not paid');
    await net.mine(1);
    const paidAt = Date.now();
    await until('in', async () => (await payer.enter()) === 201, { seconds: 5 });
    const took = Date.now() - paidAt;
    context.diagnostic(`from the block to the seat on another node: ${took} ms`);
    assert.ok(took < 2000, `${took} ms`);
    assert.deepEqual((await states).slice(-2), ['processing', 'settled'], 'a third node says the same');
  });

  test('the owner is served by every node', async () => {
    const { keeper, others } = await parts();
    const [home, third] = others;
    assert.ok(home && third);
    const { room, token } = await open(home);
    const shop = { room, token, node: home };
    const { payer, id } = await arrive(shop);
    const { viewer } = payer.claim ?? {};
    await third.call('POST', `/rooms/${room}/invoices/${id}/mark`, { body: { reason: 'cash' }, token });
    assert.equal(await payer.enter(), 201, 'what one node was told, all know');
    for (const node of cluster.nodes) {
      const { body } = await node.call('GET', `/rooms/${room}/subscribers`, { token });
      assert.equal(body.length, 1);
      assert.equal(body[0].invoices[0].flags.marked, true);
    }
    const path = `/rooms/${room}/subscribers/${viewer}`;
    await third.call('POST', path, { body: { action: 'revoke', reason: 'rude' }, token });
    await until('the viewer is put out', async () => {
      const { body } = await home.call('GET', `/rooms/${room}/participants`, { token });
      return body.length === 0;
    });
    assert.equal((await payer.access()).status, 403);
    await keeper.call('POST', path, { body: { action: 'restore' }, token });
    assert.equal(await payer.enter(), 201);
    const wish = { body: { descriptor: OWNER_KEY }, token };
    const { body } = await keeper.call('PUT', `/rooms/${room}/payout`, wish);
    for (const node of cluster.nodes) {
      const shown = await node.call('GET', `/rooms/${room}/payout`, { token });
      assert.deepEqual(shown.body.addresses, body.addresses);
      assert.equal(shown.body.source, 'own');
    }
    const other = await open(home);
    for (const node of cluster.nodes)
      await assert.rejects(node.call('GET', `/rooms/${room}/payout`, { token: other.token }), /403/);
  });

  test('the node that watches is killed after the invoice, and another settles it, once', async (context) => {
    const { keeper, others } = await parts();
    const [home] = others;
    assert.ok(home);
    const shop = await open(home);
    const { payer, id, address } = await arrive(shop);
    await keeper.crash();
    context.after(() => keeper.restart());
    const killedAt = Date.now();
    await net.send(address, PRICE_SATS);
    await net.mine(1);
    await payer.reaches(id, 'settled');
    context.diagnostic(`killed, taken over and settled in ${Date.now() - killedAt} ms, with leases of 2 s`);
    assert.equal(await payer.enter(), 201);
    assert.notEqual(await cluster.keeper(), keeper);
    await until('it is told', () => notices.of('invoice.settled', id).length > 0);
    // Made by the new keeper, at an address that nobody had before.
    const later = await arrive(shop);
    assert.notEqual(later.address, address);
    await until('a later notice', () => notices.of('invoice.created', later.id).length > 0);
    for (const kind of ['invoice.created', 'invoice.settled'])
      assert.equal(notices.of(kind, id).length, 1, `${kind} has one name`);
    assert.equal(notices.of('invoice.settled', id)[0]?.times, 1, 'and is told once');
  });

  test('one that was killed follows when it is back', async () => {
    const { others } = await parts();
    const shop = await open(others[0] ?? assert.fail());
    const { id } = await arrive(shop);
    for (const node of cluster.nodes)
      await until('it knows the invoice', async () => {
        const path = `/rooms/${shop.room}/invoices/${id}`;
        return (await node.call('GET', path, { allow: [404] })).status === 200;
      });
  });

  test('one that was frozen past its lease writes nothing', async (context) => {
    const { keeper: frozen, others } = await parts();
    const [home] = others;
    assert.ok(home);
    const shop = await open(home);
    const { payer, id, address } = await arrive(shop);
    // The first of these is answered, and the freeze comes in the middle of the others.
    const wish = () => frozen.call('POST', `/rooms/${shop.room}/invoices`, { body: {} });
    const asked = Array.from({ length: 40 }, wish);
    await Promise.race(asked);
    frozen.pause();
    await until('another node keeps the ledger', async () => (await cluster.keeper()) !== frozen);
    await net.send(address, PRICE_SATS);
    await net.mine(1);
    await payer.reaches(id, 'settled');
    // They wait in its sockets, and are what it does first: it still thinks that the ledger is its own.
    asked.push(wish(), wish(), wish());
    frozen.resume();
    const invoices = (await Promise.all(asked)).map(({ body }) => body.invoice);
    assert.notEqual(await cluster.keeper(), frozen);
    const { body } = await home.call('GET', `/rooms/${shop.room}/subscribers`, { token: shop.token });
    const known = new Map(
      body.flatMap((/** @type {{ invoices: { id: string, address: string }[] }} */ one) =>
        one.invoices.map(({ id, address }) => [id, address]),
      ),
    );
    for (const { id, address } of invoices) assert.equal(known.get(id), address, 'what it said is so');
    assert.equal(new Set(known.values()).size, known.size, 'no address twice');
    const { fenced } = await cluster.audit();
    context.diagnostic(`${fenced} records of replaced nodes reached the log and counted for nobody`);
  });

  test('while Kafka hangs, who has paid comes in, and nothing is sold', async (context) => {
    const { keeper, others } = await parts();
    const [home] = others;
    assert.ok(home);
    const nodes = [keeper, home];
    const [one, other] = [await open(keeper), await open(home)];
    const paid = [await arrive(one), await arrive(other)];
    for (const { address } of paid) await net.send(address, PRICE_SATS);
    await net.mine(1);
    for (const { payer, id } of paid) await payer.reaches(id, 'settled');
    const enterAll = async () => {
      for (const { payer } of paid) {
        const askedAt = Date.now();
        assert.equal(await payer.enter(), 201);
        const took = Date.now() - askedAt;
        context.diagnostic(`in again: ${took} ms`);
        assert.ok(took < 2000, `${took} ms`);
      }
    };
    await cluster.freezeLog();
    try {
      await enterAll();
      for (const node of nodes) {
        const askedAt = Date.now();
        const path = `/rooms/${one.room}/invoices`;
        const { status, body } = await node.call('POST', path, { body: {}, allow: [503] });
        const took = Date.now() - askedAt;
        context.diagnostic(`refused after ${took} ms: ${body.detail}`);
        assert.deepEqual([status, body.code], [503, 'unavailable']);
        assert.ok(took < 10_000, `${took} ms`);
      }
      // By now the keeper waits with a fact.
      await enterAll();
    } finally {
      await cluster.thawLog();
    }
    const { id, address } = await until('it sells again', async () => {
      const { status, body } = await home.call('POST', `/rooms/${other.room}/invoices`, {
        body: {},
        allow: [503],
      });
      return status !== 503 && body.invoice;
    });
    await net.send(address, PRICE_SATS);
    await net.mine(1);
    await new Payer(home, other.room).reaches(id, 'settled');
  });

  test('wishes of strangers are refused and counted', async () => {
    const { keeper } = await parts();
    const wish = { offer: { of: { room: 'any-room' }, offer: null, by: null } };
    const body = JSON.stringify({ at_ms: Date.now(), number: 1, wish });
    for (const signature of ['', '0'.repeat(64)]) {
      const headers = { 'antiphon-signature': signature };
      const answer = await fetch(`${keeper.url}/cluster/wishes`, { method: 'POST', headers, body });
      assert.equal(answer.status, 401);
    }
    const text = await (await fetch(`${keeper.url}/metrics`)).text();
    assert.match(text, /antiphon_ledger_wishes_refused_total 2/);
  });

  test('all nodes and the Bitcoin node agree to the satoshi', async () => {
    const { keeper, others } = await parts();
    const [home] = others;
    assert.ok(home);
    const shop = await open(home);
    const { payer, id, address } = await arrive(shop);
    await net.send(address, PRICE_SATS + 500);
    await net.mine(1);
    await payer.reaches(id, 'settled');
    for (const node of [keeper, ...others]) {
      const found = await reconcile(net, node, shop);
      assert.deepEqual(found.differences, []);
      assert.equal(found.total_msat, (PRICE_SATS + 500) * 1000);
    }
    const audit = await cluster.audit();
    assert.deepEqual(audit.faults, []);
  });
});
