/**
 * The paywall: what a room costs, one QR code for both ways of paying, and what has become of the payment.
 */
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';
import encodeQR from 'qr';
import { asRefused, type Challenge, type ContentRef, type Invoice, type Payment } from '../client';
import { copy } from './copy';
import { Icon } from './icons';
import { countdown, periodWords, priceWords, sats } from './price';
import { claimKey, keepClaim, payments, ticketFor } from './tickets';
import { toast } from './toasts';

/** The code as a picture. Its text is plain: an image needs no markup of ours. */
function qrPicture(text: string): string {
  const svg = encodeQR(text, 'svg', { ecc: 'medium', border: 2 });
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

function CopyButton({ label, text, testId }: { label: string; text: string; testId: string }) {
  const press = async () => toast((await copy(text)) ? `${label} copied.` : text);
  return (
    <button type="button" class="button small" data-testid={testId} onClick={() => void press()}>
      <Icon name="copy" /> {label}
    </button>
  );
}

function progress({ status, confirmations, confirmations_needed, msat }: Payment): string {
  const sum = sats(Math.floor(msat / 1000));
  if (status === 'unconfirmed') return `${sum} seen; waiting for a block (0 of ${confirmations_needed}).`;
  if (status === 'confirming') return `${sum} in ${confirmations} of ${confirmations_needed} blocks.`;
  if (status === 'replaced') return `${sum} was replaced by another transaction and does not count.`;
  return `${sum} confirmed.`;
}

/** How the invoice stands, in words. */
function stateWords(invoice: Invoice, secondsLeft: number): string {
  const { state, flags } = invoice;
  if (state === 'settled') return flags.over ? 'Paid. What was too much is your credit.' : 'Paid.';
  if (state === 'processing') return 'Your payment was seen. It counts as soon as it is confirmed.';
  if (state === 'reversed')
    return 'The network took your payment back. It counts again once it is confirmed.';
  if (state === 'invalid') return 'Your payment never got through. Ask for a new invoice.';
  if (state === 'expired' || secondsLeft <= 0) return 'The time to pay this invoice is over.';
  if (flags.partial) return `A part was paid. ${sats(invoice.remaining_sat)} are missing.`;
  if (flags.replaced) return 'A payment was replaced and does not count. Waiting for another.';
  return 'Waiting for your payment.';
}

function useNow(): number {
  const now = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      now.value = Date.now();
    }, 1_000);
    return () => clearInterval(timer);
  }, []);
  return now.value;
}

function Simulate({ room, invoice }: { room: string; invoice: Invoice }) {
  const pay = async (rail: 'lightning' | 'onchain', confirmations?: number) => {
    try {
      await payments(room).simulate(invoice.id, rail, confirmations);
    } catch (error) {
      toast(asRefused(error).message, 'problem');
    }
  };
  return (
    <div class="simulated" data-testid="simulated">
      <p>
        <strong>Simulated payments.</strong> This server runs for development: no money is real.
      </p>
      <div class="card-actions">
        <button type="button" class="button small" onClick={() => void pay('lightning')}>
          Pretend Lightning
        </button>
        <button type="button" class="button small" onClick={() => void pay('onchain', 0)}>
          Pretend a transaction
        </button>
        <button type="button" class="button small" onClick={() => void pay('onchain', 6)}>
          Pretend its blocks
        </button>
      </div>
    </div>
  );
}

interface Props {
  room: string;
  /** What in the room is bought; absent: the room. */
  content?: ContentRef | undefined;
  challenge: Challenge;
  /** Paid: come in, or go on. */
  onPaid: () => void;
  onAgain: () => void;
}

