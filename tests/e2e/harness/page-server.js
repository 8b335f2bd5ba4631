/**
 * A web server of the test's own, whose empty page stands for somebody else's site: an origin that is not
 * Antiphon's, so that calls of the API cross origins.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';

/** @returns {Promise<{ url: string, close: () => Promise<void> }>} */
export async function startPageServer() {
  const server = createServer((_, answer) => {
    answer.setHeader('content-type', 'text/html; charset=utf-8');
    answer.end('<!doctype html><html lang="en"><title>Somebody else’s page</title><body></body></html>');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
