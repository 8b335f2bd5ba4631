/** Copies a room's link, and says that it did. */
import { roomLink } from './router';
import { toast } from './toasts';

/** The clipboard is withheld outside secure contexts; a selected field is copied the old way there. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement('textarea');
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    return done;
  }
}

/** Where a room's stream is watched. */
export async function copyWatchLink(room: string, isPrivate: boolean): Promise<void> {
  const link = `${roomLink(room)}?watch=hls`;
  const words = isPrivate
    ? 'Link copied. It opens to who was invited.'
    : 'Link copied. Whoever has it can watch.';
  toast((await copy(link)) ? words : `The link is ${link}`);
}

export async function copyRoomLink(room: string): Promise<void> {
  const link = roomLink(room);
  toast((await copy(link)) ? 'Link copied. Send it to whoever should come.' : `The link is ${link}`);
}
