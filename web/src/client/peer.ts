/**
 * One `RTCPeerConnection` as a room wants it: two data channels, one sending m-line for each source, and the
 * receive slots, all offered at once, so that nothing later needs another offer but an ICE restart.
 */
import { narrowCodecs, wantCaptureTime, wantDescriptor } from './codecs';
import { compactOffer, preferOpusDtx, restartFragment, spliceFragment } from './fragment';
import { CONTROL_LABEL, type Kind, LOSSY_LABEL, PROTOCOL, type Source } from './protocol';

/** What a client sends; a mix is only ever received. */
export type OwnSource = Exclude<Source, 'mix' | 'mix-audio'>;

export interface SlotCounts {
  audio: number;
  video: number;
}

export const SLOTS_DEFAULT: SlotCounts = { audio: 3, video: 9 };
/** More video slots than this are not offered: a wall of 25 tiles. */
export const VIDEO_SLOTS_MAX = 25;

const CAMERA: RTCRtpEncodingParameters[] = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];
const SCREEN: RTCRtpEncodingParameters[] = [
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 2_500_000 },
];
const ENCODINGS: Record<OwnSource, RTCRtpEncodingParameters[]> = {
  microphone: [{ maxBitrate: 40_000 }],
  camera: CAMERA,
  screen: SCREEN,
  'screen-audio': [{ maxBitrate: 96_000 }],
};
const KINDS: Record<OwnSource, Kind> = {
  microphone: 'audio',
  camera: 'video',
  screen: 'video',
  'screen-audio': 'audio',
};
export const SOURCES = Object.keys(KINDS) as OwnSource[];

/** Pixels from which Chromium sends three encodings of a picture, and two; of a smaller one it sends one. */
const THREE_FROM = 960 * 540;
const TWO_FROM = 480 * 270;

/**
 * By what to divide each encoding's size, lowest first. Chromium leaves out the last encodings of a small picture,
 * so there are only as many as it sends, and the last of them is always the whole picture.
 */
export function scales(pixels: number, encodings: number): number[] {
  const sent = pixels >= THREE_FROM ? 3 : pixels >= TWO_FROM ? 2 : 1;
  const count = Math.min(sent, encodings);
  return Array.from({ length: count }, (_, at) => 2 ** (count - 1 - at));
}

function scalesOf(track: MediaStreamTrack, encodings: number): number[] | undefined {
  const { width, height } = track.getSettings();
  return width && height ? scales(width * height, encodings) : undefined;
}

export class Peer {
  readonly pc: RTCPeerConnection;
  readonly control: RTCDataChannel;
  readonly lossy: RTCDataChannel;
  readonly sending = new Map<Source, RTCRtpTransceiver>();
  readonly receiving: RTCRtpTransceiver[] = [];
  /** RIDs that the server wants of a source; absent until it has said so. */
  readonly wanted = new Map<Source, ReadonlySet<string>>();
  /** The last change of each source's encodings. */
  readonly #tuned = new Map<Source, Promise<void>>();

  constructor(slots: SlotCounts, send: boolean, config: RTCConfiguration = {}) {
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', ...config });
    this.control = this.pc.createDataChannel(CONTROL_LABEL, { protocol: PROTOCOL });
    this.lossy = this.pc.createDataChannel(LOSSY_LABEL, { ordered: false, maxRetransmits: 0 });
    if (send) {
      for (const source of SOURCES) {
        const init: RTCRtpTransceiverInit = { direction: 'sendonly', sendEncodings: ENCODINGS[source] };
        const line = this.#line(KINDS[source], init);
        if (KINDS[source] === 'audio') wantCaptureTime(line);
        this.sending.set(source, line);
      }
    }
    const video = Math.min(slots.video, VIDEO_SLOTS_MAX);
    const kinds = [...Array<Kind>(slots.audio).fill('audio'), ...Array<Kind>(video).fill('video')];
    for (const kind of kinds) {
      const slot = this.#line(kind, { direction: 'recvonly' });
      if (kind === 'video') wantDescriptor(slot);
      this.receiving.push(slot);
    }
  }

  #line(kind: Kind, init: RTCRtpTransceiverInit): RTCRtpTransceiver {
    const transceiver = this.pc.addTransceiver(kind, init);
    narrowCodecs(transceiver, kind);
    return transceiver;
  }

  /** The offer to join with. Candidates are left out: the server, ICE-lite, learns them from our checks. */
  async offer(): Promise<string> {
    await this.pc.setLocalDescription(await this.pc.createOffer());
    return compactOffer(this.pc.localDescription?.sdp ?? '');
  }

  async accept(answer: string): Promise<void> {
    await this.pc.setRemoteDescription({ type: 'answer', sdp: preferOpusDtx(answer) });
  }

  /** Makes new ICE credentials; gives the fragment that tells the server of them. */
  async restartOffer(): Promise<string> {
    await this.pc.setLocalDescription(await this.pc.createOffer({ iceRestart: true }));
    const fragment = restartFragment(this.pc.localDescription?.sdp ?? '');
    if (!fragment) throw new Error('the browser offered no ICE credentials');
    return fragment;
  }

  async acceptRestart(fragment: string): Promise<void> {
    const known = this.pc.currentRemoteDescription?.sdp;
    if (!known) throw new Error('nothing was negotiated yet');
    await this.pc.setRemoteDescription({ type: 'answer', sdp: spliceFragment(known, fragment) });
  }

  /** Puts a track, or none, on a source's m-line. */
  async carry(source: Source, track: MediaStreamTrack | null): Promise<void> {
    const sender = this.sending.get(source)?.sender;
    if (!sender || sender.track === track) return;
    await sender.replaceTrack(track);
    await this.#tune(source);
  }

  /** The m-line of a source; undefined before the offer. */
  midOf(source: Source): string | undefined {
    return this.sending.get(source)?.mid ?? undefined;
  }

  /** Pauses the encodings that nobody takes, as a `layers` message names them. */
  async want(source: Source, active: readonly string[]): Promise<void> {
    this.wanted.set(source, new Set(active));
    await this.#tune(source);
  }

  /**
   * Sets each encoding's scale by the picture's size, and turns on those that exist and are wanted. One
   * change after the other: browsers refuse one that begins while another is under way, and what it was to
   * turn on would stay off.
   */
  #tune(source: Source): Promise<void> {
    const before = this.#tuned.get(source) ?? Promise.resolve();
    const tuned = before.catch(() => undefined).then(() => this.#setEncodings(source));
    this.#tuned.set(source, tuned);
    return tuned;
  }

  async #setEncodings(source: Source): Promise<void> {
    const wanted = this.wanted.get(source);
    const sender = this.sending.get(source)?.sender;
    const parameters = sender?.getParameters();
    if (!sender || !parameters?.encodings?.length) return;
    const scales =
      sender.track?.kind === 'video' ? scalesOf(sender.track, parameters.encodings.length) : undefined;
    let changed = false;
    for (const [at, encoding] of parameters.encodings.entries()) {
      // An encoding without a RID is the m-line's only one.
      const taken = !wanted || (encoding.rid ? wanted.has(encoding.rid) : wanted.size > 0);
      const active = taken && (!scales || at < scales.length);
      const scale = scales?.[at] ?? encoding.scaleResolutionDownBy;
      changed ||= encoding.active !== active || encoding.scaleResolutionDownBy !== scale;
      encoding.active = active;
      if (scale !== undefined) encoding.scaleResolutionDownBy = scale;
    }
    if (changed) await sender.setParameters(parameters);
  }

  close(): void {
    this.pc.close();
  }
}
