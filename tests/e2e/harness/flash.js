/**
 * Somebody who flashes and beeps at once: a camera and a microphone for a page, made of one clock; and when
 * FFmpeg finds their pictures and beeps in files.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** How often it flashes and beeps, and for how long. */
export const PERIOD_S = 1;
const LASTS_S = 0.25;
/** Several encoders share one small machine with what is tested. */
const PICTURES_PER_S = 15;
const TONE_HZ = 1000;
const RATE = 48_000;
/** Of the time that a picture shows: a minute. */
const BITS = 16;
/** Between black and white. */
const BRIGHT = 125;
/** Sound is looked at in steps of so much. */
const STEP_S = 0.005;
/** Of samples of 16 bits: a tone, and not what a coder leaves where there is none. */
const LOUD = 3_000;

/** What goes into a page with {@link flashAndBeep}. */
export const SOURCE = {
  width: 640,
  height: 360,
  period: PERIOD_S,
  lasts: LASTS_S,
  hz: TONE_HZ,
  fps: PICTURES_PER_S,
  rate: RATE,
  bits: BITS,
};

/**
 * Runs in the page, before its own scripts: its camera flashes while its microphone beeps. Both are handed
 * over at once, so that a busy page is late with both or with none. Each picture shows when it was drawn, in
 * milliseconds from the first beep, as bars of bits.
 *
 * @param {typeof SOURCE} source
 */
export function flashAndBeep({ width, height, period, lasts, hz, fps, rate, bits }) {
  const make = () => {
    const page = /** @type {any} */ (window);
    const [picture, sound] = ['video', 'audio'].map((kind) => new page.MediaStreamTrackGenerator({ kind }));
    const [pictures, sounds] = [picture, sound].map((track) => track.writable.getWriter());
    // As a camera does; the page reckons its layers by it.
    picture.getSettings = () => ({ width, height, frameRate: fps });
    const canvas = new OffscreenCanvas(width, height);
    const brush = /** @type {OffscreenCanvasRenderingContext2D} */ (
      canvas.getContext('2d', { alpha: false, willReadFrequently: true })
    );
    const began = performance.now() + 1_000;
    const isOn = (/** @type {number} */ ms) => ms >= 0 && ms % (period * 1_000) < lasts * 1_000;
    /** @param {number} ms */
    const draw = (ms) => {
      brush.fillStyle = isOn(ms) ? 'white' : 'black';
      brush.fillRect(0, 0, width, height / 2);
      for (let bit = 0; bit < bits; bit += 1) {
        brush.fillStyle = Math.max(0, Math.floor(ms)) & (1 << bit) ? 'white' : 'black';
        brush.fillRect((bit * width) / bits, height / 2, width / bits, height / 2);
      }
      void pictures.write(new VideoFrame(canvas, { timestamp: Math.round((began + ms) * 1_000) }));
    };
    const block = rate / 100;
    /** @param {number} number the hundredth of a second from the first beep */
    const sing = (number) => {
      const data = new Float32Array(block);
      for (let at = 0; isOn(number * 10) && at < block; at += 1)
        data[at] = 0.5 * Math.sin((2 * Math.PI * hz * (number * block + at)) / rate);
      const timestamp = Math.round((began + number * 10) * 1_000);
      const format = 'f32-planar';
      const shape = { format, sampleRate: rate, numberOfFrames: block, numberOfChannels: 1, timestamp, data };
      void sounds.write(new AudioData(/** @type {AudioDataInit} */ (shape)));
    };
    let shown = { number: Number.NEGATIVE_INFINITY, on: false };
    let sung = -50;
    const pace = new Worker(URL.createObjectURL(new Blob(['setInterval(() => postMessage(0), 3)'])));
    pace.onmessage = () => {
      const ms = performance.now() - began;
      // A block is handed over when it is complete, as by a microphone.
      for (; (sung + 1) * 10 <= ms; sung += 1) sing(sung);
      const [number, on] = [Math.floor((ms * fps) / 1_000), isOn(ms)];
      // At its turn, and at once when it flashes.
      if (number === shown.number && on === shown.on) return;
      shown = { number, on };
      draw(ms);
    };
    return new MediaStream([picture, sound]);
  };
  /** @type {MediaStream | undefined} */
  let made;
  navigator.mediaDevices.getUserMedia = async (constraints = {}) => {
    made ??= make();
    const is = (/** @type {MediaStreamTrack} */ { kind }) =>
      Boolean(kind === 'video' ? constraints.video : constraints.audio);
    return new MediaStream(made.getTracks().filter(is));
  };
}

