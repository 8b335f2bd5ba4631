/**
 * The room as the page shows it: the library's events as signals, so that a component is drawn again only
 * when what it reads has changed.
 */
import { computed, signal } from '@preact/signals';
import {
  asRefused,
  type Challenge,
  type ClientMessage,
  Comparison,
  DeviceProblem,
  END_WORDS,
  type Identity,
  type Mode,
  type ModeReason,
  myGrant,
  type Refused,
  Room,
  type Sending,
  type ServerStats,
  type SlotCounts,
  type Source,
  VIDEO_SLOTS_MAX,
  wantedMode,
} from '../client';
import * as prefs from './prefs';
import { toast } from './toasts';

export interface JoinAs {
  room: string;
  identity: string;
  name?: string | undefined;
  token?: string | undefined;
}

export type View = 'auto' | 'grid' | 'speaker';
export type Panel = 'chat' | 'people' | 'stats' | 'none';

/** How long a join waits for the devices to open. */
const DEVICES_FIRST_MS = 4_000;
/** How long a reaction floats over its tile. */
const REACTION_MS = 4_000;
/** A hidden tab asks for no video after this long: a glance at another tab costs no picture. */
const HIDDEN_AFTER_MS = 15_000;

/** As many video slots as this screen can show with faces to be recognised, and its machine likely plays. */
function slotsForScreen(): SlotCounts {
  const pixels = Math.max(screen.width, screen.height) * devicePixelRatio;
  const small = Math.min(screen.width, screen.height) < 600;
  return { audio: 3, video: small ? 9 : pixels >= 2500 ? VIDEO_SLOTS_MAX : 16 };
}

const COMING: ReadonlySet<ModeReason> = new Set(['starting', 'failed']);
/** Why the mix is not to be had, where that is not as one wanted it. */
const NO_MIX: Partial<Record<ModeReason, string>> = {
  failed: 'The mix has failed and is started again. Until then you get everyone’s own picture.',
  unavailable: 'The server cannot mix this room now. You get everyone’s own picture.',
};

/** Why one has the mix without having chosen it. */
const MOVED_TO_MIX: Partial<Record<ModeReason, string>> = {
  downlink: 'Your connection does not carry everyone’s pictures, so you get them mixed into one.',
  device: 'This device does not keep up with everyone’s pictures, so you get them mixed into one.',
};

const wideWindow = matchMedia('(min-width: 1000px)');

