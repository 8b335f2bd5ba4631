/**
 * One payment from the order to its notice, by a viewer who goes on whatever becomes of the server: each step
 * is asked for again until it is answered.
 *
 * @import { Net } from './net.js'
 * @import { Server } from './server.js'
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { reconcile } from './net.js';
import { until } from './until.js';

/** The key that `--dev` has. */
const DEV_KEY = 'known-to-all-and-for-development-only';
const DAY_SECONDS = 24 * 60 * 60;
const PRICE_SATS = 20_000;

/**
 * A token by which a viewer stays the same one, however often it asks.
 *
 * @param {string} sub
 * @param {string} room
 */
export function tokenFor(sub, room) {
  const part = (/** @type {unknown} */ value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + DAY_SECONDS;
  const grant = { room, publish: true, subscribe: true, chat: true, files: true };
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: 'devkey', sub, exp, room: grant })}`;
  return `${text}.${createHmac('sha256', DEV_KEY).update(text).digest('base64url')}`;
}

/**
 * @typedef {object} Notice
 * @property {number} times
 * @property {{ kind: string, invoice?: string }} event
 * @property {string} body
 * @property {string} signature
 */

/** An owner's server, which keeps what it is told and how often. */
export class Notices {
  /** @type {Map<string, Notice>} */
  heard = new Map();

  url = '';
  /** @type {import('node:http').Server | undefined} */
  server;

  static async start() {
    const notices = new Notices();
    const server = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8').on('data', (text) => {
        body += text;
      });
      request.on('end', () => {
        const { event } = JSON.parse(body);
        const id = String(request.headers['antiphon-delivery']);
        const known = notices.heard.get(id);
        if (known) assert.equal(known.body, body, 'told again, it is the same');
        const signature = String(request.headers['antiphon-signature']);
        notices.heard.set(id, { times: (known?.times ?? 0) + 1, event, body, signature });
        response.end();
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
    notices.server = server;
    notices.url = `http://127.0.0.1:${port}/`;
    return notices;
  }

  /**
   * Deliveries of this kind about an invoice, each counted once.
   *
   * @param {string} kind
   * @param {string} invoice
   */
  of(kind, invoice) {
    return [...this.heard.values()].filter(({ event }) => event.kind === kind && event.invoice === invoice);
  }

  stop() {
    this.server?.close();
  }
}

/**
 * Runs one payment while the server is killed in a gap, once, and started again. In the end the ledger and
 * the nodes agree, and there is one invoice, one settlement, one period and one notice of it.
 *
 * @param {{ net: Net, server: Server, shop: { room: string, token: string }, notices: Notices }} world
 * @param {string} gap see `src/billing/gap.rs`
 * @param {'onchain' | 'lightning'} rail
 */
export async function killedIn({ net, server, shop, notices }, gap, rail) {
  const viewer = `viewer of ${gap}, ${rail}`;
  const token = tokenFor(viewer, shop.room);
  await server.crash();
  await server.restart({ ANTIPHON_KILL_AT: gap });
  let kills = 0;
  const revive = async () => {
    if (!server.ended) return;
    kills += 1;
    await server.restart();
  };
  /** @param {number[]} wanted */
  const asked = (wanted) =>
    until(
      `an answer ${wanted} in the gap ${gap}`,
      async () => {
        const options = { token, allow: [402, 503] };
        const asking = server.call('POST', `/rooms/${shop.room}/access`, options);
        const answer = await asking.catch((error) => {
          // The connection went with the server; a refusal would be another matter.
          if (!(error instanceof TypeError)) throw error;
          return undefined;
        });
        await revive();
        return answer && wanted.includes(answer.status) && answer;
      },
      { seconds: 60 },
    );
  const complete = (/** @type {{ address?: string, bolt11?: string }} */ invoice) =>
    rail === 'onchain' ? invoice.address : invoice.bolt11;
  const invoice = await until('the invoice is whole', async () => {
    const { body } = await asked([402]);
    return complete(body.invoice) && body.invoice;
  });
  if (rail === 'onchain') {
    await net.send(invoice.address, PRICE_SATS);
    await net.mine(1);
  } else {
    assert.match(await net.run('pay', invoice.bolt11), /^[0-9a-f]{64}$/, 'the viewer can pay');
  }
  const paidAt = Date.now();
  const { body: ticket } = await asked([200]);
  await until(`the settlement is told in the gap ${gap}`, async () => {
    await revive();
    return notices.of('invoice.settled', invoice.id).length > 0;
  });
  await until(`the server was killed in the gap ${gap}`, async () => {
    await revive();
    return kills > 0;
  });
  // Whatever is said twice has been said by now: the notice of a later fact came.
  const later = `/rooms/${shop.room}/subscribers/${encodeURIComponent(viewer)}`;
  await server.call('POST', later, { body: { action: 'revoke', reason: gap }, token: shop.token });
  await until('a later notice', () =>
    [...notices.heard.values()].some(({ body }) => body.includes(`"reason":"${gap}"`)),
  );

  assert.equal(kills, 1, `it was killed in the gap ${gap}, and once`);
  assert.equal(notices.of('invoice.created', invoice.id).length, 1);
  assert.equal(notices.of('invoice.settled', invoice.id).length, 1, 'one notice');
  const found = await reconcile(net, server, shop);
  assert.deepEqual(found.differences, []);
  const mine = found.subscribers.find(
    (/** @type {{ subscription: { viewer: string } }} */ one) => one.subscription.viewer === viewer,
  );
  assert.equal(mine.invoices.length, 1, 'one invoice');
  assert.equal(mine.invoices[0].state, 'settled');
  assert.equal(mine.subscription.received_msat, PRICE_SATS * 1000);
  assert.equal(mine.subscription.credit_msat, 0);
  const minutes = (ticket.until_ms - paidAt) / 60_000;
  assert.ok(minutes > 58 && minutes < 60.1, `one period, and not two: ${minutes} minutes`);
}
