/**
 * A room, joined: its state, its slots, its chat and what we send to it, over connections that come and go
 * beneath. Knows nothing of pages. Every change is an event; the state that it changed is read from the
 * fields.
 */
import { Chat } from './conversation';
import { Emitter } from './emitter';
import { asRefused, Refused } from './errors';
import type { RoomEvents, RoomOptions, Status } from './events';
import { Files } from './files';
import { Link } from './link';
import { LocalMedia } from './local';
import { type Peer, SLOTS_DEFAULT, SOURCES } from './peer';
import { Players } from './players';
import type {
  ClientMessage,
  Colour,
  Identity,
  Layout,
  LeaveReason,
  Mode,
  ServerMessage,
  Source,
} from './protocol';
import { Reconnector } from './reconnect';
import { Recordings } from './recordings';
import { Relays } from './relays';
import { type Address, accessTo, setBackdrop } from './signaling';
import { SlotTable, type View } from './slots';
import { EMPTY, LEAVE_WORDS, reduce, type Snapshot } from './snapshot';
import { Streams } from './streams';
import { Viewing } from './viewing';

const TYPING_SHOWN_MS = 6_000;

export class Room extends Emitter<RoomEvents> {
  readonly local = new LocalMedia();
  readonly slots = new SlotTable();
  readonly chat: Chat;
  readonly files: Files;
  readonly streams: Streams;
  readonly players: Players;
  readonly recordings: Recordings;
  status: Status = { phase: 'joining' };
  snapshot: Snapshot = EMPTY;
  #link: Link | undefined;
  readonly #viewing = new Viewing(this.slots, (slots) => this.#send({ type: 'slots.wish', slots }));
  #typing = new Map<Identity, ReturnType<typeof setTimeout>>();
  #watchingStats = false;
  #chosen: Mode | undefined;
  #reconnector: Reconnector;
  readonly #address: Address;
  readonly #relays: Relays;
  readonly #onOnline = () => this.#networkChanged();
  readonly #onPageHide = () => void this.leave();

  constructor(private readonly options: RoomOptions) {
    super();
    const { room, identity, name, token } = options;
    this.#address = { base: options.base ?? location.origin, room, identity, name, token };
    this.#relays = new Relays(this.#address);
    void this.#relays.servers();
    this.chat = new Chat((message) => this.request(message));
    const access = () => accessTo(this.#address, this.#link?.session);
    const request = (message: ClientMessage) => this.request(message);
    this.players = new Players(access);
    this.streams = new Streams(access);
    this.files = new Files(access, request);
    this.recordings = new Recordings(access, request);
    this.local.on('change', (source) => void this.#publishChange(source));
    this.#reconnector = new Reconnector({
      restart: () => this.#restart(),
      rejoin: () => this.#rejoin(),
    });
  }

