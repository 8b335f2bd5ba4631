/**
 * Requests about a room as whoever is in it: files, recordings, players, streams. They go to the node that
 * has the session, and what they fail by is always a {@link Refused}.
 */
import { asRefused, Refused, refusalOf } from './errors';

/** Where a room is asked about and as whom, as it is now. */
export interface Access {
  /** `/v1/rooms/{room}`, in full. */
  url: string;
  headers: Record<string, string>;
}

/** `path` is below the room. Without access one is not in the room. @throws Refused */
export async function ask(
  access: Access | undefined,
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
  path: string,
  body?: object,
): Promise<Response> {
  if (!access) throw new Refused('disconnected');
  const type = body && { 'Content-Type': 'application/json' };
  const init = { method, headers: { ...access.headers, ...type } };
  try {
    const response = await fetch(
      `${access.url}/${path}`,
      body ? { ...init, body: JSON.stringify(body) } : init,
    );
    if (response.ok) return response;
    throw refusalOf(response.status, await response.text().catch(() => ''));
  } catch (error) {
    throw asRefused(error);
  }
}

/** The address that a `…/link` gives, in full; it holds for some minutes. @throws Refused */
export async function linkTo(access: Access | undefined, path: string): Promise<string> {
  const response = await ask(access, 'POST', `${path}/link`);
  const { url } = (await response.json()) as { url: string };
  return new URL(url, response.url).href;
}