/**
 * Pictures of a file: when each is, in seconds, its lines, whether it is bright, and when it was drawn, in
 * milliseconds from the first beep.
 *
 * @param {string} path
 */
export async function picturesOf(path) {
  const entries = ['-show_entries', 'frame=pts_time,height', '-of', 'json'];
  const told = await run('ffprobe', ['-v', 'error', '-select_streams', 'v:0', ...entries, path], {
    maxBuffer: 1 << 26,
  });
  const small = ['-vf', `scale=${BITS}:2:flags=area`, '-pix_fmt', 'gray', '-f', 'rawvideo', '-'];
  const { stdout: light } = await run(
    'ffmpeg',
    ['-v', 'error', '-i', path, '-map', '0:v:0', '-vsync', 'passthrough', ...small],
    { encoding: 'buffer', maxBuffer: 1 << 26 },
  );
  /** @type {{ frames: { pts_time: string, height: string }[] }} */
  const { frames } = JSON.parse(told.stdout);
  const decoded = light.length / BITS / 2;
  if (frames.length !== decoded) throw new Error(`${frames.length} frames, ${decoded} decoded`);
  return frames.map(({ pts_time, height }, number) => {
    const from = number * BITS * 2;
    const bars = [...light.subarray(from + BITS, from + BITS * 2)];
    const drawn = bars.reduce((sum, value, bit) => sum + (value > BRIGHT ? 2 ** bit : 0), 0);
    const bright = Number(light[from + BITS / 2]) > BRIGHT;
    return { at: Number(pts_time), height: Number(height), bright, drawn };
  });
}

/**
 * When it flashes: the first bright picture after a dark one.
 *
 * @param {{ at: number, bright: boolean }[]} pictures
 */
export const flashesOf = (pictures) =>
  pictures.filter(({ bright }, at) => bright && pictures[at - 1]?.bright === false).map(({ at }) => at);

/**
 * When it beeps, in seconds from the recording's beginning.
 *
 * @param {string} path
 */
export async function beepsOf(path) {
  const { stdout } = await run(
    'ffmpeg',
    [
      ...['-v', 'error', '-copyts', '-i', path, '-map', '0:a:0', '-af', 'aresample=async=1:first_pts=0'],
      ...['-ac', '1', '-ar', String(RATE), '-f', 's16le', '-'],
    ],
    { encoding: 'buffer', maxBuffer: 1 << 28 },
  );
  const step = RATE * STEP_S;
  /** @type {boolean[]} */
  const loud = [];
  for (let from = 0; (from + step) * 2 <= stdout.length; from += step) {
    let most = 0;
    for (let at = from; at < from + step; at += 1)
      most = Math.max(most, Math.abs(stdout.readInt16LE(at * 2)));
    loud.push(most > LOUD);
  }
  return loud.flatMap((is, at) => (is && loud[at - 1] === false ? [at * STEP_S] : []));
}

/**
 * How far each picture is from where the sound of its moment is, in milliseconds; positive is late. And when
 * its source's clock began, as it has it. Pictures from before the first beep are left out.
 *
 * @param {{ at: number, drawn: number }[]} pictures
 * @param {number[]} beeps
 */
export function apartMs(pictures, beeps) {
  return pictures.flatMap(({ at, drawn }) => {
    const began = at - ((drawn / 1_000) % PERIOD_S);
    const beep = beeps.toSorted((one, other) => Math.abs(one - began) - Math.abs(other - began))[0];
    if (beep === undefined || drawn === 0 || Math.abs(beep - began) > PERIOD_S / 2) return [];
    return [{ at, apart: (began - beep) * 1_000, clock: at * 1_000 - drawn }];
  });
}
