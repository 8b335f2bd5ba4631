/**
 * Streams of a room, for those who rule it: HLS for ordinary players, pushes to other services. And for those
 * who watch: where a stream is played from.
 */
import { type Access, ask } from './access';

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
  /** `access` is that of who is in the room. */
  constructor(private readonly access: () => Access | undefined) {}

  /** Streams the room by HLS. @throws Refused */
  async startHls(): Promise<void> {
    await ask(this.access(), 'POST', 'hls');
  }

  /** @throws Refused */
  async stopHls(): Promise<void> {
    await ask(this.access(), 'DELETE', 'hls');
  }

  /** Pushes the room to an RTMP address with a key. @throws Refused */
  async push(url: string): Promise<Restream> {
    return (await ask(this.access(), 'POST', 'restreams', { url })).json();
  }

  /** @throws Refused */
  async pushes(): Promise<Restream[]> {
    return (await ask(this.access(), 'GET', 'restreams')).json();
  }

  /** @throws Refused */
  async endPush(id: string): Promise<void> {
    await ask(this.access(), 'DELETE', `restreams/${encodeURIComponent(id)}`);
  }
}

/** Where a room's stream is played from. */
export const hlsUrl = (base: string, room: string): string =>
  `${base}/v1/rooms/${encodeURIComponent(room)}/hls/index.m3u8`;
