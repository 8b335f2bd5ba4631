/** The offer's codecs: what is forwarded, and nothing else. */
import { expect, test } from 'vitest';
import { isOffered, wantCaptureTime, wantDescriptor } from '../src/client/codecs';

const offered = (mimeType: string, sdpFmtpLine?: string) =>
  isOffered({ mimeType, ...(sdpFmtpLine !== undefined && { sdpFmtpLine }) });

test('what the server forwards is offered', () => {
  for (const type of ['audio/opus', 'audio/red', 'video/VP8', 'video/VP9', 'video/AV1', 'video/rtx']) {
    expect(offered(type)).toBe(true);
  }
  expect(offered('video/VP9', 'profile-id=0')).toBe(true);
  expect(offered('video/H264', 'packetization-mode=1;profile-level-id=42e01f')).toBe(true);
});

test('rare variants and telephone codecs are not', () => {
  for (const type of ['audio/PCMU', 'audio/CN', 'audio/telephone-event', 'video/ulpfec', 'video/red']) {
    expect(offered(type)).toBe(false);
  }
  expect(offered('video/VP9', 'profile-id=2')).toBe(false);
  expect(offered('video/AV1', 'level-idx=5;profile=1;tier=0')).toBe(false);
  expect(offered('video/H264', 'packetization-mode=0;profile-level-id=42e01f')).toBe(false);
  expect(offered('video/H264', 'packetization-mode=1;profile-level-id=f4001f')).toBe(false);
});

test('header extensions are asked for where the browser lets one ask', () => {
  const known = [
    { uri: 'urn:ietf:params:rtp-hdrext:sdes:mid', direction: 'sendrecv' },
    {
      uri: 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension',
      direction: 'stopped',
    },
    { uri: 'http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time', direction: 'stopped' },
  ];
  let wanted = structuredClone(known);
  const transceiver = {
    getHeaderExtensionsToNegotiate: () => structuredClone(known),
    setHeaderExtensionsToNegotiate: (all: typeof known) => {
      wanted = all;
    },
  };
  wantDescriptor(transceiver as unknown as RTCRtpTransceiver);
  expect(wanted.map(({ direction }) => direction)).toEqual(['sendrecv', 'sendrecv', 'stopped']);
  wantCaptureTime(transceiver as unknown as RTCRtpTransceiver);
  expect(wanted.map(({ direction }) => direction)).toEqual(['sendrecv', 'stopped', 'sendrecv']);
  expect(() => wantDescriptor({} as RTCRtpTransceiver)).not.toThrow();
});
