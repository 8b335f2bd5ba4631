/**
 * Tickets for rooms that cost money: asked for with this browser's claim, and anew before they end. While
 * somebody is in a room this keeps the token fresh and says how much time is left.
 */
import { signal } from '@preact/signals';
import { asRefused, type Challenge, type ContentRef, type Offer, Payments, type Ticket } from '../client';
import { keepRoomClaim, roomClaim, roomToken } from './prefs';
import type { Session } from './session';

/** How often the paid time is looked at, and the ticket renewed. */
const LOOK_EVERY_MS = 60_000;

export const payments = (room: string): Payments => new Payments(location.origin, room, roomToken(room));

/** Under which name a claim is kept: a room's own, or that of something in it. */
export const claimKey = (room: string, content?: ContentRef): string =>
  content ? `${room}/${content.kind}/${content.id}` : room;

/** What the server knows us by. Kept before anything is paid, so that what is paid is never lost. */
export function keepClaim(key: string, challenge: Challenge): void {
  if (challenge.claim) keepRoomClaim(key, challenge.viewer, challenge.claim);
}

/** A ticket for who paid before; what to pay for who must; undefined for who never paid here. */
export async function ticketFor(
  room: string,
): Promise<{ ticket?: Ticket; challenge?: Challenge } | undefined> {
  const claim = roomClaim(room);
  if (!claim || roomToken(room)) return undefined;
  try {
    return { ticket: await payments(room).ticket(claim) };
  } catch (error) {
    const { challenge } = asRefused(error);
    // A room that became free, or a server that lost its secret: then it is as if we had never been here.
    return challenge && { challenge };
  }
}

/** The paid time of one visit. */
export class PaidTime {
  /** Access ends then (ms since the Unix epoch). */
  readonly until = signal<number | undefined>(undefined);
  readonly offer = signal<Offer | undefined>(undefined);
  readonly receipts = signal<string[]>([]);
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(
    private readonly session: Session,
    ticket: Ticket,
  ) {
    this.until.value = ticket.until_ms;
    this.receipts.value = ticket.receipts;
    this.#timer = setInterval(() => void this.refresh(), LOOK_EVERY_MS);
  }

  async refresh(): Promise<void> {
    const found = await ticketFor(this.session.as.room);
    if (found?.ticket) {
      this.session.room.setToken(found.ticket.token);
      this.until.value = found.ticket.until_ms;
      this.receipts.value = found.ticket.receipts;
    }
  }

  end(): void {
    clearInterval(this.#timer);
  }
}
