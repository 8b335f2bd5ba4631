/** Stands between a server and its Lightning node, and may ask it for another invoice than was asked for. */
import { readFileSync, rmSync } from 'node:fs';
import { createServer, request } from 'node:https';
import { selfSigned } from './rtmp.js';

/**
 * @param {string} target where the node answers
 * @returns {Promise<{ url: string, cert: string, change: (asked: any) => void, stop: () => void }>} `change`
 * may be replaced; it is given what an invoice is asked for with
 */
export async function between(target) {
  const { folder, cert, key } = selfSigned();
  const tls = { cert: readFileSync(cert), key: readFileSync(key) };
  const server = createServer(tls, async (asked, answer) => {
    const parts = [];
    for await (const part of asked) parts.push(part);
    let body = Buffer.concat(parts);
    if (asked.method === 'POST' && asked.url === '/v1/invoices') {
      const invoice = JSON.parse(body.toString());
      self.change(invoice);
      body = Buffer.from(JSON.stringify(invoice));
    }
    const headers = { ...asked.headers, 'content-length': String(body.length) };
    delete headers.host;
    // Whose the node's certificate is matters to the server alone, which has that of this one.
    const options = { method: asked.method ?? 'GET', headers, rejectUnauthorized: false };
    const on = request(new URL(asked.url ?? '/', target), options, (found) => {
      answer.writeHead(found.statusCode ?? 502, found.headers);
      found.pipe(answer);
    });
    on.on('error', () => answer.destroy());
    answer.on('close', () => on.destroy());
    on.end(body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  const self = {
    url: `https://localhost:${address.port}`,
    cert,
    /** @param {any} _asked */
    change: (_asked) => {},
    stop: () => {
      server.closeAllConnections();
      server.close();
      rmSync(folder, { recursive: true });
    },
  };
  return self;
}
