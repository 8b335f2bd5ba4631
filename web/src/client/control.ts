/**
 * The `control` channel: JSON objects, numbered requests that the server answers with `ok` or `error`, and a
 * watch on its silence. A message of an unknown type, or one that is not JSON, is dropped.
 */
import { Refused } from './errors';
import { type ClientMessage, MESSAGE_BYTES_MAX, type ServerMessage } from './protocol';

/** The part of an `RTCDataChannel` that is used. */
export interface Channel {
  readonly readyState: RTCDataChannelState;
  send(text: string): void;
  addEventListener(type: 'message', listener: (event: MessageEvent) => void): void;
  addEventListener(type: 'open' | 'close', listener: () => void): void;
}

const REQUEST_TIMEOUT_MS = 10_000;

interface Waiting {
  resolve(): void;
  reject(error: Refused): void;
  timer: ReturnType<typeof setTimeout>;
}

export class ControlChannel {
  /** When the server was last heard, by `Date.now()`. */
  heardAtMs = Date.now();
  #requests = new Map<number, Waiting>();
  #next = 1;
  #encoder = new TextEncoder();

  constructor(
    readonly channel: Channel,
    onMessage: (message: ServerMessage) => void,
    onClose: () => void,
  ) {
    channel.addEventListener('message', (event) => {
      const message = decode(event.data);
      if (!message) return;
      this.heardAtMs = Date.now();
      this.#settle(message);
      onMessage(message);
    });
    channel.addEventListener('close', () => {
      this.abandon();
      onClose();
    });
  }

  get open(): boolean {
    return this.channel.readyState === 'open';
  }

  /** Sends without waiting for an answer. False when the channel is not open. */
  send(message: ClientMessage): boolean {
    if (!this.open) return false;
    this.channel.send(JSON.stringify(message));
    return true;
  }

  /**
   * Sends, and waits for `ok`. Rejects with the server's `Refused`, on time-out, and when the channel closes.
   */
  request(message: ClientMessage): Promise<void> {
    if (!this.open) return Promise.reject(new Refused('disconnected'));
    const request = this.#next++;
    const text = JSON.stringify({ ...message, request });
    if (this.#encoder.encode(text).length > MESSAGE_BYTES_MAX)
      return Promise.reject(new Refused('too_large'));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#requests.delete(request);
        reject(new Refused('timeout'));
      }, REQUEST_TIMEOUT_MS);
      this.#requests.set(request, { resolve, reject, timer });
      this.channel.send(text);
    });
  }

  /** Rejects whatever still waits: this channel will not answer any more. */
  abandon(): void {
    for (const waiting of this.#requests.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(new Refused('disconnected'));
    }
    this.#requests.clear();
  }

  #settle(message: ServerMessage): void {
    if (message.type !== 'ok' && message.type !== 'error' && message.type !== 'pong') return;
    const waiting = this.#requests.get(message.request ?? 0);
    if (!waiting) return;
    this.#requests.delete(message.request ?? 0);
    clearTimeout(waiting.timer);
    if (message.type === 'error') waiting.reject(new Refused(message.code, message.message));
    else waiting.resolve();
  }
}

function decode(data: unknown): ServerMessage | undefined {
  if (typeof data !== 'string') return undefined;
  try {
    const message: unknown = JSON.parse(data);
    const typed =
      message && typeof message === 'object' && typeof (message as { type?: unknown }).type === 'string';
    return typed ? (message as ServerMessage) : undefined;
  } catch {
    return undefined;
  }
}
