/** Measurements in words. */

/** One measurement; undefined where nothing was measured. */
export type Value = number | undefined;

/** `1.25 Mbit/s`. */
export function rate(bps: Value): string {
  if (bps === undefined) return '–';
  if (bps >= 1e6) return `${(bps / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

export const percent = (part: number): string => `${(part * 100).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;

export const ms = (value: Value): string => (value === undefined ? '–' : `${Math.round(value)} ms`);
