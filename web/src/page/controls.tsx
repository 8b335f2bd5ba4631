/** The control bar: what one does most, in reach of a thumb and of a single key. */

import { copyRoomLink } from './copy';
import { DevicePickers } from './devices';
import { Dialog } from './dialog';
import { Icon, type IconName } from './icons';
import { Menu, MenuItem } from './menu';
import { EMOJI } from './message';
import { theme } from './prefs';
import type { Panel, Session, View } from './session';
import { SHORTCUTS } from './shortcuts';
import { nextTheme, THEME_WORDS } from './theme';

export type Sheet = 'devices' | 'shortcuts';

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

const VIEWS: { view: View; label: string; icon: IconName }[] = [
  { view: 'auto', label: 'Automatic view', icon: 'screen' },
  { view: 'grid', label: 'Grid', icon: 'grid' },
  { view: 'speaker', label: 'Speaker', icon: 'speaker' },
];

export function nextView(session: Session): void {
  const at = VIEWS.findIndex(({ view }) => view === session.view.value);
  session.view.value = VIEWS[(at + 1) % VIEWS.length]?.view ?? 'auto';
  session.pinned.value = undefined;
}

function More({ session, onSheet }: { session: Session; onSheet: (sheet: Sheet) => void }) {
  return (
    <Menu icon="more" label="More" class="control">
      {(close) => {
        const pick = (action: () => void) => () => {
          close();
          action();
        };
        const panel = (name: Panel) => pick(() => session.togglePanel(name));
        return (
          <>
            {VIEWS.map(({ view, label, icon }) => (
              <MenuItem
                key={view}
                icon={icon}
                label={label}
                pressed={session.view.value === view}
                onPick={pick(() => {
                  session.view.value = view;
                  session.pinned.value = undefined;
                })}
              />
            ))}
            <hr />
            <MenuItem icon="people" label="People" hint="p" onPick={panel('people')} />
            <MenuItem icon="chart" label="Statistics" hint="i" onPick={panel('stats')} />
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
  const [mic, camera, screen] = [local.isOn('microphone'), local.isOn('camera'), local.isOn('screen')];
  const hand = session.participants.value.get(session.me.value)?.hand_raised ?? false;
  const panel = session.panel.value;
  return (
    <section class="controls" aria-label="Call controls">
      <div class="control-group">
        <Control
          icon={mic ? 'mic' : 'mic-off'}
          label={mic ? 'Turn microphone off' : 'Turn microphone on'}
          hint="m"
          testId="toggle-microphone"
          pressed={mic}
          look={mic ? '' : 'off'}
          disabled={!may}
          onPress={() => session.toggleMicrophone()}
        />
        <Control
          icon={camera ? 'camera' : 'camera-off'}
          label={camera ? 'Turn camera off' : 'Turn camera on'}
          hint="v"
          testId="toggle-camera"
          pressed={camera}
          look={camera ? '' : 'off'}
          disabled={!may}
          onPress={() => session.toggleCamera()}
        />
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
            <div class="emoji-row">
              {EMOJI.map((emoji) => (
                <button
                  key={emoji}
                  type="button"
                  aria-label={`Show ${emoji} to everyone`}
                  onClick={() => {
                    close();
                    session.react(emoji);
                  }}
                >
                  {emoji}
                </button>
              ))}
            </div>
          )}
        </Menu>
      </div>
      <div class="control-group">
        <Control
          icon="chat"
          label="Chat"
          hint="c"
          testId="toggle-chat"
          pressed={panel === 'chat'}
          look={panel === 'chat' ? 'on' : ''}
          badge={session.unread.value}
          onPress={() => session.togglePanel('chat')}
        />
        <Control
          icon="people"
          label="People"
          hint="p"
          testId="toggle-people"
          pressed={panel === 'people'}
          look={panel === 'people' ? 'on roomy' : 'roomy'}
          badge={session.knocking.value.size}
          onPress={() => session.togglePanel('people')}
        />
        <Control
          icon="chart"
          label="Statistics"
          hint="i"
          testId="toggle-stats"
          pressed={panel === 'stats'}
          look={panel === 'stats' ? 'on roomy' : 'roomy'}
          onPress={() => session.togglePanel('stats')}
        />
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
