/** One tile: somebody's camera or screen, or their initials; name, muted and hand marks; the frame of who speaks. */
import { useEffect, useRef } from 'preact/hooks';
import type { Identity, Source } from '../client';
import { Icon } from './icons';
import { PlayerBar } from './player';
import type { Session } from './session';
import type { Rect } from './tiling';

export interface TileItem {
  key: string;
  participant: Identity;
  source: Source;
  self: boolean;
}

interface Props {
  session: Session;
  item: TileItem;
  rect: Rect;
  /** Scrolled into view: only then is a video decoded. */
  visible: boolean;
  big: boolean;
  /** Shown as it was last, though its slot carries the mix by now. */
  held?: boolean;
}

/** Shows a track; the element lives as long as its tile, only its stream changes. */
export function Video({
  track,
  mirrored,
  whole,
}: {
  track: MediaStreamTrack;
  mirrored: boolean;
  whole: boolean;
}) {
  const ref = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const video = ref.current;
    if (!video) return;
    video.srcObject = new MediaStream([track]);
    video.play().catch(() => undefined);
    return () => {
      video.srcObject = null;
    };
  }, [track]);
  const look = `${mirrored ? 'mirrored ' : ''}${whole ? 'whole' : ''}`;
  return <video ref={ref} class={look} muted autoplay playsInline disablePictureInPicture={false} />;
}

function trackOf(session: Session, { participant, source, self }: TileItem): MediaStreamTrack | undefined {
  if (self) {
    void session.local.value;
    const local = session.room.local.get(source);
    return local && !local.muted && local.track ? local.track : undefined;
  }
  void session.slots.value;
  if (!session.hasTrack(participant, source)) return undefined;
  return session.room.slots.find(participant, source)?.track;
}

const px = (value: number): string => `${value.toFixed(1)}px`;

export function placeOf({ x, y, width, height }: Rect) {
  return { left: px(x), top: px(y), width: px(width), height: px(height) };
}

/** A hue for a name, the same on every page. */
function hueOf(name: string): number {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + (char.codePointAt(0) ?? 0)) % 360;
  return hash;
}

export function initialsOf(name: string): string {
  const words = name
    .trim()
    .split(/[\s._-]+/)
    .filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters
    .map((word) => [...(word ?? '')][0] ?? '')
    .join('')
    .toUpperCase();
}

export function Avatar({ name }: { name: string }) {
  return (
    <span class="avatar" style={{ '--hue': hueOf(name) }} aria-hidden="true">
      {initialsOf(name)}
    </span>
  );
}

export function Tile({ session, item, rect, visible, big, held = false }: Props) {
  const { participant, source, self } = item;
  const person = session.participants.value.get(participant);
  const name = person?.name ?? participant;
  const screen = source === 'screen';
  const speaking = !screen && session.speakers.value.includes(participant);
  const muted =
    !screen &&
    !person?.playing &&
    !(self ? microphoneOn(session) : session.hasTrack(participant, 'microphone'));
  const last = useRef<MediaStreamTrack>(undefined);
  const track = held ? last.current : trackOf(session, item);
  last.current = track;
  // Until its first picture, the avatar is seen through a video: no tile is black.
  const shown = visible ? track : undefined;
  const paused =
    !self && track !== undefined && session.room.slots.find(participant, source)?.paused === true;
  const pinned = session.pinned.value === item.key;
  const reaction = screen
    ? undefined
    : session.reactions.value.findLast((one) => one.identity === participant);
  const playing = person?.playing;
  const label = screen && !playing ? `${self ? 'Your' : `${name}’s`} screen` : self ? `${name} (you)` : name;
  const togglePin = () => {
    session.pinned.value = pinned ? undefined : item.key;
  };
  const classes = ['tile', speaking && 'speaking', screen && 'screen', big && 'big', !visible && 'unseen'];
  return (
    <article
      class={classes.filter(Boolean).join(' ')}
      data-testid="tile"
      data-participant={participant}
      data-source={source}
      data-self={self ? '' : undefined}
      aria-label={label}
      style={placeOf(rect)}
      onDblClick={togglePin}
    >
      {!(screen && shown) && <Avatar name={name} />}
      {shown && <Video track={shown} mirrored={self && !screen} whole={screen} />}
      {paused && (
        <p class="tile-note">
          <Icon name="signal" /> Picture paused: little bandwidth
        </p>
      )}
      {person && !person.connected && <p class="tile-note">Connection lost, waiting…</p>}
      {person?.hand_raised && !screen && (
        <span class="tile-hand" title={`${name} raised a hand`}>
          <Icon name="hand" />
          <span class="sr-only">Hand raised</span>
        </span>
      )}
      {reaction && (
        <span key={reaction.key} class="tile-reaction">
          {reaction.emoji}
        </span>
      )}
      <footer>
        {muted && (
          <span class="tile-muted">
            <Icon name="mic-off" />
            <span class="sr-only">Muted</span>
          </span>
        )}
        {screen && <Icon name={playing ? 'play' : 'screen'} />}
        <span class="tile-name">{label}</span>
      </footer>
      {playing && <PlayerBar session={session} playing={playing} name={name} />}
      <button
        type="button"
        class="icon-button tile-pin"
        aria-pressed={pinned}
        aria-label={pinned ? `Unpin ${label}` : `Pin ${label}`}
        onClick={togglePin}
      >
        <Icon name="pin" />
      </button>
    </article>
  );
}

function microphoneOn(session: Session): boolean {
  void session.local.value;
  return session.room.local.isOn('microphone');
}
