/**
 * Before the room: how one looks and sounds, under which name, with which devices. Devices are never
 * required.
 */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { DeviceProblem, LocalMedia, presentIdentities } from '../client';
import { copyRoomLink } from './copy';
import { DevicePickers } from './devices';
import { Icon, Mark } from './icons';
import { Meter } from './meter';
import { cameraId, displayName, microphoneId, roomToken } from './prefs';
import { go } from './router';
import { ThemeButton } from './theme-button';
import { initialsOf } from './tile';

interface Props {
  room: string;
  onJoin: (identity: string, media: LocalMedia) => void;
}

const NAME_MAX = 64;

/** For those who give no name: four digits keep guests apart. */
const guestName = (): string => `Guest ${1000 + Math.floor(Math.random() * 9000)}`;

/** A name that nobody in the room has: the same identity would push the other one out. */
async function freeIdentity(room: string, name: string): Promise<string> {
  const taken = new Set(await presentIdentities({ base: location.origin, room, token: roomToken(room) }));
  for (let count = 2; taken.has(name); count += 1) {
    const next = `${name.replace(/ \d+$/, '').slice(0, NAME_MAX - 4)} ${count}`;
    if (!taken.has(next)) return next;
  }
  return name;
}

function Preview({ media, version, name }: { media: LocalMedia; version: number; name: string }) {
  const ref = useRef<HTMLVideoElement>(null);
  const camera = media.isOn('camera') ? (media.get('camera')?.track ?? null) : null;
  useEffect(() => {
    if (ref.current) ref.current.srcObject = camera ? new MediaStream([camera]) : null;
  }, [camera, version]);
  return (
    <>
      <video ref={ref} class="mirrored" hidden={!camera} muted autoplay playsInline />
      {!camera && (
        <span class={`avatar ${name ? '' : 'nobody'}`} aria-hidden="true">
          {initialsOf(name) || <Icon name="camera-off" />}
        </span>
      )}
    </>
  );
}

export function Prejoin({ room, onJoin }: Props) {
  const media = useRef(new LocalMedia()).current;
  const version = useSignal(0);
  const problems = useSignal<readonly DeviceProblem[]>([]);
  const joining = useSignal(false);
  const opening = useSignal(true);

  useEffect(() => {
    const stop = media.on('change', () => {
      version.value += 1;
    });
    let current = true;
    if (cameraId.value) media.chosen.camera = cameraId.value;
    if (microphoneId.value) media.chosen.microphone = microphoneId.value;
    void media.openBoth().then((found) => {
      opening.value = false;
      if (current) problems.value = found;
      else media.stop();
    });
    return () => {
      current = false;
      stop();
      // After joining nothing is left here to stop: the tracks were handed on.
      media.stop();
    };
  }, [media]);

  const attempt = async (action: Promise<void>, kind: 'camera' | 'microphone') => {
    const others = problems.value.filter((one) => one.kind !== kind);
    try {
      await action;
      problems.value = others;
    } catch (error) {
      if (error instanceof DeviceProblem) problems.value = [...others, error];
    }
  };
  const toggleMicrophone = () => void attempt(media.setMicrophone(!media.isOn('microphone')), 'microphone');
  const toggleCamera = () => void attempt(media.setCamera(!media.isOn('camera')), 'camera');
  const join = async () => {
    if (joining.value) return;
    joining.value = true;
    const name = displayName.value.trim() || guestName();
    onJoin(await freeIdentity(room, name), media);
  };

  void version.value;
  const microphone = media.get('microphone');
  const onMicrophone = media.isOn('microphone');
  const onCamera = media.isOn('camera');
  return (
    <div class="prejoin">
      <header class="bar">
        <button type="button" class="brand" onClick={() => go('/')}>
          <Mark /> Antiphon
        </button>
        <ThemeButton />
      </header>
      <main>
        <section class="preview-side" aria-label="Preview">
          <div class="preview">
            <Preview media={media} version={version.value} name={displayName.value} />
            {opening.value && <p class="preview-note">Asking for your camera and microphone…</p>}
            <div class="preview-buttons">
              <button
                type="button"
                class={`control ${onMicrophone ? '' : 'off'}`}
                data-testid="toggle-microphone"
                aria-pressed={onMicrophone}
                aria-label={onMicrophone ? 'Turn microphone off' : 'Turn microphone on'}
                onClick={toggleMicrophone}
              >
                <Icon name={onMicrophone ? 'mic' : 'mic-off'} />
              </button>
              <button
                type="button"
                class={`control ${onCamera ? '' : 'off'}`}
                data-testid="toggle-camera"
                aria-pressed={onCamera}
                aria-label={onCamera ? 'Turn camera off' : 'Turn camera on'}
                onClick={toggleCamera}
              >
                <Icon name={onCamera ? 'camera' : 'camera-off'} />
              </button>
            </div>
          </div>
          <Meter track={onMicrophone ? (microphone?.track ?? null) : null} />
          <Problems problems={problems.value} />
        </section>
        <section class="join-side" aria-label="Join">
          <p class="eyebrow">Joining</p>
          <h1 class="room-title">{room}</h1>
          <button type="button" class="text-button" onClick={() => void copyRoomLink(room)}>
            <Icon name="link" /> Copy the link to share
          </button>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void join();
            }}
          >
            <label class="field">
              <span>Your name</span>
              <input
                data-testid="display-name"
                autocomplete="nickname"
                maxLength={NAME_MAX}
                placeholder="How others see you"
                value={displayName.value}
                onInput={({ currentTarget }) => {
                  displayName.value = currentTarget.value;
                }}
              />
            </label>
            <button type="submit" class="button accent large" data-testid="join" disabled={joining.value}>
              {joining.value
                ? 'Joining…'
                : onCamera || onMicrophone
                  ? 'Join the room'
                  : 'Join without devices'}
            </button>
          </form>
          <DevicePickers
            version={version.value}
            onPick={(kind, id) => void attempt(media.choose(kind, id), kind)}
          />
        </section>
      </main>
    </div>
  );
}

/** One note for each trouble; the same trouble with both devices is told once. */
function Problems({ problems }: { problems: readonly DeviceProblem[] }) {
  const both = problems.length > 1 && problems.every(({ trouble }) => trouble === problems[0]?.trouble);
  const words = problems.map(({ kind, message }) =>
    both ? message.replace(kind, 'camera and microphone') : message,
  );
  return (
    <div role="alert">
      {[...new Set(words.slice(0, both ? 1 : undefined))].map((text) => (
        <p key={text} class="notice">
          <Icon name="alert" />
          <span>{text}</span>
        </p>
      ))}
    </div>
  );
}
