/**
 * What a group of tests runs in: the real server, browsers, somebody else's site. Started before the first
 * test of the group, stopped after the last.
 *
 * @import { Browser } from './browsers.js'
 */
import { after, before } from 'node:test';
import { startChromium, startFirefox } from './browsers.js';
import { startPageServer } from './page-server.js';
import { Server } from './server.js';

/**
 * @typedef {object} World
 * @property {Server} server
 * @property {Browser} chromium
 * @property {Browser} firefox where asked for
 * @property {{ url: string, close: () => Promise<void> }} site another origin, where asked for
 */

/**
 * To be called within `describe`; the parts are there once its tests run.
 *
 * @param {{ settings?: Record<string, string>, firefox?: boolean, site?: boolean }} [options]
 * @returns {World}
 */
export function setUp({ settings = {}, firefox = false, site = false } = {}) {
  const world = /** @type {World} */ ({});
  /** @type {<K extends keyof World>(name: K, part: Promise<World[K]>) => Promise<void>} */
  const add = async (name, part) => {
    world[name] = await part;
  };

  before(async () => {
    await Promise.all([
      add('server', Server.start(settings)),
      add('chromium', startChromium()),
      firefox && add('firefox', startFirefox()),
      site && add('site', startPageServer()),
    ]);
  });

  after(async () => {
    await Promise.all([world.chromium?.close(), world.firefox?.close(), world.site?.close()]);
    await world.server?.stop();
  });

  return world;
}
