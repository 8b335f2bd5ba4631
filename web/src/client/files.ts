/**
 * Files of a room as this client has them: sent by {@link Uploads}, fetched with the headers of its
 * session.
 */

import { messageId } from './chat';
import { asRefused, Refused, refusalOf } from './errors';
import type { ChatMessage, ClientMessage, MessageId } from './protocol';
import { type Access, Uploads } from './uploads';

/** No larger files go over the data channel. */
export const SMALL_FILE_BYTES_MAX = 64 * 1024;
/** Bytes of one part: in base64, and with what stands around it, a message has at most 64 KiB. */
const PART_BYTES = 45_000;

/** Thumbnails that are held; the oldest go first. */
const THUMBNAILS_MAX = 200;

export class Files {
  readonly uploads: Uploads;
  #thumbnails = new Map<MessageId, Promise<string>>();

  /** `request` asks over the data channel. */
  constructor(
    private readonly access: () => Access | undefined,
    private readonly request: (message: ClientMessage) => Promise<void>,
  ) {
    this.uploads = new Uploads(access);
  }

  /**
   * Sends a file: a small one over the data channel, a larger one by an upload that goes on after whatever
   * happens. @throws Refused for a small one; the others tell by their state.
   */
  async send(file: File): Promise<void> {
    if (file.size > SMALL_FILE_BYTES_MAX) {
      this.uploads.add(file);
      return;
    }
    try {
      await this.#sendSmall(file);
    } catch (error) {
      // If only its answer was lost it is there twice, which is better than not at all.
      if (asRefused(error).code !== 'disconnected') throw error;
      this.uploads.add(file);
    }
  }

  async #sendSmall(file: File): Promise<void> {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const id = messageId();
    let at = 0;
    do {
      const part = bytes.subarray(at, at + PART_BYTES);
      const data = btoa(Array.from(part, (byte) => String.fromCharCode(byte)).join(''));
      await this.request({ type: 'file.send', id, name: file.name, size_bytes: bytes.length, data });
      at += PART_BYTES;
    } while (at < bytes.length);
  }

  /** The address of a file for a download or a player; it holds for some minutes. @throws Refused */
  async link(id: MessageId): Promise<string> {
    const response = await this.#ask(`${id}/link`, 'POST');
    const { url } = (await response.json()) as { url: string };
    return new URL(url, response.url).href;
  }

  /** The address of a file's small picture, in this page's memory. @throws Refused */
  thumbnail(id: MessageId): Promise<string> {
    const known = this.#thumbnails.get(id);
    if (known) return known;
    const picture = this.#ask(`${id}/thumbnail`, 'GET')
      .then((response) => response.blob())
      .then((blob) => URL.createObjectURL(blob));
    this.#thumbnails.set(id, picture);
    // One that failed may be had later.
    picture.catch(() => this.#thumbnails.delete(id));
    const [oldest] = this.#thumbnails.keys();
    if (this.#thumbnails.size > THUMBNAILS_MAX && oldest !== undefined) this.#forget(oldest);
    return picture;
  }

  /** Forgets what was deleted. */
  take({ id, file }: ChatMessage): void {
    if (!file?.thumbnail) this.#forget(id);
  }

  /** Stops what is being sent, and gives back what is held. */
  stop(): void {
    this.uploads.stop();
    for (const id of [...this.#thumbnails.keys()]) this.#forget(id);
  }

  #forget(id: MessageId): void {
    this.#thumbnails.get(id)?.then(URL.revokeObjectURL, () => undefined);
    this.#thumbnails.delete(id);
  }

  async #ask(path: string, method: 'GET' | 'POST'): Promise<Response> {
    const access = this.access();
    if (!access) throw new Refused('disconnected');
    try {
      const response = await fetch(`${access.url}/${path}`, { method, headers: access.headers });
      if (response.ok) return response;
      throw refusalOf(response.status, await response.text().catch(() => ''));
    } catch (error) {
      throw asRefused(error);
    }
  }
}
