/**
 * What the room costs and gives while it is forwarded and while it is mixed, from what this session has
 * measured of each. No I/O.
 *
 * Of each mode the last moments are kept, and the mean of them is shown: those that go on now, or those
 * before the last switch. Around a switch streams of both modes flow for a moment, so the first samples after
 * one are of neither.
 */
import type { Mode } from './protocol';
import type { Sample, StreamRate } from './stats';

/** Moments that a mean is made of, and those after a switch that are left out. */
const MOMENTS_MAX = 15;
const SETTLE = 3;

/** What one moment was like. Undefined is what the browser does not tell. */
export interface Moment {
  /** Bits a second that came in. */
  downlinkBps: number;
  /** Pictures that were decoded, and the height of the largest. */
  pictures: number;
  height: number | undefined;
  /** Frames a second, of all pictures together. */
  fps: number;
  /** Share of frames that were dropped, 0–1. */
  dropped: number;
  /** Milliseconds for a frame, and for all frames of a second. */
  decodeMs: number | undefined;
  decodeMsPerSecond: number | undefined;
  /** How long pictures and sound waited, so as to be played evenly. */
  pictureBufferMs: number | undefined;
  soundBufferMs: number | undefined;
  /** From the server to the screen: half of the round trip, the wait and the decoding. */
  delayMs: number | undefined;
}

export interface Measured extends Moment {
  /** When the newest of its moments was. */
  atMs: number;
  /** Of how many it is the mean. */
  moments: number;
}

type Means = { [Key in keyof Moment]: Moment[Key] };

export class Comparison {
  #moments: Record<Mode, { atMs: number; moment: Moment }[]> = { sfu: [], mcu: [] };
  #mode: Mode | undefined;
  #settling = SETTLE;
  /** Since the last switch. */
  #isFirst = true;

  /** Takes note of a sample. `mode` is how the room came in then. */
  add(mode: Mode, sample: Sample): void {
    if (mode !== this.#mode) {
      this.#mode = mode;
      this.#settling = SETTLE;
      this.#isFirst = true;
    }
    if (this.#settling > 0) {
      this.#settling -= 1;
      return;
    }
    // What was measured of this mode earlier stays until there is something newer.
    const before = this.#isFirst ? [] : this.#moments[mode];
    this.#isFirst = false;
    const kept = [...before, { atMs: sample.atMs, moment: momentOf(sample) }];
    this.#moments[mode] = kept.slice(-MOMENTS_MAX);
  }

  /** The mean of what was measured last; undefined for a mode that was not measured yet. */
  of(mode: Mode): Measured | undefined {
    const kept = this.#moments[mode];
    const newest = kept.at(-1);
    if (!newest) return undefined;
    const means = { ...newest.moment } as Means;
    for (const key of Object.keys(means) as (keyof Moment)[]) {
      if (key === 'pictures' || key === 'height') continue;
      const values = kept.flatMap(({ moment }) => moment[key] ?? []);
      if (values.length > 0) means[key] = values.reduce((sum, value) => sum + value, 0) / values.length;
    }
    return { ...means, atMs: newest.atMs, moments: kept.length };
  }
}

function momentOf({ inBps, rttMs, streams }: Sample): Moment {
  const coming = streams.filter(({ direction, decoded, bps }) => direction === 'in' && (decoded || bps));
  const pictures = coming.filter(({ kind, decoded }) => kind === 'video' && decoded);
  const sound = coming.filter(({ kind }) => kind === 'audio');
  const sum = (pick: (stream: StreamRate) => number | undefined) =>
    pictures.reduce((total, stream) => total + (pick(stream) ?? 0), 0);
  const frames = sum(({ decoded }) => decoded);
  const dropped = sum(({ dropped }) => dropped);
  const heights = pictures.flatMap(({ height }) => height ?? []);
  const decodes = pictures.some(({ decodeMs }) => decodeMs !== undefined);
  const decodeMsPerFrame = frames > 0 ? sum((one) => (one.decodeMs ?? 0) * (one.decoded ?? 0)) / frames : 0;
  const pictureBufferMs = longest(pictures);
  const parts = [pictureBufferMs, rttMs];
  return {
    downlinkBps: inBps,
    pictures: pictures.length,
    height: heights.length > 0 ? Math.max(...heights) : undefined,
    fps: sum(({ decoded, seconds }) => (seconds > 0 ? (decoded ?? 0) / seconds : 0)),
    dropped: frames + dropped > 0 ? dropped / (frames + dropped) : 0,
    decodeMs: decodes ? decodeMsPerFrame : undefined,
    decodeMsPerSecond: decodes
      ? sum(({ decodeMs, decoded, seconds }) =>
          seconds > 0 ? ((decodeMs ?? 0) * (decoded ?? 0)) / seconds : 0,
        )
      : undefined,
    pictureBufferMs,
    soundBufferMs: longest(sound),
    delayMs: parts.every((part) => part !== undefined)
      ? (rttMs ?? 0) / 2 + (pictureBufferMs ?? 0) + decodeMsPerFrame
      : undefined,
  };
}

/** The longest wait among some streams. */
function longest(streams: readonly StreamRate[]): number | undefined {
  const waits = streams.flatMap(({ bufferMs }) => bufferMs ?? []);
  return waits.length > 0 ? Math.max(...waits) : undefined;
}
