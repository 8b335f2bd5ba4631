/** The tile of a mixed room: one picture of everyone, with their names in it. */
import { useEffect, useRef } from 'preact/hooks';
import { MIXER, type Slot } from '../client';
import { Icon } from './icons';
import { placeOf, Video } from './tile';
import type { Rect } from './tiling';

/** Of a mix whose pictures do not come, the tile is shown without. */
const WAIT_MAX_MS = 2_000;
/** The first picture may be the last of what the slot carried before. */
const PICTURES_MIN = 2;

interface Props {
  slot: Slot;
  rect: Rect;
  /** Other tiles are shown over this one until it has a picture. */
  covered: boolean;
  onPicture: () => void;
}

export function MixTile({ slot, rect, covered, onPicture }: Props) {
  const ref = useRef<HTMLElement>(null);
  const { track, paused } = slot;
  useEffect(() => {
    const video = ref.current?.querySelector('video');
    const timer = setTimeout(onPicture, WAIT_MAX_MS);
    const stop = video ? whenPlaying(video, onPicture) : undefined;
    return () => {
      clearTimeout(timer);
      stop?.();
    };
  }, [track, onPicture]);
  return (
    <article
      ref={ref}
      class={`tile mix ${covered ? 'covered' : ''}`}
      data-testid="tile"
      data-participant={MIXER}
      data-source="mix"
      aria-label="Everyone, mixed"
      style={placeOf(rect)}
    >
      <Video track={track} mirrored={false} whole />
      {paused && (
        <p class="tile-note">
          <Icon name="signal" /> Picture paused: little bandwidth
        </p>
      )}
    </article>
  );
}

/** Calls back once pictures of this stream are on screen; gives what ends the wait. */
function whenPlaying(video: HTMLVideoElement, call: () => void): () => void {
  if (!('requestVideoFrameCallback' in video)) {
    const element: HTMLElement = video;
    element.addEventListener('loadeddata', call, { once: true });
    return () => element.removeEventListener('loadeddata', call);
  }
  let seen = 0;
  let handle = 0;
  const wait = () => {
    handle = video.requestVideoFrameCallback(() => {
      seen += 1;
      if (seen < PICTURES_MIN) wait();
      else call();
    });
  };
  wait();
  return () => video.cancelVideoFrameCallback(handle);
}
