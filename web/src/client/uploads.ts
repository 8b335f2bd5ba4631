/**
 * Files on their way into a room, by tus: each goes on where it was when a connection comes back, and when
 * the same file is chosen again after the page was closed. A few go at a time, the others wait for their
 * turn.
 */
import {
  type DetailedError,
  defaultOptions,
  type HttpRequest,
  type PreviousUpload,
  Upload,
  type UrlStorage,
} from 'tus-js-client';
import type { Access } from './access';
import { Emitter } from './emitter';
import { asRefused, type Refused, refusalOf } from './errors';

/** `storing` is all sent: the server puts it into the room. */
export type SendingState = 'waiting' | 'sending' | 'storing' | 'paused' | 'failed';

/** One of our files that is not in the room yet. */
export interface Sending {
  readonly key: number;
  readonly name: string;
  readonly size: number;
  readonly type: string;
  readonly sent: number;
  readonly bytesPerSecond: number;
  readonly state: SendingState;
  /** When it failed: why, to show. */
  readonly why?: string;
}

/** One that a page left behind; the same file, chosen again, goes on. */
export interface LeftBehind {
  readonly name: string;
  readonly size: number;
  readonly storageKey: string;
}

interface UploadEvents {
  change: undefined;
  /** A file was refused, or could not be sent. */
  failed: { name: string; refused: Refused };
}

const AT_A_TIME = 3;
/** Before each try; counted anew whenever bytes got through. */
const RETRY_DELAYS_MS = [0, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 30_000, 30_000];
/** Refusals that another try may mend: the upload is busy or at another offset, or the server is. */
const PASSING = new Set([0, 409, 423, 429, 460, 500, 502, 503, 504, 507]);
/** Progress is told no more often. */
const TELL_EVERY_MS = 150;
/** The rate is an average over about this long. */
const RATE_OVER_MS = 3_000;

interface Entry {
  state: Sending;
  file: File;
  upload: Upload;
  ratedAtMs: number;
  ratedBytes: number;
}

export class Uploads extends Emitter<UploadEvents> {
  #entries: Entry[] = [];
  #nextKey = 1;
  #toldAtMs = 0;
  #storage: UrlStorage | undefined = defaultOptions.urlStorage;

  constructor(private readonly access: () => Access | undefined) {
    super();
  }

