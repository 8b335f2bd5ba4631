/** Files that are played in the room, for those who rule it: begun, paused, sought in, ended. */
import { asRefused, Refused, refusalOf } from './errors';
import type { MessageId, Playing } from './protocol';
import type { Access } from './uploads';

/** A file that is played, as the server tells it. */
export interface Player {
  id: string;
  participant: string;
  file: MessageId;
  name: string;
  paused: boolean;
  position_ms: number;
  at_ms: number;
  duration_ms?: number;
  video: boolean;
  audio: boolean;
}

/** What is absent stays. */
export interface PlayerChange {
  paused?: boolean;
  position_ms?: number;
}

export class Players {
  /** `access` is that of the room's files, beside which players are. */
  constructor(private readonly access: () => Access | undefined) {}

  /** Plays a file of the room to all. @throws Refused */
  async play(file: MessageId): Promise<Player> {
    return (await this.#ask('play', 'POST', { file })).json();
  }

  /** Resolves once it is done. @throws Refused */
  async change(id: string, change: PlayerChange): Promise<Player> {
    return (await this.#ask(`play/${encodeURIComponent(id)}`, 'PATCH', change)).json();
  }

  /** @throws Refused */
  async stop(id: string): Promise<void> {
    await this.#ask(`play/${encodeURIComponent(id)}`, 'DELETE');
  }

  async #ask(path: string, method: 'POST' | 'PATCH' | 'DELETE', body?: object): Promise<Response> {
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

/** Where in its file a player is, by this clock; `aheadMs` is what the server's is before it. */
export function positionOf(playing: Playing, nowMs: number, aheadMs = 0): number {
  const passed = playing.paused ? 0 : Math.max(0, nowMs + aheadMs - playing.at_ms);
  return Math.min(playing.position_ms + passed, playing.duration_ms ?? Number.POSITIVE_INFINITY);
}
