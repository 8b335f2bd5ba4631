/**
 * Rooms that cost money: what to pay, whether it was paid, and the ticket that it gives. A claim proves to
 * be the viewer who paid; it is a secret of this browser's and is sent to its room's server alone.
 */
import { asRefused, refusalOf } from './errors';

export type InvoiceState = 'new' | 'processing' | 'settled' | 'expired' | 'invalid' | 'reversed';
export type Rail = 'onchain' | 'lightning';

export interface Payment {
  key: { outpoint: string } | { payment_hash: string } | 'marked';
  msat: number;
  paid_at_ms: number;
  status: 'unconfirmed' | 'confirming' | 'final' | 'deep' | 'replaced';
  confirmations: number;
  confirmations_needed: number;
}

export interface Flags {
  partial: boolean;
  over: boolean;
  late: boolean;
  both_ways: boolean;
  replaced: boolean;
  marked: boolean;
}

export interface Invoice {
  id: string;
  state: InvoiceState;
  flags: Flags;
  amount_sat: number;
  remaining_sat: number;
  price_sat: number;
  rate?: { currency: string; cents_per_btc: number; source: string };
  created_at_ms: number;
  expires_at_ms: number;
  address?: string;
  bolt11?: string;
  payments: Payment[];
  /** What one QR code holds: BIP 21, with the Lightning invoice beside the address. */
  uri?: string;
}

export type Price = { sats: number } | { fiat: { currency: string; cents: number } };
export type Period = { minutes: number } | { days: number } | { months: number };

export interface Offer {
  price: Price;
  period: Period;
  trial_seconds?: number;
  grace_seconds?: number;
  preview_seconds?: number;
  /** Who looks in gets the lowest layer of each picture. */
  preview_lowest?: boolean;
  pay_within_seconds?: number;
  zero_conf?: boolean;
  /** How long before a period's end its viewer is asked for the next one. */
  remind_seconds?: number;
}

/** A recording or file of a room, sold by itself. */
export interface ContentRef {
  kind: 'recordings' | 'files';
  id: string;
}

/** What somebody has bought, with addresses that soon end. */
export interface Bought {
  viewer: string;
  until_ms: number;
  files: { name: string; bytes: number; media_type: string; url: string; expires_at_ms: number }[];
  /** Paths of the receipts, the latest first. */
  receipts: string[];
}

export interface Subscription {
  viewer: string;
  state: 'pending' | 'trial' | 'active' | 'grace' | 'expired' | 'suspended';
  until_ms?: number;
  ends_at_ms?: number;
  credit_msat: number;
  received_msat: number;
  revoked?: string;
}

/** What to pay, and by what the payer is known again. */
export interface Challenge {
  invoice: Invoice;
  uri?: string;
  offer: Offer;
  viewer: string;
  claim?: string;
  subscription?: Subscription;
  simulated: boolean;
}

export interface Claim {
  viewer: string;
  claim: string;
}

export interface Ticket {
  token: string;
  token_expires_at_ms: number;
  until_ms: number;
  viewer: string;
  /** Paths of the receipts of what was paid here, the latest first. */
  receipts: string[];
}

export interface Payout {
  source: 'own' | 'house' | 'none';
  descriptor?: string;
  addresses: string[];
  lightning: boolean;
  simulated: boolean;
}

export interface Subscriber {
  /** Absent: it subscribed to the room. */
  content?: { recording: string } | { file: string };
  subscription: Subscription;
  invoices: Invoice[];
}

const TIMEOUT_MS = 15_000;

/** The payments of one room, asked for as whoever holds `token`. */
export class Payments {
  readonly #url: string;

  constructor(
    base: string,
    room: string,
    private readonly token?: string | undefined,
  ) {
    this.#url = `${base}/v1/rooms/${encodeURIComponent(room)}`;
  }