  get #url(): string | undefined {
    const room = this.access()?.url;
    return room && `${room}/files`;
  }

  get all(): readonly Sending[] {
    return this.#entries.map(({ state }) => state);
  }

  /** Sends a file; one that was begun before goes on. */
  add(file: File): void {
    const url = this.#url;
    if (!url) return;
    const key = this.#nextKey++;
    const state: Sending = {
      key,
      name: file.name,
      size: file.size,
      type: file.type,
      sent: 0,
      bytesPerSecond: 0,
      state: 'waiting',
    };
    const upload = new Upload(file, {
      endpoint: url,
      metadata: { filename: file.name, filetype: file.type },
      retryDelays: RETRY_DELAYS_MS,
      removeFingerprintOnSuccess: true,
      onBeforeRequest: (request) => this.#prepare(request),
      onShouldRetry: (error) => PASSING.has(error.originalResponse?.getStatus() ?? 0),
      onProgress: (sent) => this.#progress(key, sent),
      onSuccess: () => this.#drop(key),
      onError: (error) => this.#fail(key, error),
    });
    this.#entries.push({ state, file, upload, ratedAtMs: Date.now(), ratedBytes: 0 });
    this.#turn();
  }

  pause(key: number): void {
    const entry = this.#entry(key);
    if (!entry || entry.state.state === 'paused') return;
    // Only this page stops; what came stays with the server.
    void entry.upload.abort();
    this.#set(entry, { state: 'paused', bytesPerSecond: 0 });
    this.#turn();
  }

  resume(key: number): void {
    const entry = this.#entry(key);
    if (!entry) return;
    this.#set(entry, { state: 'waiting' });
    this.#turn();
  }

  /** Gives it up, here and at the server. */
  cancel(key: number): void {
    const entry = this.#entry(key);
    if (!entry) return;
    this.#drop(key);
    entry.upload.abort(true).catch(() => undefined);
  }

  /** Tries what failed for want of a connection once more. */
  reconnected(): void {
    for (const entry of this.#entries) {
      if (entry.state.state === 'failed' && entry.state.why === undefined) this.resume(entry.state.key);
    }
  }

  /** Stops all; to be gone on with from another page. */
  stop(): void {
    for (const { upload } of this.#entries) void upload.abort();
    this.#entries = [];
  }

  /** What earlier pages left behind of this room. */
  async leftBehind(): Promise<readonly LeftBehind[]> {
    const url = this.#url;
    const known: PreviousUpload[] = (await this.#storage?.findAllUploads()) ?? [];
    const now = new Set(this.#entries.map(({ state }) => `${state.name} ${state.size}`));
    return known.flatMap(({ metadata, size, urlStorageKey, uploadUrl }) => {
      const name = metadata.filename ?? '';
      const ours = url !== undefined && uploadUrl?.startsWith(`${url}/`);
      return ours && size !== null && !now.has(`${name} ${size}`)
        ? [{ name, size, storageKey: urlStorageKey }]
        : [];
    });
  }

  async forget(storageKey: string): Promise<void> {
    await this.#storage?.removeUpload(storageKey);
    this.emit('change', undefined);
  }

  /** As whoever we are at the moment of asking: a session may have been replaced meanwhile. */
  #prepare(request: HttpRequest): void {
    for (const [name, value] of Object.entries(this.access()?.headers ?? {})) request.setHeader(name, value);
  }

  /** Starts as many as may go. */
  #turn(): void {
    const going = this.#entries.filter(({ state }) => state.state === 'sending' || state.state === 'storing');
    const waiting = this.#entries.filter(({ state }) => state.state === 'waiting');
    for (const entry of waiting.slice(0, AT_A_TIME - going.length)) {
      this.#set(entry, { state: 'sending' });
      void this.#start(entry);
    }
    this.emit('change', undefined);
  }

  async #start(entry: Entry): Promise<void> {
    const { upload } = entry;
    if (!upload.url) {
      const before = (await upload.findPreviousUploads().catch(() => []))[0];
      if (before) upload.resumeFromPreviousUpload(before);
    }
    if (this.#entry(entry.state.key)?.state.state === 'sending') upload.start();
  }

  #progress(key: number, sent: number): void {
    const entry = this.#entry(key);
    if (!entry || entry.state.state === 'paused') return;
    const now = Date.now();
    const state = sent >= entry.state.size ? 'storing' : 'sending';
    if (state === entry.state.state && now - this.#toldAtMs < TELL_EVERY_MS) return;
    this.#toldAtMs = now;
    const elapsed = now - entry.ratedAtMs;
    // The first figure after a start counts what had been sent before.
    const rate = entry.ratedBytes === 0 ? 0 : ((sent - entry.ratedBytes) * 1_000) / Math.max(elapsed, 1);
    if (elapsed > RATE_OVER_MS || entry.ratedBytes === 0) {
      entry.ratedAtMs = now;
      entry.ratedBytes = sent;
    }
    this.#set(entry, { sent, state, bytesPerSecond: rate > 0 ? rate : entry.state.bytesPerSecond });
  }

  #fail(key: number, error: Error | DetailedError): void {
    const entry = this.#entry(key);
    if (!entry || entry.state.state === 'paused') return;
    const response = 'originalResponse' in error ? error.originalResponse : null;
    if (!response) {
      this.#set(entry, { state: 'failed', bytesPerSecond: 0 });
    } else {
      const refused = asRefused(refusalOf(response.getStatus(), response.getBody()));
      this.#set(entry, { state: 'failed', why: refused.message, bytesPerSecond: 0 });
      this.emit('failed', { name: entry.state.name, refused });
    }
    this.#turn();
  }

  #drop(key: number): void {
    this.#entries = this.#entries.filter(({ state }) => state.key !== key);
    this.#turn();
  }

  #entry(key: number): Entry | undefined {
    return this.#entries.find(({ state }) => state.key === key);
  }

  #set(entry: Entry, change: Partial<Sending>): void {
    const { why: _, ...before } = entry.state;
    entry.state = { ...before, ...change };
    this.emit('change', undefined);
  }
}
