/** How much paid time is left, and the way to more, while one is in the room. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Challenge } from '../client';
import { Dialog } from './dialog';
import { Icon } from './icons';
import { PayInvoice, Receipts } from './paywall';
import { roomClaim } from './prefs';
import { countdown } from './price';
import type { Session } from './session';
import { keepClaim, type PaidTime, payments } from './tickets';
import { toast } from './toasts';

/** From then on it is said that the time ends. */
const SOON_SECONDS = 5 * 60;

/** For who looks in at the lowest quality: the way to all of it. */
export function PreviewChip({ session, onPaid }: { session: Session; onPaid: () => void }) {
  const challenge = useSignal<Challenge | undefined>(undefined);
  const { room } = session.as;
  const ask = () =>
    session.attempt(
      payments(room)
        .renew(roomClaim(room))
        .then((next) => {
          keepClaim(room, next);
          challenge.value = next;
        }),
    );
  return (
    <>
      <button
        type="button"
        class="chip warning"
        data-testid="preview"
        title="You look in for free, at the lowest quality."
        onClick={() => void ask()}
      >
        <Icon name="coin" /> Preview · Get full access
      </button>
      {challenge.value && (
        <Dialog
          title={`Access to ${room}`}
          onClose={() => {
            challenge.value = undefined;
          }}
        >
          <PayInvoice room={room} challenge={challenge.value} onPaid={onPaid} onAgain={() => void ask()} />
        </Dialog>
      )}
    </>
  );
}

export function PaidTimeChip({ session, paid }: { session: Session; paid: PaidTime }) {
  const now = useSignal(Date.now());
  const challenge = useSignal<Challenge | undefined>(undefined);
  useEffect(() => {
    const timer = setInterval(() => {
      now.value = Date.now();
    }, 1_000);
    return () => clearInterval(timer);
  }, []);
  const until = paid.until.value;
  if (until === undefined) return null;
  const seconds = Math.floor((until - now.value) / 1_000);
  const due = session.renewalDue.value;
  const soon = seconds < SOON_SECONDS || due !== undefined;
  const renew = async () => {
    const claim = roomClaim(session.as.room);
    if (!claim) return;
    await session.attempt(
      payments(session.as.room)
        .renew(claim)
        .then((next) => {
          challenge.value = next;
        }),
    );
  };
  const close = () => {
    challenge.value = undefined;
  };
  return (
    <>
      <button
        type="button"
        class={`chip ${soon ? 'warning' : ''}`}
        data-testid="renew"
        data-due={due !== undefined}
        title="Your paid time. Press to pay for more."
        onClick={() => void renew()}
      >
        <Icon name="clock" /> <span data-testid="paid-time">{countdown(seconds)}</span>
        {soon && <span>Renew</span>}
      </button>
      {challenge.value && (
        <Dialog title="Pay for more time" onClose={close}>
          <PayInvoice
            room={session.as.room}
            challenge={challenge.value}
            onPaid={() => {
              close();
              session.renewalDue.value = undefined;
              toast('Paid. Your time goes on.');
              void paid.refresh();
            }}
            onAgain={() => void renew()}
          />
          <Receipts paths={paid.receipts.value} />
        </Dialog>
      )}
    </>
  );
}
