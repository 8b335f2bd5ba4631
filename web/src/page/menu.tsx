/**
 * A button that opens a small panel over the page: closes on Escape, on a press outside, and gives focus
 * back.
 */
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { Icon, type IconName } from './icons';

interface Props {
  icon: IconName;
  label: string;
  class?: string;
  testId?: string;
  /** A mark on the button, such as a count. */
  badge?: ComponentChildren;
  children: (close: () => void) => ComponentChildren;
}

export function Menu({ icon, label, class: look = '', testId, badge, children }: Props) {
  const open = useSignal(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const close = () => {
    open.value = false;
    button.current?.focus();
  };
  useEffect(() => {
    if (!open.value) return;
    const outside = (event: PointerEvent) => {
      if (!root.current?.contains(event.target as Node)) open.value = false;
    };
    const onEscape = (event: KeyboardEvent) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      close();
    };
    root.current?.querySelector<HTMLElement>('.menu-panel button')?.focus();
    addEventListener('pointerdown', outside);
    root.current?.addEventListener('keydown', onEscape);
    const held = root.current;
    return () => {
      removeEventListener('pointerdown', outside);
      held?.removeEventListener('keydown', onEscape);
    };
  }, [open.value]);
  return (
    <div class="menu" ref={root}>
      <button
        ref={button}
        type="button"
        class={look}
        data-testid={testId}
        aria-expanded={open.value}
        aria-label={label}
        title={label}
        onClick={() => {
          open.value = !open.value;
        }}
      >
        <Icon name={icon} />
        {badge}
      </button>
      {open.value && <div class="menu-panel">{children(close)}</div>}
    </div>
  );
}

export function MenuItem(props: {
  icon: IconName;
  label: string;
  hint?: string;
  testId?: string;
  pressed?: boolean;
  danger?: boolean;
  onPick: () => void;
}) {
  return (
    <button
      type="button"
      class={`menu-item ${props.danger ? 'danger' : ''}`}
      data-testid={props.testId}
      aria-pressed={props.pressed}
      onClick={props.onPick}
    >
      <Icon name={props.icon} />
      <span>{props.label}</span>
      {props.hint && <kbd>{props.hint}</kbd>}
      {props.pressed && <Icon name="check" />}
    </button>
  );
}
