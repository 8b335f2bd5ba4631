/** The life of a visit to a room: pre-join, joining, lobby, the call, and the end with a way back. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Challenge, LocalMedia } from '../client';
import { Call } from './call';
import { Icon, Mark } from './icons';
import { Paywall } from './paywall';
import { keepRoomToken, roomClaim, roomToken } from './prefs';
import { Prejoin } from './prejoin';
import { go, isRoomName } from './router';
import { Session } from './session';
import { keepClaim, PaidTime, ticketFor } from './tickets';
import { sentence } from './toasts';
import { WatchPage } from './watch';

/** `?name=X&join=1` joins at once. A token in the address is kept by the tab and taken out of sight. */
function readAddress(room: string): { joinAs: string | undefined; watches: boolean } {
  const query = new URLSearchParams(location.search);
  const hash = new URLSearchParams(location.hash.slice(1));
  const token = hash.get('token') ?? query.get('token');
  if (token) {
    keepRoomToken(room, token);
    query.delete('token');
    const rest = query.toString();
    history.replaceState(null, '', `${location.pathname}${rest ? `?${rest}` : ''}`);
  }
  const name = query.get('name')?.trim();
  const watches = query.get('watch') === 'hls';
  return { joinAs: query.get('join') === '1' && name ? name : undefined, watches };
}

function Card({ children }: { children: preact.ComponentChildren }) {
  return (
    <div class="card-page">
      <main class="card">
        <Mark />
        {children}
      </main>
    </div>
  );
}

function Ended(props: { message: string; again: string; onAgain: () => void }) {
  return (
    <Card>
      <h1 data-testid="ended">{sentence(props.message)}</h1>
      <div class="card-actions">
        <button type="button" class="button accent" data-testid="rejoin" onClick={props.onAgain}>
          {props.again}
        </button>
        <button type="button" class="button" onClick={() => go('/')}>
          Front page
        </button>
      </div>
    </Card>
  );
}

export function RoomPage({ room }: { room: string }) {
  const session = useSignal<Session | undefined>(undefined);
  const watching = useSignal(false);
  const paid = useSignal<PaidTime | undefined>(undefined);
  /** What to pay before we come in, and as whom we wanted to. */
  const door = useSignal<
    { challenge: Challenge; identity: string; media?: LocalMedia | undefined } | undefined
  >(undefined);
  const start = async (identity: string, media?: LocalMedia, looks = false) => {
    const found = looks ? undefined : await ticketFor(room);
    if (found?.challenge) {
      door.value = { challenge: found.challenge, identity, media };
      return;
    }
    const next = new Session({ room, identity, token: found?.ticket?.token ?? roomToken(room) });
    paid.value?.end();
    paid.value = found?.ticket && new PaidTime(next, found.ticket);
    if (media) media.handTo(next.room.local);
    door.value = undefined;
    session.value = next;
    await (media ? next.join() : next.joinWithDevices());
    const challenge = next.challenge.value;
    if (!challenge) return;
    keepClaim(room, challenge);
    door.value = { challenge, identity };
  };
  useEffect(() => {
    const { joinAs, watches } = readAddress(room);
    watching.value = watches;
    if (joinAs && !watches) void start(joinAs);
    document.title = `${room} · Antiphon`;
    return () => {
      document.title = 'Antiphon';
      paid.peek()?.end();
      void session.peek()?.room.leave();
    };
  }, [room]);

  if (!isRoomName(room)) {
    return <Ended message="That is no room’s name." again="Choose another" onAgain={() => go('/')} />;
  }
  if (watching.value) return <WatchPage room={room} />;
  const current = session.value;
  if (door.value) {
    const { challenge, identity, media } = door.value;
    const comeIn = () => void start(identity, media);
    const lookIn = () => void start(identity, media, true);
    return (
      <Card>
        <Paywall room={room} challenge={challenge} onPaid={comeIn} onAgain={comeIn} onLook={lookIn} />
      </Card>
    );
  }
  if (!current) {
    const joinAtOnce = new URLSearchParams(location.search).get('join') === '1';
    const named = new URLSearchParams(location.search).get('name')?.trim();
    return joinAtOnce && named ? (
      <Connecting />
    ) : (
      <Prejoin room={room} onJoin={(identity, media) => void start(identity, media)} />
    );
  }
  const status = current.status.value;
  switch (status.phase) {
    case 'joining':
      return <Connecting />;
    case 'waiting':
      return <Waiting room={room} onLeave={() => void current.room.leave()} />;
    case 'closed':
      return (
        <Ended
          message={status.message}
          again={status.reason === 'failed' ? 'Try again' : 'Join again'}
          onAgain={() => {
            paid.value?.end();
            // Whose paid time is over is asked again at once, not sent through the pre-join page.
            if (roomClaim(room) && status.reason === 'removed') return void start(current.as.identity);
            session.value = undefined;
            history.replaceState(null, '', location.pathname);
          }}
        />
      );
    default:
      return (
        <Call
          session={current}
          paid={paid.value}
          // Again, as who has paid; the look ends with that.
          onPaid={() => void start(current.as.identity).then(() => current.room.leave())}
        />
      );
  }
}

function Connecting() {
  return (
    <Card>
      <p role="status" class="joining">
        <span class="spinner" /> Joining…
      </p>
    </Card>
  );
}

function Waiting({ room, onLeave }: { room: string; onLeave: () => void }) {
  return (
    <Card>
      <h1 data-testid="lobby">You are in the lobby of {room}</h1>
      <p role="status" class="joining">
        <span class="spinner" /> Somebody inside will let you in.
      </p>
      <div class="card-actions">
        <button type="button" class="button" onClick={onLeave}>
          <Icon name="door" /> Go away
        </button>
      </div>
    </Card>
  );
}
