/**
 * A participant that only watches, as a page without the library would be one: an offer with slots and a
 * `control` channel, and wishes that say exactly what the test wants to see.
 *
 * @import { Person } from './person.js'
 * @import { Server } from './server.js'
 */

/** How often the page looks for frames; the gaps that it measures are this exact. */
const LOOK_EVERY_MS = 50;

/**
 * Joins with one video slot and watches for gaps between decoded frames; runs in the page. With `described`
 * it asks for the dependency descriptor, as the library does.
 *
 * @param {{ endpoint: string, everyMs: number, described: boolean }} options
 */
async function watchInPage({ endpoint, everyMs, described }) {
  const connection = new RTCPeerConnection();
  const control = connection.createDataChannel('control', { ordered: true, protocol: 'antiphon.v1' });
  const welcomed = new Promise((resolve) => control.addEventListener('message', resolve, { once: true }));
  const transceiver = connection.addTransceiver('video', { direction: 'recvonly' });
  const { receiver } = transceiver;
  const extended = /** @type {any} */ (transceiver);
  const extensions = extended.getHeaderExtensionsToNegotiate();
  for (const extension of extensions)
    if (described && extension.uri.includes('dependency-descriptor')) extension.direction = 'sendrecv';
  extended.setHeaderExtensionsToNegotiate(extensions);
  await connection.setLocalDescription();
  const element = document.createElement('video');
  Object.assign(element, { autoplay: true, muted: true, srcObject: new MediaStream([receiver.track]) });
  document.body.append(element);
  const answer = await fetch(endpoint, {
    method: 'POST',
    headers: { 'content-type': 'application/sdp' },
    body: connection.localDescription?.sdp,
  });
  const sdp = await answer.text();
  if (answer.status !== 201) throw new Error(`${answer.status} ${sdp}`);
  await connection.setRemoteDescription({ type: 'answer', sdp });
  await welcomed;

  const seen = { frames: 0, atMs: performance.now(), gapMaxMs: 0 };
  setInterval(async () => {
    const report = await receiver.getStats();
    const stream = [...report.values()].find((entry) => entry.type === 'inbound-rtp');
    const nowMs = performance.now();
    if (seen.frames > 0) seen.gapMaxMs = Math.max(seen.gapMaxMs, nowMs - seen.atMs);
    if ((stream?.framesDecoded ?? 0) > seen.frames)
      Object.assign(seen, { frames: stream.framesDecoded, atMs: nowMs });
  }, everyMs);

  const viewer = {
    /** @param {number} height */
    wish(height) {
      seen.gapMaxMs = 0;
      const slots = [{ mid: transceiver.mid, max_height: height }];
      control.send(JSON.stringify({ type: 'slots.wish', slots }));
    },
    described: () => /^a=extmap:\d+ .*dependency-descriptor/m.test(sdp),
    /** What has come so far, and the longest time without a frame since the last wish. */
    async look() {
      const report = await receiver.getStats();
      const stream = [...report.values()].find((entry) => entry.type === 'inbound-rtp');
      return {
        gapMaxMs: Math.round(seen.gapMaxMs),
        atMs: performance.now(),
        bytes: stream?.bytesReceived ?? 0,
        packets: stream?.packetsReceived ?? 0,
        frames: stream?.framesDecoded ?? 0,
        keyFrames: stream?.keyFramesDecoded ?? 0,
        dropped: stream?.framesDropped ?? 0,
        height: stream?.frameHeight ?? 0,
        shown: element.videoHeight,
        nacks: stream?.nackCount ?? 0,
        plis: stream?.pliCount ?? 0,
        codec: report.get(stream?.codecId)?.mimeType,
      };
    },
  };
  Object.assign(window, { viewer });
}

/**
 * @param {Person} person whose page joins
 * @param {Server} server
 * @param {string} room
 * @param {{ described: boolean }} options
 */
export async function startViewer(person, server, room, { described }) {
  const endpoint = `${server.url}/v1/rooms/${room}/participants?identity=${person.name}`;
  await person.page.evaluate(watchInPage, { endpoint, everyMs: LOOK_EVERY_MS, described });
  return {
    /** @param {number} height in lines */
    wish: (height) => person.page.evaluate((lines) => /** @type {any} */ (window).viewer.wish(lines), height),
    /** @returns {Promise<boolean>} the answer has the dependency descriptor */
    described: () => person.page.evaluate(() => /** @type {any} */ (window).viewer.described(), undefined),
    /** @returns {Promise<any>} */
    look: () => person.page.evaluate(() => /** @type {any} */ (window).viewer.look(), undefined),
  };
}
