/**
 * One person with a browser in front of them. The same acts and looks whatever the browser is.
 *
 * @import { Server } from './server.js'
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { RESULTS } from './server.js';
import { until } from './until.js';

/**
 * The part of a page that both drivers have.
 *
 * @typedef {object} Page
 * @property {(url: string) => Promise<unknown>} goto
 * @property {<A, R>(act: (argument: A) => R | Promise<R>, argument: A) => Promise<R>} evaluate
 * @property {(selector: string) => Promise<void>} click
 * @property {(selector: string, text: string) => Promise<void>} type
 * @property {(path: string) => Promise<unknown>} screenshot
 * @property {() => string[]} complaints what the page has thrown or logged as an error
 * @property {() => Promise<void>} close
 */

/** @param {string} testId */
export const hook = (testId) => `[data-testid="${testId}"]`;

/** A state that only grows must have grown by this many frames to count as playing. */
const FRAMES_MIN = 5;
/** Long enough for every fake microphone to beep. */
const LISTEN_MS = 2000;

export class Person {
  /**
   * @param {string} name
   * @param {Page} page
   */
  constructor(name, page) {
    this.name = name;
    this.page = page;
    /** What the server says about the room, for failures. */
    this.serverSide = async () => /** @type {unknown} */ (undefined);
  }

  /**
   * Goes straight into a room, past the page before it.
   *
   * @param {Server} server
   * @param {string} room
   */
  async join(server, room) {
    this.serverSide = async () => (await server.call('GET', `/rooms/${room}/stats`)).body;
    await this.page.goto(`${server.url}/r/${room}?name=${encodeURIComponent(this.name)}&join=1`);
    await this.inRoom();
  }

  /** Waits until the room is on screen. */
  async inRoom() {
    await this.sees(hook('leave'), { what: `${this.name} is in the room` });
  }

  /**
   * Waits for an element, or for one less.
   *
   * @param {string} selector
   * @param {{ what?: string, gone?: boolean, seconds?: number }} [options]
   */
  async sees(selector, { what, gone = false, seconds } = {}) {
    await until(
      what ?? `${this.name} ${gone ? 'no longer ' : ''}sees ${selector}`,
      async () => {
        const present = await this.page.evaluate(
          (wanted) => document.querySelector(wanted) !== null,
          selector,
        );
        return present !== gone;
      },
      { seconds, show: () => this.describe() },
    );
  }

  /** What a failure shows of this page; its picture is left in `test-results`. */
  async describe() {
    await mkdir(RESULTS, { recursive: true });
    await this.page.screenshot(join(RESULTS, `${this.name}.png`));
    const text = await this.page.evaluate(() => document.body.innerText.slice(0, 400), undefined);
    return { name: this.name, text, complaints: this.page.complaints().slice(-5) };
  }

  /** @param {string} testId */
  async press(testId) {
    await this.sees(hook(testId));
    await this.page.click(hook(testId));
  }

  /** Whose tiles are on screen. */
  async tiles() {
    return await this.page.evaluate(
      (selector) =>
        [...document.querySelectorAll(selector)].map((tile) => tile.getAttribute('data-participant') ?? ''),
      hook('tile'),
    );
  }

  /** The room as the page was told it last. @returns {Promise<any>} */
  async room() {
    return await this.page.evaluate(() => /** @type {any} */ (window).probe.room, undefined);
  }

  /** The text of the page, for words that it must say. */
  async text() {
    return await this.page.evaluate(() => document.body.innerText, undefined);
  }

  // ------------------------------------------------------------------------------------------------ media

  /**
   * What plays in a participant's tile.
   *
   * @param {string} participant
   * @param {string} [source]
   */
  async video(participant, source) {
    return await this.page.evaluate(
      ([who, what]) => /** @type {any} */ (window).probe.video(who, what),
      /** @type {[string, string | undefined]} */ ([participant, source]),
    );
  }

  /** @returns {Promise<any[]>} */
  async inbound() {
    return await this.page.evaluate(() => /** @type {any} */ (window).probe.inbound(), undefined);
  }

  /** @returns {Promise<any[]>} */
  async outbound() {
    return await this.page.evaluate(() => /** @type {any} */ (window).probe.outbound(), undefined);
  }

  /** @returns {Promise<any[]>} */
  async transports() {
    return await this.page.evaluate(() => /** @type {any} */ (window).probe.transports(), undefined);
  }

  /**
   * Waits until the frames of a participant are being decoded now, and returns the stream.
   *
   * @param {string} participant
   * @param {{ seconds?: number, source?: string, height?: number }} [options] `height` in lines, exactly
   */
  async watches(participant, { seconds = 30, source, height } = {}) {
    const start = (await this.video(participant, source))?.frames ?? 0;
    const wanted = height === undefined ? '' : ` at ${height} lines`;
    return await until(
      `${this.name} decodes ${source ?? 'the video'} of ${participant}${wanted}`,
      async () => {
        const now = await this.video(participant, source);
        const grown = now !== null && now.frames >= start + FRAMES_MIN;
        return grown && (height === undefined || now.height === height) ? now : undefined;
      },
      { seconds, show: async () => ({ inbound: await this.inbound(), server: await this.serverSide() }) },
    );
  }

  /**
   * Waits until so many audio streams carry sound now: their energy grows.
   *
   * @param {number} count
   * @param {{ seconds?: number }} [options]
   */
  async hears(count, { seconds = 30 } = {}) {
    const start = new Map((await this.audio()).map((stream) => [stream.track, stream.energy]));
    await until(
      `${this.name} hears ${count} others`,
      async () => {
        const now = await this.audio();
        return now.filter((stream) => stream.energy > (start.get(stream.track) ?? 0)).length >= count;
      },
      { seconds, show: () => this.audio() },
    );
  }

  /**
   * Waits until exactly so many audio streams carry sound, told by their energy over two seconds.
   *
   * @param {number} count
   */
  async hearsOnly(count) {
    await until(
      `${this.name} hears ${count} others and no more`,
      async () => {
        const start = new Map((await this.audio()).map((stream) => [stream.track, stream.energy]));
        await delay(LISTEN_MS);
        const now = await this.audio();
        return now.filter((stream) => stream.energy > (start.get(stream.track) ?? 0)).length === count;
      },
      { show: () => this.audio() },
    );
  }

  async audio() {
    return (await this.inbound()).filter((stream) => stream.kind === 'audio');
  }

  // ------------------------------------------------------------------------------------------------- chat

  /** @param {string} text */
  async says(text) {
    await this.sees(hook('chat-input'));
    await this.page.type(hook('chat-input'), text);
    await this.page.click(hook('chat-send'));
  }

  /** The messages on screen, from the top, as text. */
  async messages() {
    return await this.page.evaluate(
      (selector) => [...document.querySelectorAll(selector)].map((element) => element.textContent ?? ''),
      hook('chat-message'),
    );
  }

  /**
   * Waits until these texts are on screen, each once and in this order, and no others.
   *
   * @param {string[]} texts
   */
  async reads(texts) {
    await until(
      `${this.name} reads ${texts.length} messages in order`,
      async () => {
        const shown = await this.messages();
        return shown.length === texts.length && shown.every((line, at) => line.includes(texts[at] ?? ''));
      },
      { show: () => this.messages() },
    );
  }

  async close() {
    await this.page.close();
  }
}
