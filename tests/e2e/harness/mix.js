/**
 * What a page shows and plays while its room is mixed and not, measured inside the page: which tiles there
 * were when, how long it was silent, what is in a picture, how long a switch took.
 *
 * @import { Person } from './person.js'
 */

/** How often sound is measured; the silences found are this exact. */
const LISTEN_EVERY_MS = 50;
/** A beep of a fake microphone adds about 0.1 to a stream's energy; what sounds between two adds less. */
const ENERGY_MIN = 0.01;

/**
 * Notes from now on which tiles there are, and the longest time without sound; runs in the page.
 *
 * @param {{ everyMs: number, energyMin: number }} options
 */
function observeInPage({ everyMs, energyMin }) {
  const observed = {
    /** @type {{ atMs: number, tiles: string[] }[]} */
    tiles: [],
    silenceMaxMs: 0,
  };
  const look = () => {
    const found = [...document.querySelectorAll('[data-testid="tile"]')];
    const tiles = found.map((tile) => tile.getAttribute('data-participant') ?? '').sort();
    if (String(observed.tiles.at(-1)?.tiles) !== String(tiles))
      observed.tiles.push({ atMs: Date.now(), tiles });
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
  look();

  let energy = 0;
  let heardAt = performance.now();
  const listen = async () => {
    const streams = await /** @type {any} */ (window).probe.inbound();
    let sum = 0;
    for (const stream of streams) if (stream.kind === 'audio') sum += stream.energy;
    const now = performance.now();
    observed.silenceMaxMs = Math.max(observed.silenceMaxMs, now - heardAt);
    if (sum - energy >= energyMin) {
      energy = sum;
      heardAt = now;
    }
    setTimeout(listen, everyMs);
  };
  void listen();
  Object.assign(window, { observed });
}

/** @param {Person} person */
export async function observe(person) {
  await person.page.evaluate(observeInPage, { everyMs: LISTEN_EVERY_MS, energyMin: ENERGY_MIN });
}

/**
 * @param {Person} person
 * @returns {Promise<{ tiles: { atMs: number, tiles: string[] }[], silenceMaxMs: number }>}
 */
export async function observed(person) {
  return await person.page.evaluate(() => /** @type {any} */ (window).observed, undefined);
}

/**
 * Presses a button and waits for the mix's tile and its pictures; runs in the page. The first picture may be
 * the last of what the slot carried before, so it is the second one that counts.
 *
 * @param {{ button: string, seconds: number }} options
 */
async function switchInPage({ button, seconds }) {
  const video = () =>
    /** @type {HTMLVideoElement | null} */ (
      document.querySelector('[data-testid="tile"][data-participant="mixer"] video')
    );
  const element = /** @type {HTMLElement | null} */ (document.querySelector(`[data-testid="${button}"]`));
  if (element === null || video() !== null) throw new Error('no button, or mixed already');
  const began = performance.now();
  const passed = () => performance.now() - began;
  element.click();
  for (;;) {
    const found = video();
    if (found !== null) {
      const tileMs = passed();
      await new Promise((resolve) => found.requestVideoFrameCallback(resolve));
      await new Promise((resolve) => found.requestVideoFrameCallback(resolve));
      return { tileMs: Math.round(tileMs), pictureMs: Math.round(passed()) };
    }
    if (passed() > seconds * 1000) throw new Error(`no tile of the mix within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/**
 * Has somebody press `mode-mcu`; answers when the tile of the mix and its picture were there.
 *
 * @param {Person} person
 * @param {number} [seconds]
 */
export async function switchToMix(person, seconds = 10) {
  return await person.page.evaluate(switchInPage, { button: 'mode-mcu', seconds });
}

/**
 * What is in the picture of a tile, seen small; runs in the page.
 *
 * @param {string} participant
 */
function pictureInPage(participant) {
  const selector = `[data-testid="tile"][data-participant="${participant}"] video`;
  const video = /** @type {HTMLVideoElement | null} */ (document.querySelector(selector));
  const [width, height] = [64, 36];
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const brush = canvas.getContext('2d');
  if (video === null || brush === null) throw new Error(`no picture of ${participant}`);
  brush.drawImage(video, 0, 0, width, height);
  const { data } = brush.getImageData(0, 0, width, height);
  /** @type {Map<string, number>} share of each colour, in steps of 32 */
  const colours = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const colour = [...data.slice(at, at + 3)].map((value) => value >> 5).join();
    colours.set(colour, (colours.get(colour) ?? 0) + 4 / data.length);
  }
  const most = Math.max(...colours.values());
  return { width: video.videoWidth, height: video.videoHeight, colours: colours.size, most };
}

/**
 * The size of a tile's picture, how many colours it has, and the share of the most common one.
 *
 * @param {Person} person
 * @param {string} participant
 */
export async function picture(person, participant) {
  return await person.page.evaluate(pictureInPage, participant);
}

/**
 * What the panel says of a mode; runs in the page.
 *
 * @param {string} mode
 */
function comparedInPage(mode) {
  const text = (/** @type {string} */ row) =>
    document.querySelector(`[data-testid="compare-${row}-${mode}"]`)?.textContent ?? '';
  const [age, downlink, pictures] = [text('age'), text('downlink'), text('pictures')];
  const [decoding, buffer, delay] = [text('decoding'), text('picture-waits'), text('server-to-screen')];
  return { age, downlink, pictures, decoding, buffer, delay };
}

/**
 * @param {Person} person
 * @param {'sfu' | 'mcu'} mode
 */
export async function compared(person, mode) {
  return await person.page.evaluate(comparedInPage, mode);
}

/**
 * The colour in the upper left corner of the mix.
 *
 * @param {Person} person
 * @returns {Promise<number[]>}
 */
export async function corner(person) {
  return await person.page.evaluate(() => {
    const selector = '[data-testid="tile"][data-participant="mixer"] video';
    const video = /** @type {HTMLVideoElement | null} */ (document.querySelector(selector));
    const canvas = Object.assign(document.createElement('canvas'), { width: 4, height: 4 });
    const brush = canvas.getContext('2d');
    if (video === null || brush === null) return [];
    brush.drawImage(video, 0, 0, 4, 4, 0, 0, 4, 4);
    return [...brush.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  }, undefined);
}

/**
 * CSRCs of the pictures that somebody gets.
 *
 * @param {Person} person
 * @returns {Promise<number[]>}
 */
export async function contributors(person) {
  return await person.page.evaluate(() => {
    const connections = /** @type {RTCPeerConnection[]} */ (/** @type {any} */ (window).probe.connections);
    const receivers = connections.flatMap((connection) => connection.getReceivers());
    const video = receivers.filter(({ track }) => track.kind === 'video');
    return [...new Set(video.flatMap((one) => one.getContributingSources().map(({ source }) => source)))];
  }, undefined);
}

/**
 * A picture file of one colour, as the page's browser makes it.
 *
 * @param {Person} person
 * @param {string} colour
 */
export async function png(person, colour) {
  const url = await person.page.evaluate((/** @type {string} */ fill) => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
    const brush = canvas.getContext('2d');
    if (brush === null) throw new Error('nothing to draw with');
    brush.fillStyle = fill;
    brush.fillRect(0, 0, canvas.width, canvas.height);
    return canvas.toDataURL('image/png');
  }, colour);
  return Buffer.from(url.slice(url.indexOf(',') + 1), 'base64');
}

/**
 * Chooses a file of these bytes in a file input, in Chromium.
 *
 * @param {Person} person
 * @param {string} testId
 * @param {Buffer} buffer
 */
export async function choose(person, testId, buffer) {
  const { playwright } = /** @type {{ playwright: import('playwright-core').Page }} */ (
    /** @type {unknown} */ (person.page)
  );
  const file = { name: 'picture.png', mimeType: 'image/png', buffer };
  await playwright.setInputFiles(`[data-testid="${testId}"]`, file);
}
