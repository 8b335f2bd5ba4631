/** One chat message: its text, its reactions, and what its reader may do with it. */
import { useSignal } from '@preact/signals';
import type { ChatMessage } from '../client';
import { FileCard } from './file-card';
import { Icon } from './icons';
import { type Piece, parse } from './markup';
import { Menu, MenuItem } from './menu';
import type { Session } from './session';
import { Avatar } from './tile';

const EMOJI = ['👍', '❤️', '😂', '🎉', '😮', '👏'];

/** The reactions to choose from. */
export function EmojiRow({
  label,
  onPick,
}: {
  label: (emoji: string) => string;
  onPick: (emoji: string) => void;
}) {
  return (
    <div class="emoji-row">
      {EMOJI.map((emoji) => (
        <button key={emoji} type="button" aria-label={label(emoji)} onClick={() => onPick(emoji)}>
          {emoji}
        </button>
      ))}
    </div>
  );
}

function PieceView({ piece }: { piece: Piece }) {
  switch (piece.kind) {
    case 'text':
      return <>{piece.text}</>;
    case 'code':
      return <code>{piece.text}</code>;
    case 'block':
      return <pre tabIndex={0}>{piece.text}</pre>;
    case 'link':
      return (
        <a href={piece.href} target="_blank" rel="noopener noreferrer nofollow">
          {piece.text}
        </a>
      );
    case 'bold':
      return (
        <strong>
          <Pieces pieces={piece.children} />
        </strong>
      );
    case 'italic':
      return (
        <em>
          <Pieces pieces={piece.children} />
        </em>
      );
  }
}

function Pieces({ pieces }: { pieces: Piece[] }) {
  return (
    <>
      {pieces.map((piece, at) => (
        <PieceView key={at} piece={piece} />
      ))}
    </>
  );
}

export function Text({ text }: { text: string }) {
  return (
    <div class="message-text">
      <Pieces pieces={parse(text)} />
    </div>
  );
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
export const timeOf = (ms: number): string => clock.format(ms);

/** A message in a few words, for where it is quoted. */
export const gist = ({ text, file }: ChatMessage): string => text || file?.name || '';

interface Props {
  session: Session;
  message: ChatMessage;
  /** Written right after another by the same person: no name again. */
  follows: boolean;
  onReply: (message: ChatMessage) => void;
}

function Editor({
  session,
  message,
  onDone,
}: {
  session: Session;
  message: ChatMessage;
  onDone: () => void;
}) {
  const save = (text: string) => {
    onDone();
    if (text !== '' && text !== message.text) void session.attempt(session.room.chat.edit(message.id, text));
  };
  return (
    <textarea
      class="message-editor"
      aria-label="Edit message"
      rows={2}
      defaultValue={message.text}
      ref={(box) => box?.focus()}
      onKeyDown={(event) => {
        if (event.key === 'Escape') onDone();
        if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        save(event.currentTarget.value.trim());
      }}
    />
  );
}

function Reactions({ session, message }: { session: Session; message: ChatMessage }) {
  const me = session.me.value;
  const entries = Object.entries(message.reactions).filter(([, who]) => who.length > 0);
  if (entries.length === 0) return null;
  return (
    <div class="message-reactions">
      {entries.map(([emoji, who]) => {
        const mine = who.includes(me);
        const names = who.map((identity) => session.nameOf(identity)).join(', ');
        return (
          <button
            key={emoji}
            type="button"
            class="reaction"
            aria-pressed={mine}
            aria-label={`${emoji}, ${who.length}: ${names}`}
            title={names}
            onClick={() => void session.attempt(session.room.chat.react(message.id, emoji, !mine))}
          >
            {emoji} <span>{who.length}</span>
          </button>
        );
      })}
    </div>
  );
}

export function Message({ session, message, follows, onReply }: Props) {
  const editing = useSignal(false);
  const mine = message.identity === session.me.value;
  const { chat, admin } = session.grant.value;
  const repliedTo = message.reply_to
    ? session.room.chat.log.messages.find((one) => one.id === message.reply_to)
    : undefined;
  return (
    <li
      class={`message ${follows ? 'follows' : ''} ${mine ? 'mine' : ''}`}
      data-testid="chat-message"
      data-id={message.id}
      data-seq={message.seq}
    >
      {!follows && <Avatar name={message.name} />}
      {!follows && (
        <header>
          <strong>{message.name}</strong>
          <time dateTime={new Date(message.sent_at_ms).toISOString()}>{timeOf(message.sent_at_ms)}</time>
        </header>
      )}
      {message.reply_to && (
        <p class="message-quote">
          <Icon name="reply" />
          {repliedTo && !repliedTo.deleted ? `${repliedTo.name}: ${gist(repliedTo)}` : 'an earlier message'}
        </p>
      )}
      {message.deleted ? (
        <p class="message-gone">Message deleted</p>
      ) : editing.value ? (
        <Editor
          session={session}
          message={message}
          onDone={() => {
            editing.value = false;
          }}
        />
      ) : (
        message.text !== '' && <Text text={message.text} />
      )}
      {message.file && !message.deleted && <FileCard session={session} id={message.id} file={message.file} />}
      {message.edited_at_ms !== undefined && !message.deleted && <span class="message-edited">edited</span>}
      <Reactions session={session} message={message} />
      {chat && !message.deleted && !editing.value && (
        <div class="message-tools">
          <button
            type="button"
            class="icon-button small"
            aria-label="Reply"
            title="Reply"
            onClick={() => onReply(message)}
          >
            <Icon name="reply" />
          </button>
          <Menu icon="more" label="More about this message" class="icon-button small">
            {(close) => (
              <>
                <EmojiRow
                  label={(emoji) => `React with ${emoji}`}
                  onPick={(emoji) => {
                    close();
                    void session.attempt(session.room.chat.react(message.id, emoji, true));
                  }}
                />
                {mine && !message.file && (
                  <MenuItem
                    icon="edit"
                    label="Edit"
                    onPick={() => {
                      close();
                      editing.value = true;
                    }}
                  />
                )}
                {(mine || admin) && (
                  <MenuItem
                    icon="trash"
                    label="Delete"
                    danger
                    onPick={() => {
                      close();
                      void session.attempt(session.room.chat.delete(message.id));
                    }}
                  />
                )}
              </>
            )}
          </Menu>
        </div>
      )}
    </li>
  );
}
