/**
 * Dark, light, or as the system has it: set on the root element, where the style sheet's `light-dark()` reads
 * it.
 */
import { effect } from '@preact/signals';
import { theme } from './prefs';

const ORDER = ['auto', 'dark', 'light'];

export function startTheme(): void {
  effect(() => {
    const root = document.documentElement;
    if (theme.value === 'auto') root.removeAttribute('data-theme');
    else root.dataset.theme = theme.value;
  });
}

export function nextTheme(): void {
  theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length] ?? 'auto';
}

export const THEME_WORDS: Record<string, string> = {
  auto: 'Theme: as the system',
  dark: 'Theme: dark',
  light: 'Theme: light',
};
