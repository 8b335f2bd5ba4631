/**
 * WHIP and WHEP (RFC 9725) as a page that has never heard of Antiphon speaks them: one POST, no library.
 *
 * @import { Person } from './person.js'
 */
import { until } from './until.js';

/**
 * Sends camera and microphone; runs in the page. With `rids`, the video as simulcast; with `scalability`
 * (W3C webrtc-svc) as one stream of layers.
 *
 * @param {{ endpoint: string, rids?: { rid: string, scale: number, bps: number }[], codec?: string,
 *   scalability?: { mode: string, bps: number } }} options
 */
async function publishInPage({ endpoint, rids, codec, scalability }) {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  const connection = new RTCPeerConnection();
  for (const track of media.getTracks()) {
    const simulcast = rids?.map(({ rid, scale, bps }) => ({
      rid,
      scaleResolutionDownBy: scale,
      maxBitrate: bps,
    }));
    const layers = scalability && [{ scalabilityMode: scalability.mode, maxBitrate: scalability.bps }];
    const transceiver = connection.addTransceiver(track, {
      direction: 'sendonly',
      streams: [media],
      sendEncodings: track.kind === 'video' ? (simulcast ?? layers) : undefined,
    });
    if (track.kind === 'video' && codec !== undefined) {
      const all = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
      transceiver.setCodecPreferences(all.filter((one) => one.mimeType.toLowerCase() === `video/${codec}`));
    }
  }
  await connection.setLocalDescription();
  const answer = await fetch(endpoint, {
    method: 'POST',
    headers: { 'content-type': 'application/sdp' },
    body: connection.localDescription?.sdp,
  });
  const sdp = await answer.text();
  if (answer.status !== 201) return { status: answer.status, body: sdp };
  const location = new URL(answer.headers.get('location') ?? '', endpoint).href;
  const etag = answer.headers.get('etag');
  await connection.setRemoteDescription({ type: 'answer', sdp });
  Object.assign(window, { session: { connection, location, etag } });
  return { status: 201, location, etag, body: sdp };
}

/**
 * Receives one video and one audio stream and plays them; runs in the page.
 *
 * @param {{ endpoint: string, videos: number }} options
 */
async function viewInPage({ endpoint, videos }) {
  const connection = new RTCPeerConnection();
  connection.addTransceiver('audio', { direction: 'recvonly' });
  for (let at = 0; at < videos; at += 1) connection.addTransceiver('video', { direction: 'recvonly' });
  connection.ontrack = ({ track }) => {
    const element = document.createElement(track.kind === 'video' ? 'video' : 'audio');
    element.autoplay = true;
    element.srcObject = new MediaStream([track]);
    document.body.append(element);
  };
  await connection.setLocalDescription();
  const answer = await fetch(endpoint, {
    method: 'POST',
    headers: { 'content-type': 'application/sdp' },
    body: connection.localDescription?.sdp,
  });
  const sdp = await answer.text();
  if (answer.status !== 201) return { status: answer.status, body: sdp };
  const location = new URL(answer.headers.get('location') ?? '', endpoint).href;
  await connection.setRemoteDescription({ type: 'answer', sdp });
  Object.assign(window, { session: { connection, location } });
  return { status: 201, location, body: sdp };
}

/**
 * @typedef {{ status: number, location?: string, etag?: string | null, body: string }} Answer
 *
 * @param {Person} person whose page publishes
 * @param {Parameters<typeof publishInPage>[0]} options
 * @returns {Promise<Answer>}
 */
export async function publish(person, options) {
  return await person.page.evaluate(publishInPage, options);
}

/**
 * @param {Person} person whose page views
 * @param {string} endpoint
 * @param {number} [videos] lines offered
 * @returns {Promise<Answer>}
 */
export async function view(person, endpoint, videos = 1) {
  return await person.page.evaluate(viewInPage, { endpoint, videos });
}

/**
 * Ends the session as RFC 9725 §4.2 says, and answers with the status of the DELETE.
 *
 * @param {Person} person
 */
export async function hangUp(person) {
  return await person.page.evaluate(async () => {
    const { connection, location } = /** @type {any} */ (window).session;
    const answer = await fetch(location, { method: 'DELETE' });
    connection.close();
    return answer.status;
  }, undefined);
}

/**
 * Waits until a viewer decodes frames now, and returns the stream.
 *
 * @param {Person} person
 * @param {number} [seconds]
 */
export async function plays(person, seconds = 30) {
  const video = async () => (await person.inbound()).find((stream) => stream.kind === 'video');
  const start = (await video())?.frames ?? 0;
  return await until(
    `${person.name} decodes video`,
    async () => {
      const now = await video();
      return now !== undefined && now.frames >= start + 5 ? now : undefined;
    },
    { seconds, show: () => person.inbound() },
  );
}