  /** Resolves once in the room or in its lobby. @throws Refused */
  async join(): Promise<void> {
    addEventListener('online', this.#onOnline);
    addEventListener('pagehide', this.#onPageHide);
    try {
      await this.#open();
    } catch (error) {
      const refused = asRefused(error);
      this.#end('failed', refused.message);
      throw refused;
    }
  }

  /** Shows this token from now on: the one before it ends soon. */
  setToken(token: string): void {
    this.#address.token = token;
  }

  /** Ends the connection on both sides, and releases the devices. */
  async leave(): Promise<void> {
    if (this.status.phase === 'closed') return;
    const link = this.#link;
    this.#end('left', LEAVE_WORDS.left);
    await link?.leave();
  }

  /** Asks the server for something; resolves on its `ok`. @throws Refused */
  request(message: ClientMessage): Promise<void> {
    return this.#link?.control.request(message) ?? Promise.reject(new Refused('disconnected'));
  }

  /** Says that something is on show, so tall. Replaces what was said of it before. */
  show(view: View): void {
    this.#viewing.show(view);
  }

  /** Says that something is no longer on show. */
  hide(participant: Identity, source: Source): void {
    this.#viewing.hide(participant, source);
  }

  /** While nobody sees the page, no video is asked for. */
  setHidden(hidden: boolean): void {
    this.#viewing.setHidden(hidden);
  }

  /** How I want the room; without `mode`, as the room has it. @throws Refused */
  async chooseMode(mode?: Mode): Promise<void> {
    await this.request({ type: 'mode.choose', ...(mode && { mode }) });
    this.#chosen = mode;
  }

  /** How all get the room who have not chosen; for admins. @throws Refused */
  setRoomMode(mode: Mode): Promise<void> {
    return this.request({ type: 'room.update', mode });
  }

  /** Lays out the mixed picture; for admins. @throws Refused */
  setLayout(layout: Layout): Promise<void> {
    return this.request({ type: 'room.update', layout });
  }

  /** The colour behind the tiles of the mix, `#rrggbb`; for admins. @throws Refused */
  setBackground(background: Colour): Promise<void> {
    return this.request({ type: 'room.update', background });
  }

  /** The picture behind the mix, a PNG or JPEG of at most 1 MiB, or none; for admins. @throws Refused */
  setBackdrop(picture: Blob | undefined): Promise<void> {
    return setBackdrop(this.#address, this.#link?.session, picture);
  }

  /** Turns the server's `stats` on or off. */
  watchStats(on: boolean): void {
    this.#watchingStats = on;
    this.#send({ type: 'stats.watch', on });
  }

  /** Sends application data, without guarantee; false when there is no connection. */
  sendData(data: string | ArrayBuffer): boolean {
    const lossy = this.#link?.peer.lossy;
    if (lossy?.readyState !== 'open') return false;
    if (typeof data === 'string') lossy.send(data);
    else lossy.send(data);
    return true;
  }

  /** The browser's counters of the connection there is. */
  getStats(): Promise<RTCStatsReport> | undefined {
    return this.#link?.peer.pc.getStats();
  }

  /** The m-line on which a source of ours is sent. */
  midOf(source: Source): string | undefined {
    return this.#link?.peer.midOf(source);
  }

  #send(message: ClientMessage): boolean {
    return this.status.phase === 'connected' && (this.#link?.control.send(message) ?? false);
  }

  async #open(resume?: string): Promise<void> {
    const options = {
      address: this.#address,
      slots: this.options.slots ?? SLOTS_DEFAULT,
      send: this.options.send ?? true,
      rtc: { iceServers: await this.#relays.servers(), ...this.options.rtc },
    };
    const events = {
      onMessage: (link: Link, message: ServerMessage) => {
        if (link === this.#link) this.#take(message);
      },
      onFalter: (link: Link, restartable: boolean) => {
        if (link === this.#link) void this.#recover(restartable);
      },
    };
    const hooks = { prepare: (peer: Peer) => this.#attach(peer), adopt: (link: Link) => this.#adopt(link) };
    const link = await Link.open(options, events, hooks, resume);
    if (this.status.phase === 'closed') await link.leave();
  }

  async #attach(peer: Peer): Promise<void> {
    for (const source of SOURCES) await this.#carry(peer, source);
  }

  async #carry(peer: Peer, source: Source): Promise<void> {
    const carried = peer.carry(source, this.local.get(source)?.track ?? null);
    await carried.catch((error) => this.#unsent(peer, source, error));
  }

  async #want(mid: string, active: readonly string[]): Promise<void> {
    const peer = this.#link?.peer;
    const source = SOURCES.find((one) => peer?.midOf(one) === mid);
    if (!peer || !source) return;
    await peer.want(source, active).catch((error) => this.#unsent(peer, source, error));
  }

  /** Tells what the browser refused, unless the connection is over: then all of it is refused. */
  #unsent(peer: Peer, source: Source, error: unknown): void {
    if (peer.pc.signalingState === 'closed') return;
    this.emit('unsent', { source, reason: error instanceof Error ? error.message : String(error) });
  }

  #adopt(link: Link): void {
    this.#link?.close();
    this.#link = link;
    this.slots.reset(link.peer.receiving);
    this.#viewing.reset();
    link.peer.lossy.binaryType = 'arraybuffer';
    link.peer.lossy.addEventListener('message', ({ data }) => this.emit('data', data));
  }

  async #restart(): Promise<void> {
    if (!this.#link) throw new Refused('disconnected');
    await this.#link.restart();
    this.#setStatus({ phase: 'connected' });
    this.chat.resend();
    this.files.reconnected();
  }

  async #rejoin(): Promise<void> {
    const resume = this.#link?.session.id;
    try {
      await this.#open(resume);
    } catch (error) {
      // The session was given up meanwhile: come in anew, under the same name.
      const expired = resume !== undefined && error instanceof Refused && error.code === 'not_found';
      if (!expired) throw error;
      await this.#open();
    }
  }

  async #recover(restartable: boolean): Promise<void> {
    if (this.status.phase !== 'connected' && this.status.phase !== 'waiting') return;
    this.#setStatus({ phase: 'reconnecting' });
    const refused = await this.#reconnector.run(restartable);
    if (refused) this.#end('failed', refused.message);
  }

  #networkChanged(): void {
    if (this.#reconnector.running) this.#reconnector.hurry();
    else if (this.status.phase === 'connected') void this.#link?.probe();
  }

  #take(message: ServerMessage): void {
    const before = this.snapshot;
    this.snapshot = reduce(before, message);
    this.chat.take(message);
    switch (message.type) {
      case 'welcome':
        this.slots.apply(message.slots);
        void this.#welcomed();
        break;
      case 'waiting':
        this.#setStatus({ phase: 'waiting' });
        break;
      case 'chat.message':
        this.files.take(message.message);
        break;
      case 'slots':
        this.slots.apply(message.slots);
        this.emit('slots', undefined);
        this.#viewing.planSoon();
        break;
      case 'mode':
        this.emit('delivery', this.snapshot.delivery);
        break;
      case 'error':
        if (message.request === undefined) this.#refused(new Refused(message.code, message.message));
        break;
      case 'layers':
        void this.#want(message.mid, message.active);
        break;
      case 'muted':
        this.local.silence(message.source);
        this.emit('muted', message);
        break;
      case 'recording.ended':
        this.emit('recordingEnded', message);
        break;
      case 'renewal.due':
        this.emit('renewalDue', message);
        break;
      case 'react':
        this.emit('reaction', message);
        break;
      case 'stats':
        this.emit('stats', message);
        break;
      case 'chat.typing':
        this.#expireTyping(message.identity, message.typing);
        break;
      case 'removed':
        // The room goes on at another node, and so do we.
        if (message.reason === 'moved') void this.#recover(false);
        else this.#end(message.reason, LEAVE_WORDS[message.reason] ?? 'The room has let you go.');
        break;
    }
    if (this.snapshot !== before) this.emit('snapshot', this.snapshot);
  }

