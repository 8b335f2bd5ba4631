/** Sending files: drop them anywhere on the room, paste or choose them, and watch, hold or stop them. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { type LeftBehind, type Sending, SMALL_FILE_BYTES_MAX } from '../client';
import { Icon } from './icons';
import { percent, readableSize, remaining } from './measures';
import type { Session } from './session';
import { sentence } from './toasts';

const INPUT_ID = 'file-input';

const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;

/** Takes what is dropped on the room or pasted into it, and holds the input that the attach button opens. */
export function FileDrop({ session }: { session: Session }) {
  const over = useSignal(false);
  useEffect(() => {
    let depth = 0;
    const enter = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth += 1;
      over.value = true;
    };
    const leave = () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) over.value = false;
    };
    const move = (event: DragEvent) => {
      if (hasFiles(event)) event.preventDefault();
    };
    const drop = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = 0;
      over.value = false;
      session.sendFiles(event.dataTransfer?.files ?? []);
    };
    const paste = (event: ClipboardEvent) => {
      const files = event.clipboardData?.files;
      if (!files || files.length === 0) return;
      event.preventDefault();
      session.sendFiles(files);
    };
    addEventListener('dragenter', enter);
    addEventListener('dragleave', leave);
    addEventListener('dragover', move);
    addEventListener('drop', drop);
    addEventListener('paste', paste);
    return () => {
      removeEventListener('dragenter', enter);
      removeEventListener('dragleave', leave);
      removeEventListener('dragover', move);
      removeEventListener('drop', drop);
      removeEventListener('paste', paste);
    };
  }, [session]);
  return (
    <>
      <input
        id={INPUT_ID}
        class="sr-only"
        type="file"
        multiple
        tabIndex={-1}
        aria-label="Files to send"
        data-testid="file-input"
        onChange={({ currentTarget }) => {
          session.sendFiles(currentTarget.files ?? []);
          // The same file may be chosen again.
          currentTarget.value = '';
        }}
      />
      {over.value && (
        <div class="drop-here">
          <div>
            <Icon name="attach" />
            <p>{session.grant.value.files ? 'Drop to send to the room' : 'You may not send files here'}</p>
          </div>
        </div>
      )}
    </>
  );
}

export function AttachButton({ session }: { session: Session }) {
  return (
    <button
      type="button"
      class="icon-button"
      aria-label="Send files"
      title="Send files"
      disabled={!session.grant.value.files}
      onClick={() => document.getElementById(INPUT_ID)?.click()}
    >
      <Icon name="attach" />
    </button>
  );
}

function words(file: Sending, offline: boolean): string {
  // What is large goes by another way, which may be there.
  if (offline && file.size <= SMALL_FILE_BYTES_MAX && file.why === undefined)
    return `${readableSize(file.size)} · Will be sent when connected again`;
  switch (file.state) {
    case 'waiting':
      return `${readableSize(file.size)} · waiting`;
    case 'paused':
      return `${readableSize(file.sent)} of ${readableSize(file.size)} · paused`;
    case 'storing':
      return 'Sent. The server looks into it…';
    case 'failed':
      return file.why
        ? sentence(file.why)
        : 'The connection was lost. It goes on from here when there is one again.';
    case 'sending':
      return `${readableSize(file.sent)} of ${readableSize(file.size)}${remaining(file)}`;
  }
}

function Row({ session, file }: { session: Session; file: Sending }) {
  const { files } = session.room;
  const held = file.state === 'paused' || file.state === 'failed';
  return (
    <li class={`sending ${file.state}`} data-testid="file-upload" data-state={file.state}>
      <p class="sending-name" title={file.name}>
        {file.name}
      </p>
      <p class="sending-words" role={file.state === 'failed' ? 'alert' : undefined}>
        {words(file, session.status.value.phase === 'reconnecting')}
      </p>
      <div class="sending-tools">
        {(held || (file.state !== 'storing' && file.size > SMALL_FILE_BYTES_MAX)) && (
          <button
            type="button"
            class="icon-button small"
            data-testid={held ? 'file-resume' : 'file-pause'}
            aria-label={`${held ? 'Go on with' : 'Pause'} ${file.name}`}
            title={held ? 'Go on' : 'Pause'}
            onClick={() => (held ? files.resume(file) : files.uploads.pause(file.key))}
          >
            <Icon name={held ? 'play' : 'pause'} />
          </button>
        )}
        <button
          type="button"
          class="icon-button small"
          data-testid="file-cancel"
          aria-label={`Do not send ${file.name}`}
          title="Do not send"
          onClick={() => files.cancel(file)}
        >
          <Icon name="close" />
        </button>
      </div>
      <progress max={100} value={percent(file)} aria-label={`${file.name}, sent`} />
    </li>
  );
}

export function SendingFiles({ session }: { session: Session }) {
  const files = session.sending.value;
  if (files.length === 0) return null;
  return (
    <ul class="sending-files" aria-label="Files on their way">
      {files.map((file) => (
        <Row key={file.key} session={session} file={file} />
      ))}
    </ul>
  );
}

/** A page that was closed while it sent cannot reach the file again; the person can. */
export function LeftBehindNote({ session }: { session: Session }) {
  const left = useSignal<readonly LeftBehind[]>([]);
  const { uploads } = session.room.files;
  const going = session.sending.value;
  useEffect(() => {
    let current = true;
    uploads.leftBehind().then(
      (found) => {
        if (current) left.value = found;
      },
      () => undefined,
    );
    return () => {
      current = false;
    };
  }, [uploads, going]);
  return (
    <>
      {left.value.map(({ name, size, storageKey }) => (
        <p key={storageKey} class="left-behind" data-testid="file-left">
          <Icon name="attach" />
          <span>
            <strong>{name}</strong> ({readableSize(size)}) was not sent to its end. Choose it again to go on.
          </span>
          <button
            type="button"
            class="icon-button small"
            aria-label={`Forget ${name}`}
            title="Forget"
            onClick={() => void uploads.forget(storageKey)}
          >
            <Icon name="close" />
          </button>
        </p>
      ))}
    </>
  );
}
