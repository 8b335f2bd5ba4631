/**
 * Payments on two real Lightning nodes: in a browser, by a program with L402, both ways at once, through
 * outages and kills. In the end the ledger and the nodes agree to the satoshi.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { between } from '../harness/between.js';
import { startChromium } from '../harness/browsers.js';
import { Net, OWNER_KEY, reconcile } from '../harness/net.js';
import { Payer, sell } from '../harness/paying.js';
import { hook } from '../harness/person.js';
import { readCode } from '../harness/qr.js';
import { killedIn, Notices } from '../harness/saga.js';
import { RESULTS, Server } from '../harness/server.js';
import { until } from '../harness/until.js';

describe('payments by Lightning', () => {
  /** @type {Net} */
  let net;
  /** @type {Server} */
  let server;
  /** @type {{ room: string, token: string }} */
  let shop;

  before(async () => {
    net = await Net.start('up');
    server = await Server.start({ ...(await net.settings()), PAYMENTS__DESCRIPTOR: OWNER_KEY });
    shop = await sell(server);
  });

  after(async () => {
    await server?.stop();
    await net?.stop();
  });

  /** @param {string} bolt11 */
  async function pay(bolt11) {
    const preimage = await net.run('pay', bolt11);
    assert.match(preimage, /^[0-9a-f]{64}$/, 'the viewer can pay');
    return preimage;
  }

  async function arrive() {
    const payer = new Payer(server, shop.room);
    const { body, headers } = await payer.knock();
    return { payer, headers, ...body.invoice };
  }

  test('paid in the browser, and in', async (context) => {
    const chromium = await startChromium();
    try {
      const person = await chromium.person('Vera');
      await person.page.goto(`${server.url}/r/${shop.room}?name=Vera&join=1`);
      await person.sees(hook('pay-qr'));
      await person.sees(hook('simulated'), { gone: true });
      const picture = join(RESULTS, 'paywall-lightning.png');
      const read = await until('the code can be read', async () => {
        await person.page.screenshot(picture);
        return readCode(picture);
      });
      const bolt11 = new URLSearchParams(read.split('?')[1]).get('lightning')?.toLowerCase() ?? '';
      await pay(bolt11);
      const paidAt = Date.now();
      await person.inRoom();
      context.diagnostic(`from the payment's end to the room in the browser: ${Date.now() - paidAt} ms`);
      await person.close();
    } finally {
      await chromium.close();
    }
  });

  test('the ticket is there two seconds after the payment', async (context) => {
    const { payer, bolt11 } = await arrive();
    await pay(bolt11);
    const paidAt = Date.now();
    await until('there is a ticket', async () => (await payer.access()).status === 200);
    const took = Date.now() - paidAt;
    context.diagnostic(`from the payment's end to the ticket: ${took} ms`);
    assert.ok(took < 2000);
  });

  test('a program pays an L402 challenge and comes in', async () => {
    const { headers, payment_hash } = await arrive();
    const challenge = headers.get('www-authenticate') ?? '';
    const [, macaroon, invoice] = challenge.match(/^L402 macaroon="([^"]+)", invoice="([^"]+)"$/) ?? [];
    const hex = await pay(invoice ?? '');
    assert.equal(createHash('sha256').update(Buffer.from(hex, 'hex')).digest('hex'), payment_hash);
    const program = new Payer(server, shop.room);
    await until('it is in', async () => {
      return (await program.knock({ authorization: `L402 ${macaroon}:${hex}` })).status === 201;
    });
    const wrong = await program.knock({ authorization: `L402 ${macaroon}:${'0'.repeat(64)}` });
    assert.equal(wrong.status, 401);
  });

  test('a program pays for a file by L402, and gets parts of that file alone', async () => {
    const { room, token } = shop;
    const upload = async (/** @type {string} */ text) => {
      const headers = { authorization: `Bearer ${token}`, 'tus-resumable': '1.0.0' };
      const made = await fetch(`${server.url}/v1/rooms/${room}/files`, {
        method: 'POST',
        headers: {
          ...headers,
          'upload-length': String(text.length),
          'upload-metadata': `filename ${Buffer.from('talk.txt').toString('base64')}`,
        },
      });
      const url = new URL(made.headers.get('location') ?? '', made.url);
      const offset = { 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
      await fetch(url, { method: 'PATCH', headers: { ...headers, ...offset }, body: text });
      const price = { price: { sats: 3_000 }, period: { days: 1 } };
      await server.call('PUT', `${url.pathname.replace('/v1', '')}/price`, { body: { price }, token });
      return url;
    };
    const [one, other] = [await upload('the whole talk'), await upload('another talk')];
    const asked = await fetch(one);
    assert.equal(asked.status, 402);
    const challenge = asked.headers.get('www-authenticate') ?? '';
    const [, macaroon, invoice] = challenge.match(/^L402 macaroon="([^"]+)", invoice="([^"]+)"$/) ?? [];
    const preimage = await pay(invoice ?? '');
    const headers = { authorization: `L402 ${macaroon}:${preimage}` };
    await until('the file is given', async () => (await fetch(one, { headers })).status === 200);
    const part = await fetch(one, { headers: { ...headers, range: 'bytes=4-8' } });
    assert.equal(part.status, 206);
    assert.equal(await part.text(), 'whole');
    assert.equal((await fetch(other, { headers })).status, 401, 'the other file was not bought');
    const join = await new Payer(server, room).knock(headers);
    assert.equal(join.status, 401, 'and the room was not');
  });

  test('an invoice that was paid on-chain cannot be paid by Lightning', async () => {
    const { payer, id, address, bolt11 } = await arrive();
    await net.send(address, 20_000);
    await net.mine(1);
    await payer.reaches(id, 'settled');
    await until('Lightning refuses it', async () => !/^[0-9a-f]{64}$/.test(await net.run('pay', bolt11)));
  });

  test('paid both ways, one is credit', async () => {
    const { payer, id, address, bolt11 } = await arrive();
    await net.send(address, 20_000);
    await pay(bolt11);
    await payer.reaches(id, 'settled');
    await net.mine(1);
    const invoice = await until('both count', async () => {
      const invoice = await payer.invoice(id);
      const counts = (/** @type {{ status: string }} */ one) => ['final', 'deep'].includes(one.status);
      return invoice.payments.length === 2 && invoice.payments.every(counts) && invoice;
    });
    assert.equal(invoice.state, 'settled');
    assert.ok(invoice.flags.over && invoice.flags.both_ways);
    const { body } = await server.call('POST', `/rooms/${shop.room}/invoices`, { body: payer.claim });
    assert.equal(body.invoice.state, 'settled', 'credit has paid the next period');
  });

  test('killed after the payment, the server finds it', async () => {
    const { payer, id, bolt11 } = await arrive();
    await server.crash();
    await pay(bolt11);
    await server.restart();
    await payer.reaches(id, 'settled');
    assert.equal((await payer.access()).status, 200);
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
        'address.watched',
        'lightning.issued',
        'before invoice.offered',
        'after invoice.offered',
        'before invoice.settled',
        'after invoice.settled',
        'access.granted',
        'notice of invoice.offered',
        'notice of invoice.settled',
      ])
        await context.test(gap, () => killedIn({ net, server, shop: small, notices }, gap, 'lightning'));
    } finally {
      notices.stop();
    }
  });

  test('while the Lightning node is away the address is there, and the rest comes later', async () => {
    await net.run('stop', 'owner');
    const { payer, id, address, bolt11 } = await arrive();
    assert.ok(address);
    assert.equal(bolt11, undefined);
    await net.run('start', 'owner');
    const invoice = await until(
      'the Lightning invoice is there',
      async () => {
        const invoice = await payer.invoice(id);
        return invoice.bolt11 && invoice;
      },
      { seconds: 90 },
    );
    await until(
      'the channel is back',
      async () => {
        await net.run('pay', invoice.bolt11);
        return (await payer.invoice(id)).state === 'settled';
      },
      { seconds: 90 },
    );
  });

  test('both nodes and the server are killed in the middle of two payments, and each settles once', async () => {
    const notices = await Notices.start();
    try {
      const small = await sell(server);
      const hooked = { body: { url: notices.url }, token: small.token };
      await server.call('PUT', `/rooms/${small.room}/webhook`, hooked);
      const knock = async () => {
        const payer = new Payer(server, small.room);
        return { payer, ...(await payer.knock()).body.invoice };
      };
      const [onchain, lightning] = [await knock(), await knock()];
      const txid = await net.send(onchain.address, 20_000);
      await onchain.payer.reaches(onchain.id, 'processing');
      // What its Lightning node says of the payment is said to nobody.
      await server.crash();
      await pay(lightning.bolt11);
      await Promise.all([net.run('crash', 'owner'), net.run('crash', 'chain')]);
      await server.restart();
      assert.equal((await onchain.payer.invoice(onchain.id)).state, 'processing');
      assert.equal(
        (await lightning.payer.invoice(lightning.id)).state,
        'new',
        'nobody can say that it is paid',
      );
      for (const { payer } of [onchain, lightning]) assert.equal((await payer.access()).status, 402);

      await net.run('start', 'chain');
      await until('the payment waits for a block again', async () => {
        return JSON.parse(await net.run('cli', 'getrawmempool')).includes(txid);
      });
      await net.mine(1);
      await onchain.payer.reaches(onchain.id, 'settled');
      await net.run('start', 'owner');
      await lightning.payer.reaches(lightning.id, 'settled', 60);
      for (const { payer, id } of [onchain, lightning]) {
        assert.equal((await payer.access()).status, 200);
        await until('it is told', () => notices.of('invoice.settled', id).length > 0);
      }

      // Whatever is said twice has been said by now: the notice of a later invoice came.
      const later = await knock();
      await until('a later notice', () => notices.of('invoice.created', later.id).length > 0);
      for (const { id } of [onchain, lightning])
        assert.equal(notices.of('invoice.settled', id).length, 1, 'one settlement');
      const found = await reconcile(net, server, small);
      assert.deepEqual(found.differences, []);
      assert.equal(found.total_msat, 2 * 20_000_000);
    } finally {
      notices.stop();
    }
  });

  test('a macaroon that can do more is refused with the command for the right one', async () => {
    const broad = await net.run(
      'bake',
      '/lnrpc.Lightning/AddInvoice',
      '/lnrpc.Lightning/WalletBalance',
      '/invoicesrpc.Invoices/LookupInvoiceV2',
      '/lnrpc.Lightning/SubscribeInvoices',
      '/invoicesrpc.Invoices/CancelInvoice',
    );
    const settings = await net.settings();
    await assert.rejects(
      Server.start({ ...settings, PAYMENTS__LND__MACAROON: broad }),
      (error) =>
        /also permits uri:\/lnrpc\.Lightning\/WalletBalance/.test(String(error)) &&
        /lncli bakemacaroon uri:/.test(String(error)) &&
        !String(error).includes(broad),
    );
  });

  test('an invoice of the node for another amount, hash or network is shown to nobody', async () => {
    const { PAYMENTS__LND__URL, PAYMENTS__LND__MACAROON } = await net.settings();
    const lying = await between(PAYMENTS__LND__URL ?? '');
    const settings = {
      PAYMENTS__LND__URL: lying.url,
      PAYMENTS__LND__CERT_FILE: lying.cert,
      PAYMENTS__LND__MACAROON: PAYMENTS__LND__MACAROON ?? '',
    };
    const lies = [
      { network: 'regtest', change: (/** @type {any} */ asked) => (asked.value_msat = '21000000') },
      {
        network: 'regtest',
        change: (/** @type {any} */ asked) => (asked.r_preimage = asked.r_preimage.replace(/^.{4}/, 'AAAA')),
      },
      { network: 'signet', change: () => {} },
    ];
    try {
      for (const { network, change } of lies) {
        lying.change = () => {};
        const cheated = await Server.start({ ...settings, PAYMENTS__NETWORK: network });
        try {
          const { room } = await sell(cheated);
          const honest = lying.change;
          lying.change = change;
          const one = new Payer(cheated, room);
          const { body } = await one.knock();
          assert.equal(body.invoice?.bolt11, undefined);
          const counted = /antiphon_payments_refused_total\{reason="bolt11"\} [1-9]/;
          await until('it is counted', async () =>
            counted.test(await (await fetch(`${cheated.url}/metrics`)).text()),
          );
          if (network === 'signet') continue;
          lying.change = honest;
          const other = new Payer(cheated, room);
          const invoice = await until('the next one gets a good one', async () => {
            const { body } = await other.knock();
            return body.invoice?.bolt11 && body.invoice;
          });
          await pay(invoice.bolt11);
          await other.reaches(invoice.id, 'settled');
          assert.equal((await other.access()).status, 200);
        } finally {
          await cheated.stop();
        }
      }
    } finally {
      lying.stop();
    }
  });

  test('the ledger and the nodes agree to the satoshi', async () => {
    const found = await reconcile(net, server, shop);
    assert.deepEqual(found.differences, []);
    assert.ok(found.total_msat >= 7 * 20_000_000, `${found.total_msat} msat`);
  });
});
