/** The owner's desk: where the money goes, what the room costs, and who has paid. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { asRefused, type ContentRef, type Offer, type Payout, type Period, type Subscriber } from '../client';
import { Dialog } from './dialog';
import { Icon } from './icons';
import { priceWords, sats } from './price';
import { payments } from './tickets';
import { toast } from './toasts';

const UNITS = ['minutes', 'days', 'months'] as const;
type Unit = (typeof UNITS)[number];
type Money = 'sats' | string;

/** Tries what may be refused, says so, and answers whether it went well. */
export async function attempt(action: Promise<unknown>): Promise<boolean> {
  try {
    await action;
    return true;
  } catch (error) {
    toast(asRefused(error).message, 'problem');
    return false;
  }
}

function PayoutForm({ room, payout, onChange }: { room: string; payout: Payout; onChange: () => void }) {
  const text = useSignal('');
  const save = async (descriptor: string | null) => {
    if (await attempt(payments(room).setPayout(descriptor))) {
      text.value = '';
      onChange();
    }
  };
  return (
    <section aria-label="Payout">
      <h3>Where the money goes</h3>
      {payout.simulated && (
        <p class="simulated" data-testid="simulated">
          <strong>Simulated payments.</strong> This server runs for development: no money is real.
        </p>
      )}
      <p data-testid="payout-source">
        {payout.source === 'own' && 'To your own wallet, by this public key.'}
        {payout.source === 'house' && 'To the operator of this server, until you say otherwise.'}
        {payout.source === 'none' && 'Nowhere yet: paste a public key of your wallet first.'}
      </p>
      {payout.addresses.length > 0 && (
        <>
          <p class="quiet">The first addresses. Your wallet must show the same ones:</p>
          <ol class="addresses">
            {payout.addresses.map((address) => (
              <li key={address}>
                <code data-testid="payout-address">{address}</code>
              </li>
            ))}
          </ol>
        </>
      )}
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void save(text.value);
        }}
      >
        <label>
          Account public key (xpub, zpub, vpub) or descriptor. Never a seed or private key.
          <textarea
            data-testid="payout-input"
            rows={3}
            spellcheck={false}
            value={text.value}
            onInput={(event) => {
              text.value = event.currentTarget.value;
            }}
          />
        </label>
        <div class="card-actions">
          <button type="submit" class="button" data-testid="payout-save" disabled={!text.value.trim()}>
            Use this wallet
          </button>
          {payout.source === 'own' && (
            <button type="button" class="button" onClick={() => void save(null)}>
              Forget it
            </button>
          )}
        </div>
      </form>
    </section>
  );
}

/** What only a room can have: contents once fetched cannot be taken back. */
const ROOM_ONLY = { trial_seconds: 0, preview_seconds: 0, preview_lowest: false, zero_conf: false };

function readOffer(form: HTMLFormElement, content?: ContentRef): Offer {
  const data = new FormData(form);
  const number = (name: string) => Number(data.get(name) || 0);
  const money = String(data.get('money') || 'sats') as Money;
  const unit = String(data.get('unit')) as Unit;
  const price =
    money === 'sats'
      ? { sats: number('price') }
      : { fiat: { currency: money, cents: Math.round(number('price') * 100) } };
  return {
    price,
    period: { [unit]: number('count') } as Period,
    trial_seconds: number('trial') * 60,
    grace_seconds: number('grace') * 60,
    preview_seconds: number('preview') * 60,
    preview_lowest: data.get('preview-lowest') === 'on',
    zero_conf: data.get('zero-conf') === 'on',
    ...(content && ROOM_ONLY),
  };
}

export function PriceForm({
  room,
  content,
  offer,
  onChange,
}: {
  room: string;
  /** Absent: the room's own price. */
  content?: ContentRef;
  offer: Offer | undefined;
  onChange: () => void;
}) {
  const set = async (next: Offer | null) => {
    const desk = payments(room);
    if (await attempt(content ? desk.setContentOffer(content, next) : desk.setOffer(next))) onChange();
  };
  const what = content ? 'It' : 'The room';
  const amount = offer && ('sats' in offer.price ? offer.price.sats : offer.price.fiat.cents / 100);
  const money = offer && 'fiat' in offer.price ? offer.price.fiat.currency : 'sats';
  const [unit, count] = Object.entries(offer?.period ?? { days: 30 })[0] as [Unit, number];
  const minutes = (seconds: number | undefined) => Math.round((seconds ?? 0) / 60);
  const field = (label: string, name: string, value: number) => (
    <label>
      {label}
      <input name={name} type="number" min={0} step={1} defaultValue={String(value)} />
    </label>
  );
  return (
    <section aria-label="Price">
      <h3>
        {offer ? `${what} costs ${priceWords(offer.price)}` : `${what} is ${content ? 'not sold' : 'free'}`}
      </h3>
      <form
        key={JSON.stringify(offer ?? null)}
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          void set(readOffer(event.currentTarget, content));
        }}
      >
        <label>
          Price
          <input
            name="price"
            type="number"
            min={0}
            step="any"
            required
            defaultValue={String(amount ?? 1000)}
            data-testid="price-input"
          />
        </label>
        <label>
          in
          <input
            name="money"
            defaultValue={money}
            pattern="sats|[A-Z]{3}"
            title="sats, or a currency such as EUR"
          />
        </label>
        <label>
          for
          <input
            name="count"
            type="number"
            min={1}
            required
            defaultValue={String(count)}
            data-testid="period-input"
          />
        </label>
        <label>
          of
          <select name="unit">
            {UNITS.map((one) => (
              <option key={one} selected={one === unit}>
                {one}
              </option>
            ))}
          </select>
        </label>
        {!content && field('Free look, minutes', 'preview', minutes(offer?.preview_seconds))}
        {!content && field('Trial, minutes', 'trial', minutes(offer?.trial_seconds))}
        {field('Grace after the end, minutes', 'grace', minutes(offer?.grace_seconds))}
        {!content && (
          <>
            <label class="check">
              <input name="preview-lowest" type="checkbox" defaultChecked={offer?.preview_lowest ?? false} />
              Look in for free at the lowest quality (without minutes: as long as one likes)
            </label>
            <label class="check">
              <input name="zero-conf" type="checkbox" defaultChecked={offer?.zero_conf ?? false} />
              Let in before a block has the payment
            </label>
          </>
        )}
        <div class="card-actions">
          <button type="submit" class="button accent" data-testid="price-save">
            {offer ? 'Change the price' : 'Set a price'}
          </button>
          {offer && (
            <button type="button" class="button" onClick={() => void set(null)}>
              {content ? 'Sell it no more' : 'Make it free'}
            </button>
          )}
        </div>
      </form>
    </section>
  );
}