  async #ask(method: string, path: string, body?: unknown): Promise<Response> {
    try {
      const response = await fetch(`${this.#url}${path}`, {
        method,
        headers: {
          ...(body !== undefined && { 'Content-Type': 'application/json' }),
          ...(this.token && { Authorization: `Bearer ${this.token}` }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      if (response.ok) return response;
      throw refusalOf(response.status, await response.text().catch(() => ''));
    } catch (error) {
      throw asRefused(error);
    }
  }

  async #read<T>(method: string, path: string, body?: unknown): Promise<T> {
    return (await (await this.#ask(method, path, body)).json()) as T;
  }

  /** What the room costs now; undefined where it is free. @throws Refused */
  async offer(): Promise<Offer | undefined> {
    return (await this.#read<{ price?: Offer }>('GET', '')).price;
  }

  /** A ticket for what was paid. @throws Refused, with a challenge where it was not */
  ticket(claim: Claim): Promise<Ticket> {
    return this.#read('POST', '/access', claim);
  }

  /** An invoice for one more period; without a claim, for somebody new. @throws Refused */
  renew(claim?: Claim): Promise<Challenge> {
    return this.#read('POST', '/invoices', claim ?? {});
  }

  /** What a recording or file costs; undefined where it is not sold. @throws Refused */
  async contentOffer({ kind, id }: ContentRef): Promise<Offer | undefined> {
    const { price } = await this.#read<{ price: Offer | null }>('GET', `/${kind}/${id}/price`);
    return price ?? undefined;
  }

  /** @throws Refused */
  async setContentOffer({ kind, id }: ContentRef, offer: Offer | null): Promise<void> {
    await this.#ask('PUT', `/${kind}/${id}/price`, { price: offer });
  }

  /** What was bought. @throws Refused, with a challenge where it was not */
  bought({ kind, id }: ContentRef, claim?: Claim): Promise<Bought> {
    return this.#read('POST', `/${kind}/${id}/access`, claim ?? {});
  }

  /** Says how an invoice stands, at once and whenever it changes. Ends by what it returns. */
  follow(invoice: string, tell: (invoice: Invoice) => void): () => void {
    const source = new EventSource(`${this.#url}/invoices/${invoice}/events`);
    source.addEventListener('invoice', (event) => tell(JSON.parse((event as MessageEvent<string>).data)));
    return () => source.close();
  }

  /** Pretends to pay, where no money is real. @throws Refused */
  async simulate(invoice: string, rail: Rail, confirmations?: number): Promise<void> {
    const body = { rail, ...(confirmations !== undefined && { confirmations }) };
    await this.#ask('POST', `/invoices/${invoice}/simulate`, body);
  }

  /** @throws Refused */
  async setOffer(offer: Offer | null): Promise<void> {
    await this.#ask('PATCH', '', { price: offer });
  }

  /** @throws Refused */
  payout(): Promise<Payout> {
    return this.#read('GET', '/payout');
  }

  /** A public descriptor or account key; null for the operator's own payout. @throws Refused */
  setPayout(descriptor: string | null): Promise<Payout> {
    return this.#read('PUT', '/payout', { ...(descriptor && { descriptor }) });
  }

  /** @throws Refused */
  subscribers(): Promise<Subscriber[]> {
    return this.#read('GET', '/subscribers');
  }

  /** All payments as a table. @throws Refused */
  async csv(): Promise<Blob> {
    return await (await this.#ask('GET', '/subscribers?format=csv')).blob();
  }

  /** @throws Refused */
  async comp(whom: Subscriber, period: Period, reason: string): Promise<void> {
    await this.#hand(whom, { action: 'comp', period, reason });
  }

  /** @throws Refused */
  async revoke(whom: Subscriber, reason: string): Promise<void> {
    await this.#hand(whom, { action: 'revoke', reason });
  }

  /** @throws Refused */
  async restore(whom: Subscriber): Promise<void> {
    await this.#hand(whom, { action: 'restore' });
  }

  /** @throws Refused */
  async markPaid(invoice: string, reason: string): Promise<void> {
    await this.#ask('POST', `/invoices/${invoice}/mark`, { reason });
  }

  async #hand({ subscription, content }: Subscriber, body: object): Promise<void> {
    const whole = { ...body, ...(content && { content }) };
    await this.#ask('POST', `/subscribers/${encodeURIComponent(subscription.viewer)}`, whole);
  }
}
