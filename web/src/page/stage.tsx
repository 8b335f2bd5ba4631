/** The stage: chooses the tiles and their places, and tells the room how large each one is shown. */
import { useSignal } from '@preact/signals';
import { useCallback, useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import { MIXER, type View, viewKey } from '../client';
import { MixTile } from './mix-tile';
import type { Session } from './session';
import { Tile, type TileItem } from './tile';
import { type Arrangement, focus, grid, linesFor, type Rect, type Size } from './tiling';

/** Screens first, then people as they came, then oneself. */
function itemsOf(session: Session): TileItem[] {
  const me = session.me.value;
  void session.local.value;
  const screens: TileItem[] = [];
  const people: TileItem[] = [];
  for (const { identity, tracks, playing } of session.participants.value.values()) {
    const self = identity === me;
    const sharing = self
      ? session.room.local.isOn('screen')
      : tracks.some((track) => track.source === 'screen' && !track.muted);
    const item = (source: 'screen' | 'camera'): TileItem => ({
      key: viewKey(identity, source),
      participant: identity,
      source,
      self,
    });
    if (sharing) screens.push(item('screen'));
    // A film is no more than its picture.
    if (!playing || !sharing) people.push(item('camera'));
  }
  people.sort((a, b) => Number(a.self) - Number(b.self));
  return [...screens, ...people];
}

/** The tile to show big, if any: the pinned one, a screen, or in the speaker view who spoke last. */
function focusOf(session: Session, items: readonly TileItem[]): TileItem | undefined {
  const pinned = items.find((item) => item.key === session.pinned.value);
  if (pinned) return pinned;
  const view = session.view.value;
  if (view === 'grid') return undefined;
  const screen = items.find((item) => item.source === 'screen' && !item.self);
  if (screen) return screen;
  if (view !== 'speaker') return undefined;
  const speaker = items.find((item) => item.participant === session.dominant.value);
  return speaker ?? items.find((item) => !item.self) ?? items[0];
}

/** Brings who speaks into the part of the strip that is shown, in place of the last one there. */
function withSpeakerShown(session: Session, items: TileItem[], shown: number): TileItem[] {
  const at = items.findIndex((item) => item.participant === session.dominant.value);
  if (at < shown || shown < 2) return items;
  const copy = [...items];
  const [speaker] = copy.splice(at, 1);
  if (speaker) copy.splice(shown - 1, 0, speaker);
  return copy;
}

interface Placed {
  item: TileItem;
  rect: Rect;
  big: boolean;
}

interface Placement {
  placed: readonly Placed[];
  hidden: number;
  height: number;
}

function place(session: Session, stage: Size): Placement {
  const all = itemsOf(session);
  const big = focusOf(session, all);
  let items = big ? [big, ...all.filter((item) => item !== big)] : all;
  const { rects, height }: Arrangement = big ? focus(stage, items.length) : grid(stage, items.length);
  if (big) items = withSpeakerShown(session, items, rects.length);
  const placed = rects.flatMap((rect, at) => {
    const item = items[at];
    return item ? [{ item, rect, big: item === big }] : [];
  });
  // Drawn in a steady order, whatever the places, so that no video element is moved.
  placed.sort((a, b) => (a.item.key < b.item.key ? -1 : 1));
  return { placed, hidden: items.length - placed.length, height };
}

export function Stage({ session }: { session: Session }) {
  const ref = useRef<HTMLElement>(null);
  const size = useSignal<Size>({ width: 0, height: 0 });
  const scroll = useSignal(0);
  useLayoutEffect(() => {
    const stage = ref.current;
    if (!stage) return;
    const measure = () => {
      const { clientWidth: width, clientHeight: height } = stage;
      size.value = { width, height };
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(stage);
    return () => observer.disconnect();
  }, [size]);

  void session.slots.value;
  const { mix } = session.room.slots;
  const { placement, onPicture } = usePlacement(session, size.value, mix !== undefined);
  const { placed, hidden, height } = placement;
  const top = scroll.value;
  const seen = ({ rect }: Placed) => rect.y + rect.height > top && rect.y < top + size.value.height;
  useViews(session, mix ? [viewOfMix(size.value)] : viewsOf(session, placed.filter(seen)));

  return (
    <section
      ref={ref}
      class={`stage ${height > size.value.height + 1 ? 'scrolls' : ''}`}
      aria-label="People and screens"
      onScroll={({ currentTarget }) => {
        // Quarter-tile steps are fine enough to tell what is in view.
        scroll.value = Math.round(currentTarget.scrollTop / 40) * 40;
      }}
    >
      <div class="stage-floor" style={{ height: `${height}px` }}>
        {mix && (
          <MixTile
            slot={mix}
            rect={{ x: 0, y: 0, ...size.value }}
            covered={placed.length > 0}
            onPicture={onPicture}
          />
        )}
        {placed.map((one) => (
          <Tile
            key={one.item.key}
            session={session}
            item={one.item}
            rect={one.rect}
            big={one.big}
            visible={seen(one)}
            held={mix !== undefined}
          />
        ))}
      </div>
      {hidden > 0 && <p class="stage-more">+{hidden} more</p>}
    </section>
  );
}

/**
 * Where the tiles of people are: nowhere in a mixed room, but as they were last until the mix has a picture,
 * so that nothing goes black meanwhile.
 */
function usePlacement(session: Session, stage: Size, mixed: boolean) {
  const pictured = useSignal(false);
  const last = useRef<Placement>(undefined);
  useLayoutEffect(() => {
    if (!mixed) pictured.value = false;
  }, [mixed, pictured]);
  const onPicture = useCallback(() => {
    pictured.value = true;
  }, [pictured]);
  if (!mixed) last.current = place(session, stage);
  else if (pictured.value) last.current = undefined;
  const nobody: Placement = { placed: [], hidden: 0, height: stage.height };
  return { placement: last.current ?? nobody, onPicture };
}

function viewsOf(session: Session, seen: readonly Placed[]): View[] {
  return seen.flatMap(({ item: { participant, source, self }, rect, big }) => {
    if (self || !session.hasTrack(participant, source)) return [];
    const screen = source === 'screen';
    const height = linesFor(rect, devicePixelRatio, screen);
    return { participant, source, height, pin: big || screen };
  });
}

function viewOfMix(stage: Size): View {
  return { participant: MIXER, source: 'mix', height: linesFor(stage, devicePixelRatio, true), pin: false };
}

/** Keeps the room's views in step with what is seen. */
function useViews(session: Session, views: readonly View[]): void {
  const shown = useRef(new Map<string, View>());
  useEffect(() => {
    const now = new Map(views.map((view) => [viewKey(view.participant, view.source), view]));
    for (const view of views) session.room.show(view);
    for (const [key, { participant, source }] of shown.current) {
      if (!now.has(key)) session.room.hide(participant, source);
    }
    shown.current = now;
  });
}
