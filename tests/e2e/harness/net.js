/**
 * Real Bitcoin and Lightning nodes with worthless money, by `scripts/bitcoin.sh`. A net is one test file's
 * own.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const SCRIPT = resolve(dirname(fileURLToPath(import.meta.url)), '../../../scripts/bitcoin.sh');
const run = promisify(execFile);
/** Ports of the first net; each further one of a run takes the next forty. */
const FIRST_PORT = Number(process.env.ANTIPHON_BITCOIN_PORT ?? 28500);
/** A test key's account (BIP 32's second vector): an owner's wallet that can be watched by anyone. */
export const OWNER_KEY =
  'tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp';

export class Net {
  /**
   * @param {string} directory
   * @param {number} port
   */
  constructor(directory, port) {
    this.directory = directory;
    this.env = {
      ...process.env,
      ANTIPHON_BITCOIN_DIR: join(directory, 'net'),
      ANTIPHON_BITCOIN_PORT: String(port),
    };
  }

  /**
   * Brings up a Bitcoin node (`chain`), or that and two Lightning nodes with a channel (`up`).
   *
   * @param {'chain' | 'up'} kind
   */
  static async start(kind) {
    const net = new Net(await mkdtemp(join(tmpdir(), 'antiphon-bitcoin-')), FIRST_PORT);
    await net.run(kind);
    return net;
  }

  /**
   * One command of the script; what it prints.
   *
   * @param {...string} command
   */
  async run(...command) {
    try {
      // The nodes go on when the script has ended, so nothing may wait for their output.
      const { stdout } = await run(SCRIPT, command, { env: this.env, timeout: 1_500_000 });
      return stdout.trim();
    } catch (error) {
      const { stderr } = /** @type {{ stderr?: string }} */ (error);
      throw new Error(`scripts/bitcoin.sh ${command.join(' ')}: ${stderr || error}`);
    }
  }

  /**
   * What the server is told to reach the nodes, by `SECTION__KEY`.
   *
   * @param {{ lightning?: boolean }} [options]
   */
  async settings({ lightning = true } = {}) {
    const text = await readFile(join(this.env.ANTIPHON_BITCOIN_DIR, 'env'), 'utf8');
    /** @type {Record<string, string>} */
    const settings = {};
    for (const line of text.split('\n').filter(Boolean)) {
      const [key = '', ...value] = line.split('=');
      if (lightning || !key.includes('LND')) settings[key.replace('ANTIPHON_', '')] = value.join('=');
    }
    return settings;
  }

  /** @param {number} count */
  mine(count) {
    return this.run('mine', String(count));
  }

  /**
   * @param {string} address
   * @param {number} sats
   */
  send(address, sats) {
    return this.run('send', address, String(sats));
  }

  async stop() {
    await this.run('down');
    await rm(this.directory, { recursive: true, force: true });
  }
}

/**
 * Asks the nodes what every invoice of a room was paid, and compares it with the ledger to the satoshi.
 * On-chain it asks for unspent outputs, as nobody spends from the owner's wallet here.
 *
 * @param {Net} net
 * @param {import('./server.js').Server} server
 * @param {{ room: string, token: string }} shop
 */
export async function reconcile(net, server, { room, token }) {
  const { body: subscribers } = await server.call('GET', `/rooms/${room}/subscribers`, { token });
  const settled = await net.run('invoices').catch(() => '');
  const lightning = new Map(
    settled.split('\n').map((line) => {
      const [hash, msat] = line.split(' ');
      return [Buffer.from(hash ?? '', 'base64').toString('hex'), Number(msat)];
    }),
  );
  const differences = [];
  let total = 0;
  for (const { subscription, invoices } of subscribers) {
    let received = 0;
    let spent = 0;
    for (const invoice of invoices) {
      const chain = invoice.address ? Number(await net.run('received', invoice.address)) * 1000 : 0;
      const nodes = chain + (lightning.get(invoice.payment_hash) ?? 0);
      const counted = invoice.payments
        .filter((/** @type {{ status: string, key: unknown }} */ one) =>
          ['final', 'deep'].includes(one.status),
        )
        .reduce((/** @type {number} */ sum, /** @type {{ msat: number }} */ one) => sum + one.msat, 0);
      if (nodes !== counted) differences.push({ invoice: invoice.id, nodes, counted });
      received += counted;
      spent += invoice.state === 'settled' ? invoice.price_sat * 1000 : 0;
    }
    if (received !== subscription.received_msat || received - spent !== subscription.credit_msat)
      differences.push({ viewer: subscription.viewer, received, spent, subscription });
    total += received;
  }
  return { differences, total_msat: total, subscribers };
}
