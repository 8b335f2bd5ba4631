/** The chat panel: what was said, what is still unsent, who is typing, and a box to write in. */
import { useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import type { ChatMessage, Outgoing } from '../client';
import { AttachButton, LeftBehindNote, SendingFiles } from './file-sending';
import { Icon } from './icons';
import { gist, Message, Text } from './message';
import type { Session } from './session';
import { sentence } from './toasts';

/** Messages by one person within this time stand under one name. */
const SAME_BREATH_MS = 5 * 60_000;
/** Closer to the end than this, the list follows what comes. */
const NEAR_END_PX = 80;
/** As the server's default; it has the last word. */
const LENGTH_MAX = 4_000;

function follows(before: ChatMessage | undefined, message: ChatMessage): boolean {
  return (
    before !== undefined &&
    before.identity === message.identity &&
    !message.reply_to &&
    message.sent_at_ms - before.sent_at_ms < SAME_BREATH_MS
  );
}

function Unsent({ session, message }: { session: Session; message: Outgoing }) {
  const { chat } = session.room;
  const offline = session.status.value.phase !== 'connected';
  const waiting = offline ? 'Will be sent when connected again' : 'Sending…';
  return (
    <li class={`message mine unsent ${message.state}`} data-id={message.id}>
      <Text text={message.text} />
      {message.state === 'failed' ? (
        <p class="message-failed">
          <span>Not sent. {sentence(message.why ?? '')}</span>
          <button type="button" class="text-button" onClick={() => chat.retry(message.id)}>
            Try again
          </button>
          <button type="button" class="text-button" onClick={() => chat.discard(message.id)}>
            Discard
          </button>
        </p>
      ) : (
        <p class="message-edited">{waiting}</p>
      )}
    </li>
  );
}

function List({ session, onReply }: { session: Session; onReply: (message: ChatMessage) => void }) {
  void session.chat.value;
  const { chat } = session.room;
  const { messages, outgoing, more } = chat.log;
  const ref = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const below = useSignal(0);
  const loading = useSignal(false);
  const last = messages.at(-1)?.seq ?? 0;
  const seenLast = useRef(last);

  const toEnd = () => {
    ref.current?.scrollTo({ top: ref.current.scrollHeight });
    below.value = 0;
  };
  useLayoutEffect(() => {
    if (atEnd.current) toEnd();
    else if (last > seenLast.current) below.value += last - seenLast.current;
    seenLast.current = last;
  }, [last, outgoing]);

  const loadOlder = async () => {
    const list = ref.current;
    if (!list || loading.value || !more) return;
    loading.value = true;
    const fromEnd = list.scrollHeight - list.scrollTop;
    await chat.loadOlder();
    loading.value = false;
    // What was in view stays in view.
    requestAnimationFrame(() => list.scrollTo({ top: list.scrollHeight - fromEnd }));
  };
  return (
    <>
      <div
        ref={ref}
        class="chat-list"
        tabIndex={0}
        role="log"
        aria-label="Messages"
        onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
          atEnd.current = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
          if (atEnd.current) below.value = 0;
          if (scrollTop < 40) void loadOlder();
        }}
      >
        {more && (
          <button type="button" class="text-button older" onClick={() => void loadOlder()}>
            {loading.value ? 'Loading…' : 'Older messages'}
          </button>
        )}
        {messages.length === 0 && outgoing.length === 0 && (
          <p class="empty">
            <Icon name="chat" />
            Nothing said yet. Whatever is written here stays with the room.
          </p>
        )}
        <ol>
          {messages.map((message, at) => (
            <Message
              key={message.id}
              session={session}
              message={message}
              follows={follows(messages[at - 1], message)}
              onReply={onReply}
            />
          ))}
          {outgoing.map((message) => (
            <Unsent key={message.id} session={session} message={message} />
          ))}
        </ol>
      </div>
      {below.value > 0 && (
        <button type="button" class="chat-below" onClick={toEnd}>
          <Icon name="down" /> {below.value} new
        </button>
      )}
    </>
  );
}

function Typing({ session }: { session: Session }) {
  const names = session.typing.value
    .filter((identity) => identity !== session.me.value)
    .map((identity) => session.nameOf(identity));
  const words =
    names.length === 0
      ? ''
      : names.length === 1
        ? `${names[0]} is typing…`
        : names.length === 2
          ? `${names[0]} and ${names[1]} are typing…`
          : `${names.length} people are typing…`;
  return <p class="typing">{words}</p>;
}

export function ChatPanel({ session }: { session: Session }) {
  const reply = useSignal<ChatMessage | undefined>(undefined);
  const text = useSignal('');
  const box = useRef<HTMLTextAreaElement>(null);
  const { chat } = session.room;
  const allowed = session.grant.value.chat;

  useEffect(() => {
    session.unread.value = 0;
  }, [session]);

  const send = () => {
    const words = text.value.trim();
    if (words === '' || !chat.send(words, reply.value?.id)) return;
    text.value = '';
    reply.value = undefined;
    if (box.current) box.current.style.height = '';
  };
  return (
    <>
      <List
        session={session}
        onReply={(message) => {
          reply.value = message;
          box.current?.focus();
        }}
      />
      <Typing session={session} />
      <LeftBehindNote session={session} />
      <SendingFiles session={session} />
      {reply.value && (
        <p class="reply-to">
          <Icon name="reply" />
          <span>
            {reply.value.name}: {gist(reply.value)}
          </span>
          <button
            type="button"
            class="icon-button small"
            aria-label="Do not reply"
            onClick={() => {
              reply.value = undefined;
            }}
          >
            <Icon name="close" />
          </button>
        </p>
      )}
      <form
        class="chat-form"
        onSubmit={(event) => {
          event.preventDefault();
          send();
        }}
      >
        <AttachButton session={session} />
        <textarea
          ref={box}
          data-testid="chat-input"
          aria-label="Message"
          placeholder={allowed ? 'Write to the room' : 'You may read here, but not write'}
          disabled={!allowed}
          maxLength={LENGTH_MAX}
          rows={1}
          value={text}
          onInput={({ currentTarget }) => {
            text.value = currentTarget.value;
            currentTarget.style.height = 'auto';
            currentTarget.style.height = `${Math.min(currentTarget.scrollHeight + 2, 140)}px`;
            chat.typing(currentTarget.value.trim() !== '');
          }}
          onKeyDown={(event) => {
            if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            send();
          }}
        />
        <button
          type="submit"
          class="icon-button accent"
          data-testid="chat-send"
          aria-label="Send"
          title="Send"
          disabled={!allowed || text.value.trim() === ''}
        >
          <Icon name="send" />
        </button>
      </form>
    </>
  );
}
