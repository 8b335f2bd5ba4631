/**
 * The room's chat as this client sees it: the server's order by `seq`, plus what we sent and it has not
 * acknowledged. An unsent message keeps its id, so that sending it again never makes a second one.
 */
import type { RefusalCode } from './errors';
import type { ChatMessage, MessageId } from './protocol';

/** `sent` is acknowledged, and waits for its place in the order. */
export type OutgoingState = 'sending' | 'sent' | 'failed';

/** One of ours that is not in the room's order yet. */
export interface Outgoing {
  readonly id: MessageId;
  readonly text: string;
  readonly reply_to?: MessageId;
  readonly state: OutgoingState;
  /** When it failed: why, to show. */
  readonly why?: string;
}

/** No more unacknowledged messages than this are kept; the next one is refused. */
export const OUTGOING_MAX = 100;
/** Older messages than this many are forgotten, and can be had again by scrolling up. */
export const HELD_MAX = 5_000;

/** Random, from 128 bits; `crypto.randomUUID` is withheld outside secure contexts, this is not. */
export function messageId(): MessageId {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class ChatLog {
  /** By ascending `seq`. */
  messages: readonly ChatMessage[] = [];
  outgoing: readonly Outgoing[] = [];
  /** The server has older messages than the first of `messages`. */
  more = false;

  /** Takes a welcome's newest page. A gap to what was held is closed by forgetting what lies before it. */
  welcome(newest: readonly ChatMessage[], more: boolean): void {
    const first = newest[0];
    const last = this.messages.at(-1);
    if (this.messages.length > 0 && first && last && more && first.seq > last.seq + 1) this.messages = [];
    if (this.messages.length === 0 || !more) this.more = more;
    for (const message of newest) this.#put(message);
    this.outgoing = this.outgoing.filter((one) => one.state !== 'sent');
  }

  /** A message that is new or has changed. */
  take(message: ChatMessage): void {
    this.#put(message);
    if (this.messages.length > HELD_MAX) {
      this.messages = this.messages.slice(-HELD_MAX);
      this.more = true;
    }
  }

  /** A page of older messages. */
  prepend(older: readonly ChatMessage[], more: boolean): void {
    for (const message of older) this.#put(message);
    this.more = more;
  }

  /** False when too many wait already. */
  queue(id: MessageId, text: string, reply_to?: MessageId): boolean {
    if (this.outgoing.length >= OUTGOING_MAX) return false;
    this.outgoing = [...this.outgoing, { id, text, state: 'sending', ...(reply_to && { reply_to }) }];
    return true;
  }

  /** It stays until its `chat.message` puts it into the order, but is not sent again. */
  acknowledged(id: MessageId): void {
    this.#outgoing(id, { state: 'sent' });
  }

  /** The server's refusal fails the message; a lost connection leaves it to the next one. */
  refused(id: MessageId, code: RefusalCode, why: string): void {
    if (code !== 'disconnected') this.#outgoing(id, { state: 'failed', why });
  }

  /** What to send once connected again, in the order of writing. */
  get unsent(): readonly Outgoing[] {
    return this.outgoing.filter((one) => one.state === 'sending');
  }

  retry(id: MessageId): Outgoing | undefined {
    this.#outgoing(id, { state: 'sending' });
    return this.outgoing.find((one) => one.id === id);
  }

  discard(id: MessageId): void {
    this.outgoing = this.outgoing.filter((one) => one.id !== id);
  }

  #outgoing(id: MessageId, change: Pick<Outgoing, 'state' | 'why'>): void {
    this.outgoing = this.outgoing.map((one) => (one.id === id ? { ...one, ...change } : one));
  }

  #put(message: ChatMessage): void {
    this.discard(message.id);
    const at = this.messages.findIndex((one) => one.seq >= message.seq);
    const copy = [...this.messages];
    if (at < 0) copy.push(message);
    else copy.splice(at, copy[at]?.seq === message.seq ? 1 : 0, message);
    this.messages = copy;
  }
}
