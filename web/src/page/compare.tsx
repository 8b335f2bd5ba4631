/** Forwarded and mixed side by side, as this session has measured them; beside each how old that is. */
import type { ComponentChildren } from 'preact';
import type { Measured, Mode } from '../client';
import { ms, percent, rate } from './figures';
import type { Session } from './session';

const MODES: { mode: Mode; name: string; action: string }[] = [
  { mode: 'sfu', name: 'Forwarded', action: 'Measure forwarded' },
  { mode: 'mcu', name: 'Mixed', action: 'Measure mixed' },
];

interface Row {
  name: string;
  title: string;
  show: (measured: Measured) => string;
}

const ROWS: Row[] = [
  { name: 'Downlink', title: 'What comes in', show: ({ downlinkBps }) => rate(downlinkBps) },
  { name: 'Pictures', title: 'How many are decoded, and the largest', show: pictures },
  {
    name: 'Frames',
    title: 'Of all pictures together',
    show: ({ fps }) => `${Math.round(fps)} a second`,
  },
  {
    name: 'Dropped',
    title: 'Frames that came and were not shown',
    show: ({ dropped }) => percent(dropped),
  },
  {
    name: 'Decoding',
    title: 'Of all pictures together',
    show: ({ decodeMsPerSecond }) => (decodeMsPerSecond === undefined ? '–' : `${ms(decodeMsPerSecond)}/s`),
  },
  {
    name: 'Picture waits',
    title: 'In the jitter buffer, the longest',
    show: ({ pictureBufferMs }) => ms(pictureBufferMs),
  },
  {
    name: 'Sound waits',
    title: 'In the jitter buffer, the longest',
    show: ({ soundBufferMs }) => ms(soundBufferMs),
  },
  {
    name: 'Server to screen',
    title: 'Half of the round trip, the wait and the decoding',
    show: ({ delayMs }) => ms(delayMs),
  },
];

function pictures({ pictures: count, height }: Measured): string {
  if (count === 0) return 'none';
  const size = height ? `${height}p` : '';
  return count === 1 ? `1 × ${size}` : `${count}, up to ${size}`;
}

/** `now`, or how long ago; rounded, as it is drawn once a second. */
function age(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1_000);
  if (seconds < 3) return 'now';
  if (seconds < 90) return `${seconds} s ago`;
  return `${Math.round(seconds / 60)} min ago`;
}

/** `nowMs` is another one each time that there is something new to show. */
export function Compare({ session, nowMs }: { session: Session; nowMs: number }) {
  const { mode: now } = session.delivery.value;
  const columns = MODES.map((column) => ({ ...column, measured: session.comparison.of(column.mode) }));
  return (
    <section class="compare" data-testid="compare-panel" aria-label="Compare">
      <h3>Compare</h3>
      <table>
        <thead>
          <tr>
            <td />
            {columns.map(({ mode, name, measured }) => (
              <th key={mode} scope="col" class={mode === now ? 'now' : ''}>
                {name}
                <small data-testid={`compare-age-${mode}`}>
                  {measured ? age(nowMs - measured.atMs) : mode === now ? 'measuring…' : 'not measured'}
                </small>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {ROWS.map(({ name, title, show }) => (
            <tr key={name}>
              <th scope="row" title={title}>
                {name}
              </th>
              {columns.map(({ mode, measured }) => (
                <Cell key={mode} name={name} mode={mode} stale={mode !== now}>
                  {measured ? show(measured) : '–'}
                </Cell>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      <div class="compare-actions">
        {columns
          .filter(({ mode }) => mode !== now)
          .map(({ mode, action }) => (
            <button
              key={mode}
              type="button"
              class="button small"
              data-testid={`compare-measure-${mode}`}
              aria-busy={session.mixIsComing.value}
              onClick={() => session.chooseMode(mode)}
            >
              {action}
            </button>
          ))}
      </div>
      <p class="quiet">
        Each column is the mean of the last seconds in which you had the room so, with this panel open. The
        mixer’s own time is not in it: a browser cannot see what happens before the server sends.
      </p>
    </section>
  );
}

interface CellProps {
  name: string;
  mode: Mode;
  stale: boolean;
  children: ComponentChildren;
}

function Cell({ name, mode, stale, children }: CellProps) {
  const key = name.toLowerCase().replaceAll(' ', '-');
  return (
    <td class={stale ? 'stale' : ''} data-testid={`compare-${key}-${mode}`}>
      {children}
    </td>
  );
}
