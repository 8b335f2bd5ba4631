/**
 * Receive slots: which participant's track each one carries, and what to wish for them. A slot is one m-line
 * and one `MediaStreamTrack` for the life of a connection; only what flows through it changes.
 */
import type { Identity, Kind, SlotState, SlotWish, Source } from './protocol';

export interface Slot {
  readonly mid: string;
  readonly kind: Kind;
  readonly track: MediaStreamTrack;
  readonly participant?: Identity | undefined;
  readonly source?: Source | undefined;
  readonly paused: boolean;
}

/** Something the page wants to show, and how tall, in device pixels. */
export interface View {
  participant: Identity;
  source: Source;
  height: number;
  /** Held to its slot even where the room would pick another: the big tile, a screen. */
  pin: boolean;
}

/** Whom the mix is said to be from; no participant of the room's list. */
export const MIXER: Identity = 'mixer';

export const viewKey = (participant: Identity, source: Source): string => `${source} ${participant}`;

const boundTo = (slot: Slot): string | undefined =>
  slot.participant === undefined ? undefined : viewKey(slot.participant, slot.source ?? 'camera');

export class SlotTable {
  #slots = new Map<string, Slot>();

  /** Starts over with a new connection's receive m-lines. */
  reset(transceivers: readonly { mid: string | null; receiver: { track: MediaStreamTrack } }[]): void {
    this.#slots.clear();
    for (const { mid, receiver } of transceivers) {
      if (mid === null) continue;
      const kind = receiver.track.kind as Kind;
      this.#slots.set(mid, { mid, kind, track: receiver.track, paused: false });
    }
  }

  /** Takes the server's word. Slots that this connection does not have are ignored. */
  apply(states: readonly SlotState[]): void {
    for (const { mid, participant, source, paused } of states) {
      const slot = this.#slots.get(mid);
      if (slot) this.#slots.set(mid, { ...slot, participant, source, paused });
    }
  }

  get all(): readonly Slot[] {
    return [...this.#slots.values()];
  }

  find(participant: Identity, source: Source): Slot | undefined {
    const key = viewKey(participant, source);
    return this.all.find((slot) => boundTo(slot) === key);
  }

  /** The slot with the mixed picture, while the room is had mixed. */
  get mix(): Slot | undefined {
    return this.all.find(isMix);
  }
}

const isMix = ({ kind, source }: Slot): boolean => kind === 'video' && source === 'mix';

/** What an emptied slot is set back to, so that a newcomer is seen before its own wish is sent. */
const IDLE_HEIGHT = 180;
/** Of a mix that no tile shows yet. */
const MIX_HEIGHT = 720;

/**
 * What to wish for each video slot so that the views are served: a bound slot gets its view's height, a slot
 * bound to what is not shown gets 0, and a view without a slot is pinned to one that shows nothing wanted. A
 * pin once `sent` stays while its view does: let go, the room would give the slot away, and it would be
 * pinned again. While the page is `hidden` nothing is wanted.
 */
export function planWishes(
  slots: readonly Slot[],
  views: readonly View[],
  sent: ReadonlyMap<string, SlotWish>,
  hidden = false,
): SlotWish[] {
  const mix = slots.find(isMix);
  if (mix) return planMix(mix, views, sent, hidden);
  // The mix comes by itself or not at all: it cannot be pinned.
  const wanted = hidden ? [] : views.filter(({ source }) => source !== 'mix');
  const unserved = new Map(wanted.map((view) => [viewKey(view.participant, view.source), view]));
  const wishes = new Map<string, SlotWish>();
  const spare: Slot[] = [];
  const wish = (slot: Slot, view: View, pin: boolean) => {
    const { participant, source, height } = view;
    wishes.set(slot.mid, {
      mid: slot.mid,
      max_height: Math.ceil(height),
      ...(pin && { participant, source }),
    });
  };
  for (const slot of slots.filter(({ kind }) => kind === 'video')) {
    const key = boundTo(slot);
    const view = key === undefined ? undefined : unserved.get(key);
    if (view && key !== undefined) {
      unserved.delete(key);
      wish(slot, view, view.pin || isPinned(sent.get(slot.mid), view));
    } else {
      spare.push(slot);
    }
  }
  // Empty slots first; then those whose track nobody looks at.
  spare.sort((a, b) => Number(boundTo(a) !== undefined) - Number(boundTo(b) !== undefined));
  const pressing = [...unserved.values()].sort(
    (a, b) => Number(b.pin) - Number(a.pin) || b.height - a.height,
  );
  for (const view of pressing) {
    const slot = spare.shift();
    if (!slot) break;
    wish(slot, view, true);
  }
  for (const slot of spare) {
    const empty = boundTo(slot) === undefined;
    if (empty && !sent.has(slot.mid)) continue;
    wishes.set(slot.mid, { mid: slot.mid, max_height: empty ? IDLE_HEIGHT : 0 });
  }
  return [...wishes.values()];
}

/**
 * All other slots are silent, and what was wished for them stays: going back, they serve the same tiles.
 * The slot of the mix may have been one that showed nothing, so it never waits for its tile with a wish of 0.
 */
function planMix(
  { mid }: Slot,
  views: readonly View[],
  sent: ReadonlyMap<string, SlotWish>,
  hidden: boolean,
): SlotWish[] {
  if (hidden) return [{ mid, max_height: 0 }];
  const tile = views.find(({ source }) => source === 'mix')?.height ?? 0;
  return [{ mid, max_height: Math.ceil(tile) || sent.get(mid)?.max_height || MIX_HEIGHT }];
}

function isPinned(wish: SlotWish | undefined, view: View): boolean {
  return wish?.participant === view.participant && wish.source === view.source;
}

/** Only the wishes that differ from those `sent`, which is brought up to date. */
export function changedWishes(wishes: readonly SlotWish[], sent: Map<string, SlotWish>): SlotWish[] {
  return wishes.filter((wish) => {
    if (JSON.stringify(sent.get(wish.mid)) === JSON.stringify(wish)) return false;
    sent.set(wish.mid, wish);
    return true;
  });
}
