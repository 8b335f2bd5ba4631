/**
 * Recordings of a room as this client has them, for its owner and admins: what there is, and addresses to
 * fetch it by. Begun and ended over the data channel.
 */
import { type Access, ask, linkTo } from './access';
import type { ClientMessage, EndReason } from './protocol';

/** One file of a recording. */
export interface RecordedFile {
  readonly name: string;
  readonly content: 'video' | 'audio' | 'mix' | 'chat' | 'chapters';
  readonly participant_name?: string;
  readonly bytes: number;
}

/** A recording, as the server lists it. */
export interface Recording {
  readonly id: string;
  readonly state: 'recording' | 'finishing' | 'finished';
  readonly started_at_ms: number;
  readonly duration_ms: number;
  readonly bytes: number;
  readonly reason?: EndReason;
  readonly files: readonly RecordedFile[];
}

/** Why a recording is over, in words to show to all. */
export const END_WORDS: Record<EndReason, string> = {
  stopped: 'The recording has ended.',
  empty: 'The recording has ended, as nobody was left.',
  closed: 'The recording has ended with the room.',
  disk_full: 'The recording was stopped: the server’s disk is nearly full. What was recorded is kept.',
  too_large: 'The recording was stopped: it is as large as one may be. What was recorded is kept.',
  failed: 'The recording was stopped by a fault of the server. What was recorded is kept.',
};

export class Recordings {
  /** `request` asks over the data channel. */
  constructor(
    private readonly access: () => Access | undefined,
    private readonly request: (message: ClientMessage) => Promise<void>,
  ) {}

  /** @throws Refused */
  start(what: { tracks: boolean; mix: boolean }): Promise<void> {
    return this.request({ type: 'recording.start', ...what });
  }

  /** @throws Refused */
  stop(): Promise<void> {
    return this.request({ type: 'recording.stop' });
  }

  /** A chapter begins here. @throws Refused */
  mark(title: string): Promise<void> {
    return this.request({ type: 'recording.mark', title });
  }

  /** Whether one may be recorded oneself. @throws Refused */
  consent(agreed: boolean): Promise<void> {
    return this.request({ type: 'recording.consent', agreed });
  }

  /** Newest first. @throws Refused */
  async list(): Promise<readonly Recording[]> {
    const response = await ask(this.access(), 'GET', 'recordings');
    return ((await response.json()) as { recordings: Recording[] }).recordings;
  }

  /** @throws Refused */
  async delete(id: string): Promise<void> {
    await ask(this.access(), 'DELETE', `recordings/${id}`);
  }

  /** The address of a file for a download or a player; it holds for some minutes. @throws Refused */
  link(id: string, name: string): Promise<string> {
    return linkTo(this.access(), `recordings/${id}/files/${encodeURIComponent(name)}`);
  }
}
