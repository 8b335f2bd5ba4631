/**
 * Small files on their way into a room over the `control` channel: one after the other, as the server gathers
 * one at a time. Each keeps its id until the server has said that it is in the room, so that one whose answer
 * was lost with the connection is sent again and is there once.
 */
import { messageId } from './chat';
import { Emitter } from './emitter';
import { asRefused, type RefusalCode, type Refused } from './errors';
import type { ClientMessage, MessageId } from './protocol';
import type { Sending } from './uploads';

/** No larger files go over the data channel. */
export const SMALL_FILE_BYTES_MAX = 64 * 1024;
/** Bytes of one part: in base64, and with what stands around it, a message has at most 64 KiB. */
const PART_BYTES = 45_000;
/** One that is in the room sooner is not worth a line on the screen. */
const SHOWN_AFTER_MS = 400;
/** Another try may mend these, after a pause. */
const PASSING = new Set<RefusalCode>(['timeout', 'upload_busy', 'rate_limited', 'wrong_offset']);
const AGAIN_MS = 1_000;
const TRIES_MAX = 8;

interface Entry {
  readonly id: MessageId;
  readonly file: File;
  state: Sending;
  shown: boolean;
  /** Between two tries. */
  rests: boolean;
  tries: number;
}

export class SmallFiles extends Emitter<{ change: undefined }> {
  #entries: Entry[] = [];
  /** Below those of uploads, which count up from one. */
  #nextKey = -1;
  #busy = false;
  #timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(private readonly request: (message: ClientMessage) => Promise<void>) {
    super();
  }

  /** Those that take a while, or failed. */
  get all(): readonly Sending[] {
    return this.#entries.filter(({ shown }) => shown).map(({ state }) => state);
  }

  add(file: File): void {
    const { name, size, type } = file;
    const key = this.#nextKey--;
    const state: Sending = { key, name, size, type, sent: 0, bytesPerSecond: 0, state: 'waiting' };
    const entry: Entry = { id: messageId(), file, state, shown: false, rests: false, tries: 0 };
    this.#entries.push(entry);
    this.#after(SHOWN_AFTER_MS, () => {
      entry.shown = true;
      this.emit('change', undefined);
    });
    void this.#turn();
  }

  /** Tries once more what failed. */
  resume(key: number): void {
    for (const entry of this.#entries) if (entry.state.key === key) this.#wait(entry);
    void this.#turn();
  }

  /** It is not sent, unless it is there already. */
  cancel(key: number): void {
    this.#drop(({ state }) => state.key === key);
  }

  /** Tries what failed for want of a connection once more. */
  reconnected(): void {
    for (const entry of this.#entries) if (entry.state.why === undefined) this.#wait(entry);
    void this.#turn();
  }

  /** It is in the room, whatever became of the answer. */
  arrived(id: MessageId): void {
    if (this.#entries.some((entry) => entry.id === id)) this.#drop((entry) => entry.id === id);
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#entries = [];
  }

  /** Sends what waits, one at a time. */
  async #turn(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (;;) {
      const entry = this.#entries.find(({ state, rests }) => state.state === 'waiting' && !rests);
      if (!entry) break;
      this.#set(entry, { state: 'sending', sent: 0 });
      try {
        await this.#send(entry);
        this.arrived(entry.id);
      } catch (error) {
        this.#fail(entry, asRefused(error));
      }
    }
    this.#busy = false;
  }

  async #send(entry: Entry): Promise<void> {
    const { id, file } = entry;
    const bytes = new Uint8Array(await file.arrayBuffer());
    let offset = 0;
    do {
      // It was given up, or is in the room, meanwhile.
      if (!this.#entries.includes(entry)) return;
      const part = bytes.subarray(offset, offset + PART_BYTES);
      const data = btoa(Array.from(part, (byte) => String.fromCharCode(byte)).join(''));
      await this.request({ type: 'file.send', id, name: file.name, size_bytes: bytes.length, offset, data });
      offset += part.length;
      this.#set(entry, { sent: offset });
    } while (offset < bytes.length);
  }

  #fail(entry: Entry, { code, message }: Refused): void {
    if (PASSING.has(code) && entry.tries < TRIES_MAX) {
      entry.tries += 1;
      entry.rests = true;
      this.#set(entry, { state: 'waiting' });
      this.#after(AGAIN_MS, () => {
        entry.rests = false;
        void this.#turn();
      });
      return;
    }
    entry.shown = true;
    // Without a reason it goes on with the next connection.
    this.#set(entry, { state: 'failed', sent: 0, ...(code !== 'disconnected' && { why: message }) });
  }

  #wait(entry: Entry): void {
    if (entry.state.state !== 'failed') return;
    entry.tries = 0;
    this.#set(entry, { state: 'waiting' });
  }

  #after(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
  }

  #drop(which: (entry: Entry) => boolean): void {
    this.#entries = this.#entries.filter((entry) => !which(entry));
    this.emit('change', undefined);
  }

  #set(entry: Entry, change: Partial<Sending>): void {
    const { why: _, ...before } = entry.state;
    entry.state = { ...before, ...change };
    this.emit('change', undefined);
  }
}