  async #welcomed(): Promise<void> {
    this.#setStatus({ phase: 'connected' });
    this.#link?.watch();
    // Tracks may have come while the link was being opened.
    if (this.#link) await this.#attach(this.#link.peer);
    this.#publish();
    if (this.#watchingStats) this.watchStats(true);
    // One that came in anew is not known to have chosen.
    if (this.#chosen) this.#send({ type: 'mode.choose', mode: this.#chosen });
    this.emit('slots', undefined);
    this.#viewing.planSoon();
    this.chat.resend();
    this.files.reconnected();
  }

  #refused(refused: Refused): void {
    if (refused.code === 'unavailable') this.#chosen = undefined;
    this.emit('refused', refused);
  }

  async #publishChange(source: Source): Promise<void> {
    if (this.#link) await this.#carry(this.#link.peer, source);
    this.#publish();
  }

  #publish(): void {
    const peer = this.#link?.peer;
    if (!peer) return;
    this.#send({ type: 'publish', tracks: this.local.published((source) => peer.midOf(source)) });
  }

  /** A client that vanishes while typing never says that it stopped. */
  #expireTyping(identity: Identity, typing: boolean): void {
    clearTimeout(this.#typing.get(identity));
    this.#typing.delete(identity);
    if (!typing) return;
    const stop = () => this.#take({ type: 'chat.typing', identity, typing: false });
    this.#typing.set(identity, setTimeout(stop, TYPING_SHOWN_MS));
  }

  #setStatus(status: Status): void {
    if (this.status.phase === 'closed' || this.status.phase === status.phase) return;
    this.status = status;
    this.emit('status', status);
  }

  #end(reason: LeaveReason | 'failed', message: string): void {
    if (this.status.phase === 'closed') return;
    this.#setStatus({ phase: 'closed', reason, message });
    removeEventListener('online', this.#onOnline);
    removeEventListener('pagehide', this.#onPageHide);
    this.#reconnector.stop();
    this.#viewing.stop();
    for (const timer of this.#typing.values()) clearTimeout(timer);
    this.local.stop();
    this.files.stop();
    this.#link?.close();
  }
}
