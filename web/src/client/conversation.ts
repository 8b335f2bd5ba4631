/**
 * Chat as a client does it: sends, sends again after a reconnect, edits, reacts, tells of typing, reads back.
 */
import { ChatLog, messageId } from './chat';
import { Emitter } from './emitter';
import { asRefused } from './errors';
import type { ClientMessage, MessageId, ServerMessage } from './protocol';

interface ChatEvents {
  /** The log has changed. */
  change: undefined;
  /** A message from someone, in the room's order, that was not there before. */
  arrived: MessageId;
}

/** `chat.typing` is repeated no more often than this while somebody types. */
const TYPING_EVERY_MS = 3_000;
const HISTORY_TIMEOUT_MS = 8_000;

export class Chat extends Emitter<ChatEvents> {
  readonly log = new ChatLog();
  #typingSentAtMs = 0;
  #history: (() => void) | undefined;

  constructor(private readonly request: (message: ClientMessage) => Promise<void>) {
    super();
  }

  /** Queues a message, and sends it now or when connected again. False when too many wait already. */
  send(text: string, reply_to?: MessageId): boolean {
    const id = messageId();
    if (!this.log.queue(id, text, reply_to)) return false;
    this.typing(false);
    this.emit('change', undefined);
    void this.#deliver(id, text, reply_to);
    return true;
  }

  retry(id: MessageId): void {
    const message = this.log.retry(id);
    this.emit('change', undefined);
    if (message) void this.#deliver(id, message.text, message.reply_to);
  }

  discard(id: MessageId): void {
    this.log.discard(id);
    this.emit('change', undefined);
  }

  /** Sends what no server has acknowledged yet, with the ids it had. */
  resend(): void {
    for (const { id, text, reply_to } of this.log.unsent) void this.#deliver(id, text, reply_to);
  }

  edit(id: MessageId, text: string): Promise<void> {
    return this.request({ type: 'chat.edit', id, text });
  }

  delete(id: MessageId): Promise<void> {
    return this.request({ type: 'chat.delete', id });
  }

  react(id: MessageId, emoji: string, on: boolean): Promise<void> {
    return this.request({ type: 'chat.react', id, emoji, on });
  }

  /** To be called on each key stroke, and with false when the box is emptied. */
  typing(typing: boolean): void {
    const now = Date.now();
    const said = this.#typingSentAtMs > 0;
    if (typing ? now - this.#typingSentAtMs < TYPING_EVERY_MS : !said) return;
    this.#typingSentAtMs = typing ? now : 0;
    this.request({ type: 'chat.typing', typing }).catch(() => undefined);
  }

  /** Reads the page before the oldest message there is; resolves when it has come or cannot be had. */
  async loadOlder(): Promise<void> {
    if (!this.log.more || this.#history) return;
    const before = this.log.messages[0]?.seq;
    const come = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, HISTORY_TIMEOUT_MS);
      this.#history = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    const asked = this.request({ type: 'chat.history', ...(before !== undefined && { before }) });
    asked.catch(() => this.#history?.());
    await come;
    this.#history = undefined;
  }

  /** Takes what concerns the chat out of the server's messages. */
  take(message: ServerMessage): void {
    switch (message.type) {
      case 'welcome':
        this.log.welcome(message.messages, message.more_messages);
        break;
      case 'chat.message': {
        const { id } = message.message;
        const isNew = !this.log.messages.some((one) => one.id === id);
        this.log.take(message.message);
        if (isNew) this.emit('arrived', id);
        break;
      }
      case 'chat.history':
        this.log.prepend(message.messages, message.more);
        this.#history?.();
        break;
      default:
        return;
    }
    this.emit('change', undefined);
  }

  async #deliver(id: MessageId, text: string, reply_to?: MessageId): Promise<void> {
    try {
      await this.request({ type: 'chat.send', id, text, ...(reply_to && { reply_to }) });
      this.log.acknowledged(id);
    } catch (error) {
      const { code, message } = asRefused(error);
      this.log.refused(id, code, message);
    }
    this.emit('change', undefined);
  }
}
