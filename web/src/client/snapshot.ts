/** What a client knows of its room: a value that each server message turns into the next. No I/O. */
import type {
  Grant,
  Identity,
  LeaveReason,
  Mode,
  ModeReason,
  ParticipantState,
  RoomState,
  ServerMessage,
  SlotState,
} from './protocol';

/** How one gets the room now, forwarded or mixed, and why. */
export interface Delivery {
  readonly mode: Mode;
  readonly reason: ModeReason;
}

export interface Snapshot {
  readonly me: Identity;
  readonly room: RoomState | undefined;
  readonly delivery: Delivery;
  /** In the order of joining. */
  readonly participants: ReadonlyMap<Identity, ParticipantState>;
  /** Loudest first. */
  readonly speakers: readonly Identity[];
  /** Who waits in the lobby, with the name to show; filled for admins only. */
  readonly knocking: ReadonlyMap<Identity, string>;
  readonly typing: readonly Identity[];
}

export const EMPTY: Snapshot = {
  me: '',
  room: undefined,
  delivery: { mode: 'sfu', reason: 'room' },
  participants: new Map(),
  speakers: [],
  knocking: new Map(),
  typing: [],
};

const NO_GRANT: Grant = { publish: false, subscribe: false, chat: false, files: false, admin: false };

export function myGrant(snapshot: Snapshot): Grant {
  return snapshot.participants.get(snapshot.me)?.grant ?? NO_GRANT;
}

function with_<Key, Value>(map: ReadonlyMap<Key, Value>, key: Key, value: Value): ReadonlyMap<Key, Value> {
  return new Map(map).set(key, value);
}

function without<Key, Value>(map: ReadonlyMap<Key, Value>, key: Key): ReadonlyMap<Key, Value> {
  const copy = new Map(map);
  copy.delete(key);
  return copy;
}

/** A room is forwarded until `mode` says otherwise; a connection that is resumed may begin with the mix. */
function deliveryAtFirst(room: RoomState, slots: readonly SlotState[]): Delivery {
  if (!slots.some(({ source }) => source === 'mix')) return EMPTY.delivery;
  return { mode: 'mcu', reason: room.mode === 'mcu' ? 'room' : 'chosen' };
}

/** How one is to get the room, though it may not be had yet. */
export function wantedMode({ mode, reason }: Delivery): Mode {
  return reason === 'room' || reason === 'chosen' ? mode : 'mcu';
}

/** The same snapshot when the message changes nothing in it. */
export function reduce(before: Snapshot, message: ServerMessage): Snapshot {
  switch (message.type) {
    case 'welcome':
      return {
        me: message.me,
        room: message.room,
        delivery: deliveryAtFirst(message.room, message.slots),
        participants: new Map(message.participants.map((one) => [one.identity, one])),
        speakers: [],
        knocking: new Map(
          message.knocking.map((identity) => [identity, before.knocking.get(identity) ?? identity]),
        ),
        typing: [],
      };
    case 'room':
      return { ...before, room: message.room };
    case 'mode':
      return { ...before, delivery: { mode: message.mode, reason: message.reason } };
    case 'participant.joined':
    case 'participant.updated': {
      const { participant } = message;
      return { ...before, participants: with_(before.participants, participant.identity, participant) };
    }
    case 'participant.left':
      return {
        ...before,
        participants: without(before.participants, message.identity),
        speakers: before.speakers.filter((identity) => identity !== message.identity),
        typing: before.typing.filter((identity) => identity !== message.identity),
      };
    case 'speakers':
      return { ...before, speakers: message.speakers };
    case 'knock':
      return { ...before, knocking: with_(before.knocking, message.identity, message.name) };
    case 'knock.gone':
      return { ...before, knocking: without(before.knocking, message.identity) };
    case 'chat.typing': {
      const others = before.typing.filter((identity) => identity !== message.identity);
      return { ...before, typing: message.typing ? [...others, message.identity] : others };
    }
    default:
      return before;
  }
}

/** Why one is out of the room, in words to show to the one concerned. */
export const LEAVE_WORDS: Record<LeaveReason, string> = {
  left: 'You left the room.',
  lost: 'The connection was lost for too long.',
  removed: 'You were removed from the room.',
  denied: 'You were not let in.',
  replaced: 'You joined this room from somewhere else, so this page has stepped aside.',
  closed: 'The room was closed.',
  draining: 'The server is going down for a restart. Try again in a minute.',
  moved: 'The room has moved to another server.',
};
