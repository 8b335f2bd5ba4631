/** A recording or file that is sold: what to pay for it, and then its contents. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { asRefused, type Bought, type Challenge, type ContentRef } from '../client';
import { Icon, Mark } from './icons';
import { readableSize } from './measures';
import { PayInvoice } from './paywall';
import { roomClaim } from './prefs';
import { saveFrom } from './save';
import { claimKey, keepClaim, payments } from './tickets';

type Item = Bought['files'][number];

const NAMES: Record<ContentRef['kind'], string> = { recordings: 'A recording', files: 'A file' };

/** Plays what can be played. When its address has ended, it goes on with a new one where it was. */
function Player({ item, onEnded }: { item: Item; onEnded: () => Promise<void> }) {
  const failedAt = useSignal(-1);
  const shared = {
    src: item.url,
    controls: true,
    preload: 'metadata' as const,
    'aria-label': item.name,
    'data-testid': 'content-player',
    onError: ({ currentTarget: player }: { currentTarget: HTMLMediaElement }) => {
      const at = player.currentTime;
      // A new address was no help: it is something else.
      if (failedAt.value === at) return;
      failedAt.value = at;
      void onEnded().then(() => {
        player.currentTime = at;
      });
    },
  };
  if (item.media_type.startsWith('video/')) return <video class="file-player" playsInline {...shared} />;
  if (item.media_type.startsWith('audio/')) return <audio {...shared} />;
  return null;
}

function Contents({ bought, onEnded }: { bought: Bought; onEnded: () => Promise<void> }) {
  return (
    <>
      <p class="quiet">Yours until {new Date(bought.until_ms).toLocaleString()}.</p>
      <ul class="contents" data-testid="contents">
        {bought.files.map((item) => (
          <li key={item.name} data-testid="content-file" data-name={item.name}>
            <Player item={item} onEnded={onEnded} />
            <div class="file-line">
              <div class="file-words">
                <p class="file-name" title={item.name}>
                  {item.name}
                </p>
                <p class="file-facts">{readableSize(item.bytes)}</p>
              </div>
              <button
                type="button"
                class="icon-button"
                data-testid="content-download"
                aria-label={`Download ${item.name}`}
                title="Download"
                onClick={() => void onEnded().then(() => saveFrom(new URL(item.url, location.href).href))}
              >
                <Icon name="download" />
              </button>
            </div>
          </li>
        ))}
      </ul>
    </>
  );
}

/** What to pay, or what was paid for. */
export function ContentView({ room, content }: { room: string; content: ContentRef }) {
  const bought = useSignal<Bought | undefined>(undefined);
  const challenge = useSignal<Challenge | undefined>(undefined);
  const trouble = useSignal('');
  const key = claimKey(room, content);
  const load = async () => {
    try {
      bought.value = await payments(room).bought(content, roomClaim(key));
      challenge.value = undefined;
    } catch (error) {
      const refused = asRefused(error);
      bought.value = undefined;
      challenge.value = refused.challenge;
      if (refused.challenge) keepClaim(key, refused.challenge);
      else trouble.value = refused.message;
    }
  };
  useEffect(() => {
    void load();
  }, [key]);
  if (bought.value) return <Contents bought={bought.value} onEnded={load} />;
  if (challenge.value) {
    return (
      <div data-testid="paywall">
        <PayInvoice
          room={room}
          content={content}
          challenge={challenge.value}
          onPaid={() => void load()}
          onAgain={() => void load()}
        />
        <p class="quiet fine-print">
          The money goes straight to the owner’s own wallet. This browser remembers that you paid; you need no
          account.
        </p>
      </div>
    );
  }
  return trouble.value ? (
    <p role="alert" data-testid="content-trouble">
      {trouble.value}
    </p>
  ) : (
    <p role="status" class="joining">
      <span class="spinner" /> Looking…
    </p>
  );
}

/** The page of something that is sold. */
export function ContentPage({ room, content }: { room: string; content: ContentRef }) {
  const title = `${NAMES[content.kind]} of ${room}`;
  useEffect(() => {
    document.title = `${title} · Antiphon`;
  }, [title]);
  return (
    <div class="card-page">
      <main class="card">
        <Mark />
        <h1>{title}</h1>
        <ContentView room={room} content={content} />
      </main>
    </div>
  );
}
