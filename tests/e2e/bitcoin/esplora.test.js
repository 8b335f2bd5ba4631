/**
 * Payments seen by an Esplora server in place of a node: the same ledger, whatever watches. In the end it and
 * the chain agree to the satoshi.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Esplora } from '../harness/esplora.js';
import { Net, OWNER_KEY, reconcile } from '../harness/net.js';
import { Payer, sell } from '../harness/paying.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

describe('payments by an Esplora server', () => {
  /** @type {Net} */
  let net;
  /** @type {Esplora} */
  let esplora;
  /** @type {Server} */
  let server;
  /** @type {{ room: string, token: string }} */
  let shop;

  before(async () => {
    net = await Net.start('chain');
    esplora = await Esplora.start(await net.settings({ lightning: false }));
    server = await Server.start({
      PAYMENTS__NETWORK: 'regtest',
      PAYMENTS__ESPLORA__URL: esplora.url,
      PAYMENTS__ESPLORA__LOOK_SECONDS: '1',
      PAYMENTS__DESCRIPTOR: OWNER_KEY,
    });
    shop = await sell(server, { pay_within_seconds: 60 });
  });

  after(async () => {
    await server?.stop();
    esplora?.stop();
    await net?.stop();
  });

  async function arrive() {
    const payer = new Payer(server, shop.room);
    const { status, body } = await payer.knock();
    assert.equal(status, 402);
    return { payer, id: body.invoice.id, address: body.invoice.address };
  }

  test('seen, confirmed, and in', async () => {
    const { payer, id, address } = await arrive();
    await net.send(address, 20_000);
    await payer.reaches(id, 'processing');
    assert.equal((await payer.access()).status, 402, 'seen is not paid');
    await net.mine(1);
    await payer.reaches(id, 'settled');
    assert.equal(await payer.enter(), 201);
  });

  test('a double spend counts for nothing', async () => {
    const { payer, id, address } = await arrive();
    const txid = await net.send(address, 20_000);
    await payer.reaches(id, 'processing');
    await net.run('replace', txid);
    await until('it is known as replaced', async () => (await payer.invoice(id)).flags.replaced);
    await net.mine(2);
    assert.equal((await payer.access()).status, 402);
  });

  test('a reorganisation takes back, also from a server that has just begun, and gives again', async () => {
    const { payer, id, address } = await arrive();
    await net.send(address, 20_000);
    await net.mine(1);
    await payer.reaches(id, 'settled');
    await server.crash();
    await net.run('reorg', '1');
    await server.restart();
    await payer.reaches(id, 'reversed');
    assert.equal((await payer.access()).status, 402);
    await net.mine(1);
    await payer.reaches(id, 'settled');
  });

  test('what was paid while the server was down, and while Esplora was, is found', async () => {
    const { payer, id, address } = await arrive();
    await server.crash();
    await net.send(address, 20_000);
    await net.mine(1);
    await server.restart();
    await payer.reaches(id, 'settled');
    const late = await arrive();
    await net.run('stop', 'chain');
    await net.run('start', 'chain');
    await net.send(late.address, 20_000);
    await net.mine(1);
    await late.payer.reaches(late.id, 'settled', 60);
  });

  test('the ledger and the chain agree to the satoshi', async () => {
    const found = await reconcile(net, server, shop);
    assert.deepEqual(found.differences, []);
    assert.equal(found.total_msat, 4 * 20_000_000);
  });
});
