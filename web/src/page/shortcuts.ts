/** Single-key shortcuts, off while somebody writes or a modifier is held. */

export interface Shortcut {
  key: string;
  does: string;
}

export const SHORTCUTS: readonly Shortcut[] = [
  { key: 'm', does: 'Microphone on or off' },
  { key: 'v', does: 'Camera on or off' },
  { key: 's', does: 'Share the screen, or stop' },
  { key: 'h', does: 'Raise or lower your hand' },
  { key: 'c', does: 'Chat' },
  { key: 'p', does: 'People' },
  { key: 'i', does: 'Statistics' },
  { key: 'g', does: 'Next view: automatic, grid, speaker' },
  { key: '?', does: 'These shortcuts' },
];

function isWriting(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName))
  );
}

/** Calls the action of each key pressed, until the function it returns is called. */
export function listenForShortcuts(actions: Record<string, () => void>): () => void {
  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isWriting(event.target)) return;
    if (document.querySelector('dialog[open]')) return;
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  };
  addEventListener('keydown', onKey);
  return () => removeEventListener('keydown', onKey);
}
