/** The control bar: what one does most, in reach of a thumb and of a single key. */

import { copyRoomLink } from './copy';
import { DevicePickers } from './devices';
import { Dialog } from './dialog';
import { Icon, type IconName } from './icons';
import { Menu, MenuItem } from './menu';
import { EmojiRow } from './message';
import { theme } from './prefs';
import type { Panel, Session, View } from './session';
import { SHORTCUTS } from './shortcuts';
import { nextTheme, THEME_WORDS } from './theme';

export type Sheet = 'devices' | 'shortcuts' | 'stream';

interface ControlProps {
  icon: IconName;
  label: string;
  hint?: string;
  testId?: string;
  pressed?: boolean;
  look?: string;
  disabled?: boolean;
  badge?: number;
  onPress: () => void;
}

function Control({
  icon,
  label,
  hint,
  testId,
  pressed,
  look = '',
  disabled,
  badge = 0,
  onPress,
}: ControlProps) {
  const title = hint ? `${label} (${hint})` : label;
  return (
    <button
      type="button"
      class={`control ${look}`}
      data-testid={testId}
      aria-pressed={pressed}
      aria-label={badge > 0 ? `${label}, ${badge} unread` : label}
      title={title}
      disabled={disabled}
      onClick={onPress}
    >
      <Icon name={icon} />
      {badge > 0 && <span class="badge">{badge > 99 ? '99+' : badge}</span>}
    </button>
  );
}

interface PanelItem {
  panel: Panel;
  label: string;
  icon: IconName;
  hint: string;
  /** On the bar only where it is wide, otherwise in the menu alone. */
  roomy: boolean;
  badge?: (session: Session) => number;
}

const PANELS: PanelItem[] = [
  {
    panel: 'chat',
    label: 'Chat',
    icon: 'chat',
    hint: 'c',
    roomy: false,
    badge: (session) => session.unread.value,
  },
  {
    panel: 'people',
    label: 'People',
    icon: 'people',
    hint: 'p',
    roomy: true,
    badge: (session) => session.knocking.value.size,
  },
  { panel: 'stats', label: 'Statistics', icon: 'chart', hint: 'i', roomy: true },
];

const DEVICES = [
  { source: 'microphone', icon: 'mic', hint: 'm', toggle: (session: Session) => session.toggleMicrophone() },
  { source: 'camera', icon: 'camera', hint: 'v', toggle: (session: Session) => session.toggleCamera() },
] as const;

const VIEWS: { view: View; label: string; icon: IconName }[] = [
  { view: 'auto', label: 'Automatic view', icon: 'screen' },
  { view: 'grid', label: 'Grid', icon: 'grid' },
  { view: 'speaker', label: 'Speaker', icon: 'speaker' },
];

function show(session: Session, view: View): void {
  session.view.value = view;
  session.pinned.value = undefined;
}

export function nextView(session: Session): void {
  const at = VIEWS.findIndex(({ view }) => view === session.view.value);
  show(session, VIEWS[(at + 1) % VIEWS.length]?.view ?? 'auto');
}

function More({ session, onSheet }: { session: Session; onSheet: (sheet: Sheet) => void }) {
  return (
    <Menu icon="more" label="More" class="control">
      {(close) => {
        const pick = (action: () => void) => () => {
          close();
          action();
        };
        return (
          <>
            {VIEWS.map(({ view, label, icon }) => (
              <MenuItem
                key={view}
                icon={icon}
                label={label}
                pressed={session.view.value === view}
                onPick={pick(() => show(session, view))}
              />
            ))}
            <hr />
            {PANELS.filter(({ roomy }) => roomy).map(({ panel, icon, label, hint }) => (
              <MenuItem
                key={panel}
                icon={icon}
                label={label}
                hint={hint}
                onPick={pick(() => session.togglePanel(panel))}
              />
            ))}
            <MenuItem
              icon="link"
              label="Copy the room’s link"
              onPick={pick(() => void copyRoomLink(session.as.room))}
            />
            <MenuItem icon="settings" label="Devices" onPick={pick(() => onSheet('devices'))} />
            <MenuItem icon="theme" label={THEME_WORDS[theme.value] ?? 'Theme'} onPick={nextTheme} />
            <MenuItem icon="keyboard" label="Shortcuts" hint="?" onPick={pick(() => onSheet('shortcuts'))} />
          </>
        );
      }}
    </Menu>
  );
}

export function Controls({ session, onSheet }: { session: Session; onSheet: (sheet: Sheet) => void }) {
  void session.local.value;
  const { local } = session.room;
  const may = session.grant.value.publish;
  const screen = local.isOn('screen');
  const hand = session.participants.value.get(session.me.value)?.hand_raised ?? false;
  return (
    <section class="controls" aria-label="Call controls">
      <div class="control-group">
        {DEVICES.map(({ source, icon, hint, toggle }) => {
          const on = local.isOn(source);
          return (
            <Control
              key={source}
              icon={on ? icon : `${icon}-off`}
              label={`Turn ${source} ${on ? 'off' : 'on'}`}
              hint={hint}
              testId={`toggle-${source}`}
              pressed={on}
              look={on ? '' : 'off'}
              disabled={!may}
              onPress={() => toggle(session)}
            />
          );
        })}
        <Control
          icon={screen ? 'screen-off' : 'screen'}
          label={screen ? 'Stop sharing the screen' : 'Share the screen'}
          hint="s"
          testId="share-screen"
          pressed={screen}
          look={screen ? 'on' : ''}
          disabled={!may}
          onPress={() => session.toggleScreen()}
        />
        <Control
          icon="hand"
          label={hand ? 'Lower your hand' : 'Raise your hand'}
          hint="h"
          testId="raise-hand"
          pressed={hand}
          look={hand ? 'on' : ''}
          onPress={() => session.toggleHand()}
        />
        <Menu icon="smile" label="React" class="control" testId="react">
          {(close) => (
            <EmojiRow
              label={(emoji) => `Show ${emoji} to everyone`}
              onPick={(emoji) => {
                close();
                session.react(emoji);
              }}
            />
          )}
        </Menu>
      </div>
      <div class="control-group">
        {PANELS.map(({ panel, label, icon, hint, roomy, badge }) => (
          <Control
            key={panel}
            icon={icon}
            label={label}
            hint={hint}
            testId={`toggle-${panel}`}
            pressed={session.panel.value === panel}
            look={`${session.panel.value === panel ? 'on' : ''} ${roomy ? 'roomy' : ''}`}
            badge={badge?.(session)}
            onPress={() => session.togglePanel(panel)}
          />
        ))}
        <More session={session} onSheet={onSheet} />
        <Control
          icon="leave"
          label="Leave"
          testId="leave"
          look="leave"
          onPress={() => void session.room.leave()}
        />
      </div>
    </section>
  );
}

export function DevicesSheet({ session, onClose }: { session: Session; onClose: () => void }) {
  return (
    <Dialog title="Devices" onClose={onClose}>
      <DevicePickers
        version={session.local.value}
        onPick={(kind, id) => void session.attempt(session.room.local.choose(kind, id))}
      />
    </Dialog>
  );
}

export function ShortcutsSheet({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Shortcuts" onClose={onClose}>
      <dl class="shortcuts">
        {SHORTCUTS.map(({ key, does }) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
