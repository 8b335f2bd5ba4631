/** Files that are played in the room, for those who rule it: begun, paused, sought in, ended. */
import { type Access, ask } from './access';
import type { MessageId, Playing } from './protocol';

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
  /** `access` is that of who is in the room. */
  constructor(private readonly access: () => Access | undefined) {}

  /** Plays a file of the room to all. @throws Refused */
  async play(file: MessageId): Promise<Player> {
    return (await ask(this.access(), 'POST', 'play', { file })).json();
  }

  /** Resolves once it is done. @throws Refused */
  async change(id: string, change: PlayerChange): Promise<Player> {
    return (await ask(this.access(), 'PATCH', `play/${encodeURIComponent(id)}`, change)).json();
  }

  /** @throws Refused */
  async stop(id: string): Promise<void> {
    await ask(this.access(), 'DELETE', `play/${encodeURIComponent(id)}`);
  }
}

/** Where in its file a player is, by this clock; `aheadMs` is what the server's is before it. */
export function positionOf(playing: Playing, nowMs: number, aheadMs = 0): number {
  const passed = playing.paused ? 0 : Math.max(0, nowMs + aheadMs - playing.at_ms);
  return Math.min(playing.position_ms + passed, playing.duration_ms ?? Number.POSITIVE_INFINITY);
}
