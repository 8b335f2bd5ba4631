/** The price of a recording or file, set by its room's owner. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { ContentRef, Offer } from '../client';
import { Dialog } from './dialog';
import { Icon } from './icons';
import { contentLink } from './router';
import { attempt, PriceForm } from './sales';
import { payments } from './tickets';

/** The price of a recording or file, and the link for its buyers. */
function ContentPriceDialog(props: { room: string; content: ContentRef; onClose: () => void }) {
  const { room, content, onClose } = props;
  const offer = useSignal<Offer | undefined>(undefined);
  const known = useSignal(false);
  const load = () =>
    attempt(
      payments(room)
        .contentOffer(content)
        .then((found) => {
          offer.value = found;
          known.value = true;
        }),
    );
  useEffect(() => {
    void load();
  }, [room, content.id]);
  const link = contentLink(room, content);
  return (
    <Dialog title="Sell it" onClose={onClose}>
      {known.value && (
        <div class="sales" data-testid="content-sales">
          <PriceForm room={room} content={content} offer={offer.value} onChange={() => void load()} />
          {offer.value && (
            <p>
              Its buyers’ link:{' '}
              <a href={link} data-testid="content-link" target="_blank" rel="noreferrer">
                {link}
              </a>
            </p>
          )}
        </div>
      )}
    </Dialog>
  );
}

export function ContentPriceButton(props: { room: string; content: ContentRef; disabled?: boolean }) {
  const open = useSignal(false);
  return (
    <>
      <button
        type="button"
        class="icon-button small"
        data-testid="content-sell"
        aria-label="Sell it"
        title="Sell it"
        disabled={props.disabled ?? false}
        onClick={() => {
          open.value = true;
        }}
      >
        <Icon name="coin" />
      </button>
      {open.value && (
        <ContentPriceDialog
          room={props.room}
          content={props.content}
          onClose={() => {
            open.value = false;
          }}
        />
      )}
    </>
  );
}
