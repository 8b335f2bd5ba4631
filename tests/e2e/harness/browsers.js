/**
 * Debian's Chromium and Firefox, with fake cameras and microphones, driven through one small interface.
 *
 * `CHROMIUM` and `FIREFOX` name other binaries. Each person gets a profile of their own.
 *
 * @import { Page } from './person.js'
 */
import { chromium as playwright } from 'playwright-core';
import puppeteer from 'puppeteer-core';
import { Person } from './person.js';
import { installProbe } from './probe.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

/** What a camera gives where the picture's size is not the matter. */
export const SMALL_CAMERA = { width: 640, height: 360, fps: 10 };

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // Pages in the background must play on as those in front do.
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  '--autoplay-policy=no-user-gesture-required',
  // Ten pictures a second: several software encoders share one small machine with what is tested.
  '--use-fake-device-for-media-stream=fps=10',
  '--use-fake-ui-for-media-stream',
];

const FIREFOX_PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.autoplay.default': 0,
  'dom.min_background_timeout_value': 4,
  'app.update.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
};

/**
 * @typedef {object} Browser
 * @property {(name: string, options?: PersonOptions) => Promise<Person>} person a person with a fresh profile
 * @property {() => Promise<void>} close
 *
 * @typedef {object} PersonOptions
 * @property {typeof SMALL_CAMERA | null} [camera] null for all that the fake device can do
 * @property {{ width: number, height: number }} [viewport]
 * @property {string} [colorScheme]
 * @property {boolean} [relayed] Chromium only: as in a network that lets nothing through but a relay
 */

const VIEWPORT = { width: 1280, height: 800 };

/** @returns {Promise<Browser & { context: import('playwright-core').Browser }>} */
export async function startChromium() {
  const browser = await playwright.launch({ executablePath: CHROMIUM, headless: true, args: CHROMIUM_FLAGS });
  return {
    context: browser,
    async person(name, { camera = SMALL_CAMERA, viewport = VIEWPORT, relayed = false } = {}) {
      const context = await browser.newContext({ viewport, permissions: ['camera', 'microphone'] });
      await context.addInitScript(installProbe, camera);
      if (relayed) await context.addInitScript(relayEverything);
      return new Person(name, chromiumPage(await context.newPage()));
    },
    close: () => browser.close(),
  };
}

/** In a page: what is not relayed does not leave. */
function relayEverything() {
  const Plain = globalThis.RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Plain {
    /** @param {RTCConfiguration} [configuration] */
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: 'relay' });
    }
  };
}

/**
 * @param {import('playwright-core').Page} page
 * @returns {Page & { playwright: import('playwright-core').Page }}
 */
function chromiumPage(page) {
  /** @type {string[]} */
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  return {
    playwright: page,
    goto: (url) => page.goto(url),
    evaluate: (act, argument) => page.evaluate(/** @type {any} */ (act), argument),
    click: (selector) => page.click(selector),
    type: (selector, text) => page.fill(selector, text),
    screenshot: (path) => page.screenshot({ path }),
    complaints: () => complaints,
    close: () => page.context().close(),
  };
}

/** @returns {Promise<Browser>} */
export async function startFirefox() {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: FIREFOX,
    headless: true,
    extraPrefsFirefox: FIREFOX_PREFERENCES,
  });
  return {
    async person(name, { camera = SMALL_CAMERA, viewport = VIEWPORT } = {}) {
      const context = await browser.createBrowserContext();
      const page = await context.newPage();
      await page.setViewport(viewport);
      await page.evaluateOnNewDocument(installProbe, camera);
      return new Person(name, firefoxPage(page));
    },
    close: () => browser.close(),
  };
}

/**
 * @param {import('puppeteer-core').Page} page
 * @returns {Page}
 */
function firefoxPage(page) {
  /** @type {string[]} */
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  return {
    goto: (url) => page.goto(url),
    evaluate: (act, argument) => page.evaluate(/** @type {any} */ (act), argument),
    click: (selector) => page.click(selector),
    type: async (selector, text) => {
      await page.click(selector);
      await page.type(selector, text);
    },
    screenshot: (path) => page.screenshot({ path: /** @type {`${string}.png`} */ (path) }),
    complaints: () => complaints,
    close: () => page.browserContext().close(),
  };
}
