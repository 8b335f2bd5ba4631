/**
 * One connection to a room, from the POST that opens it to its end: a `Peer`, its `control` channel, its
 * session, and a watch on its health. A `Link` that falters says so once; whoever holds it restarts or
 * replaces it.
 */
import { ControlChannel } from './control';
import { Refused } from './errors';
import { Peer, type SlotCounts } from './peer';
import type { ServerMessage } from './protocol';
import { type Address, join, leave, nodeLives, restartIce, type Session } from './signaling';

export interface LinkOptions {
  address: Address;
  slots: SlotCounts;
  send: boolean;
  rtc?: RTCConfiguration | undefined;
}

export interface LinkEvents {
  onMessage(link: Link, message: ServerMessage): void;
  /** Ill: with `restartable`, an ICE restart may mend it. */
  onFalter(link: Link, restartable: boolean): void;
}

/** The first message must come within this time of the server's answer. */
const OPEN_TIMEOUT_MS = 10_000;
/** After an outage the server's next retransmission on the data channel may be some seconds away. */
const RESTART_TIMEOUT_MS = 10_000;
const PING_EVERY_MS = 1_000;
/** After so long the server is asked over HTTP, where another node could take its place. */
const SUSPECT_AFTER_MS = 3_000;
/** A server that says nothing for so long, pings and all, is out of reach. It may be paused for 5 s. */
const SILENCE_MAX_MS = 9_000;
/** ICE often mends itself within this time of `disconnected`. */
const DISCONNECTED_GRACE_MS = 2_000;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class Link {
  readonly control: ControlChannel;
  #heard: (() => void) | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #grace: ReturnType<typeof setTimeout> | undefined;
  #pingedAtMs = 0;
  #suspectedAtMs = 0;
  #closed = false;

  private constructor(
    readonly peer: Peer,
    readonly session: Session,
    private readonly options: LinkOptions,
    private readonly events: LinkEvents,
  ) {
    this.control = new ControlChannel(
      peer.control,
      (message) => {
        this.#heard?.();
        events.onMessage(this, message);
      },
      () => this.#falter(false),
    );
    peer.pc.addEventListener('connectionstatechange', () => this.#onState(peer.pc.connectionState));
  }

  /**
   * Joins, or with `resume` comes back; resolves once the server has spoken on the `control` channel.
   * `prepare` puts tracks on the new peer; `adopt` hands the link over before its first message can arrive.
   */
  static async open(
    options: LinkOptions,
    events: LinkEvents,
    hooks: { prepare(peer: Peer): Promise<void>; adopt(link: Link): void },
    resume?: string,
  ): Promise<Link> {
    const peer = new Peer(options.slots, options.send, options.rtc);
    try {
      await hooks.prepare(peer);
      const { session, answer } = await join(options.address, await peer.offer(), resume);
      const link = new Link(peer, session, options, events);
      hooks.adopt(link);
      const spoken = link.#nextMessage(OPEN_TIMEOUT_MS);
      try {
        await peer.accept(answer);
        await spoken;
      } catch (error) {
        spoken.catch(() => undefined);
        void link.leave();
        throw error;
      }
      return link;
    } catch (error) {
      peer.close();
      throw error;
    }
  }

  /** New ICE credentials on the same connection; resolves once the server is heard again. */
  async restart(): Promise<void> {
    const fragment = await this.peer.restartOffer();
    const reply = await restartIce(this.session, fragment, this.options.address.token);
    await this.peer.acceptRestart(reply);
    const pinging = setInterval(() => this.control.send({ type: 'ping' }), 500);
    try {
      await this.#nextMessage(RESTART_TIMEOUT_MS);
    } finally {
      clearInterval(pinging);
    }
  }

  /** Starts the pings by which a silent loss is noticed. */
  watch(): void {
    this.#watch ??= setInterval(() => this.#checkSilence(), 1_000);
  }

  /** The network changed: find out soon whether this link still works. */
  async probe(): Promise<void> {
    const before = this.control.heardAtMs;
    this.control.send({ type: 'ping' });
    await pause(2_500);
    if (this.control.heardAtMs === before) this.#falter(true);
  }

  /** Ends it here; the server keeps the session for a resume. */
  close(): void {
    this.#closed = true;
    clearInterval(this.#watch);
    clearTimeout(this.#grace);
    this.control.abandon();
    this.peer.close();
  }

  /** Ends it on both sides. */
  async leave(): Promise<void> {
    this.close();
    await leave(this.session, this.options.address.token);
  }

  #nextMessage(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Refused('no_media_path')), timeoutMs);
      this.#heard = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #checkSilence(): void {
    const now = Date.now();
    const silentMs = now - this.control.heardAtMs;
    if (silentMs > SUSPECT_AFTER_MS && now - this.#suspectedAtMs > SUSPECT_AFTER_MS) {
      this.#suspectedAtMs = now;
      void this.#askForLife();
    }
    if (silentMs > SILENCE_MAX_MS) {
      this.#falter(true);
    } else if (now - this.#pingedAtMs >= PING_EVERY_MS) {
      this.#pingedAtMs = now;
      this.control.send({ type: 'ping' });
    }
  }

  /** A node of a cluster that is gone is not waited for: the room goes on at another. */
  async #askForLife(): Promise<void> {
    if ((this.options.address.ways?.length ?? 0) < 2) return;
    if (!(await nodeLives(this.session)) && !this.#closed) this.#falter(false);
  }

  #onState(state: RTCPeerConnectionState): void {
    clearTimeout(this.#grace);
    if (state === 'failed') this.#falter(true);
    if (state === 'disconnected') this.#grace = setTimeout(() => this.#falter(true), DISCONNECTED_GRACE_MS);
  }

  #falter(restartable: boolean): void {
    if (!this.#closed) this.events.onFalter(this, restartable);
  }
}
