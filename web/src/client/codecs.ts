/**
 * Which codecs and header extensions are offered. Browsers list dozens of codec variants on every m-line;
 * what the server never forwards is left out, so that an offer with a wall of slots stays well below the
 * 64 KiB that a body may have.
 */
import type { Kind } from './protocol';

const KEPT = new Set([
  'audio/opus',
  'audio/red',
  'video/vp8',
  'video/vp9',
  'video/h264',
  'video/av1',
  'video/rtx',
]);

type Codec = Pick<RTCRtpCodec, 'mimeType' | 'sdpFmtpLine'>;

/** True for the codecs worth a line in the offer: 8 bits, 4:2:0, and H.264 in its common packetization. */
export function isOffered({ mimeType, sdpFmtpLine = '' }: Codec): boolean {
  const type = mimeType.toLowerCase();
  if (!KEPT.has(type)) return false;
  if (type === 'video/vp9') return !/profile-id=[1-3]/.test(sdpFmtpLine);
  if (type === 'video/av1') return !/profile=[12]/.test(sdpFmtpLine);
  if (type === 'video/h264') {
    return /packetization-mode=1/.test(sdpFmtpLine) && /profile-level-id=(42e0|4d|64)/i.test(sdpFmtpLine);
  }
  return true;
}

/** Narrows what a transceiver offers; a browser that cannot keeps its whole list. */
export function narrowCodecs(transceiver: RTCRtpTransceiver, kind: Kind): void {
  const all = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  const offered = all.filter(isOffered);
  if (offered.length === 0) return;
  try {
    transceiver.setCodecPreferences?.(offered);
  } catch {
    // A list that this browser does not like changes nothing.
  }
}

const DESCRIPTOR = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';
const CAPTURE_TIME = 'http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time';

/** The RTP header extensions control API, which not every browser has yet. */
interface HeaderExtensions {
  getHeaderExtensionsToNegotiate?(): { uri: string; direction: RTCRtpTransceiverDirection }[];
  setHeaderExtensionsToNegotiate?(wanted: { uri: string; direction: RTCRtpTransceiverDirection }[]): void;
}

/**
 * Asks for the dependency descriptor, which Chromium knows and does not offer to receive by itself: without
 * it no decoder gets more than the lowest spatial layer of scalable AV1.
 */
export function wantDescriptor(transceiver: RTCRtpTransceiver): void {
  wantExtension(transceiver, DESCRIPTOR);
}

/**
 * Asks to tell with packets when their sound was captured, which Chromium can and does not offer by itself.
 * Its reports have the moment of sending instead, so that recordings and mixes would have its sound late.
 */
export function wantCaptureTime(transceiver: RTCRtpTransceiver): void {
  wantExtension(transceiver, CAPTURE_TIME);
}

function wantExtension(transceiver: RTCRtpTransceiver, wanted: string): void {
  const extended: HeaderExtensions = transceiver as RTCRtpTransceiver & HeaderExtensions;
  const all = extended.getHeaderExtensionsToNegotiate?.();
  const extension = all?.find(({ uri }) => uri === wanted);
  if (!all || !extension) return;
  extension.direction = 'sendrecv';
  try {
    extended.setHeaderExtensionsToNegotiate?.(all);
  } catch {
    // What it would have told is not known then.
  }
}