/** What to pay, and how it stands. */
export function PayInvoice({ room, content, challenge, onPaid, onAgain }: Props) {
  const invoice = useSignal<Invoice>({ ...challenge.invoice, ...(challenge.uri && { uri: challenge.uri }) });
  const now = useNow();
  useEffect(() => {
    keepClaim(claimKey(room, content), challenge);
    return payments(room).follow(challenge.invoice.id, (next) => {
      invoice.value = next;
    });
  }, [challenge]);
  const { state, uri, bolt11, address, amount_sat, expires_at_ms } = invoice.value;
  const secondsLeft = Math.floor((expires_at_ms - now) / 1_000);
  // A zero-conf offer, a trial or the owner's hand lets in before the invoice is settled.
  useEffect(() => {
    if (state === 'settled') onPaid();
    else if (state === 'processing' && !content)
      void ticketFor(room).then((found) => found?.ticket && onPaid());
  }, [state]);
  const over = state === 'expired' || state === 'invalid' || (state === 'new' && secondsLeft <= 0);
  return (
    <section class="pay" data-testid="pay-invoice" data-state={state}>
      <p class="price">
        <strong>{sats(amount_sat)}</strong>
        <span class="quiet">
          {priceWords(challenge.offer.price)} for {periodWords(challenge.offer.period)}
        </span>
      </p>
      {uri && !over && (
        <a class="qr" href={uri} aria-label="Open in a wallet on this device">
          <img data-testid="pay-qr" data-uri={uri} src={qrPicture(uri)} alt="QR code of the invoice" />
        </a>
      )}
      <p role="status" data-testid="pay-state" class="pay-state">
        {state !== 'settled' && !over && <span class="spinner" />} {stateWords(invoice.value, secondsLeft)}
      </p>
      {invoice.value.payments.map((payment) => (
        <p key={JSON.stringify(payment.key)} class="quiet" data-testid="payment">
          {progress(payment)}
        </p>
      ))}
      {state === 'new' && !over && (
        <p class="quiet">
          Time left to pay: <span data-testid="time-left">{countdown(secondsLeft)}</span>
        </p>
      )}
      {!over && (
        <div class="card-actions">
          {bolt11 && <CopyButton label="Lightning invoice" text={bolt11} testId="copy-lightning" />}
          {address && <CopyButton label="Address" text={address} testId="copy-address" />}
          {address && (
            <CopyButton
              label="Amount"
              text={(invoice.value.remaining_sat / 1e8).toFixed(8)}
              testId="copy-amount"
            />
          )}
        </div>
      )}
      {over && (
        <button type="button" class="button accent" data-testid="new-invoice" onClick={onAgain}>
          Get a new invoice
        </button>
      )}
      {challenge.simulated && !over && state !== 'settled' && (
        <Simulate room={room} invoice={invoice.value} />
      )}
    </section>
  );
}

/** Receipts of what was paid, to be kept. */
export function Receipts({ paths }: { paths: string[] }) {
  if (paths.length === 0) return null;
  return (
    <p class="quiet">
      {paths.length === 1 ? 'Receipt: ' : 'Receipts: '}
      {paths.map((path, at) => (
        <span key={path}>
          {at > 0 && ', '}
          <a href={path} download data-testid="receipt">
            {at === 0 ? 'the latest' : `${at} before`}
          </a>
        </span>
      ))}
    </p>
  );
}

/** The door of a room that costs money. */
export function Paywall(props: Props & { onLook: () => void; children?: ComponentChildren }) {
  const { room, challenge } = props;
  const ended = challenge.subscription?.state === 'expired';
  const mayTry =
    Boolean(challenge.offer.trial_seconds) && (challenge.subscription?.state ?? 'pending') === 'pending';
  const mayLook = challenge.offer.preview_lowest && !challenge.offer.preview_seconds;
  const revoked = challenge.subscription?.revoked;
  return (
    <div data-testid="paywall">
      <h1>{ended ? `Your time in ${room} is over` : `Access to ${room}`}</h1>
      {mayTry && (
        <button type="button" class="button accent" data-testid="start-trial" onClick={props.onAgain}>
          Try it for {Math.round((challenge.offer.trial_seconds ?? 0) / 60)} minutes
        </button>
      )}
      {mayLook && (
        <button type="button" class="button" data-testid="look-in" onClick={props.onLook}>
          Look in for free, at the lowest quality
        </button>
      )}
      {revoked && <p class="quiet">The owner has taken your access away: {revoked}</p>}
      <PayInvoice {...props} />
      <p class="quiet fine-print">
        The money goes straight to the owner’s own wallet. This browser remembers that you paid; you need no
        account.
      </p>
      {props.children}
    </div>
  );
}
