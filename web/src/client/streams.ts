/**
 * Streams of a room, for those who rule it: HLS for ordinary players, pushes to other services. And for those
 * who watch: where a stream is played from.
 */
import { asRefused, Refused, refusalOf } from './errors';
import type { Access } from './uploads';

/** A push as the server tells it; its key is never told. */
export interface Restream {
  id: string;
  url: string;
  state: 'connecting' | 'live' | 'retrying' | 'failed';
  since_ms: number;
  started_at_ms: number;
  sent_bytes: number;
  retries: number;
  reason?: string;
}

export class Streams {
  /** `access` is that of the room's files, beside which streams are. */
  constructor(private readonly access: () => Access | undefined) {}

  /** Streams the room by HLS. @throws Refused */
  async startHls(): Promise<void> {
    await this.#ask('hls', 'POST');
  }

  /** @throws Refused */
  async stopHls(): Promise<void> {
    await this.#ask('hls', 'DELETE');
  }

  /** Pushes the room to an RTMP address with a key. @throws Refused */
  async push(url: string): Promise<Restream> {
    return (await this.#ask('restreams', 'POST', { url })).json();
  }

  /** @throws Refused */
  async pushes(): Promise<Restream[]> {
    return (await this.#ask('restreams', 'GET')).json();
  }

  /** @throws Refused */
  async endPush(id: string): Promise<void> {
    await this.#ask(`restreams/${encodeURIComponent(id)}`, 'DELETE');
  }

  async #ask(path: string, method: 'GET' | 'POST' | 'DELETE', body?: object): Promise<Response> {
    const access = this.access();
    if (!access) throw new Refused('disconnected');
    const url = access.url.replace(/files$/, path);
    const type = body && { 'Content-Type': 'application/json' };
    const init = { method, headers: { ...access.headers, ...type } };
    try {
      const response = await fetch(url, body ? { ...init, body: JSON.stringify(body) } : init);
      if (response.ok) return response;
      throw refusalOf(response.status, await response.text().catch(() => ''));
    } catch (error) {
      throw asRefused(error);
    }
  }
}

/** Where a room's stream is played from. */
export const hlsUrl = (base: string, room: string): string =>
  `${base}/v1/rooms/${encodeURIComponent(room)}/hls/index.m3u8`;
