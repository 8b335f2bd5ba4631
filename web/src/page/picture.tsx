/** Forwarded or mixed: the viewer's own switch in the top bar, and for owners the picture of everyone. */
import type { Layout, Mode, Room } from '../client';
import { backdropOf } from './backdrop';
import type { IconName } from './icons';
import { Icon } from './icons';
import { Menu, MenuItem } from './menu';
import type { Session } from './session';

const MODES: { mode: Mode; label: string; title: string; icon: IconName }[] = [
  { mode: 'sfu', label: 'SFU', title: 'Get everyone’s own picture and sound', icon: 'forward' },
  { mode: 'mcu', label: 'MCU', title: 'Get everyone mixed into one picture', icon: 'mix' },
];

/** What an owner may lay the mix out as; boxes of one's own are set over HTTP. */
const LAYOUTS: { kind: Exclude<Layout['kind'], 'custom'>; label: string; icon: IconName }[] = [
  { kind: 'grid', label: 'Grid', icon: 'grid' },
  { kind: 'speaker', label: 'Speaker', icon: 'speaker' },
  { kind: 'presenter', label: 'Presenter', icon: 'presenter' },
  { kind: 'picture_in_picture', label: 'Picture in picture', icon: 'corner' },
];

/**
 * Shows how one gets the room now; a press on what is wanted already does nothing. Who chose for themselves
 * can go back to what the room has, or their connection carries.
 */
export function ModeSwitch({ session }: { session: Session }) {
  const { mode: now, reason } = session.delivery.value;
  const wanted = session.wantedMode.value;
  const roomMode = session.state.value?.mode ?? wanted;
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset would bring a legend and a border to the top bar
    <div class="segments" role="group" aria-label="How you get the room">
      {MODES.map(({ mode, label, title }) => {
        const busy = mode === 'mcu' && session.mixIsComing.value;
        return (
          <button
            key={mode}
            type="button"
            data-testid={`mode-${mode}`}
            aria-pressed={now === mode}
            aria-busy={busy}
            title={busy ? 'The mix is being started…' : title}
            onClick={() => {
              if (mode !== wanted) session.chooseMode(mode);
            }}
          >
            {busy && <span class="spinner" />}
            {label}
          </button>
        );
      })}
      {(wanted !== roomMode || reason === 'chosen') && (
        <button
          type="button"
          class="follow"
          data-testid="mode-follow"
          aria-label="Follow the room"
          title={`Follow the room, which is ${roomMode === 'mcu' ? 'mixed' : 'forwarded'}`}
          onClick={() => session.chooseMode(undefined)}
        >
          <Icon name="people" />
        </button>
      )}
    </div>
  );
}

/** What an owner decides for all who have not chosen for themselves. */
export function PictureMenu({ session }: { session: Session }) {
  const state = session.state.value;
  if (!state) return null;
  const { room } = session;
  return (
    <Menu
      icon="presenter"
      label="Picture for everyone"
      class="button small"
      testId="picture"
      badge={<span class="roomy-text">Picture</span>}
    >
      {(close) => {
        const pick = (action: () => Promise<void>) => () => {
          close();
          void session.attempt(action());
        };
        return (
          <>
            <MenuGroup label="For everyone">
              {MODES.map(({ mode, icon }) => (
                <MenuItem
                  key={mode}
                  icon={icon}
                  label={mode === 'mcu' ? 'Mixed' : 'Forwarded'}
                  testId={`room-mode-${mode}`}
                  pressed={state.mode === mode}
                  onPick={pick(() => room.setRoomMode(mode))}
                />
              ))}
            </MenuGroup>
            <hr />
            <MenuGroup label="Layout of the mix">
              {LAYOUTS.map(({ kind, label, icon }) => (
                <MenuItem
                  key={kind}
                  icon={icon}
                  label={label}
                  testId={`layout-${kind}`}
                  pressed={state.layout.kind === kind}
                  onPick={pick(() => room.setLayout({ kind }))}
                />
              ))}
              <label class="menu-item">
                <Icon name="mix" />
                <span>Background</span>
                <input
                  type="color"
                  data-testid="mix-background"
                  value={state.background}
                  onChange={({ currentTarget }) =>
                    void session.attempt(room.setBackground(currentTarget.value))
                  }
                />
              </label>
              <label class="menu-item">
                <Icon name="picture" />
                <span>{state.has_backdrop ? 'Another picture behind' : 'Picture behind'}</span>
                <input
                  type="file"
                  accept="image/*"
                  class="sr-only"
                  data-testid="mix-backdrop"
                  onChange={({ currentTarget }) => {
                    const file = currentTarget.files?.[0];
                    close();
                    if (file) void session.attempt(putBehind(room, file, state.background));
                  }}
                />
              </label>
              {state.has_backdrop && (
                <MenuItem
                  icon="trash"
                  label="No picture behind"
                  testId="mix-no-backdrop"
                  onPick={pick(() => room.setBackdrop(undefined))}
                />
              )}
            </MenuGroup>
          </>
        );
      }}
    </Menu>
  );
}

async function putBehind(room: Room, file: File, background: string): Promise<void> {
  await room.setBackdrop(await backdropOf(file, background));
}

function MenuGroup({ label, children }: { label: string; children: preact.ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset would bring a border to the menu
    <div role="group" aria-label={label}>
      <p class="menu-note" aria-hidden="true">
        {label}
      </p>
      {children}
    </div>
  );
}
