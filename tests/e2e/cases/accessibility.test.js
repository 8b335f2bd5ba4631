/**
 * The pages are usable without a mouse and with a screen reader, as far as axe and the keyboard can tell.
 *
 * @import { Browser } from '../harness/browsers.js'
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import axe from 'axe-core';
import { startChromium } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { Server } from '../harness/server.js';

describe('the pages', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;
  /** @type {Person} */
  let ada;

  before(async () => {
    [server, chromium] = await Promise.all([Server.start(), startChromium()]);
    ada = await chromium.person('Ada');
  });

  after(async () => {
    await chromium?.close();
    await server?.stop();
  });

  /** Fails on what axe finds serious or critical on the page as it is now. */
  async function hasNoSeriousFault() {
    await /** @type {any} */ (ada.page).playwright.evaluate(axe.source);
    const faults = await ada.page.evaluate(async () => {
      const { violations } = await /** @type {any} */ (window).axe.run(document, {
        resultTypes: ['violations'],
      });
      return violations
        .filter((/** @type {any} */ each) => ['serious', 'critical'].includes(each.impact))
        .map((/** @type {any} */ each) => `${each.id}: ${each.nodes[0]?.html}`);
    }, undefined);
    assert.deepEqual(faults, []);
  }

  for (const colorScheme of ['light', 'dark']) {
    test(`have no serious fault in ${colorScheme} colours`, { timeout: 90_000 }, async () => {
      await /** @type {any} */ (ada.page).playwright.emulateMedia({ colorScheme });
      await ada.page.goto(server.url);
      await ada.sees(hook('generate-room'));
      await hasNoSeriousFault();
      await ada.page.goto(`${server.url}/r/accessible`);
      await ada.sees(hook('join'));
      await hasNoSeriousFault();
      await ada.join(server, 'accessible');
      await ada.says('hello');
      await ada.reads(colorScheme === 'light' ? ['hello'] : ['hello', 'hello']);
      await hasNoSeriousFault();
    });
  }

  test('lead from a generated name into the room by keyboard alone', { timeout: 60_000 }, async () => {
    const page = /** @type {any} */ (ada.page).playwright;
    await ada.page.goto(server.url);
    await ada.sees(hook('generate-room'));
    await focusByTab('generate-room');
    await page.keyboard.press('Enter');
    await page.waitForURL(/\/r\/[A-Za-z0-9_-]{3,64}/);
    await ada.sees(hook('join'));
    await focusByTab('display-name');
    await page.keyboard.type('Ada');
    await focusByTab('join');
    await page.keyboard.press('Enter');
    await ada.inRoom();
    await focusByTab('leave');
  });

  /**
   * Presses Tab until an element has the focus, as often as a page may have stops.
   *
   * @param {string} testId
   */
  async function focusByTab(testId) {
    const page = /** @type {any} */ (ada.page).playwright;
    for (let stop = 0; stop < 40; stop += 1) {
      await page.keyboard.press('Tab');
      const focused = await page.evaluate(() => document.activeElement?.getAttribute('data-testid'));
      if (focused === testId) return;
    }
    assert.fail(`${testId} is not reached by Tab`);
  }
});
