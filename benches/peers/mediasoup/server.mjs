// A mediasoup server to compare with, for `antiphon bench forward --target whip`: WHIP and WHEP, one worker.
//
//   MEDIASOUP_WORKER_BIN=WORKER node server.mjs ADDRESS HTTP-PORT UDP-PORT [uring]
//
//   POST   /v1/rooms/ROOM/whip   an SDP offer that sends; a producer for each of its lines
//   POST   /v1/rooms/ROOM/whep   an SDP offer that receives; a consumer for each of its lines
//   DELETE /v1/sessions/ID       ends either
//   GET    /pid                  the worker's process: it carries all media, this one only answers joins
//   GET    /stats                what the worker says of each connection
//
// mediasoup itself numbers payload types and header extensions for those who receive, so the answer to a
// viewer can have others than its offer. The load tool takes them; a browser needs mediasoup's own client.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import * as mediasoup from 'mediasoup';
import { answerSdp, parseOffer, rtpCapabilities, rtpParameters } from './sdp.mjs';

const OFFER_MAX = 1 << 20;
const CODECS = [
  { kind: 'audio', mimeType: 'audio/opus', preferredPayloadType: 111, clockRate: 48000, channels: 2 },
  { kind: 'video', mimeType: 'video/VP8', preferredPayloadType: 96, clockRate: 90000 },
];

const [address, httpPort, udpPort, uring] = process.argv.slice(2);
const worker = await mediasoup.createWorker({
  logLevel: process.env.MEDIASOUP_LOG ?? 'warn',
  logTags: ['info', 'dtls', 'srtp', 'bwe'],
  disableLiburing: uring !== 'uring',
});
worker.on('died', () => process.exit(1));
const webRtcServer = await worker.createWebRtcServer({
  listenInfos: [{ protocol: 'udp', ip: address, port: Number(udpPort) }],
});

/** Room name to a promise of `{ router, producers }`: many join a new room at once. */
const rooms = new Map();
/** Session's id to its transport. */
const sessions = new Map();

function roomOf(name) {
  if (!rooms.has(name)) {
    rooms.set(
      name,
      worker.createRouter({ mediaCodecs: CODECS }).then((router) => ({ router, producers: [] })),
    );
  }
  return rooms.get(name);
}

/** Joins with this offer. Returns the session's id and the answer. */
async function join(roomName, publishes, sdp) {
  const offer = parseOffer(sdp);
  const room = await roomOf(roomName);
  const transport = await room.router.createWebRtcTransport({ webRtcServer });
  const id = randomUUID();
  sessions.set(id, transport);
  transport.on('icestatechange', (state) => {
    if (state === 'disconnected') leave(id);
  });
  try {
    // The client offers both roles and gets the active one.
    await transport.connect({ dtlsParameters: { role: 'client', fingerprints: [offer.fingerprint] } });
    const lines = [];
    const waiting = [...room.producers];
    for (const line of offer.lines) {
      const what = publishes ? produce(room, transport, line) : consume(room, transport, line, waiting);
      lines.push({ line, ...(await what) });
    }
    return { id, answer: answerSdp(transport, lines) };
  } catch (error) {
    leave(id);
    throw error;
  }
}

/** Takes what the client sends on this line. */
async function produce(room, transport, line) {
  const parameters = rtpParameters(line, room.router.rtpCapabilities);
  const producer = await transport.produce({ kind: line.kind, rtpParameters: parameters });
  room.producers.push(producer);
  producer.observer.on('close', () => {
    room.producers = room.producers.filter((other) => other !== producer);
  });
  return { direction: 'recvonly', parameters };
}

/** Sends the next of the producers `waiting` for a line on this one, if there is one of its kind. */
async function consume(room, transport, line, waiting) {
  const at = waiting.findIndex((producer) => producer.kind === line.kind);
  if (at < 0) return { direction: 'inactive', parameters: rtpParameters(line, room.router.rtpCapabilities) };
  const [producer] = waiting.splice(at, 1);
  const consumer = await transport.consume({
    producerId: producer.id,
    rtpCapabilities: rtpCapabilities(line, room.router.rtpCapabilities),
    mid: line.mid,
  });
  return { direction: 'sendonly', parameters: consumer.rtpParameters };
}

function leave(id) {
  sessions.get(id)?.close();
  return sessions.delete(id);
}

async function body(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk;
    if (text.length > OFFER_MAX) throw new Error('the offer is too long');
  }
  return text;
}

async function handle(request, response) {
  const { pathname } = new URL(request.url, `http://${address}`);
  const path = pathname.split('/').slice(1).map(decodeURIComponent);
  const is = (method, ...parts) =>
    request.method === method &&
    path.length === parts.length &&
    parts.every((part, i) => !part || part === path[i]);
  const say = (status, text, headers) => response.writeHead(status, headers).end(text);
  if (is('POST', 'v1', 'rooms', '', 'whip') || is('POST', 'v1', 'rooms', '', 'whep')) {
    const { id, answer } = await join(path[2], path[3] === 'whip', await body(request));
    return say(201, answer, { 'Content-Type': 'application/sdp', Location: `/v1/sessions/${id}` });
  }
  if (is('DELETE', 'v1', 'sessions', '')) return say(leave(path[2]) ? 200 : 404, '');
  if (is('GET', 'pid')) return say(200, `${worker.pid}\n`);
  if (is('GET', 'stats')) {
    const stats = await Promise.all([...sessions.values()].map((transport) => transport.getStats()));
    return say(200, JSON.stringify(stats.flat(), null, 2));
  }
  return say(404, 'no such path\n');
}

createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error);
    response.writeHead(500).end(`${error.message}\n`);
  });
}).listen(Number(httpPort), address);
