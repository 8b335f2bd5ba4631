/** Plays the audio slots, and asks for a press where the browser wants one before any sound. */
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { Icon } from './icons';
import { speakerId } from './prefs';
import type { Session } from './session';

/** The browser keeps back sound until the person presses something. */
const blocked = signal(false);

function Voice({ track }: { track: MediaStreamTrack }) {
  const ref = useRef<HTMLAudioElement>(null);
  const sink = speakerId.value;
  useEffect(() => {
    const audio = ref.current;
    if (!audio) return;
    audio.srcObject = new MediaStream([track]);
    const play = () => {
      audio.play().then(
        () => {
          blocked.value = false;
        },
        (error: unknown) => {
          blocked.value ||= error instanceof DOMException && error.name === 'NotAllowedError';
        },
      );
    };
    play();
    const retry = () => {
      if (audio.paused) play();
    };
    addEventListener('pointerup', retry);
    addEventListener('keyup', retry);
    return () => {
      removeEventListener('pointerup', retry);
      removeEventListener('keyup', retry);
      audio.srcObject = null;
    };
  }, [track]);
  useEffect(() => {
    // Absent in some browsers; the chosen speaker may be gone.
    if (sink) ref.current?.setSinkId?.(sink).catch(() => undefined);
  }, [sink]);
  // biome-ignore lint/a11y/useMediaCaption: live voices have no captions
  return <audio ref={ref} autoplay />;
}

export function Voices({ session }: { session: Session }) {
  void session.slots.value;
  const slots = session.room.slots.all.filter(({ kind }) => kind === 'audio');
  return (
    <>
      {slots.map(({ mid, track }) => (
        <Voice key={`${mid} ${track.id}`} track={track} />
      ))}
      {blocked.value && (
        <button type="button" class="unlock-sound">
          <Icon name="sound" /> Turn the sound on
        </button>
      )}
    </>
  );
}
