/** The front page: name a room, or have one named. */
import { useSignal } from '@preact/signals';
import { asRefused, createRoom } from '../client';
import { Icon, Mark } from './icons';
import { keepRoomToken } from './prefs';
import { go, isRoomName, roomNameFrom } from './router';
import { ThemeButton } from './theme-button';
import { sentence } from './toasts';

export function Home() {
  const name = useSignal('');
  const trouble = useSignal('');
  const busy = useSignal(false);

  const join = () => {
    const room = roomNameFrom(name.value);
    if (isRoomName(room)) go(`/r/${room}`);
    else trouble.value = 'A room’s name has 3 to 64 letters, digits, dashes or underscores.';
  };
  const generate = async () => {
    busy.value = true;
    trouble.value = '';
    try {
      const made = await createRoom(location.origin);
      keepRoomToken(made.name, made.owner_token);
      go(`/r/${encodeURIComponent(made.name)}`);
    } catch (error) {
      trouble.value = sentence(asRefused(error).message);
    } finally {
      busy.value = false;
    }
  };
  return (
    <div class="home">
      <header class="bar">
        <span class="brand">
          <Mark /> Antiphon
        </span>
        <ThemeButton />
      </header>
      <main>
        <div class="hero-mark">
          <Mark />
        </div>
        <h1>
          Name a room. <br />
          Share the link. Talk.
        </h1>
        <p class="lead">Video calls on a server of your own. No account, nothing to install.</p>
        <form
          class="room-form"
          onSubmit={(event) => {
            event.preventDefault();
            join();
          }}
        >
          <label class="room-name">
            <span class="sr-only">Room name</span>
            <span class="room-prefix" aria-hidden="true">
              /r/
            </span>
            <input
              data-testid="room-name"
              placeholder="team-breakfast"
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
              maxLength={200}
              aria-describedby={trouble.value ? 'room-trouble' : undefined}
              aria-invalid={trouble.value !== ''}
              value={name}
              onInput={({ currentTarget }) => {
                name.value = currentTarget.value;
                trouble.value = '';
              }}
            />
          </label>
          <button type="submit" class="button accent large" data-testid="join">
            Join <Icon name="arrow" />
          </button>
        </form>
        <p class="or">
          or
          <button
            type="button"
            class="text-button"
            data-testid="generate-room"
            disabled={busy.value}
            onClick={() => void generate()}
          >
            <Icon name="dice" /> {busy.value ? 'Making a room…' : 'make me a new room'}
          </button>
        </p>
        <p class="trouble" id="room-trouble" role="alert">
          {trouble.value}
        </p>
      </main>
    </div>
  );
}
