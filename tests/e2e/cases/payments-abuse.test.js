/**
 * What somebody may try with payments: too many wishes from one address, forged and replayed tokens and
 * notices.
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { Payer, sell } from '../harness/paying.js';
import { Notices } from '../harness/saga.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

describe('abuse of payments', () => {
  test('ten thousand wishes from one address: bounded, refused with reasons, and nothing lost', {
    timeout: 240_000,
  }, async (context) => {
    const server = await Server.start({ PAYMENTS__INVOICES_PER_ADDRESS: '60' });
    try {
      const { room, token } = await sell(server);
      const payer = new Payer(server, room);
      const { id } = (await payer.knock()).body.invoice;
      const memory = async () => {
        const status = await readFile(`/proc/${server.pid}/status`, 'utf8');
        return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
      };
      /** @type {Record<string, number>} */
      const answers = {};
      let left = 10_000;
      let detail = '';
      let half = 0;
      const ask = async () => {
        while (left > 0) {
          left -= 1;
          if (left === 5_000) half = await memory();
          const answer = await fetch(`${server.url}/v1/rooms/${room}/invoices`, { method: 'POST' });
          const body = await answer.json();
          const what = `${answer.status} ${body.code ?? 'invoice'}`;
          answers[what] = (answers[what] ?? 0) + 1;
          detail = body.detail ?? detail;
        }
      };
      const startedAt = Date.now();
      await Promise.all(Array.from({ length: 32 }, ask));
      const grown = (await memory()) - half;
      context.diagnostic(
        `10,000 in ${Date.now() - startedAt} ms; over the second half it grew by ${Math.round(grown / 1024)} KiB`,
      );
      assert.deepEqual(answers, { '201 invoice': 59, '429 rate_limited': 9_941 });
      assert.match(detail, /too many invoices .* from your address: pay one, or wait/);
      assert.ok(grown < 16 << 20, `it grew by ${grown} bytes`);
      const text = await (await fetch(`${server.url}/metrics`)).text();
      assert.match(text, /antiphon_invoices_refused_total 9941/);
      const { body } = await server.call('GET', `/rooms/${room}/subscribers`, { token });
      assert.equal(body.length, 60, 'what was promised is there, and no more');
      await payer.pretend(id);
      await payer.reaches(id, 'settled');
      assert.equal(await payer.enter(), 201, 'who asked before it pays and comes in');
    } finally {
      await server.stop();
    }
  });

  test('forged and replayed tokens and notices are told from true ones', async () => {
    const server = await Server.start();
    const notices = await Notices.start();
    try {
      const { room, token } = await sell(server);
      const hook = await server.call('PUT', `/rooms/${room}/webhook`, { body: { url: notices.url }, token });
      const payer = new Payer(server, room);
      const { id } = (await payer.knock()).body.invoice;
      await payer.pretend(id);
      await payer.reaches(id, 'settled');
      const ticket = (await payer.access()).body.token;
      const [head, body] = ticket.split('.');
      const claims = JSON.parse(Buffer.from(body, 'base64url').toString());
      const part = (/** @type {unknown} */ value) => Buffer.from(JSON.stringify(value)).toString('base64url');
      const admin = part({ ...claims, room: { ...claims.room, admin: true } });
      const forged = [
        `${head}.${admin}.${ticket.split('.')[2]}`,
        `${part({ alg: 'none', typ: 'JWT' })}.${admin}.`,
        `${head}.${body}.${createHmac('sha256', 'guessed').update(`${head}.${body}`).digest('base64url')}`,
      ];
      for (const bad of forged) {
        const { status } = await new Payer(server, room).knock({ authorization: `Bearer ${bad}` });
        assert.equal(status, 401, bad);
      }
      // A ticket that was true is worth nothing once its access is taken away.
      const path = `/rooms/${room}/subscribers/${payer.claim?.viewer}`;
      await server.call('POST', path, { body: { action: 'revoke', reason: 'sold his ticket' }, token });
      assert.equal((await payer.knock({ authorization: `Bearer ${ticket}` })).status, 403);

      await until('the settlement is told', () => notices.of('invoice.settled', id).length === 1);
      const [told] = notices.of('invoice.settled', id);
      assert.ok(told);
      const verify = (/** @type {string} */ signature, /** @type {string} */ text, now = Date.now()) => {
        const [, at, mac] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(signature) ?? [];
        const right = createHmac('sha256', hook.body.secret).update(`${at}.${text}`).digest('hex');
        return mac === right && Math.abs(now / 1000 - Number(at)) < 300;
      };
      assert.ok(verify(told.signature, told.body));
      assert.ok(!verify(told.signature, told.body.replace(id, '0'.repeat(32))), 'another invoice');
      const later = told.signature.replace(/t=\d+/, `t=${Math.floor(Date.now() / 1000) + 1}`);
      assert.ok(!verify(later, told.body), 'another time');
      assert.ok(!verify(told.signature, told.body, Date.now() + 3_600_000), 'played again an hour later');

      const guess = { viewer: payer.claim?.viewer, claim: '0'.repeat(32) };
      await server.call('POST', `/rooms/${room}/access`, { body: guess, allow: [401] });
      await new Payer(server, room).knock({ authorization: 'L402 forged:00' });
      const barred = { url: 'https://10.0.0.1/' };
      await server.call('PUT', `/rooms/${room}/webhook`, { body: barred, token, allow: [400] });
      const payout = { descriptor: 'wpkh(nonsense)' };
      await server.call('PUT', `/rooms/${room}/payout`, { body: payout, token, allow: [400] });
      const text = await (await fetch(`${server.url}/metrics`)).text();
      for (const reason of ['claim', 'l402', 'webhook', 'descriptor'])
        assert.match(text, new RegExp(`antiphon_payments_refused_total\\{reason="${reason}"\\} [1-9]`));
    } finally {
      notices.stop();
      await server.stop();
    }
  });
});
