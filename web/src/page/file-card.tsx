/** A file in the chat: its picture or its kind, what it is, and ways to see, hear or save it. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { asRefused, type FileState, type MessageId } from '../client';
import { ContentView } from './content';
import { ContentPriceButton } from './content-sales';
import { Dialog } from './dialog';
import { Icon } from './icons';
import { readableSize, readableTime } from './measures';
import { saveFrom } from './save';
import type { Session } from './session';

interface Props {
  session: Session;
  id: MessageId;
  file: FileState;
}

/** The ending of a name, to show what it is: `PDF`. */
function ending(name: string): string {
  const found = /\.([a-z0-9]{1,5})$/i.exec(name)?.[1];
  return found?.toUpperCase() ?? '';
}

function facts(file: FileState): string {
  const parts = [readableSize(file.size_bytes)];
  if (file.width && file.height) parts.push(`${file.width} × ${file.height}`);
  if (file.duration_ms !== undefined) parts.push(readableTime(file.duration_ms));
  return parts.join(' · ');
}

function isMedia(file: FileState): boolean {
  return /^(audio|video)\//.test(file.media_type);
}

/** By an address that soon ends; `buy` is called for what is sold. */
async function download(session: Session, id: MessageId, buy: () => void): Promise<void> {
  const link = session.room.files.link(id).catch((error: unknown) => {
    if (asRefused(error).code !== 'payment_required') throw error;
    buy();
    return undefined;
  });
  await session.attempt(link.then((url) => url && saveFrom(url)));
}

function Line({ session, id, file }: Props) {
  const buying = useSignal(false);
  const content = { kind: 'files' as const, id };
  const buy = () => {
    buying.value = true;
  };
  return (
    <div class="file-line">
      <div class="file-words">
        <p class="file-name" title={file.name}>
          {file.name}
        </p>
        <p class="file-facts">{facts(file)}</p>
      </div>
      {session.grant.value.admin && isMedia(file) && (
        <button
          type="button"
          class="icon-button"
          data-testid="file-play"
          aria-label={`Play ${file.name} to all`}
          title="Play to all"
          onClick={() => void session.attempt(session.room.players.play(id))}
        >
          <Icon name="screen" />
        </button>
      )}
      {session.grant.value.admin && <ContentPriceButton room={session.as.room} content={content} />}
      <button
        type="button"
        class="icon-button"
        data-testid="file-download"
        aria-label={`Download ${file.name}`}
        title="Download"
        onClick={() => void download(session, id, buy)}
      >
        <Icon name="download" />
      </button>
      {buying.value && (
        <Dialog
          title={file.name}
          onClose={() => {
            buying.value = false;
          }}
        >
          <ContentView room={session.as.room} content={content} />
        </Dialog>
      )}
    </div>
  );
}

/** The small picture, in the space that it will take from the beginning. */
function Thumbnail({ session, id, file }: Props) {
  const url = useSignal<string | undefined>(undefined);
  useEffect(() => {
    let current = true;
    session.room.files.thumbnail(id).then(
      (found) => {
        if (current) url.value = found;
      },
      () => undefined,
    );
    return () => {
      current = false;
    };
  }, [session, id]);
  const ratio = file.width && file.height ? `${file.width} / ${file.height}` : '16 / 9';
  return (
    <span class="file-picture" style={{ aspectRatio: ratio }}>
      {url.value && <img src={url.value} alt="" decoding="async" />}
    </span>
  );
}

function Picture(props: Props) {
  const { session, id, file } = props;
  const full = useSignal<string | undefined>(undefined);
  const open = () =>
    session.attempt(
      session.room.files.link(id).then((url) => {
        full.value = url;
      }),
    );
  return (
    <>
      <button type="button" class="file-show" aria-label={`Show ${file.name}`} onClick={() => void open()}>
        <Thumbnail {...props} />
      </button>
      {full.value && (
        <Dialog
          title={file.name}
          onClose={() => {
            full.value = undefined;
          }}
        >
          <img class="file-full" src={full.value} alt={file.name} />
        </Dialog>
      )}
    </>
  );
}

/** Plays once asked to: until then not a byte of it is fetched. */
function Player(props: Props) {
  const { session, id, file } = props;
  const source = useSignal<string | undefined>(undefined);
  const renewedAt = useSignal(0);
  const isVideo = !file.media_type.startsWith('audio/');
  const load = () =>
    session.attempt(
      session.room.files.link(id).then((url) => {
        source.value = url;
      }),
    );
  // The address has ended while it played: go on with a new one, unless that is no help either.
  const renew = (player: HTMLMediaElement) => {
    const at = player.currentTime;
    if (at === renewedAt.value) return;
    renewedAt.value = at;
    void load().then(() => {
      player.currentTime = at;
    });
  };
  if (source.value) {
    const shared = {
      src: source.value,
      controls: true,
      autoplay: true,
      'aria-label': file.name,
      onError: ({ currentTarget }: { currentTarget: HTMLMediaElement }) => renew(currentTarget),
    };
    return isVideo ? <video class="file-player" playsInline {...shared} /> : <audio {...shared} />;
  }
  return (
    <button type="button" class="file-show" aria-label={`Play ${file.name}`} onClick={() => void load()}>
      {file.thumbnail ? (
        <Thumbnail {...props} />
      ) : (
        <span class="file-sound">
          <Icon name="music" />
        </span>
      )}
      <span class="file-play">
        <Icon name="play" />
      </span>
      {file.duration_ms !== undefined && <span class="file-time">{readableTime(file.duration_ms)}</span>}
    </button>
  );
}

export function FileCard(props: Props) {
  const { id, file } = props;
  const plays = isMedia(file) && (file.thumbnail || file.duration_ms !== undefined);
  const shown = plays || file.thumbnail;
  return (
    <div
      class={`file-card ${shown ? 'shown' : ''}`}
      data-testid="file-item"
      data-id={id}
      data-name={file.name}
      data-type={file.media_type}
    >
      {file.expired ? (
        <>
          <span class="file-kind">
            <Icon name="file" />
          </span>
          <div class="file-words">
            <p class="file-name">{file.name}</p>
            <p class="file-facts">No longer kept</p>
          </div>
        </>
      ) : (
        <>
          {!shown && (
            <span class="file-kind" aria-hidden="true">
              <Icon name="file" />
              <span>{ending(file.name)}</span>
            </span>
          )}
          {plays ? <Player {...props} /> : file.thumbnail && <Picture {...props} />}
          <Line {...props} />
        </>
      )}
    </div>
  );
}
