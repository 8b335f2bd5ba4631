/**
 * A server of the tests' own that speaks the part of Esplora's HTTP API which is used, over a real Bitcoin
 * node: what it says of transactions, blocks and the mempool is the node's word.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';

/** @typedef {{ n: number, value: number, scriptPubKey: { address?: string } }} Output */
/** @typedef {{ txid: string, vout: Output[] }} Transaction */
/** @typedef {{ hash: string, time: number, tx: Transaction[] }} Block */

/** Sats in a bitcoin. */
const SATS = 100_000_000;
/** Transactions in one page, as Esplora has it. */
const PAGE = 25;

export class Esplora {
  /** @type {Map<string, Block>} */
  #blocks = new Map();
  #server = createServer((request, response) => {
    this.#answer(request.url ?? '').then(
      (body) => response.end(body),
      (error) => {
        response.statusCode = 502;
        response.end(String(error));
      },
    );
  });

  /** @param {Record<string, string>} settings of the node, as the server would get them */
  constructor(settings) {
    this.node = settings.PAYMENTS__BITCOIND__URL ?? '';
    const login = `${settings.PAYMENTS__BITCOIND__USER}:${settings.PAYMENTS__BITCOIND__PASSWORD}`;
    this.authorization = `Basic ${Buffer.from(login).toString('base64')}`;
    this.url = '';
  }

  /** @param {Record<string, string>} settings */
  static async start(settings) {
    const esplora = new Esplora(settings);
    esplora.#server.listen(0, '127.0.0.1');
    await once(esplora.#server, 'listening');
    const { port } = /** @type {import('node:net').AddressInfo} */ (esplora.#server.address());
    esplora.url = `http://127.0.0.1:${port}`;
    return esplora;
  }

  /** @param {string} method @param {unknown[]} params @returns {Promise<any>} */
  async #call(method, ...params) {
    const answer = await fetch(this.node, {
      method: 'POST',
      headers: { authorization: this.authorization, 'content-type': 'application/json' },
      body: JSON.stringify({ method, params }),
    });
    const { result, error } = await answer.json();
    if (error) throw new Error(error.message);
    return result;
  }

  /** @param {number} height @returns {Promise<Block>} */
  async #block(height) {
    const hash = await this.#call('getblockhash', height);
    const block = this.#blocks.get(hash) ?? (await this.#call('getblock', hash, 2));
    this.#blocks.set(hash, block);
    return block;
  }

  /** @param {string} path */
  async #answer(path) {
    const tip = await this.#call('getblockcount');
    if (path === '/blocks/tip/height') return String(tip);
    const [, address, last] = /^\/address\/([^/]+)\/txs(?:\/chain\/(.+))?$/.exec(path) ?? [];
    const pays = (/** @type {Transaction} */ { vout }) =>
      vout.some(({ scriptPubKey }) => scriptPubKey.address === address);
    const shown = (/** @type {Transaction} */ { txid, vout }, /** @type {object} */ status) => ({
      txid,
      vout: vout.map(({ value, scriptPubKey }) => ({
        scriptpubkey_address: scriptPubKey.address,
        value: Math.round(value * SATS),
      })),
      status,
    });
    const waiting = [];
    for (const txid of last ? [] : await this.#call('getrawmempool')) {
      const one = await this.#call('getrawtransaction', txid, true);
      if (pays(one)) waiting.push(shown(one, { confirmed: false }));
    }
    const confirmed = [];
    for (let height = tip; height >= 0; height -= 1) {
      const { hash, time, tx } = await this.#block(height);
      const status = { confirmed: true, block_height: height, block_hash: hash, block_time: time };
      confirmed.push(...tx.filter(pays).map((one) => shown(one, status)));
    }
    const from = last ? confirmed.findIndex(({ txid }) => txid === last) + 1 : 0;
    return JSON.stringify([...waiting, ...confirmed.slice(from, from + PAGE)]);
  }

  stop() {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
