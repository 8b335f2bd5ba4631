/** Short notes at the edge of the page: said once, read out by screen readers, gone by themselves. */
import { signal } from '@preact/signals';
import { Icon } from './icons';

export type Tone = 'note' | 'problem';

interface Toast {
  key: number;
  text: string;
  tone: Tone;
}

/** More than these at a time push the oldest out. */
const SHOWN_MAX = 4;
const toasts = signal<readonly Toast[]>([]);
let nextKey = 0;

function dismiss(key: number): void {
  toasts.value = toasts.value.filter((one) => one.key !== key);
}

/** The server's words, as a sentence to show. */
export function sentence(words: string): string {
  const ended = /[.!?…]$/.test(words) ? words : `${words}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}

export function toast(words: string, tone: Tone = 'note'): void {
  const text = sentence(words);
  const key = nextKey++;
  const others = toasts.value.filter((one) => one.text !== text);
  toasts.value = [...others, { key, text, tone }].slice(-SHOWN_MAX);
  // Long words need longer to read.
  setTimeout(() => dismiss(key), 3_500 + text.length * 45);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ key, text, tone }) => (
        <div key={key} class={`toast ${tone}`}>
          <Icon name={tone === 'problem' ? 'alert' : 'info'} />
          <span>{text}</span>
          <button type="button" class="icon-button small" aria-label="Dismiss" onClick={() => dismiss(key)}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}