function contentWords(content: NonNullable<Subscriber['content']>): string {
  return 'file' in content ? `file ${content.file}` : `recording ${content.recording}`;
}

function SubscriberRow({ room, one, onChange }: { room: string; one: Subscriber; onChange: () => void }) {
  const reason = useSignal('');
  const { viewer, state, until_ms, credit_msat, received_msat } = one.subscription;
  const unpaid = one.invoices.find(({ state }) => state !== 'settled');
  const act = async (action: Promise<unknown>) => {
    if (await attempt(action)) {
      reason.value = '';
      onChange();
    }
  };
  const desk = payments(room);
  return (
    <li class="subscriber" data-testid="subscriber" data-viewer={viewer}>
      <p>
        <strong>{viewer}</strong> <span class="chip">{state}</span>
        {one.content && <span class="quiet"> {contentWords(one.content)}</span>}
        {until_ms !== undefined && <span class="quiet"> until {new Date(until_ms).toLocaleString()}</span>}
      </p>
      <p class="quiet">
        {sats(Math.floor(received_msat / 1000))} received, {sats(Math.floor(credit_msat / 1000))} credit,{' '}
        {one.invoices.length} {one.invoices.length === 1 ? 'invoice' : 'invoices'}
      </p>
      <div class="row">
        <input
          aria-label={`Reason, for ${viewer}`}
          placeholder="Reason"
          value={reason.value}
          onInput={(event) => {
            reason.value = event.currentTarget.value;
          }}
        />
        <button
          type="button"
          class="button small"
          onClick={() => void act(desk.comp(one, { days: 1 }, reason.value))}
        >
          Give a day
        </button>
        {unpaid && (
          <button
            type="button"
            class="button small"
            onClick={() => void act(desk.markPaid(unpaid.id, reason.value))}
          >
            Mark paid
          </button>
        )}
        {state === 'suspended' ? (
          <button type="button" class="button small" onClick={() => void act(desk.restore(one))}>
            Restore
          </button>
        ) : (
          <button
            type="button"
            class="button small danger"
            data-testid="revoke"
            onClick={() => void act(desk.revoke(one, reason.value))}
          >
            Revoke
          </button>
        )}
      </div>
    </li>
  );
}

async function download(room: string): Promise<void> {
  const url = URL.createObjectURL(await payments(room).csv());
  const link = Object.assign(document.createElement('a'), { href: url, download: `${room}-payments.csv` });
  link.click();
  URL.revokeObjectURL(url);
}

export function SalesDialog({ room, onClose }: { room: string; onClose: () => void }) {
  const payout = useSignal<Payout | undefined>(undefined);
  const offer = useSignal<Offer | undefined>(undefined);
  const people = useSignal<Subscriber[]>([]);
  const load = () =>
    attempt(
      Promise.all([payments(room).payout(), payments(room).offer(), payments(room).subscribers()]).then(
        ([where, what, who]) => {
          [payout.value, offer.value, people.value] = [where, what, who];
        },
      ),
    );
  useEffect(() => {
    void load();
  }, [room]);
  if (!payout.value) return null;
  const change = () => void load();
  return (
    <Dialog title="Sell access" onClose={onClose}>
      <div class="sales" data-testid="sales">
        <PayoutForm room={room} payout={payout.value} onChange={change} />
        <PriceForm room={room} offer={offer.value} onChange={change} />
        <section aria-label="Subscribers">
          <h3>Subscribers</h3>
          {people.value.length === 0 && <p class="quiet">Nobody yet.</p>}
          <ul class="subscribers">
            {people.value.map((one) => (
              <SubscriberRow
                key={`${one.subscription.viewer} ${JSON.stringify(one.content)}`}
                room={room}
                one={one}
                onChange={change}
              />
            ))}
          </ul>
          <div class="card-actions">
            <button type="button" class="button small" onClick={change}>
              Look again
            </button>
            <button
              type="button"
              class="button small"
              data-testid="csv"
              onClick={() => void attempt(download(room))}
            >
              <Icon name="download" /> Payments as CSV
            </button>
          </div>
        </section>
      </div>
    </Dialog>
  );
}

export function SalesButton({ room }: { room: string }) {
  const open = useSignal(false);
  return (
    <>
      <button
        type="button"
        class="button small"
        aria-label="Sell access"
        data-testid="open-sales"
        onClick={() => {
          open.value = true;
        }}
      >
        <Icon name="coin" /> <span class="roomy-text">Sell access</span>
      </button>
      {open.value && (
        <SalesDialog
          room={room}
          onClose={() => {
            open.value = false;
          }}
        />
      )}
    </>
  );
}
