/**
 * The network between a browser and the server's UDP port, which a test can take away: a relay with one socket
 * towards the server for each of the browser's, as a NAT has.
 *
 * A page is led through it by the port in the answer's candidates, see {@link leadThrough}.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';

/** What waits before a bottleneck; more is dropped. */
const QUEUE_MS = 300;

/**
 * @param {number} port the server's
 */
export async function startRelay(port) {
  /** By the browser's port. @type {Map<number, import('node:dgram').Socket>} */
  const mappings = new Map();
  let up = true;
  let open = true;
  let toBrowsersBps = 0;
  /** When all that waits at the bottleneck is through. */
  let freeAt = 0;
  /**
   * One datagram to a browser, at the pace of the bottleneck if there is one.
   *
   * @param {Buffer} datagram
   * @param {import('node:dgram').RemoteInfo} to
   */
  function pass(datagram, to) {
    const now = performance.now();
    freeAt = Math.max(freeAt, now);
    if (!up || freeAt - now > QUEUE_MS) return;
    if (toBrowsersBps > 0) freeAt += (datagram.length * 8_000) / toBrowsersBps;
    const send = () => open && front.send(datagram, to.port, to.address);
    if (freeAt > now) setTimeout(send, freeAt - now);
    else send();
  }
  const front = createSocket('udp4');
  front.on('message', (datagram, from) => {
    if (!up) return;
    let back = mappings.get(from.port);
    if (back === undefined) {
      back = createSocket('udp4');
      back.on('message', (answer) => pass(answer, from));
      mappings.set(from.port, back);
    }
    back.send(datagram, port, '127.0.0.1');
  });
  front.bind(0, '127.0.0.1');
  await once(front, 'listening');
  return {
    port: front.address().port,
    /** Nothing gets through any more. */
    cut() {
      up = false;
    },
    /** Everything does, from now on. */
    mend() {
      up = true;
    },
    /**
     * The way to the browsers carries so many bits a second from now on, with a queue before it; 0 is all.
     *
     * @param {number} bps
     */
    narrow(bps) {
      toBrowsersBps = bps;
      freeAt = 0;
    },
    close() {
      open = false;
      front.close();
      for (const back of mappings.values()) back.close();
    },
  };
}

/**
 * Runs in the page, before its own scripts: the server's UDP candidates are taken to have this port instead,
 * and it to have no others.
 *
 * @param {number} port
 */
export function leadThrough(port) {
  const set = /** @type {Function} */ (RTCPeerConnection.prototype.setRemoteDescription);
  RTCPeerConnection.prototype.setRemoteDescription = function (/** @type {any} */ description) {
    const sdp = description.sdp
      .replace(/^a=candidate:.* tcp .*\r\n/gim, '')
      .replace(/^(a=candidate:.* udp \d+ \S+ )\d+( typ host)/gim, `$1${port}$2`);
    return set.call(this, { type: description.type, sdp });
  };
}
