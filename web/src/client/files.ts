/**
 * Files of a room as this client has them: sent by {@link SmallFiles} or {@link Uploads}, fetched with the
 * headers of its session.
 */
import { type Access, ask, linkTo } from './access';
import type { ChatMessage, ClientMessage, MessageId } from './protocol';
import { SMALL_FILE_BYTES_MAX, SmallFiles } from './small-files';
import { type Sending, Uploads } from './uploads';

/** Thumbnails that are held; the oldest go first. */
const THUMBNAILS_MAX = 200;

export class Files {
  readonly uploads: Uploads;
  readonly small: SmallFiles;
  #thumbnails = new Map<MessageId, Promise<string>>();

  /** `request` asks over the data channel. */
  constructor(
    private readonly access: () => Access | undefined,
    request: (message: ClientMessage) => Promise<void>,
  ) {
    this.uploads = new Uploads(access);
    this.small = new SmallFiles(request);
  }

  /** Sends a file: a small one over the data channel, a larger one over HTTP. See {@link sending}. */
  send(file: File): void {
    this.#wayOf(file.size).add(file);
  }

  /** Ours that are not in the room yet. */
  get sending(): readonly Sending[] {
    return [...this.small.all, ...this.uploads.all];
  }

  /** Calls `listener` whenever {@link sending} changes. */
  onSending(listener: () => void): void {
    this.small.on('change', listener);
    this.uploads.on('change', listener);
  }

  /** Goes on with one that was held or failed. */
  resume({ key, size }: Sending): void {
    this.#wayOf(size).resume(key);
  }

  cancel({ key, size }: Sending): void {
    this.#wayOf(size).cancel(key);
  }

  /** There is a connection again: what failed for want of one goes on. */
  reconnected(): void {
    this.small.reconnected();
    this.uploads.reconnected();
  }

  #wayOf(size: number): SmallFiles | Uploads {
    return size > SMALL_FILE_BYTES_MAX ? this.uploads : this.small;
  }

  /** The address of a file for a download or a player; it holds for some minutes. @throws Refused */
  link(id: MessageId): Promise<string> {
    return linkTo(this.access(), `files/${id}`);
  }

  /** The address of a file's small picture, in this page's memory. @throws Refused */
  thumbnail(id: MessageId): Promise<string> {
    const known = this.#thumbnails.get(id);
    if (known) return known;
    const picture = ask(this.access(), 'GET', `files/${id}/thumbnail`)
      .then((response) => response.blob())
      .then((blob) => URL.createObjectURL(blob));
    this.#thumbnails.set(id, picture);
    // One that failed may be had later.
    picture.catch(() => this.#thumbnails.delete(id));
    const [oldest] = this.#thumbnails.keys();
    if (this.#thumbnails.size > THUMBNAILS_MAX && oldest !== undefined) this.#forget(oldest);
    return picture;
  }

  /** Forgets what was deleted, and what is no longer on its way. */
  take({ id, file }: ChatMessage): void {
    this.small.arrived(id);
    if (!file?.thumbnail) this.#forget(id);
  }

  /** Stops what is being sent, and gives back what is held. */
  stop(): void {
    this.uploads.stop();
    this.small.stop();
    for (const id of [...this.#thumbnails.keys()]) this.#forget(id);
  }

  #forget(id: MessageId): void {
    this.#thumbnails.get(id)?.then(URL.revokeObjectURL, () => undefined);
    this.#thumbnails.delete(id);
  }
}
