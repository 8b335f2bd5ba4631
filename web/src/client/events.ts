/** What a room is joined with, and what it tells of: the types around `Room`. */

import type { Refused } from './errors';
import type { SlotCounts } from './peer';
import type { EndReason, Identity, LeaveReason, SlotStats, Source } from './protocol';
import type { Delivery, Snapshot } from './snapshot';

export interface RoomOptions {
  room: string;
  identity: Identity;
  /** What others see; the identity unless given. */
  name?: string;
  token?: string | undefined;
  /** Origin of the API; by default the page's own. */
  base?: string;
  slots?: SlotCounts;
  /** False: nothing will be sent, so no sending m-lines are offered. */
  send?: boolean;
  rtc?: RTCConfiguration;
}

export type Status =
  | { phase: 'joining' | 'waiting' | 'connected' | 'reconnecting' }
  | { phase: 'closed'; reason: LeaveReason | 'failed'; message: string };

export interface ServerStats {
  estimate_bps: number;
  slots: readonly SlotStats[];
}

export interface RoomEvents {
  status: Status;
  snapshot: Snapshot;
  /** A slot was bound to something else, or paused. */
  slots: undefined;
  /** Forwarded or mixed from now on, or why not as wanted. */
  delivery: Delivery;
  /** The server took back what it had agreed to. */
  refused: Refused;
  /** The browser does not send what it was given; `reason` is its own. */
  unsent: { source: Source; reason: string };
  reaction: { identity: Identity; emoji: string };
  /** An admin silenced one of our tracks. */
  muted: { source: Source; by: Identity };
  /** The room is not recorded any more. */
  recordingEnded: { id: string; reason: EndReason; by?: Identity };
  /** My paid time ends, and this invoice is for more of it. */
  renewalDue: { invoice: string; amount_sat: number; ends_at_ms: number };
  stats: ServerStats;
  /** Application data from the `lossy` channel. */
  data: string | ArrayBuffer;
}
