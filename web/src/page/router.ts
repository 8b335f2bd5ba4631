/** Which page the address names, and going to another without loading anew. */
import { signal } from '@preact/signals';
import type { ContentRef } from '../client';

export type Route =
  | { page: 'home' }
  | { page: 'room'; room: string }
  | { page: 'content'; room: string; content: ContentRef };

/** As the server checks it: 3 to 64 letters, digits, `-` and `_`. */
export const isRoomName = (name: string): boolean => /^[A-Za-z0-9_-]{3,64}$/.test(name);

/** What somebody typed, as a name: an address of a room stands for its name, spaces become dashes. */
export function roomNameFrom(typed: string): string {
  const fromAddress = /\/r\/([^/?#]+)/.exec(typed)?.[1];
  return (fromAddress ?? typed).trim().replace(/\s+/g, '-');
}

function routeOf(path: string): Route {
  const [, where, kind, id] = /^\/r\/([^/]+)\/(recordings|files)\/([^/]+)\/?$/.exec(path) ?? [];
  if (where && kind && id) {
    const content = { kind: kind as ContentRef['kind'], id: decodeURIComponent(id) };
    return { page: 'content', room: decodeURIComponent(where), content };
  }
  const room = /^\/r\/([^/]+)\/?$/.exec(path)?.[1];
  return room ? { page: 'room', room: decodeURIComponent(room) } : { page: 'home' };
}

export const route = signal<Route>(routeOf(location.pathname));

export function go(path: string): void {
  history.pushState(null, '', path);
  route.value = routeOf(location.pathname);
}

addEventListener('popstate', () => {
  route.value = routeOf(location.pathname);
});

export const roomLink = (room: string): string => `${location.origin}/r/${encodeURIComponent(room)}`;

export const contentLink = (room: string, { kind, id }: ContentRef): string =>
  `${roomLink(room)}/${kind}/${encodeURIComponent(id)}`;
