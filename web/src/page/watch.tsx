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
/** A stream that is not there yet is asked for again after this. */
const AGAIN_MS = 2_000;

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
  hls.on(Hls.Events.ERROR, (_, data) => {
    if (!data.fatal) return;
    const status = data.response?.code ?? 0;
    if (status === 401 || status === 403) return tell('refused');
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR) return hls.recoverMediaError();
    tell('starting');
    clearTimeout(again);
    again = setTimeout(() => hls.loadSource(url), AGAIN_MS);
  });
  hls.on(Hls.Events.BUFFERED_TO_END, () => tell('ended'));
  video.addEventListener('playing', () => tell('playing'));
  hls.attachMedia(video);
  hls.loadSource(url);
  return {
    delay: () => {
      const date = hls.playingDate;
      return date === null ? undefined : (Date.now() - date.getTime()) / 1000;
    },
    stop: () => {
      clearTimeout(again);
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
