/**
 * Follows a stream as a player with low latency does: asks for the playlist that has the next part, and notes
 * when each part was there.
 */

/** 85 % of the part target. */
const PART_MIN_S = 0.425;

/** @typedef {{ id: string, number: number, part: number, duration: number, endMs: number }} Part */

/**
 * The parts that a media playlist lists, oldest first, each with when it ends by the server's clock.
 *
 * @param {string} body
 * @returns {Part[]}
 */
export function partsOf(body) {
  /** @type {Part[]} */
  const parts = [];
  let atMs = Number.NaN;
  for (const line of body.split('\n')) {
    const date = /^#EXT-X-PROGRAM-DATE-TIME:(.+)$/.exec(line)?.[1];
    if (date) atMs = Date.parse(date);
    const [, duration, uri] = /^#EXT-X-PART:DURATION=([0-9.]+),URI="([^"]+)"/.exec(line) ?? [];
    if (duration === undefined || uri === undefined) continue;
    atMs += Number(duration) * 1_000;
    const [, number, part] = /-([0-9]+)-([0-9]+)\.m4s$/.exec(uri) ?? [];
    parts.push({
      id: uri,
      number: Number(number),
      part: Number(part),
      duration: Number(duration),
      endMs: atMs,
    });
  }
  return parts;
}

/**
 * Follows a media playlist for so long. What it tells: parts that came, those that were missed, those that
 * are too short, and how late each was, in milliseconds from its end to its playlist's arrival.
 *
 * @param {string} url
 * @param {number} seconds
 */
export async function follow(url, seconds) {
  const until = Date.now() + seconds * 1_000;
  let next = '';
  /** @type {Part | undefined} */
  let last;
  /** @type {number[]} */
  const lateMs = [];
  const result = { parts: 0, missed: 0, short: 0, discontinuities: 0, lateMs };
  while (Date.now() < until) {
    const answer = await fetch(`${url}${next}`);
    const body = await answer.text();
    if (answer.status !== 200) throw new Error(`${url}${next}: ${answer.status} ${body}`);
    const now = Date.now();
    result.discontinuities = Math.max(
      result.discontinuities,
      Number(/DISCONTINUITY-SEQUENCE:([0-9]+)/.exec(body)?.[1] ?? 0) +
        (body.match(/#EXT-X-DISCONTINUITY\n/g)?.length ?? 0),
    );
    // What the first answer lists was there before anyone waited for it.
    const isFirst = last === undefined;
    for (const one of partsOf(body)) {
      const isNew =
        last === undefined ||
        one.number > last.number ||
        (one.number === last.number && one.part > last.part);
      if (!isNew) continue;
      if (!isFirst && last !== undefined) {
        const follows =
          (one.number === last.number && one.part === last.part + 1) ||
          (one.number === last.number + 1 && one.part === 0);
        result.missed += Number(!follows);
        // Only a segment's last part may be shorter (RFC 8216bis §4.4.4.9).
        result.short += Number(one.number === last.number && last.duration < PART_MIN_S - 1e-5);
        result.lateMs.push(now - one.endMs);
        result.parts += 1;
      }
      last = one;
    }
    const hint = /PRELOAD-HINT:TYPE=PART,URI="[^"]*?-([0-9]+)-([0-9]+)\.m4s"/.exec(body);
    next = hint ? `?_HLS_msn=${hint[1]}&_HLS_part=${hint[2]}` : '';
  }
  result.lateMs.sort((a, b) => a - b);
  return result;
}

/** @param {number[]} sorted @param {number} share */
export const quantile = (sorted, share) =>
  Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN);
