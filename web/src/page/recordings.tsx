/** Recordings: the sign that all see, the owner's menu, what was recorded, and the question before it. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { RecordedFile, Recording } from '../client';
import { ContentPriceButton } from './content-sales';
import { Dialog } from './dialog';
import { Icon } from './icons';
import { readableSize, readableTime } from './measures';
import { Menu, MenuItem } from './menu';
import { saveFrom } from './save';
import type { Session } from './session';

/** Files of a recording that is being put in order are looked at again after so long. */
const REFRESH_MS = 2_000;

/** Stays for as long as the room is recorded; late comers see it, too. */
export function RecordingSign({ session }: { session: Session }) {
  const recording = session.recording.value;
  if (!recording) return null;
  const { me, participants } = session.snapshot.value;
  const asked = session.state.value?.recording_consent === 'ask';
  const left = asked && participants.get(me)?.recording_consent !== true;
  return (
    <span
      class="chip recording-sign"
      role="status"
      data-testid="recording-sign"
      title={left ? 'The room is recorded. You are not.' : 'The room is recorded.'}
    >
      <span class="recording-dot" aria-hidden="true" />
      {recording.active ? 'Recording' : 'Starting to record…'}
      {left && <span class="roomy-text"> (without you)</span>}
    </span>
  );
}

/** Begins and ends it, and shows what was recorded; for who runs the room. */
export function RecordMenu({ session }: { session: Session }) {
  const listed = useSignal(false);
  const recording = session.recording.value;
  const asks = session.state.value?.recording_consent === 'ask';
  const { recordings } = session.room;
  const start = (what: { tracks: boolean; mix: boolean }) => () =>
    void session.attempt(recordings.start(what));
  return (
    <>
      <Menu icon="record" label="Record" class="icon-button" testId="record-menu">
        {(close) => {
          const pick = (action: () => void) => () => {
            close();
            action();
          };
          return (
            <>
              {recording ? (
                <>
                  <MenuItem
                    icon="stop"
                    label="Stop recording"
                    testId="record-stop"
                    onPick={pick(() => void session.attempt(recordings.stop()))}
                  />
                  <MenuItem
                    icon="pin"
                    label="Mark this moment"
                    testId="record-mark"
                    onPick={pick(() => void session.attempt(recordings.mark('Mark')))}
                  />
                </>
              ) : (
                <>
                  <MenuItem
                    icon="record"
                    label="Record each track"
                    testId="record-start"
                    onPick={pick(start({ tracks: true, mix: false }))}
                  />
                  {!asks && (
                    <MenuItem
                      icon="mix"
                      label="Record the mix"
                      testId="record-mix"
                      onPick={pick(start({ tracks: false, mix: true }))}
                    />
                  )}
                  <MenuItem
                    icon="people"
                    label="Ask people first"
                    testId="record-ask"
                    pressed={asks}
                    onPick={pick(
                      () =>
                        void session.ask({
                          type: 'room.update',
                          recording_consent: asks ? 'notice' : 'ask',
                        }),
                    )}
                  />
                </>
              )}
              <hr />
              <MenuItem
                icon="file"
                label="Recordings"
                testId="recordings-open"
                onPick={pick(() => {
                  listed.value = true;
                })}
              />
            </>
          );
        }}
      </Menu>
      {listed.value && (
        <RecordingsDialog
          session={session}
          onClose={() => {
            listed.value = false;
          }}
        />
      )}
    </>
  );
}

/** Asks before one is recorded. To close it is to decline. */
export function ConsentDialog({ session }: { session: Session }) {
  const answer = (agreed: boolean) => void session.attempt(session.room.recordings.consent(agreed));
  return (
    <Dialog title="This room is being recorded" onClose={() => answer(false)}>
      <p>May your camera, your microphone and your screen be in the recording, and what you write?</p>
      <div class="dialog-actions">
        <button type="button" class="button" data-testid="consent-decline" onClick={() => answer(false)}>
          No, leave me out
        </button>
        <button type="button" class="button accent" data-testid="consent-agree" onClick={() => answer(true)}>
          Yes, record me
        </button>
      </div>
    </Dialog>
  );
}

function RecordingsDialog({ session, onClose }: { session: Session; onClose: () => void }) {
  const all = useSignal<readonly Recording[] | undefined>(undefined);
  const load = async () => {
    await session.attempt(
      session.room.recordings.list().then((found) => {
        all.value = found;
      }),
    );
  };
  useEffect(() => {
    void load();
    const timer = setInterval(() => {
      if (all.value?.some(({ state }) => state !== 'finished')) void load();
    }, REFRESH_MS);
    return () => clearInterval(timer);
  }, [session]);
  return (
    <Dialog title="Recordings" onClose={onClose}>
      {all.value === undefined && <p class="quiet">Looking…</p>}
      {all.value?.length === 0 && <p class="quiet">Nothing was recorded in this room yet.</p>}
      <ul class="recordings" data-testid="recordings-list">
        {all.value?.map((recording) => (
          <Item key={recording.id} session={session} recording={recording} onChange={() => void load()} />
        ))}
      </ul>
    </Dialog>
  );
}

const STATES: Record<Recording['state'], string> = {
  recording: 'recording now',
  finishing: 'being put in order',
  finished: '',
};

function Item(props: { session: Session; recording: Recording; onChange: () => void }) {
  const { session, recording, onChange } = props;
  const { id, state, started_at_ms, duration_ms, bytes, files } = recording;
  const facts = [STATES[state], state === 'finished' && readableTime(duration_ms), readableSize(bytes)];
  return (
    <li class="recording" data-testid="recording-item" data-state={state} data-id={id}>
      <div class="recording-head">
        <div class="file-words">
          <p class="file-name">{new Date(started_at_ms).toLocaleString()}</p>
          <p class="file-facts">{facts.filter(Boolean).join(' · ')}</p>
        </div>
        <ContentPriceButton
          room={session.as.room}
          content={{ kind: 'recordings', id }}
          disabled={state !== 'finished'}
        />
        <button
          type="button"
          class="icon-button small"
          data-testid="recording-delete"
          aria-label="Delete this recording"
          title="Delete"
          disabled={state !== 'finished'}
          onClick={() => void session.attempt(session.room.recordings.delete(id)).then(onChange)}
        >
          <Icon name="trash" />
        </button>
      </div>
      <ul class="recording-files">
        {files.map((file) => (
          <File key={file.name} session={session} id={id} file={file} />
        ))}
      </ul>
    </li>
  );
}

const KINDS: Record<RecordedFile['content'], 'camera' | 'mic' | 'mix' | 'chat' | 'pin'> = {
  video: 'camera',
  audio: 'mic',
  mix: 'mix',
  chat: 'chat',
  chapters: 'pin',
};

/** Saved by an address that soon ends. */
function File({ session, id, file }: { session: Session; id: string; file: RecordedFile }) {
  const save = () => session.room.recordings.link(id, file.name).then(saveFrom);
  return (
    <li>
      <Icon name={KINDS[file.content]} />
      <span class="file-name" title={file.name}>
        {file.participant_name ? `${file.participant_name}: ${file.name}` : file.name}
      </span>
      <span class="file-facts">{readableSize(file.bytes)}</span>
      <button
        type="button"
        class="icon-button small"
        data-testid="recording-download"
        data-name={file.name}
        aria-label={`Download ${file.name}`}
        title="Download"
        onClick={() => void session.attempt(save())}
      >
        <Icon name="download" />
      </button>
    </li>
  );
}
