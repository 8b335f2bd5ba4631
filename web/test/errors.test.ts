/** Refusals: the server's words where it has some, clear ones where it has not. */
import { expect, test } from 'vitest';
import { asRefused, Refused, refusalOf } from '../src/client/errors';

test('a problem document gives its code and its words', () => {
  const body = JSON.stringify({ type: 'about:blank', code: 'room_locked', detail: 'The room is locked.' });
  expect(refusalOf(423, body)).toMatchObject({ code: 'room_locked', message: 'The room is locked.' });
});

test('a code of a newer server falls back to the status, and keeps its words', () => {
  const refused = refusalOf(403, '{"code":"too_tall","detail":"Mind your head."}');
  expect(refused).toMatchObject({ code: 'forbidden', message: 'Mind your head.' });
});

test('a proxy’s page is never shown', () => {
  const refused = refusalOf(502, '<html><h1>Bad gateway</h1></html>');
  expect(refused.code).toBe('unavailable');
  expect(refused.message).not.toContain('<');
});

test('a failed fetch is an unreachable server; an aborted one took too long', () => {
  expect(asRefused(new TypeError('Failed to fetch')).code).toBe('unreachable');
  expect(asRefused(new DOMException('x', 'TimeoutError')).code).toBe('timeout');
  const refused = new Refused('room_full');
  expect(asRefused(refused)).toBe(refused);
});

test('what is worth trying again is told from what is not', () => {
  expect(new Refused('unreachable').passing).toBe(true);
  for (const code of ['room_locked', 'forbidden', 'unauthorized', 'bad_offer'] as const) {
    expect(new Refused(code).passing).toBe(false);
  }
});
