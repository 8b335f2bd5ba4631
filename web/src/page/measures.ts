/** Sizes and times of files, in words. */
import type { Sending } from '../client';

const UNITS = ['KB', 'MB', 'GB', 'TB'];

/** In decimal units with two or three digits, as file managers show it: `1.5 MB`. */
export function readableSize(bytes: number): string {
  if (bytes < 1_000) return bytes === 1 ? '1 byte' : `${bytes} bytes`;
  let size = bytes;
  let unit = -1;
  do {
    size /= 1_000;
    unit += 1;
  } while (size >= 999.5 && unit < UNITS.length - 1);
  return `${size < 9.95 ? size.toFixed(1) : Math.round(size)} ${UNITS[unit]}`;
}

/** `1:05`, `1:00:05`. */
export function readableTime(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  const two = (part: number) => String(part).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes}:${two(seconds % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
}

/** 0 to 100. */
export function percent({ sent, size }: Pick<Sending, 'sent' | 'size'>): number {
  return size === 0 ? 100 : Math.min(100, (sent / size) * 100);
}

/** ` · 2.4 MB/s · 1:05 left`, or nothing while that is not known. */
export function remaining({ sent, size, bytesPerSecond }: Sending): string {
  if (bytesPerSecond <= 0) return '';
  const left = readableTime(((size - sent) / bytesPerSecond) * 1_000);
  return ` · ${readableSize(bytesPerSecond)}/s · ${left} left`;
}
