/** A file that is played to all: how far it is, and for those who rule the room pause, seek and stop. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { type Playing, positionOf } from '../client';
import { Icon } from './icons';
import { readableTime } from './measures';
import type { Session } from './session';

/** How often the time that is shown goes on. */
const SHOW_MS = 500;

/** Where it is: counted from when this page heard of it, as clocks of machines differ. */
function usePosition(playing: Playing): number {
  const position = useSignal(playing.position_ms);
  useEffect(() => {
    const aheadMs = playing.at_ms - Date.now();
    const show = () => {
      position.value = positionOf(playing, Date.now(), aheadMs);
    };
    show();
    if (playing.paused) return;
    const timer = setInterval(show, SHOW_MS);
    return () => clearInterval(timer);
  }, [playing, position]);
  return position.value;
}

export function PlayerBar({ session, playing, name }: { session: Session; playing: Playing; name: string }) {
  const position = usePosition(playing);
  const { duration_ms: duration, paused, id } = playing;
  const { players } = session.room;
  const rules = session.grant.value.admin;
  const time =
    duration === undefined ? readableTime(position) : `${readableTime(position)} / ${readableTime(duration)}`;
  return (
    <div class="player-bar" data-testid="player" data-paused={paused ? '' : undefined}>
      {rules && (
        <button
          type="button"
          class="icon-button"
          data-testid="player-toggle"
          aria-label={paused ? `Go on with ${name}` : `Pause ${name}`}
          onClick={() => void session.attempt(players.change(id, { paused: !paused }))}
        >
          <Icon name={paused ? 'play' : 'pause'} />
        </button>
      )}
      {rules && duration !== undefined && (
        <input
          type="range"
          data-testid="player-seek"
          aria-label={`Where in ${name}`}
          aria-valuetext={time}
          min={0}
          max={duration}
          step={100}
          value={position}
          onChange={({ currentTarget }) =>
            void session.attempt(players.change(id, { position_ms: Number(currentTarget.value) }))
          }
        />
      )}
      <span class="player-time">{time}</span>
      {rules && (
        <button
          type="button"
          class="icon-button"
          data-testid="player-stop"
          aria-label={`Stop ${name}`}
          onClick={() => void session.attempt(players.stop(id))}
        >
          <Icon name="stop" />
        </button>
      )}
    </div>
  );
}
