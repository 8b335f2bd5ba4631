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
/** Where it was quiet for so long, a beep begins. */
const QUIET_S = 0.1;
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
 * Runs in the page, before its own scripts: its camera flashes while its microphone beeps. A worker makes
 * both, so that they do not wait for what else the page does. Each picture shows when it was drawn, in
 * milliseconds from the first beep, as bars of bits.
 *
 * Chromium takes a picture to be captured when it comes, and sound by its timestamps, which it has begin
 * when the first of it comes.
 *
 * @param {typeof SOURCE} source
 */
export function flashAndBeep(source) {
  /** Runs in the worker. */
  const play = () => {
    /** @param {MessageEvent} event */
    self.onmessage = ({ data }) => {
      /** @type {typeof SOURCE} */
      const { width, height, period, lasts, hz, fps, rate, bits } = data.source;
      const pictures = data.pictures.getWriter();
      const canvas = new OffscreenCanvas(width, height);
      const brush = /** @type {OffscreenCanvasRenderingContext2D} */ (
        canvas.getContext('2d', { alpha: false, willReadFrequently: true })
      );
      // The page's clock, as frames of its own have it.
      const now = () => performance.timeOrigin + performance.now() - data.origin;
      const began = now() + 1_000;
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
        const samples = new Float32Array(block);
        for (let at = 0; isOn(number * 10) && at < block; at += 1)
          samples[at] = 0.5 * Math.sin((2 * Math.PI * hz * (number * block + at)) / rate);
        postMessage({ timestamp: Math.round((began + number * 10) * 1_000), data: samples });
      };
      let shown = { number: Number.NEGATIVE_INFINITY, on: false };
      let sung = -50;
      setInterval(() => {
        const ms = now() - began;
        // A block is handed over when it is complete, as by a microphone.
        for (; (sung + 1) * 10 <= ms; sung += 1) sing(sung);
        const [number, on] = [Math.floor((ms * fps) / 1_000), isOn(ms)];
        // At its turn, and at once when it flashes.
        if (number === shown.number && on === shown.on) return;
        shown = { number, on };
        draw(ms);
      }, 3);
    };
  };
  const make = () => {
    const page = /** @type {any} */ (window);
    const [picture, sound] = ['video', 'audio'].map((kind) => new page.MediaStreamTrackGenerator({ kind }));
    // As a camera does; the page reckons its layers by it.
    const { width, height, fps } = source;
    picture.getSettings = () => ({ width, height, frameRate: fps });
    const pictures = picture.writable;
    const sounds = sound.writable.getWriter();
    const worker = new Worker(URL.createObjectURL(new Blob([`(${play})()`])));
    /** @param {{ timestamp: number, data: Float32Array }} samples */
    const sing = ({ timestamp, data }) => {
      const shape = { format: 'f32-planar', sampleRate: source.rate, numberOfChannels: 1 };
      const init = { ...shape, numberOfFrames: data.length, timestamp, data };
      void sounds.write(new AudioData(/** @type {AudioDataInit} */ (init)));
    };
    // Silence that comes when it says it does.
    sing({ timestamp: Math.round(performance.now() * 1_000), data: new Float32Array(source.rate / 100) });
    worker.onmessage = ({ data }) => sing(data);
    worker.postMessage({ source, pictures, origin: performance.timeOrigin }, [pictures]);
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
 * When it beeps, in seconds from the recording's beginning. Samples are where their packets' times have
 * them: a silent microphone sends none, and FFmpeg's own filling of such gaps is up to a tenth of a second
 * off.
 *
 * @param {string} path
 */
export async function beepsOf(path) {
  const entries = ['-select_streams', 'a:0', '-show_entries', 'frame=pts_time,nb_samples', '-of', 'json'];
  const told = await run('ffprobe', ['-v', 'error', ...entries, path], { maxBuffer: 1 << 26 });
  const { stdout } = await run(
    'ffmpeg',
    ['-v', 'error', '-i', path, '-map', '0:a:0', '-ac', '1', '-ar', String(RATE), '-f', 's16le', '-'],
    { encoding: 'buffer', maxBuffer: 1 << 28 },
  );
  /** @type {{ frames: { pts_time: string, nb_samples: number }[] }} */
  const { frames } = JSON.parse(told.stdout);
  const decoded = frames.reduce((sum, { nb_samples }) => sum + nb_samples, 0);
  if (stdout.length !== decoded * 2) throw new Error(`${decoded} samples, ${stdout.length / 2} decoded`);
  /** @type {number[]} */
  const beeps = [];
  let from = 0;
  let loudAt = Number.NEGATIVE_INFINITY;
  for (const { pts_time, nb_samples } of frames) {
    for (let sample = 0; sample < nb_samples; sample += 1) {
      if (Math.abs(stdout.readInt16LE((from + sample) * 2)) < LOUD) continue;
      const at = Number(pts_time) + sample / RATE;
      if (at - loudAt > QUIET_S) beeps.push(at);
      loudAt = at;
    }
    from += nb_samples;
  }
  return beeps;
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
