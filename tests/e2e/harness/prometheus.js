/**
 * Debian's Prometheus, asking one server for its figures.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, TREE } from './server.js';
import { until } from './until.js';

/** Where `scripts/setup.sh test` puts what is not installed. */
const env = { ...process.env, PATH: `${join(TREE, '.tools/bin')}:${process.env.PATH}` };

/** Tries alarms against made-up figures. @param {string} path of the trials */
export function testRules(path) {
  execFileSync('promtool', ['test', 'rules', path], { env });
}

/**
 * @param {string} target host and port that has `/metrics`
 * @param {string} rules path of the file of alarms
 */
export async function startPrometheus(target, rules) {
  const folder = await mkdtemp(join(tmpdir(), 'antiphon-prometheus-'));
  const url = `http://127.0.0.1:${await freePort()}`;
  const configuration = {
    global: { scrape_interval: '250ms', evaluation_interval: '250ms' },
    rule_files: [rules],
    scrape_configs: [{ job_name: 'antiphon', static_configs: [{ targets: [target] }] }],
  };
  await writeFile(join(folder, 'prometheus.yml'), JSON.stringify(configuration));
  const child = spawn(
    'prometheus',
    [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=${new URL(url).host}`,
    ],
    { env, stdio: 'ignore' },
  );

  /** @param {string} path below `/api/v1` */
  async function ask(path) {
    const answer = await fetch(`${url}/api/v1${path}`);
    return answer.json();
  }

  async function stop() {
    child.kill('SIGTERM');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await rm(folder, { recursive: true, force: true });
  }

  try {
    await until('Prometheus has asked', async () => {
      if (child.exitCode !== null) throw new Error('Prometheus ended at its start');
      const { data } = await ask(`/query?query=${encodeURIComponent('up == 1')}`).catch(() => ({}));
      return data?.result.length === 1;
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return { ask, stop };
}
