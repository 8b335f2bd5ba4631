/**
 * A viewer of a room that costs money, over the API alone: asks for an invoice, follows it, and comes in.
 *
 * @import { Server } from './server.js'
 */
import assert from 'node:assert/strict';
import offer from './offer.js';
import { until } from './until.js';

export class Payer {
  /**
   * @param {Server} server
   * @param {string} room
   */
  constructor(server, room) {
    this.server = server;
    this.room = room;
    /** @type {{ viewer: string, claim: string } | undefined} */
    this.claim = undefined;
  }

  /**
   * Tries to join. Remembers what it is told to be known by.
   *
   * @param {{ authorization?: string, path?: string }} [options]
   */
  async knock({ authorization, path = 'participants' } = {}) {
    const answer = await fetch(`${this.server.url}/v1/rooms/${this.room}/${path}?identity=Payer`, {
      method: 'POST',
      headers: { 'content-type': 'application/sdp', ...(authorization && { authorization }) },
      body: offer,
    });
    const text = await answer.text();
    const body = answer.status === 201 ? undefined : JSON.parse(text);
    if (body?.claim) this.claim = { viewer: body.viewer, claim: body.claim };
    return { status: answer.status, headers: answer.headers, body };
  }

  /** Asks for a ticket: 200 with a token, 402 with an invoice, 403 for who was put out. */
  async access() {
    return this.server.call('POST', `/rooms/${this.room}/access`, {
      body: this.claim,
      allow: [401, 402, 403],
    });
  }

  /** @param {string} id */
  async invoice(id) {
    return (await this.server.call('GET', `/rooms/${this.room}/invoices/${id}`)).body;
  }

  /**
   * @param {string} id
   * @param {string} state
   * @param {number} [seconds]
   */
  async reaches(id, state, seconds = 30) {
    return until(
      `invoice ${id} is ${state}`,
      async () => {
        const invoice = await this.invoice(id);
        return invoice.state === state && invoice;
      },
      { seconds, show: () => this.invoice(id) },
    );
  }

  /**
   * @param {string} id
   * @param {{ rail?: string, sats?: number, confirmations?: number | null }} [how]
   */
  async pretend(id, how = {}) {
    await this.server.call('POST', `/rooms/${this.room}/invoices/${id}/simulate`, { body: how });
  }

  /** Comes in by a ticket. */
  async enter() {
    const { status, body } = await this.access();
    if (status !== 200) return status;
    return (await this.knock({ authorization: `Bearer ${body.token}` })).status;
  }
}

/**
 * Follows an invoice by server-sent events until it is settled; its states, each change once.
 *
 * @param {Server} server
 * @param {string} room
 * @param {string} id
 */
export async function follow(server, room, id) {
  const answer = await fetch(`${server.url}/v1/rooms/${room}/invoices/${id}/events`);
  assert.match(answer.headers.get('content-type') ?? '', /^text\/event-stream/);
  /** @type {string[]} */
  const states = [];
  let text = '';
  for await (const chunk of answer.body ?? []) {
    text += Buffer.from(chunk).toString();
    const events = text.split('\n\n');
    text = events.pop() ?? '';
    for (const event of events) {
      const data = event.split('\n').find((line) => line.startsWith('data:'));
      if (!data) continue;
      const { state } = JSON.parse(data.slice(5));
      if (states.at(-1) !== state) states.push(state);
    }
    if (states.at(-1) === 'settled') break;
  }
  return states;
}

/**
 * Makes a room that costs so many sats for a period.
 *
 * @param {Server} server
 * @param {Record<string, unknown>} [terms]
 */
export async function sell(server, terms = {}) {
  const { body } = await server.call('POST', '/rooms', { body: {} });
  const token = body.owner_token;
  const price = { price: { sats: 20_000 }, period: { minutes: 60 }, ...terms };
  await server.call('PATCH', `/rooms/${body.name}`, { body: { price }, token });
  return { room: body.name, token };
}
