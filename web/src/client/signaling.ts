/**
 * The HTTP part: one POST to get in, PATCH to restart ICE, DELETE to leave. Everything else goes over the
 * `control` channel. Holds the session's address, which is a capability: it is never shown or logged.
 */
import { asRefused, Refused, refusalOf } from './errors';
import type { Access } from './uploads';

export interface Address {
  /** Where the API is; the page's own origin by default. */
  base: string;
  room: string;
  identity: string;
  /** What others see; the identity unless given. */
  name?: string | undefined;
  token?: string | undefined;
}

/** A joined session, as its `Location` and `ETag` name it. */
export interface Session {
  url: string;
  /** Last segment of `url`: what `?resume=` takes. */
  id: string;
  etag: string;
}

export interface Joined {
  session: Session;
  answer: string;
}

const JOIN_TIMEOUT_MS = 10_000;
const PATCH_TIMEOUT_MS = 4_000;

function headers(token: string | undefined, type?: string): Record<string, string> {
  return {
    ...(type && { 'Content-Type': type }),
    ...(token && { Authorization: `Bearer ${token}` }),
  };
}

async function checked(response: Response): Promise<Response> {
  if (response.ok) return response;
  throw refusalOf(response.status, await response.text().catch(() => ''));
}

/**
 * Posts, following 307 to another node. Browsers drop `Authorization` when a redirect leaves the origin, so a
 * refusal from there is asked once more, directly.
 */
async function post(url: string, body: string, type: string, token: string | undefined): Promise<Response> {
  const init = () => ({
    method: 'POST',
    body,
    headers: headers(token, type),
    signal: AbortSignal.timeout(JOIN_TIMEOUT_MS),
  });
  const response = await fetch(url, init());
  const elsewhere = response.redirected && new URL(response.url).origin !== new URL(url).origin;
  return response.status === 401 && token && elsewhere ? fetch(response.url, init()) : response;
}

function roomUrl(address: Pick<Address, 'base' | 'room'>): string {
  return `${address.base}/v1/rooms/${encodeURIComponent(address.room)}`;
}

/**
 * Where files or recordings are sent and fetched, and as whom: the session says who we are in the room. By the
 * node that has the session, which need not be the one that the page came from.
 */
export function accessTo(
  what: 'files' | 'recordings',
  address: Address,
  session: Session | undefined,
): Access | undefined {
  if (!session) return undefined;
  const url = `${roomUrl({ base: new URL(session.url).origin, room: address.room })}/${what}`;
  return { url, headers: { ...headers(address.token), 'Antiphon-Session': session.id } };
}

/** Offers to join. With `resume`, as the participant of that earlier session. */
export async function join(address: Address, offer: string, resume?: string): Promise<Joined> {
  const query = new URLSearchParams({ identity: address.identity });
  if (address.name) query.set('name', address.name);
  if (resume) query.set('resume', resume);
  try {
    const url = `${roomUrl(address)}/participants?${query}`;
    const response = await checked(await post(url, offer, 'application/sdp', address.token));
    const location = response.headers.get('Location');
    if (!location) throw new Refused('internal', 'The server named no session.');
    const session = new URL(location, response.url || url);
    const id = session.pathname.split('/').pop() ?? '';
    const etag = response.headers.get('ETag') ?? '*';
    return { session: { url: session.href, id, etag }, answer: await response.text() };
  } catch (error) {
    throw asRefused(error);
  }
}

/** Tells of new ICE credentials; gives the server's, and moves the session's `etag` on. */
export async function restartIce(session: Session, fragment: string, token?: string): Promise<string> {
  try {
    const response = await checked(
      await fetch(session.url, {
        method: 'PATCH',
        body: fragment,
        headers: { ...headers(token, 'application/trickle-ice-sdpfrag'), 'If-Match': '"*"' },
        signal: AbortSignal.timeout(PATCH_TIMEOUT_MS),
      }),
    );
    session.etag = response.headers.get('ETag') ?? session.etag;
    return await response.text();
  } catch (error) {
    throw asRefused(error);
  }
}

/** Says goodbye. Outlives the page that says it, and needs no answer. */
export async function leave(session: Session, token?: string): Promise<void> {
  await fetch(session.url, { method: 'DELETE', headers: headers(token), keepalive: true }).catch(
    () => undefined,
  );
}

export interface NewRoom {
  name: string;
  url: string;
  owner_token: string;
}

/** Makes a room; without a name the server finds a sayable one. */
export async function createRoom(base: string, name?: string): Promise<NewRoom> {
  try {
    const body = JSON.stringify(name ? { name } : {});
    const response = await checked(await post(`${base}/v1/rooms`, body, 'application/json', undefined));
    return (await response.json()) as NewRoom;
  } catch (error) {
    throw asRefused(error);
  }
}

/** Who is in a room now, where the server tells; undefined where it does not. */
export async function presentIdentities(
  address: Pick<Address, 'base' | 'room' | 'token'>,
): Promise<string[] | undefined> {
  try {
    const init = { headers: headers(address.token), signal: AbortSignal.timeout(3000) };
    const response = await fetch(`${roomUrl(address)}/participants?or_empty=true`, init);
    const people: unknown = response.ok ? await response.json() : undefined;
    const list = Array.isArray(people) ? people : (people as { participants?: unknown })?.participants;
    if (!Array.isArray(list)) return undefined;
    return list.filter((one) => one.connected !== false).map((one) => String(one.identity));
  } catch {
    return undefined;
  }
}
