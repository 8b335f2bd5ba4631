/**
 * A real TURN server: Debian's coturn, on loopback alone, with a secret that it shares with the node.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './server.js';
import { until } from './until.js';

/** Starts one; `settings` are those of a node that tells of it. */
export async function startTurn() {
  const [folder, port] = await Promise.all([mkdtemp(join(tmpdir(), 'antiphon-turn-')), freePort()]);
  const secret = 'shared by the relay and the node';
  const child = spawn(
    'turnserver',
    [
      '-n',
      '--use-auth-secret',
      `--static-auth-secret=${secret}`,
      '--realm=antiphon',
      '--listening-ip=127.0.0.1',
      '--relay-ip=127.0.0.1',
      `--listening-port=${port}`,
      // The node is on loopback, too, which a relay in earnest must never reach.
      '--allow-loopback-peers',
      '--no-tls',
      '--no-dtls',
      '--no-cli',
      '--log-file=/dev/null',
      `--pidfile=${join(folder, 'pid')}`,
      `--userdb=${join(folder, 'db')}`,
    ],
    { stdio: 'ignore' },
  );
  /** @type {Error | undefined} */
  let failure;
  child.on('error', (error) => {
    failure = error;
  });

  async function stop() {
    if (child.exitCode === null && child.signalCode === null && child.kill('SIGTERM'))
      await once(child, 'exit');
    await rm(folder, { recursive: true, force: true });
  }

  try {
    await until('coturn listens', async () => {
      if (failure !== undefined) throw failure;
      if (child.exitCode !== null) throw new Error('coturn ended at its start');
      const socket = connect(port, '127.0.0.1');
      const connected = await once(socket, 'connect').catch(() => undefined);
      socket.destroy();
      return connected;
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    stop,
    settings: {
      TURN__URLS: `turn:127.0.0.1:${port}?transport=udp, turn:127.0.0.1:${port}?transport=tcp`,
      TURN__SECRET: secret,
    },
  };
}
