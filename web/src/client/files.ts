/** Files of a room as this client has them: sent by {@link Uploads}, fetched with the headers of its session. */
import { asRefused, Refused, refusalOf } from './errors';
import type { ChatMessage, MessageId } from './protocol';
import { type Access, Uploads } from './uploads';

/** Thumbnails that are held; the oldest go first. */
const THUMBNAILS_MAX = 200;

export class Files {
  readonly uploads: Uploads;
  #thumbnails = new Map<MessageId, Promise<string>>();

  constructor(private readonly access: () => Access | undefined) {
    this.uploads = new Uploads(access);
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
