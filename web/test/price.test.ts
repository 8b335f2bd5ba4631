/** Prices and times in words, and refusals that say what to pay. */
import { expect, test } from 'vitest';
import { refusalOf } from '../src/client/errors';
import { countdown, periodWords, priceWords, sats } from '../src/page/price';

test('sums and periods read well', () => {
  expect(sats(1)).toBe('1 sat');
  expect(sats(1_234_567)).toBe('1,234,567 sats');
  expect(priceWords({ fiat: { currency: 'EUR', cents: 505 } })).toBe('5.05 EUR');
  expect(periodWords({ months: 1 })).toBe('one month');
  expect(periodWords({ minutes: 90 })).toBe('90 minutes');
});

test('a countdown never goes below nothing', () => {
  expect(countdown(-5)).toBe('0:00');
  expect(countdown(65)).toBe('1:05');
  expect(countdown(7_389)).toBe('2:03:09');
  expect(countdown(90_000)).toBe('1 day 1 h');
});

test('a 402 carries what to pay', () => {
  const invoice = { id: 'f00', state: 'new' };
  const body = JSON.stringify({
    code: 'payment_required',
    detail: 'pay first',
    invoice,
    viewer: 'v',
    claim: 'c',
  });
  const refused = refusalOf(402, body);
  expect(refused.code).toBe('payment_required');
  expect(refused.challenge?.invoice.id).toBe('f00');
  expect(refusalOf(402, '').challenge).toBeUndefined();
  expect(refusalOf(402, '').code).toBe('payment_required');
});
