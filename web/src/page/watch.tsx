/**
 * A room's stream, watched without joining: `/r/{room}?watch=hls`. The player is loaded when somebody
 * watches, so that a call does not carry it.
 */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { hlsUrl } from '../client';
import { Mark } from './icons';
import { roomToken } from './prefs';

/** How often the delay is read. */
const EVERY_MS = 500;
/** A stream that is not there yet, or that broke, is asked for again after this. */
const AGAIN_MS = 2_000;
/** A picture that stands for so long when no more comes is the last one, whatever a player waits for. */
const STANDS_MS = 2_000;
/** After one that ended it is looked this often for the next: its room moved, or its owner began anew. */
const NEXT_MS = 5_000;

type Phase = 'starting' | 'playing' | 'refused' | 'ended';

const WORDS: Record<Phase, string> = {
  starting: 'The stream has not begun yet…',
  playing: '',
  refused: 'You may not watch this room: a link with a token is needed.',
  ended: 'The stream has ended.',
};

interface Watching {
  /** Seconds from the capture of what is shown to now. */
  delay(): number | undefined;
  stop(): void;
}

/** Whether there is a stream that has not ended. */
async function isStreamed(url: string, headers: Headers): Promise<boolean> {
  const answer = await fetch(url, { headers }).catch(() => undefined);
  const { state }: { state?: string } = answer?.ok ? await answer.json() : {};
  return state === 'starting' || state === 'live';
}

/** Plays into `video`; tells what becomes of it. */
async function watch(video: HTMLVideoElement, room: string, tell: (phase: Phase) => void): Promise<Watching> {
  const { default: Hls } = await import('hls.js');
  const token = roomToken(room);
  const url = hlsUrl(location.origin, room);
  if (!Hls.isSupported()) {
    // Safari on phones plays it by itself, and sends no headers.
    video.src = token ? `${url}?token=${encodeURIComponent(token)}` : url;
    video.addEventListener('playing', () => tell('playing'));
    video.addEventListener('ended', () => tell('ended'));
    const since = () => (video as { getStartDate?: () => Date }).getStartDate?.().getTime();
    const delay = () => {
      const began = since();
      return began === undefined ? undefined : (Date.now() - began) / 1000 - video.currentTime;
    };
    return { delay, stop: () => video.removeAttribute('src') };
  }
  const hls = new Hls({
    lowLatencyMode: true,
    backBufferLength: 30,
    maxLiveSyncPlaybackRate: 1.1,
    xhrSetup: (xhr, to) => {
      if (token && to.startsWith(url)) xhr.setRequestHeader('Authorization', `Bearer ${token}`);
    },
  });
  let again: ReturnType<typeof setTimeout> | undefined;
  let standing: ReturnType<typeof setTimeout> | undefined;
  let stopped = false;
  // Whether its playlist has an end.
  let isOver = false;
  const load = () => {
    clearTimeout(again);
    isOver = false;
    hls.loadSource(url);
  };
  const next = async () => {
    const headers = new Headers(token ? { Authorization: `Bearer ${token}` } : undefined);
    const isOn = await isStreamed(url.replace(/\/index\.m3u8$/, ''), headers);
    // Another look may have found it meanwhile.
    if (stopped || !isOver) return;
    if (isOn) {
      tell('starting');
      load();
    } else {
      again = setTimeout(() => void next(), NEXT_MS);
    }
  };
  const end = () => {
    isOver = true;
    tell('ended');
    clearTimeout(again);
    void next();
  };
  const moves = () => {
    clearTimeout(standing);
    standing = setTimeout(() => {
      if (isOver && !video.paused) end();
    }, STANDS_MS);
  };
  hls.on(Hls.Events.ERROR, (_, data) => {
    if (!data.fatal) return;
    const status = data.response?.code ?? 0;
    if (status === 401 || status === 403) return tell('refused');
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR) return hls.recoverMediaError();
    tell(isOver ? 'ended' : 'starting');
    clearTimeout(again);
    again = setTimeout(() => (isOver ? void next() : load()), AGAIN_MS);
  });
  hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
    isOver = !details.live;
    moves();
  });
  video.addEventListener('timeupdate', moves);
  video.addEventListener('ended', end);
  video.addEventListener('playing', () => tell('playing'));
  hls.attachMedia(video);
  load();
  return {
    delay: () => {
      const date = hls.playingDate;
      return date === null ? undefined : (Date.now() - date.getTime()) / 1000;
    },
    stop: () => {
      stopped = true;
      clearTimeout(again);
      clearTimeout(standing);
      hls.destroy();
    },
  };
}

export function WatchPage({ room }: { room: string }) {
  const video = useRef<HTMLVideoElement>(null);
  const phase = useSignal<Phase>('starting');
  const delay = useSignal<number | undefined>(undefined);
  useEffect(() => {
    if (!video.current) return;
    const watching = watch(video.current, room, (next) => {
      phase.value = next;
    });
    const timer = setInterval(() => {
      void watching.then((one) => {
        delay.value = one.delay();
      });
    }, EVERY_MS);
    return () => {
      clearInterval(timer);
      void watching.then((one) => one.stop());
    };
  }, [room]);
  const words = WORDS[phase.value];
  return (
    <div class="watch">
      <header class="top-bar">
        <Mark />
        <h1>{room}</h1>
        <span class="spring" />
        {phase.value === 'playing' && delay.value !== undefined && (
          <span class="quiet" title="From the room to this screen" data-testid="watch-delay">
            {delay.value.toFixed(1)} s behind
          </span>
        )}
        <a class="button small accent" href={`/r/${encodeURIComponent(room)}`}>
          Join
        </a>
      </header>
      <main>
        <video ref={video} data-testid="watch-video" controls autoplay muted playsInline />
        <p role="status" class={words ? 'watch-words' : 'sr-only'} data-testid={`watch-${phase.value}`}>
          {words}
        </p>
      </main>
    </div>
  );
}
