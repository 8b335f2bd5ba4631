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
  pay_within_seconds?: number;
  zero_conf?: boolean;
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
}

export interface Payout {
  source: 'own' | 'house' | 'none';
  descriptor?: string;
  addresses: string[];
  lightning: boolean;
  simulated: boolean;
}

export interface Subscriber {
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

  /** An invoice for one more period. @throws Refused */
  renew(claim: Claim): Promise<Challenge> {
    return this.#read('POST', '/invoices', claim);
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
  async comp(viewer: string, period: Period, reason: string): Promise<void> {
    await this.#hand(viewer, { action: 'comp', period, reason });
  }

  /** @throws Refused */
  async revoke(viewer: string, reason: string): Promise<void> {
    await this.#hand(viewer, { action: 'revoke', reason });
  }

  /** @throws Refused */
  async restore(viewer: string): Promise<void> {
    await this.#hand(viewer, { action: 'restore' });
  }

  /** @throws Refused */
  async markPaid(invoice: string, reason: string): Promise<void> {
    await this.#ask('POST', `/invoices/${invoice}/mark`, { reason });
  }

  async #hand(viewer: string, body: unknown): Promise<void> {
    await this.#ask('POST', `/subscribers/${encodeURIComponent(viewer)}`, body);
  }
}
