/** Streaming for owners: HLS on and off, its link, and pushes to other services with their state. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Restream } from '../client';
import { copyWatchLink } from './copy';
import { Dialog } from './dialog';
import { Icon } from './icons';
import type { Session } from './session';

/** How often the state of pushes is asked for, while it is looked at. */
const EVERY_MS = 2_000;

const STATES: Record<Restream['state'], string> = {
  connecting: 'connecting…',
  live: 'live',
  retrying: 'trying again…',
  failed: 'given up',
};

/** Seen by all while the room goes out; owners open the dialog with it. */
export function StreamButton({ session, onOpen }: { session: Session; onOpen: () => void }) {
  const state = session.state.value;
  const isOut = state !== undefined && (state.hls || state.restreams > 0);
  if (session.grant.value.admin) {
    return (
      <button
        type="button"
        class={`button small ${isOut ? 'accent' : ''}`}
        data-testid="stream"
        aria-label={isOut ? 'Streaming: settings' : 'Stream this room'}
        onClick={onOpen}
      >
        <Icon name="signal" /> <span class="roomy-text">{isOut ? 'Live' : 'Stream'}</span>
      </button>
    );
  }
  if (!isOut) return null;
  return (
    <span class="chip" data-testid="is-streamed" title="What happens here is streamed to others">
      <Icon name="signal" /> <span class="roomy-text">Live</span>
    </span>
  );
}

export function StreamSheet({ session, onClose }: { session: Session; onClose: () => void }) {
  const pushes = useSignal<Restream[]>([]);
  const url = useSignal('');
  const busy = useSignal(false);
  const { streams } = session.room;
  const hls = session.state.value?.hls ?? false;
  const look = async () => {
    pushes.value = await streams.pushes().catch(() => pushes.value);
  };
  useEffect(() => {
    void look();
    const timer = setInterval(() => void look(), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const act = async (action: Promise<unknown>) => {
    busy.value = true;
    const done = await session.attempt(action);
    busy.value = false;
    await look();
    return done;
  };
  const isPrivate = session.state.value?.access === 'private';
  const push = async (event: Event) => {
    event.preventDefault();
    if (await act(streams.push(url.value.trim()))) url.value = '';
  };
  return (
    <Dialog title="Stream this room" onClose={onClose}>
      <section class="streaming">
        <p>
          {isPrivate ? 'Who was invited' : 'Anyone with the link'} sees and hears the room a few seconds
          later, in the page or in a player.
        </p>
        <div class="card-actions">
          <button
            type="button"
            class={`button ${hls ? '' : 'accent'}`}
            data-testid="toggle-hls"
            aria-pressed={hls}
            disabled={busy.value}
            onClick={() => void act(hls ? streams.stopHls() : streams.startHls())}
          >
            {hls ? 'Stop the stream' : 'Start the stream'}
          </button>
          {hls && (
            <button
              type="button"
              class="button"
              onClick={() => void copyWatchLink(session.as.room, isPrivate)}
            >
              <Icon name="link" /> Copy the link to watch
            </button>
          )}
        </div>
        <h3>To another service</h3>
        <form class="streaming-form" onSubmit={(event) => void push(event)}>
          <input
            type="password"
            autocomplete="off"
            aria-label="RTMP address with stream key"
            placeholder="rtmp://server/app/key"
            data-testid="restream-url"
            value={url.value}
            onInput={({ currentTarget }) => {
              url.value = currentTarget.value;
            }}
          />
          <button type="submit" class="button" data-testid="restream-add" disabled={busy.value || !url.value}>
            Push
          </button>
        </form>
        <ul class="restreams">
          {pushes.value.map((one) => (
            <li key={one.id} data-testid="restream" data-state={one.state}>
              <span>
                {one.url} <small title={one.reason}>{STATES[one.state]}</small>
              </span>
              <button
                type="button"
                class="icon-button"
                aria-label={`End ${one.url}`}
                onClick={() => void act(streams.endPush(one.id))}
              >
                <Icon name="close" />
              </button>
            </li>
          ))}
        </ul>
      </section>
    </Dialog>
  );
}
