/**
 * The HTTP part: one POST to get in, PATCH to restart ICE, DELETE to leave. Everything else goes over the
 * `control` channel. Holds the session's address, which is a capability: it is never shown or logged.
 */

import type { Access } from './access';
import { asRefused, Refused, refusalOf } from './errors';

export interface Address {
  /** Where the API is; the page's own origin by default. */
  base: string;
  room: string;
  identity: string;
  /** What others see; the identity unless given. */
  name?: string | undefined;
  token?: string | undefined;
  /** All nodes of a cluster by which the room can be found, the one to try first in front. */
  ways?: string[];
  /** What the server gave us for the case that the room moves to another node. */
  seat?: string | undefined;
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
/** Where another node can be asked instead, one that hangs is not waited for. */
const JOIN_TIMEOUT_OTHERS_MS = 3_000;
const ALIVE_TIMEOUT_MS = 2_000;
const PATCH_TIMEOUT_MS = 4_000;
const ICE_SERVERS_TIMEOUT_MS = 2_000;
/** Of a picture of at most 1 MiB. */
const UPLOAD_TIMEOUT_MS = 30_000;

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
async function post(
  url: string,
  body: string,
  type: string,
  token: string | undefined,
  timeoutMs = JOIN_TIMEOUT_MS,
  seat?: string,
): Promise<Response> {
  const init = () => ({
    method: 'POST',
    body,
    headers: { ...headers(token, type), ...(seat && { 'Antiphon-Seat': seat }) },
    signal: AbortSignal.timeout(timeoutMs),
  });
  const response = await fetch(url, init());
  const elsewhere = response.redirected && new URL(response.url).origin !== new URL(url).origin;
  return response.status === 401 && token && elsewhere ? fetch(response.url, init()) : response;
}

function roomUrl(address: Pick<Address, 'base' | 'room'>): string {
  return `${address.base}/v1/rooms/${encodeURIComponent(address.room)}`;
}

/**
 * Where a room is asked about, and as whom: the session says who we are in the room. By the node that has the
 * session, which need not be the one that the page came from.
 */
export function accessTo(address: Address, session: Session | undefined): Access | undefined {
  if (!session) return undefined;
  const url = roomUrl({ base: new URL(session.url).origin, room: address.room });
  return { url, headers: { ...headers(address.token), 'Antiphon-Session': session.id } };
}

/** Offers to join, through the first node that answers. With `resume`, as that session's participant. */
export async function join(address: Address, offer: string, resume?: string): Promise<Joined> {
  address.ways ??= [address.base];
  let last = new Refused('unreachable');
  for (const way of [...address.ways]) {
    try {
      return await joinAt(way, address, offer, resume);
    } catch (error) {
      last = asRefused(error);
      if (last.code !== 'unreachable' && last.code !== 'timeout') throw last;
      // The next attempt begins with another.
      address.ways = [...address.ways.filter((one) => one !== way), way];
    }
  }
  throw last;
}

async function joinAt(way: string, address: Address, offer: string, resume?: string): Promise<Joined> {
  const query = new URLSearchParams({ identity: address.identity });
  if (address.name) query.set('name', address.name);
  if (resume) query.set('resume', resume);
  const url = `${roomUrl({ base: way, room: address.room })}/participants?${query}`;
  const timeoutMs = (address.ways?.length ?? 0) > 1 ? JOIN_TIMEOUT_OTHERS_MS : JOIN_TIMEOUT_MS;
  const response = await checked(
    await post(url, offer, 'application/sdp', address.token, timeoutMs, address.seat),
  );
  const location = response.headers.get('Location');
  if (!location) throw new Refused('internal', 'The server named no session.');
  const session = new URL(location, response.url || url);
  address.seat = response.headers.get('Antiphon-Seat') ?? undefined;
  learnWays(address, session.origin, response.headers.get('Antiphon-Nodes'));
  const id = session.pathname.split('/').pop() ?? '';
  const etag = response.headers.get('ETag') ?? '*';
  return { session: { url: session.href, id, etag }, answer: await response.text() };
}

/** What the server tells of other nodes stands behind the way that worked; only web addresses are taken. */
export function learnWays(address: Address, home: string, told: string | null): void {
  const others = (told ?? '').split(',').map((text) => text.trim());
  const nodes = others.filter((url) => /^https?:\/\/[^/]+$/.test(url));
  const known = address.ways ?? [address.base];
  address.ways = [...new Set([...known, ...nodes, ...(nodes.length > 0 ? [home] : [])])];
}

/** Whether the session's node answers at all. */
export async function nodeLives(session: Session): Promise<boolean> {
  try {
    const url = new URL('/healthz', session.url);
    const init = { signal: AbortSignal.timeout(ALIVE_TIMEOUT_MS), cache: 'no-store' as const };
    return (await fetch(url, init)).ok;
  } catch {
    return false;
  }
}

/** STUN and TURN servers to put into `RTCConfiguration` before an offer is made. @throws Refused */
export async function iceServers(address: Address): Promise<RTCIceServer[]> {
  try {
    const answer = await fetch(`${roomUrl(address)}/ice-servers`, {
      headers: headers(address.token),
      signal: AbortSignal.timeout(ICE_SERVERS_TIMEOUT_MS),
    });
    return (await (await checked(answer)).json()).ice_servers;
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

/** Puts a picture behind the tiles of the mix, a PNG or JPEG, or takes it away. @throws Refused */
export async function setBackdrop(
  address: Address,
  session: Session | undefined,
  picture: Blob | undefined,
): Promise<void> {
  if (!session) throw new Refused('disconnected');
  const url = `${roomUrl({ base: new URL(session.url).origin, room: address.room })}/backdrop`;
  try {
    await checked(
      await fetch(url, {
        method: picture ? 'PUT' : 'DELETE',
        body: picture ?? null,
        headers: { ...headers(address.token, picture?.type), 'Antiphon-Session': session.id },
        signal: AbortSignal.timeout(UPLOAD_TIMEOUT_MS),
      }),
    );
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