export class Session {
  readonly room: Room;
  readonly status;
  readonly snapshot;
  /** Counts up when slots change; read it, then ask `room.slots`. */
  readonly slots = signal(0);
  readonly chat = signal(0);
  /** Our files on their way into the room. */
  readonly sending = signal<readonly Sending[]>([]);
  readonly local = signal(0);
  /** What was measured of each mode while the statistics were open. */
  readonly comparison = new Comparison();
  readonly stats = signal<ServerStats | undefined>(undefined);
  readonly reactions = signal<readonly { key: number; identity: Identity; emoji: string }[]>([]);
  readonly unread = signal(0);
  /** What to pay, where we were not let in without. */
  readonly challenge = signal<Challenge | undefined>(undefined);
  /** The paid time ends, and there is an invoice for more. */
  readonly renewalDue = signal<{ ends_at_ms: number } | undefined>(undefined);
  readonly view = signal<View>('auto');
  readonly pinned = signal<string | undefined>(undefined);
  readonly panel = signal<Panel>(prefs.sidePanel.value === 'closed' || !wideWindow.matches ? 'none' : 'chat');
  /** Who spoke last, besides us: shown big in the speaker view. */
  readonly dominant = signal<Identity | undefined>(undefined);
  readonly participants;
  readonly speakers;
  readonly state;
  readonly delivery;
  /** The recording that runs. */
  readonly recording;
  /** One has to say whether one may be in it. */
  readonly asksConsent;
  readonly wantedMode;
  /** Wanted, but not flowing yet, or not any more. */
  readonly mixIsComing;
  readonly knocking;
  readonly typing;
  readonly grant;
  readonly me;
  #reactionKey = 0;
  #hiddenTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #onVisibility = () => this.#visibilityChanged();
  /** In a narrow window the panel would lie over the stage. */
  readonly #onWidth = () => {
    if (!wideWindow.matches) this.panel.value = 'none';
  };

  constructor(readonly as: JoinAs) {
    const { room: name, identity, token } = as;
    const room = new Room({
      room: name,
      identity,
      token,
      name: as.name ?? identity,
      slots: slotsForScreen(),
    });
    this.room = room;
    if (prefs.cameraId.value) room.local.chosen.camera = prefs.cameraId.value;
    if (prefs.microphoneId.value) room.local.chosen.microphone = prefs.microphoneId.value;
    this.status = signal(room.status);
    this.snapshot = signal(room.snapshot);
    this.participants = computed(() => this.snapshot.value.participants);
    this.speakers = computed(() => this.snapshot.value.speakers);
    this.state = computed(() => this.snapshot.value.room);
    this.delivery = computed(() => this.snapshot.value.delivery);
    this.recording = computed(() => this.snapshot.value.room?.recording);
    this.asksConsent = computed(() => {
      const { room: state, participants, me } = this.snapshot.value;
      const isAsked = state?.recording !== undefined && state.recording_consent === 'ask';
      return isAsked && participants.get(me)?.recording_consent === undefined;
    });
    this.wantedMode = computed(() => wantedMode(this.delivery.value));
    this.mixIsComing = computed(() => COMING.has(this.delivery.value.reason));
    this.knocking = computed(() => this.snapshot.value.knocking);
    this.typing = computed(() => this.snapshot.value.typing);
    this.grant = computed(() => myGrant(this.snapshot.value));
    this.me = computed(() => this.snapshot.value.me || identity);
    this.#listen();
  }

  /** Joins; failures show as the status `closed`. */
  async join(): Promise<void> {
    await this.room.join().catch((error: unknown) => {
      // A token that is no good any more would refuse us even where none is needed.
      const refused = asRefused(error);
      if (refused.code === 'unauthorized') prefs.forgetRoomToken(this.as.room);
      this.challenge.value = refused.challenge;
    });
  }

  /**
   * Opens the default devices and joins. A question to the person that stays open does not hold up the join,
   * but answers given soon are waited for: Firefox shows ICE all its addresses only while something is
   * captured.
   */
  async joinWithDevices(): Promise<void> {
    const patience = new Promise<void>((resolve) => setTimeout(resolve, DEVICES_FIRST_MS));
    await Promise.race([this.openDevices(), patience]);
    await this.join();
  }

  /** Opens the default devices. What cannot be had is said, and the call goes on without. */
  async openDevices(): Promise<void> {
    for (const { message } of await this.room.local.openBoth()) toast(message, 'problem');
  }

  /** Waits for something that may be refused; says so when it was. */
  async attempt(action: Promise<unknown>): Promise<boolean> {
    try {
      await action;
      return true;
    } catch (error) {
      const shared = error instanceof DeviceProblem && error.kind === 'screen' && error.trouble === 'refused';
      if (!shared)
        toast(error instanceof DeviceProblem ? error.message : asRefused(error).message, 'problem');
      return false;
    }
  }

  ask(message: ClientMessage): Promise<boolean> {
    return this.attempt(this.room.request(message));
  }

  /** How I want the room; undefined for as the room has it. */
  chooseMode(mode: Mode | undefined): void {
    this.room.chooseMode(mode).catch((error: unknown) => this.#refused(asRefused(error)));
  }

  #refused({ code, message }: Refused): void {
    toast((code === 'unavailable' && NO_MIX.unavailable) || message, 'problem');
  }

  toggleMicrophone(): void {
    if (!this.grant.value.publish) return;
    void this.attempt(this.room.local.setMicrophone(!this.room.local.isOn('microphone')));
  }

  toggleCamera(): void {
    if (!this.grant.value.publish) return;
    void this.attempt(this.room.local.setCamera(!this.room.local.isOn('camera')));
  }

  toggleScreen(): void {
    if (!this.grant.value.publish) return;
    void this.attempt(this.room.local.setScreen(!this.room.local.isOn('screen')));
  }

  toggleHand(): void {
    const raised = this.participants.value.get(this.me.value)?.hand_raised ?? false;
    void this.ask({ type: 'me.update', hand_raised: !raised });
  }

  react(emoji: string): void {
    void this.ask({ type: 'react', emoji });
  }

  togglePanel(panel: Panel): void {
    this.panel.value = this.panel.value === panel ? 'none' : panel;
    if (wideWindow.matches) prefs.sidePanel.value = this.panel.value === 'none' ? 'closed' : 'open';
    if (this.panel.value === 'chat') this.unread.value = 0;
  }

  /** Sends files into the room, and shows how they go. */
  sendFiles(files: Iterable<File>): void {
    const all = [...files];
    if (all.length === 0) return;
    if (!this.grant.value.files) {
      toast('You may not send files here.', 'problem');
      return;
    }
    for (const file of all) this.room.files.send(file);
    this.panel.value = 'chat';
  }

  nameOf(identity: Identity): string {
    return this.participants.value.get(identity)?.name ?? identity;
  }

  /** Not muted, and there. */
  hasTrack(identity: Identity, source: Source): boolean {
    const tracks = this.participants.value.get(identity)?.tracks ?? [];
    return tracks.some((track) => track.source === source && !track.muted);
  }

  #listen(): void {
    const { room } = this;
    room.on('status', (status) => {
      this.status.value = status;
      if (status.phase !== 'closed') return;
      document.removeEventListener('visibilitychange', this.#onVisibility);
      wideWindow.removeEventListener('change', this.#onWidth);
    });
    room.on('snapshot', (snapshot) => {
      this.snapshot.value = snapshot;
      const heard = snapshot.speakers.find((identity) => identity !== snapshot.me);
      if (heard) this.dominant.value = heard;
    });
    room.on('slots', () => {
      this.slots.value += 1;
    });
    room.on('stats', (stats) => {
      this.stats.value = stats;
    });
    room.on('delivery', ({ mode, reason }) => {
      const words = NO_MIX[reason];
      if (words) toast(words, 'problem');
      const moved = mode === 'mcu' && MOVED_TO_MIX[reason];
      if (moved) toast(moved, 'note');
    });
    room.on('refused', (refused) => {
      // The mix is all that is taken back later; the rest is no news to a person.
      if (refused.code === 'unavailable') this.#refused(refused);
    });
    room.on('unsent', ({ source, reason }) => {
      toast(`Your browser does not send your ${source.replace('-', ' ')}: ${reason}`, 'problem');
    });
    room.on('recordingEnded', ({ reason, by }) => {
      const words =
        by && reason === 'stopped' ? `${this.nameOf(by)} stopped the recording.` : END_WORDS[reason];
      toast(words, reason === 'stopped' || reason === 'closed' ? 'note' : 'problem');
    });
    room.on('muted', ({ source, by }) => {
      toast(`${this.nameOf(by)} turned off your ${source.replace('-', ' ')}.`, 'note');
    });
    room.on('renewalDue', (due) => {
      this.renewalDue.value = due;
      toast('Your paid time ends soon. Renew it by the clock above.', 'note');
    });
    room.on('reaction', ({ identity, emoji }) => this.#float(identity, emoji));
    room.chat.on('change', () => {
      this.chat.value += 1;
    });
    room.chat.on('arrived', (id) => {
      const message = room.chat.log.messages.find((one) => one.id === id);
      if (message?.identity !== this.me.value && this.panel.value !== 'chat') this.unread.value += 1;
    });
    room.files.onSending(() => {
      this.sending.value = room.files.sending;
    });
    room.local.on('change', () => {
      this.local.value += 1;
    });
    room.local.on('problem', ({ message }) => toast(message, 'problem'));
    document.addEventListener('visibilitychange', this.#onVisibility);
    wideWindow.addEventListener('change', this.#onWidth);
  }

  #float(identity: Identity, emoji: string): void {
    const key = this.#reactionKey++;
    this.reactions.value = [...this.reactions.value.slice(-30), { key, identity, emoji }];
    setTimeout(() => {
      this.reactions.value = this.reactions.value.filter((one) => one.key !== key);
    }, REACTION_MS);
  }

  #visibilityChanged(): void {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) this.#hiddenTimer = setTimeout(() => this.room.setHidden(true), HIDDEN_AFTER_MS);
    else this.room.setHidden(false);
  }
}
