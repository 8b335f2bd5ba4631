/** Prices, periods and times in words. */
import type { Offer, Period } from '../client';

const GROUPED = new Intl.NumberFormat('en', { useGrouping: true });

export const sats = (sum: number): string => `${GROUPED.format(sum)} ${Math.abs(sum) === 1 ? 'sat' : 'sats'}`;

export function priceWords(price: Offer['price']): string {
  if ('sats' in price) return sats(price.sats);
  const { currency, cents } = price.fiat;
  return `${(cents / 100).toFixed(2)} ${currency}`;
}

export function periodWords(period: Period): string {
  const [unit, count] = Object.entries(period)[0] as [keyof Period, number];
  const name = String(unit);
  return count === 1 ? `one ${name.slice(0, -1)}` : `${count} ${name}`;
}

/** `1:05`, `2:03:09`, and days where there are some. */
export function countdown(seconds: number): string {
  const left = Math.max(0, seconds);
  const days = Math.floor(left / 86_400);
  const [hours, minutes, rest] = [Math.floor(left / 3_600) % 24, Math.floor(left / 60) % 60, left % 60];
  const two = (n: number) => String(n).padStart(2, '0');
  if (days > 0) return `${days} ${days === 1 ? 'day' : 'days'} ${hours} h`;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
