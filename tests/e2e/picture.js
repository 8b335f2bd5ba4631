/**
 * Takes the picture of the client that README shows: three people in a room of the real server, seen by one
 * of them. Cameras are drawings, since Chromium's own fake is a test pattern; all else is as people get it.
 *
 *     npm run picture [FILE]     ../../docs/images/room.png without an argument
 *
 * @import { Person } from './harness/person.js'
 */
import { startChromium } from './harness/browsers.js';
import { hook } from './harness/person.js';
import { Server } from './harness/server.js';
import { until } from './harness/until.js';

const ROOM = 'calm-otter-41';
/** A tile of the picture has 330 lines. */
const LINES_MIN = 360;
const FILE = process.argv[2] ?? new URL('../../docs/images/room.png', import.meta.url).pathname;

/** @typedef {{ wall: [string, string], hair: string, skin: string, shirt: string, long: boolean }} Look */

/** @type {Record<string, Look>} */
const LOOKS = {
  Ada: { wall: ['#f3dcc0', '#d9a679'], hair: '#3b2a20', skin: '#e2b08c', shirt: '#2f6f73', long: true },
  Ben: { wall: ['#c9dde3', '#7fa6b5'], hair: '#1d1a1a', skin: '#8d5a3c', shirt: '#d98e2b', long: false },
  Cleo: { wall: ['#ded3ea', '#9c8abf'], hair: '#8a4b2a', skin: '#f0c6a6', shirt: '#36486b', long: true },
};

/**
 * Runs in the page, before its own scripts: the camera shows somebody who nods.
 *
 * @param {Look} look
 */
function drawCamera({ wall, hair, skin, shirt, long }) {
  const [width, height, fps] = [1280, 720, 10];
  /** @type {(canvas: HTMLCanvasElement, at: number) => void} */
  const draw = (canvas, at) => {
    const brush = canvas.getContext('2d');
    if (brush === null) return;
    /** @param {string | CanvasGradient} colour @param {number[]} ellipse centre, radii */
    const ellipse = (colour, [x = 0, y = 0, across = 0, down = 0]) => {
      brush.fillStyle = colour;
      brush.beginPath();
      brush.ellipse(x, y, across, down, 0, 0, 2 * Math.PI);
      brush.fill();
    };
    const light = brush.createLinearGradient(0, 0, width, height);
    light.addColorStop(0, wall[0]);
    light.addColorStop(1, wall[1]);
    brush.fillStyle = light;
    brush.fillRect(0, 0, width, height);
    brush.fillStyle = '#ffffff55';
    brush.fillRect(120, 90, 230, 300);
    brush.fillStyle = '#00000018';
    brush.fillRect(930, 250, 260, 14);
    for (const [x, tall] of [
      [950, 90],
      [985, 120],
      [1022, 100],
      [1060, 130],
      [1100, 84],
    ]) {
      brush.fillRect(x ?? 0, 250 - (tall ?? 0), 28, tall ?? 0);
    }
    const [x, y] = [640 + 10 * Math.sin(at), 320 + 5 * Math.sin(2 * at)];
    if (long) ellipse(hair, [x, y + 70, 178, 230]);
    ellipse(shirt, [640, 770, 330, 250]);
    brush.fillStyle = skin;
    brush.fillRect(x - 48, y + 110, 96, 110);
    ellipse(skin, [640, y + 215, 80, 46]);
    ellipse(hair, [x, y - 30, 150, 165]);
    ellipse(skin, [x, y + 22, 122, 150]);
    ellipse(hair, [x - 30, y - 105, 112, 52]);
    for (const side of [-46, 46]) ellipse('#2b2220', [x + side, y + 12, 10, 13]);
    brush.strokeStyle = '#2b2220aa';
    brush.lineWidth = 7;
    brush.lineCap = 'round';
    brush.beginPath();
    brush.arc(x, y + 62, 42, 0.2 * Math.PI, 0.8 * Math.PI);
    brush.stroke();
  };
  const { mediaDevices } = navigator;
  const native = mediaDevices.getUserMedia.bind(mediaDevices);
  mediaDevices.getUserMedia = async (wanted) => {
    if (!wanted?.video) return native(wanted);
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    let at = 0;
    const next = () => {
      at += 0.1;
      draw(canvas, at);
    };
    next();
    setInterval(next, 1000 / fps);
    const sound = wanted.audio ? (await native({ audio: wanted.audio })).getAudioTracks() : [];
    return new MediaStream([...canvas.captureStream(fps).getVideoTracks(), ...sound]);
  };
}

/**
 * @param {Person[]} people the one who looks first
 * @param {Server} server
 */
async function meet([ada, ben, cleo], server) {
  if (!ada || !ben || !cleo) return;
  for (const person of [ada, ben, cleo]) await person.join(server, ROOM);
  await ada.press('toggle-microphone');
  await cleo.press('toggle-microphone');
  await cleo.press('raise-hand');
  await ben.says('Morning! Slides are at https://example.org/autumn');
  await cleo.says('Take your time, **no rush**.');
  await ada.says('I can hear you both well.');
  await ben.says('Then let us begin. First the numbers, then `v0.1`.');
  await cleo.says('One question before that');
  for (const other of ['Ben', 'Cleo']) {
    await until(`${other} is sharp`, async () => ((await ada.video(other))?.height ?? 0) >= LINES_MIN, {
      seconds: 60,
    });
  }
  await until('Ben is seen to speak', () =>
    ada.page.evaluate(
      () => document.querySelector('.tile.speaking[data-participant="Ben"]') !== null,
      undefined,
    ),
  );
}

const [server, chromium] = await Promise.all([Server.start(), startChromium()]);
try {
  const people = await Promise.all(
    Object.entries(LOOKS).map(async ([name, look]) => {
      const person = await chromium.person(name, { camera: null });
      await /** @type {any} */ (person.page).playwright.addInitScript(drawCamera, look);
      return person;
    }),
  );
  await meet(people, server);
  const [ada] = people;
  await ada?.sees(`${hook('tile')} .tile-hand`);
  await ada?.page.screenshot(FILE);
} finally {
  await chromium.close();
  await server.stop();
}
