/**
 * STUN and TURN servers, by which people get out of networks that let no media through. They are asked for as
 * soon as somebody is about to join, and again once what they gave is old; a node without any, or one that
 * does not answer, costs nothing but their help.
 */
import type { Address } from './signaling';
import { iceServers } from './signaling';

/** What the server gives holds for longer. */
const AGE_MAX_MS = 30 * 60_000;

export class Relays {
  #askedAtMs = Number.NEGATIVE_INFINITY;
  #servers: Promise<RTCIceServer[]> = Promise.resolve([]);

  constructor(private readonly address: Address) {}

  /** The servers there are now. */
  servers(nowMs = Date.now()): Promise<RTCIceServer[]> {
    if (nowMs - this.#askedAtMs > AGE_MAX_MS) {
      this.#askedAtMs = nowMs;
      const before = this.#servers;
      this.#servers = iceServers(this.address).catch(() => before);
    }
    return this.#servers;
  }
}
