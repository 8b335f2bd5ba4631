/** How much paid time is left, and the way to more, while one is in the room. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Challenge } from '../client';
import { Dialog } from './dialog';
import { Icon } from './icons';
import { PayInvoice } from './paywall';
import { roomClaim } from './prefs';
import { countdown } from './price';
import type { Session } from './session';
import { type PaidTime, payments } from './tickets';
import { toast } from './toasts';

/** From then on it is said that the time ends. */
const SOON_SECONDS = 5 * 60;

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
        class={`chip ${seconds < SOON_SECONDS ? 'warning' : ''}`}
        data-testid="renew"
        title="Your paid time. Press to pay for more."
        onClick={() => void renew()}
      >
        <Icon name="clock" /> <span data-testid="paid-time">{countdown(seconds)}</span>
        {seconds < SOON_SECONDS && <span>Renew</span>}
      </button>
      {challenge.value && (
        <Dialog title="Pay for more time" onClose={close}>
          <PayInvoice
            room={session.as.room}
            challenge={challenge.value}
            onPaid={() => {
              close();
              toast('Paid. Your time goes on.');
              void paid.refresh();
            }}
            onAgain={() => void renew()}
          />
        </Dialog>
      )}
    </>
  );
}
