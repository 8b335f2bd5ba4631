/**
 * What this client sends: its microphone, camera and shared screen. It outlives connections, so that a new
 * one carries the same tracks. A muted microphone stays open and sends silence; a camera that is off is
 * released.
 */
import { DeviceProblem, openBoth, openCamera, openMicrophone, openScreen } from './devices';
import { Emitter } from './emitter';
import type { PublishedTrack, Source } from './protocol';

export interface LocalTrack {
  readonly source: Source;
  /** Absent while the device is released. */
  readonly track: MediaStreamTrack | null;
  readonly muted: boolean;
}

interface LocalEvents {
  /** A track came, went, or was muted. */
  change: Source;
  /** A device failed while in use. */
  problem: DeviceProblem;
}

export class LocalMedia extends Emitter<LocalEvents> {
  #tracks = new Map<Source, LocalTrack>();
  /** Devices to open; the browser's default where absent. */
  readonly chosen: { camera?: string; microphone?: string } = {};

  get(source: Source): LocalTrack | undefined {
    return this.#tracks.get(source);
  }

  /** Being sent: there, and not muted. */
  isOn(source: Source): boolean {
    const local = this.#tracks.get(source);
    return local !== undefined && !local.muted;
  }

  /** Takes a track that is open already, such as the preview's. */
  adopt(source: Source, track: MediaStreamTrack | null, muted = false): void {
    const before = this.#tracks.get(source)?.track;
    if (before && before !== track) before.stop();
    if (track) {
      track.enabled = !muted;
      track.onended = () => this.#ended(source, track);
    }
    this.#tracks.set(source, { source, track, muted });
    this.emit('change', source);
  }

  /** Turns microphone and camera on; gives what stood in the way. */
  async openBoth(): Promise<DeviceProblem[]> {
    const { camera, microphone } = await openBoth(this.chosen);
    if (!(microphone instanceof DeviceProblem)) this.adopt('microphone', microphone);
    if (!(camera instanceof DeviceProblem)) this.adopt('camera', camera);
    return [microphone, camera].filter((one) => one instanceof DeviceProblem);
  }

  /** Hands the open tracks to another, and forgets them without closing them. */
  handTo(other: LocalMedia): void {
    for (const { source, track, muted } of this.#tracks.values()) other.adopt(source, track, muted);
    this.#tracks.clear();
  }

  /** @throws DeviceProblem */
  async setMicrophone(on: boolean): Promise<void> {
    const { track } = this.#tracks.get('microphone') ?? {};
    if (!track && !on) return;
    this.adopt('microphone', track ?? (await openMicrophone(this.chosen.microphone)), !on);
  }

  /** @throws DeviceProblem */
  async setCamera(on: boolean): Promise<void> {
    if (on === this.isOn('camera')) return;
    this.adopt('camera', on ? await openCamera(this.chosen.camera) : null, !on);
  }

  /** @throws DeviceProblem */
  async setScreen(on: boolean): Promise<void> {
    if (!on) {
      this.drop('screen');
      this.drop('screen-audio');
      return;
    }
    const { video, audio } = await openScreen();
    this.adopt('screen', video);
    if (audio) this.adopt('screen-audio', audio);
    else this.drop('screen-audio');
  }

  /** Changes the device; one that is in use is opened anew. @throws DeviceProblem */
  async choose(kind: 'camera' | 'microphone', deviceId: string): Promise<void> {
    this.chosen[kind] = deviceId;
    const local = this.#tracks.get(kind);
    if (!local?.track) return;
    if (kind === 'camera') {
      // Released first: some cameras open once only.
      local.track.stop();
      this.adopt(kind, await openCamera(deviceId), local.muted);
    } else {
      this.adopt(kind, await openMicrophone(deviceId), local.muted);
    }
  }

  /** Silences a source on another's word. */
  silence(source: Source): void {
    const local = this.#tracks.get(source);
    if (!local || local.muted) return;
    if (source === 'microphone') this.adopt(source, local.track, true);
    else if (source === 'camera') this.adopt(source, null, true);
    else this.drop(source);
  }

  /** Ends a source altogether. */
  drop(source: Source): void {
    const local = this.#tracks.get(source);
    if (!local) return;
    this.#tracks.delete(source);
    local.track?.stop();
    this.emit('change', source);
  }

  stop(): void {
    for (const source of [...this.#tracks.keys()]) this.drop(source);
  }

  /** What to tell the room, given the m-line of each source. */
  published(midOf: (source: Source) => string | undefined): PublishedTrack[] {
    return [...this.#tracks.values()].flatMap(({ source, track, muted }) => {
      const mid = midOf(source);
      if (mid === undefined) return [];
      const height = track?.kind === 'video' ? track.getSettings().height : undefined;
      return [{ mid, source, muted, ...(height !== undefined && { height }) }];
    });
  }

  /** The device went away, or the browser's own bar ended the share. */
  #ended(source: Source, track: MediaStreamTrack): void {
    if (this.#tracks.get(source)?.track !== track) return;
    if (source !== 'camera' && source !== 'microphone') {
      this.drop(source);
      return;
    }
    this.adopt(source, null, true);
    this.emit('problem', new DeviceProblem(source, 'missing'));
  }
}
