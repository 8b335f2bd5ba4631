/**
 * Simulcast by the size of the camera, the fullest encoding being the whole picture, and by what is wanted.
 */
import { afterEach, expect, test, vi } from 'vitest';
import { Peer, scales } from '../src/client/peer';

test('a large camera is sent in three sizes, a small one in two or one', () => {
  expect(scales(1280 * 720, 3)).toEqual([4, 2, 1]);
  expect(scales(960 * 540, 3)).toEqual([4, 2, 1]);
  expect(scales(640 * 480, 3)).toEqual([2, 1]);
  expect(scales(320 * 180, 3)).toEqual([1]);
});

test('a screen has two sizes at most', () => {
  expect(scales(1920 * 1080, 2)).toEqual([2, 1]);
  expect(scales(300 * 200, 2)).toEqual([1]);
});

/** A sender as a browser's: what is set counts a little later, and meanwhile nothing else may be set. */
class Sender {
  track: unknown = null;
  #encodings: RTCRtpEncodingParameters[];
  #isBusy = false;

  constructor(encodings: RTCRtpEncodingParameters[]) {
    this.#encodings = structuredClone(encodings);
  }

  async replaceTrack(track: unknown): Promise<void> {
    await Promise.resolve();
    this.track = track;
  }

  getParameters() {
    return { encodings: structuredClone(this.#encodings) };
  }

  async setParameters({ encodings }: { encodings: RTCRtpEncodingParameters[] }): Promise<void> {
    if (this.#isBusy) throw new DOMException('another change is under way', 'InvalidStateError');
    this.#isBusy = true;
    await new Promise((done) => setTimeout(done));
    this.#isBusy = false;
    this.#encodings = encodings;
  }

  get sent(): (string | undefined)[] {
    return this.#encodings.filter(({ active }) => active).map(({ rid }) => rid);
  }
}

afterEach(() => vi.unstubAllGlobals());

test('what is wanted while a track is put on a line is sent as well', async () => {
  const senders: Sender[] = [];
  class Connection {
    createDataChannel = () => ({});
    addTransceiver(_: string, { sendEncodings = [] }: RTCRtpTransceiverInit) {
      const sender = new Sender(sendEncodings);
      senders.push(sender);
      return { sender, mid: String(senders.length - 1) };
    }
  }
  vi.stubGlobal('RTCPeerConnection', Connection);
  vi.stubGlobal('RTCRtpReceiver', { getCapabilities: () => undefined });
  const peer = new Peer({ audio: 0, video: 0 }, true);
  const camera = senders[Number(peer.midOf('camera'))];
  const track = { kind: 'video', getSettings: () => ({ width: 1280, height: 720 }) };
  await Promise.all([
    peer.want('camera', []),
    peer.carry('camera', track as unknown as MediaStreamTrack),
    peer.want('camera', ['q']),
    peer.want('camera', ['q', 'f']),
  ]);
  expect(camera?.sent).toEqual(['q', 'f']);
});
