/**
 * Waits for conditions. Nothing here waits for a time to pass.
 */
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Asks again until the answer is truthy, and returns it. What was asked last is part of the failure.
 *
 * @template T
 * @param {string} what is waited for
 * @param {() => Promise<T | undefined | null | false> | T | undefined | null | false} ask
 * @param {{ seconds?: number, show?: () => unknown }} [options] `show` tells the state when time is up
 * @returns {Promise<T>}
 */
export async function until(what, ask, { seconds = 30, show } = {}) {
  const end = Date.now() + seconds * 1000;
  /** @type {unknown} */
  let last;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    last = answer;
    if (Date.now() > end) {
      const state = show === undefined ? last : await show();
      throw new Error(`not within ${seconds} s: ${what}; last seen: ${JSON.stringify(state)}`);
    }
    await delay(150);
  }
}
