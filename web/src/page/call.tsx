/** The room itself: stage, panels, control bar, and the banner while the connection is being mended. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { Voices } from './audio';
import { ChatPanel } from './chat';
import { Controls, DevicesSheet, nextView, type Sheet, ShortcutsSheet } from './controls';
import { copyRoomLink } from './copy';
import { FileDrop } from './file-sending';
import { Icon, Mark } from './icons';
import { PaidTimeChip, PreviewChip } from './paid-time';
import { Knocking, PeoplePanel } from './people';
import { ModeSwitch, PictureMenu } from './picture';
import { ConsentDialog, RecordingSign, RecordMenu } from './recordings';
import { SalesButton } from './sales';
import type { Panel, Session } from './session';
import { listenForShortcuts } from './shortcuts';
import { Stage } from './stage';
import { StatsPanel } from './stats';
import { StreamButton, StreamSheet } from './streaming';
import type { PaidTime } from './tickets';

const TITLES: Record<Exclude<Panel, 'none'>, string> = {
  chat: 'Chat',
  people: 'People',
  stats: 'Statistics',
};

interface TopBarProps {
  session: Session;
  paid: PaidTime | undefined;
  onPaid: () => void;
  onSheet: (sheet: Sheet) => void;
}

function TopBar({ session, paid, onPaid, onSheet }: TopBarProps) {
  const state = session.state.value;
  const count = session.participants.value.size;
  return (
    <header class="top-bar">
      <Mark />
      <h1>{session.as.room}</h1>
      {state?.locked && (
        <span class="chip" title="Nobody new gets in">
          <Icon name="lock" /> <span class="roomy-text">Locked</span>
        </span>
      )}
      <RecordingSign session={session} />
      <span class="quiet count">{count === 1 ? 'only you' : `${count} people`}</span>
      <span class="spring" />
      {paid && <PaidTimeChip session={session} paid={paid} />}
      {session.grant.value.lowest_layer && <PreviewChip session={session} onPaid={onPaid} />}
      <ModeSwitch session={session} />
      {session.grant.value.admin && <RecordMenu session={session} />}
      {session.grant.value.admin && <PictureMenu session={session} />}
      {session.grant.value.admin && <SalesButton room={session.as.room} />}
      <StreamButton session={session} onOpen={() => onSheet('stream')} />
      <button
        type="button"
        class="button small copy-link"
        aria-label="Copy link"
        onClick={() => void copyRoomLink(session.as.room)}
      >
        <Icon name="link" /> <span class="roomy-text">Copy link</span>
      </button>
    </header>
  );
}

function SidePanel({ session }: { session: Session }) {
  const panel = session.panel.value;
  if (panel === 'none') return null;
  return (
    <aside class="side-panel" aria-label={TITLES[panel]}>
      <header>
        <h2>{TITLES[panel]}</h2>
        <button
          type="button"
          class="icon-button"
          aria-label={`Close ${TITLES[panel].toLowerCase()}`}
          onClick={() => session.togglePanel(panel)}
        >
          <Icon name="close" />
        </button>
      </header>
      {panel === 'chat' && <ChatPanel session={session} />}
      {panel === 'people' && <PeoplePanel session={session} />}
      {panel === 'stats' && <StatsPanel session={session} />}
    </aside>
  );
}

function Banner({ session }: { session: Session }) {
  const lost = session.status.value.phase === 'reconnecting';
  return (
    <div role="status" class={lost ? 'banner' : 'sr-only'} data-testid={lost ? 'reconnecting' : undefined}>
      {lost && (
        <>
          <span class="spinner" /> The connection was lost. Reconnecting…
        </>
      )}
    </div>
  );
}

function Alone({ session }: { session: Session }) {
  if (session.participants.value.size > 1) return null;
  return (
    <div class="alone">
      <p>Nobody else is here yet.</p>
      <button type="button" class="button accent" onClick={() => void copyRoomLink(session.as.room)}>
        <Icon name="link" /> Copy the link to invite
      </button>
    </div>
  );
}

interface Props {
  session: Session;
  paid?: PaidTime | undefined;
  /** Who looked in has paid. */
  onPaid: () => void;
}

export function Call({ session, paid, onPaid }: Props) {
  const sheet = useSignal<Sheet | undefined>(undefined);
  useEffect(
    () =>
      listenForShortcuts({
        m: () => session.toggleMicrophone(),
        v: () => session.toggleCamera(),
        s: () => session.toggleScreen(),
        h: () => session.toggleHand(),
        c: () => session.togglePanel('chat'),
        p: () => session.togglePanel('people'),
        i: () => session.togglePanel('stats'),
        g: () => nextView(session),
        '?': () => {
          sheet.value = 'shortcuts';
        },
      }),
    [session, sheet],
  );
  const close = () => {
    sheet.value = undefined;
  };
  return (
    <div class="call">
      <TopBar
        session={session}
        paid={paid}
        onPaid={onPaid}
        onSheet={(next) => {
          sheet.value = next;
        }}
      />
      <main class={`floor ${session.panel.value === 'none' ? '' : 'with-panel'}`}>
        <div class="stage-area">
          <Banner session={session} />
          <Stage session={session} />
          <Alone session={session} />
          {session.panel.value !== 'people' && (
            <div class="knock-card">
              <Knocking session={session} />
            </div>
          )}
        </div>
        <SidePanel session={session} />
      </main>
      <Controls
        session={session}
        onSheet={(next) => {
          sheet.value = next;
        }}
      />
      <Voices session={session} />
      <FileDrop session={session} />
      {session.asksConsent.value && <ConsentDialog session={session} />}
      {sheet.value === 'devices' && <DevicesSheet session={session} onClose={close} />}
      {sheet.value === 'shortcuts' && <ShortcutsSheet onClose={close} />}
      {sheet.value === 'stream' && <StreamSheet session={session} onClose={close} />}
    </div>
  );
}
