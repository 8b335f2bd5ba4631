/** The button that goes through the themes. */
import { Icon } from './icons';
import { theme } from './prefs';
import { nextTheme, THEME_WORDS } from './theme';

export function ThemeButton() {
  const words = THEME_WORDS[theme.value] ?? 'Theme';
  return (
    <button type="button" class="icon-button" aria-label={words} title={words} onClick={nextTheme}>
      <Icon name="theme" />
    </button>
  );
}
