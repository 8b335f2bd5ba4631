/**
 * What the browser remembers between visits, and per tab. A browser that refuses storage forgets; nothing
 * fails.
 */
import { signal } from '@preact/signals';

function read(storage: () => Storage, key: string): string | undefined {
  try {
    return storage().getItem(key) ?? undefined;
  } catch {
    return undefined;
  }
}

function write(storage: () => Storage, key: string, value: string): void {
  try {
    storage().setItem(key, value);
  } catch {
    // Storage is full or refused: the value lives as long as the page.
  }
}

const forever = () => localStorage;
const thisTab = () => sessionStorage;

/** A remembered string as a signal. */
function remembered(key: string, fallback: string) {
  const value = signal(read(forever, `antiphon.${key}`) ?? fallback);
  return {
    get value() {
      return value.value;
    },
    set value(next: string) {
      value.value = next;
      write(forever, `antiphon.${key}`, next);
    },
  };
}

export const displayName = remembered('name', '');
export const cameraId = remembered('camera', '');
export const microphoneId = remembered('microphone', '');
export const speakerId = remembered('speaker', '');
/** `auto` follows the system. */
export const theme = remembered('theme', 'auto');
/** `open`, `closed`, or empty for what the window's width suggests. */
export const sidePanel = remembered('panel', '');

/** The token that this tab holds for a room. */
export const roomToken = (room: string): string | undefined =>
  read(thisTab, `antiphon.token.${room}`) || undefined;
export const keepRoomToken = (room: string, token: string): void =>
  write(thisTab, `antiphon.token.${room}`, token);
/**
 * By what this browser is known as the one who paid for a room. It stays: the paid time may outlast the
 * tab.
 */
export const roomClaim = (room: string): { viewer: string; claim: string } | undefined => {
  const [viewer, claim] = (read(forever, `antiphon.claim.${room}`) ?? '').split(' ');
  return viewer && claim ? { viewer, claim } : undefined;
};
export const keepRoomClaim = (room: string, viewer: string, claim: string): void =>
  write(forever, `antiphon.claim.${room}`, `${viewer} ${claim}`);
export const forgetRoomToken = (room: string): void => keepRoomToken(room, '');
