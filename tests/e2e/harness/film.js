/**
 * Films for tests: colours one after the other with a tone, made by FFmpeg's command line; and what colour a
 * page shows.
 *
 * @import { Person } from './person.js'
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { until } from './until.js';

/** The colours of a film, in their order. @type {Record<string, [number, number, number]>} */
const COLOURS = { red: [255, 0, 0], lime: [0, 255, 0], blue: [0, 0, 255] };
/** A picture that was coded and shown is about its colour. */
const TOLERANCE = 60;

/** What makes a film: each colour for so many seconds. @param {number} seconds */
const sources = (seconds) => {
  const parts = Object.keys(COLOURS).map(
    (colour, at) => `color=${colour}:s=320x180:r=25:d=${seconds}[c${at}]`,
  );
  const picture = `${parts.join(';')};[c0][c1][c2]concat=n=3`;
  return [
    ...['-f', 'lavfi', '-i', picture],
    ...['-f', 'lavfi', '-i', `sine=frequency=1000:duration=${seconds * 3}`],
    ...['-pix_fmt', 'yuv420p'],
  ];
};

/** H.264 without pictures that wait for later ones, and AAC. */
export const PLAIN = ['-c:v', 'libx264', '-preset', 'ultrafast', '-bf', '0', '-g', '25', '-c:a', 'aac'];
/** As most cameras and editors make it. */
export const REORDERED = ['-c:v', 'libx264', '-preset', 'ultrafast', '-bf', '2', '-g', '50', '-c:a', 'aac'];

/**
 * Makes a film of three colours.
 *
 * @param {string} path
 * @param {number} seconds for each colour
 * @param {string[]} [coding]
 */
export async function film(path, seconds, coding = PLAIN) {
  await promisify(execFile)('ffmpeg', ['-v', 'error', '-y', ...sources(seconds), ...coding, path]);
}

/**
 * Makes of a film one that lies on its side, as a phone that was held upright writes it.
 *
 * @param {string} from
 * @param {string} to
 */
export async function lay(from, to) {
  const turned = ['-c', 'copy', '-metadata:s:v:0', 'rotate=90'];
  await promisify(execFile)('ffmpeg', ['-v', 'error', '-y', '-i', from, ...turned, to]);
}

/**
 * When each colour of a film is seen in the middle of a file's picture: from the first to the end of the last
 * picture of it, in milliseconds. A picture lasts until the next one.
 *
 * @param {string} path
 * @returns {Promise<{ colour: string, from: number, to: number }[]>}
 */
export async function coloursOf(path) {
  const run = promisify(execFile);
  const shown = ['-v', 'error', '-i', path, '-map', '0:v:0', '-vsync', 'passthrough'];
  const small = ['-vf', 'crop=8:8,scale=1:1', '-pix_fmt', 'rgb24', '-f', 'rawvideo', '-'];
  const { stdout: bytes } = await run('ffmpeg', [...shown, ...small], {
    encoding: 'buffer',
    maxBuffer: 1 << 24,
  });
  const entries = ['-show_entries', 'frame=pts_time,pkt_duration_time', '-of', 'csv=p=0'];
  const told = await run('ffprobe', ['-v', 'error', '-select_streams', 'v:0', ...entries, path]);
  const times = told.stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split(',').map(Number));
  /** @type {{ colour: string, from: number, to: number }[]} */
  const seen = [];
  for (const [at, [time = 0, lasts = 0]] of times.entries()) {
    const point = [...bytes.subarray(at * 3, at * 3 + 3)];
    const is = Object.entries(COLOURS).find(([, colour]) =>
      colour.every((part, index) => Math.abs(part - (point[index] ?? 0)) < TOLERANCE),
    );
    if (!is) continue;
    const to = (times[at + 1]?.[0] ?? time + lasts) * 1000;
    const last = seen.at(-1);
    if (last?.colour === is[0]) last.to = to;
    else seen.push({ colour: is[0], from: time * 1000, to });
  }
  return seen;
}

/**
 * Pushes one colour with a tone by RTMP, in real time, as an encoder does.
 *
 * @param {string} url
 * @param {string} colour
 * @param {string[]} [coding]
 */
export function push(url, colour, coding = PLAIN) {
  const child = spawn(
    'ffmpeg',
    [
      ...['-v', 'error', '-re', '-f', 'lavfi', '-i', `color=${colour}:s=320x180:r=25`],
      ...['-f', 'lavfi', '-i', 'sine=frequency=1000', '-pix_fmt', 'yuv420p', ...coding, '-f', 'flv', url],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text;
  });
  const ended = once(child, 'exit');
  return {
    said: () => said,
    isRunning: () => child.exitCode === null && child.signalCode === null,
    ended,
    async stop() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/**
 * The colour in the middle of somebody's tile; runs in the page.
 *
 * @param {{ participant: string, source: string }} of
 */
function colourInPage({ participant, source }) {
  const tile = `[data-testid="tile"][data-participant="${participant}"][data-source="${source}"]`;
  const video = /** @type {HTMLVideoElement | null} */ (document.querySelector(`${tile} video`));
  if (!video || video.videoWidth === 0) return undefined;
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [1, 1];
  const brush = canvas.getContext('2d');
  const { videoWidth, videoHeight } = video;
  brush?.drawImage(video, videoWidth / 2, videoHeight / 2, 8, 8, 0, 0, 1, 1);
  return [...(brush?.getImageData(0, 0, 1, 1).data.slice(0, 3) ?? [])];
}

/**
 * Waits until somebody sees this colour in a tile.
 *
 * @param {Person} person
 * @param {string} participant
 * @param {'screen' | 'camera'} source
 * @param {string} colour
 */
export async function seesColour(person, participant, source, colour) {
  const look = () => person.page.evaluate(colourInPage, { participant, source });
  await until(
    `${person.name} sees ${participant} in ${colour}`,
    async () => {
      const seen = await look();
      return seen?.every((part, at) => Math.abs(part - (COLOURS[colour]?.[at] ?? 0)) < TOLERANCE);
    },
    { seconds: 30, show: async () => [await look(), await person.inbound(), await person.serverSide()] },
  );
}
