/**
 * What can go wrong between a client and its room, as one error type with a stable code and words to show.
 * The server's own words win; ours stand in where it sent none.
 */
import type { Challenge } from './payments';
import type { Code } from './protocol';

/** The server's codes, and those of failures that it never saw. */
export type RefusalCode = Code | 'unreachable' | 'no_media_path' | 'timeout' | 'disconnected';

const WORDS: Record<RefusalCode, string> = {
  malformed: 'The server could not read what was sent.',
  unknown_type: 'The server does not know this request. It may be older than this page.',
  too_large: 'That is too long to send.',
  rate_limited: 'That was too much at once. Wait a moment, then try again.',
  unauthorized: 'This room asks for a valid invitation.',
  payment_required: 'This costs money.',
  payout_missing: 'Nobody has said where the money is to go.',
  forbidden: 'You are not allowed to do this here.',
  not_found: 'There is nothing by that name any more.',
  room_exists: 'A room of this name exists already.',
  room_locked: 'The room is locked: nobody new gets in now.',
  room_full: 'The room is full.',
  room_private: 'The room is private: it opens to invited people only.',
  node_full: 'The server is full. Try again later.',
  draining: 'The server is about to restart. Try again in a minute.',
  bad_offer: 'The server cannot use what this browser offers.',
  unsupported_media_type: 'The server does not take this kind of request.',
  precondition_failed: 'The connection has changed in the meantime.',
  precondition_required: 'The connection has changed in the meantime.',
  end_to_end_encrypted: 'The room is encrypted end to end, so the server cannot mix it.',
  already_recording: 'The room is being recorded already.',
  consent_needed: 'In this room people are asked first, so the mix cannot be recorded.',
  wrong_offset: 'The upload went on elsewhere. Try again.',
  upload_busy: 'The upload is still being taken. Try again in a moment.',
  checksum_mismatch: 'The file was damaged on its way. Try again.',
  quota_exceeded: 'There is no room left for this file. Delete some first.',
  storage_full: 'The server has no space left. What arrived is kept; try again later.',
  gone: 'This is no longer here.',
  range_not_satisfiable: 'The file has no such part.',
  unavailable: 'This cannot be had right now.',
  internal: 'The server failed. The fault is noted in its log.',
  unreachable: 'The server cannot be reached. Check the network, then try again.',
  no_media_path:
    'The server answers, but no media gets through. A firewall may block its media ports (UDP 7882, TCP 7881).',
  timeout: 'The server took too long to answer.',
  disconnected: 'The connection was lost before the answer came.',
};

/** Something was refused or failed; `message` is fit to show. */
export class Refused extends Error {
  override readonly name = 'Refused';

  constructor(
    readonly code: RefusalCode,
    message?: string,
    /** What to pay, where that is what is missing. */
    readonly challenge?: Challenge,
  ) {
    super(message || WORDS[code]);
  }

  /** Trying again soon may help: the refusal is about the moment, not about us. */
  get passing(): boolean {
    return PASSING.has(this.code);
  }
}

const PASSING = new Set<RefusalCode>([
  'unreachable',
  'no_media_path',
  'timeout',
  'disconnected',
  'rate_limited',
  'unavailable',
  'upload_busy',
  'storage_full',
  'internal',
  'draining',
]);

function codeOfStatus(status: number): RefusalCode {
  if (status === 401) return 'unauthorized';
  if (status === 402) return 'payment_required';
  if (status === 403) return 'forbidden';
  if (status === 404) return 'not_found';
  if (status === 412) return 'precondition_failed';
  if (status === 413) return 'too_large';
  if (status === 429) return 'rate_limited';
  return status === 502 || status === 503 || status === 504 ? 'unavailable' : 'internal';
}

/** Reads a refusal from an `application/problem+json` body (RFC 9457), or from the bare status. */
export function refusalOf(status: number, body: string): Refused {
  try {
    const problem: unknown = JSON.parse(body);
    if (problem && typeof problem === 'object') {
      const { code, detail, title, invoice } = problem as Record<string, unknown>;
      const challenge = invoice ? (problem as unknown as Challenge) : undefined;
      const words = [detail, title].find((text) => typeof text === 'string' && text !== '');
      const known = typeof code === 'string' && code in WORDS ? (code as RefusalCode) : codeOfStatus(status);
      return new Refused(known, words as string | undefined, challenge);
    }
  } catch {
    // Not JSON: a proxy's page, perhaps. The status says enough.
  }
  return new Refused(codeOfStatus(status));
}

/** Any failure as a `Refused`, so that whoever shows it needs one case. */
export function asRefused(error: unknown): Refused {
  if (error instanceof Refused) return error;
  if (error instanceof DOMException && error.name === 'AbortError') return new Refused('timeout');
  if (error instanceof DOMException && error.name === 'TimeoutError') return new Refused('timeout');
  if (error instanceof TypeError) return new Refused('unreachable');
  return new Refused('internal', error instanceof Error ? error.message : undefined);
}
