/** SDP fragments of RFC 8840, and what is asked of Opus. */
import { expect, test } from 'vitest';
import { compactOffer, preferOpusDtx, restartFragment, spliceFragment } from '../src/client/fragment';

const crlf = (...lines: string[]) => `${lines.join('\r\n')}\r\n`;

const OFFER = crlf(
  'v=0',
  'o=- 1 2 IN IP4 127.0.0.1',
  's=-',
  't=0 0',
  'a=group:BUNDLE 0 1',
  'm=audio 9 UDP/TLS/RTP/SAVPF 111 63',
  'a=mid:0',
  'a=ice-ufrag:ABCD',
  'a=ice-pwd:secretsecretsecretsecret',
  'm=video 9 UDP/TLS/RTP/SAVPF 96',
  'a=mid:1',
  'a=ice-ufrag:ABCD',
  'a=ice-pwd:secretsecretsecretsecret',
);

const ANSWER = crlf(
  'v=0',
  'o=- 3 4 IN IP4 0.0.0.0',
  's=-',
  't=0 0',
  'a=ice-lite',
  'a=group:BUNDLE 0 1',
  'm=audio 9 UDP/TLS/RTP/SAVPF 111',
  'a=mid:0',
  'a=ice-ufrag:old0',
  'a=ice-pwd:oldoldoldoldoldoldoldold',
  'a=candidate:1 1 udp 1 10.0.0.1 7882 typ host',
  'a=end-of-candidates',
  'a=rtpmap:111 opus/48000/2',
  'm=video 9 UDP/TLS/RTP/SAVPF 96',
  'a=mid:1',
  'a=ice-ufrag:old0',
  'a=ice-pwd:oldoldoldoldoldoldoldold',
  'a=rtpmap:96 VP8/90000',
);

test('a restart names the bundle, its first m-line and the new credentials', () => {
  expect(restartFragment(OFFER)).toBe(
    crlf(
      'a=group:BUNDLE 0 1',
      'm=audio 9 UDP/TLS/RTP/SAVPF 111 63',
      'a=mid:0',
      'a=ice-ufrag:ABCD',
      'a=ice-pwd:secretsecretsecretsecret',
    ),
  );
  expect(restartFragment('v=0\r\n')).toBeUndefined();
});

test('the reply replaces credentials in every section and candidates in the first', () => {
  const fragment = 'a=ice-ufrag:new1\na=ice-pwd:newnewnew\na=candidate:2 1 udp 1 10.0.0.2 7883 typ host\n';
  const spliced = spliceFragment(ANSWER, fragment).split('\r\n');
  const [head, audio, video] = [spliced.slice(0, 6), spliced.slice(6, 12), spliced.slice(12)];
  expect(head.join()).not.toContain('ice-ufrag');
  expect(head).toContain('a=ice-lite');
  expect(audio).toContain('a=ice-ufrag:new1');
  expect(audio).toContain('a=candidate:2 1 udp 1 10.0.0.2 7883 typ host');
  expect(video).toContain('a=ice-ufrag:new1');
  expect(video).toContain('a=rtpmap:96 VP8/90000');
  expect(spliced.join()).not.toMatch(/old|10\.0\.0\.1/);
});

test('a reply without candidates keeps the known ones', () => {
  const spliced = spliceFragment(ANSWER, 'a=ice-ufrag:new1\r\na=ice-pwd:newnewnew\r\n');
  expect(spliced.match(/a=candidate:1 1 udp/g)).toHaveLength(1);
});

test('a reply without credentials is an error, not a broken description', () => {
  expect(() => spliceFragment(ANSWER, 'a=candidate:2 1 udp 1 10.0.0.2 7883 typ host\r\n')).toThrow(
    'credentials',
  );
});

test('Opus is asked for silence suppression once, with its other settings kept', () => {
  const bare = preferOpusDtx(ANSWER);
  expect(bare).toContain('a=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1;usedtx=1\r\n');
  const again = preferOpusDtx(bare.replace('a=fmtp:111 ', 'a=fmtp:111 minptime=10;usedtx=0;'));
  expect(again.match(/a=fmtp:111/g)).toHaveLength(1);
  expect(again).toContain('a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1\r\n');
  expect(again).not.toContain('a=fmtp:96');
});

test('the offer is sent without what nobody reads', () => {
  const offer = crlf(
    'm=video 9 UDP/TLS/RTP/SAVPF 96',
    'a=rtcp:9 IN IP4 0.0.0.0',
    'a=rtcp-mux',
    'a=extmap:14 urn:ietf:params:rtp-hdrext:toffset',
    'a=extmap:9 http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00',
    'a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid',
    'a=rtcp-fb:96 goog-remb',
    'a=rtcp-fb:96 nack pli',
  );
  expect(compactOffer(offer)).toBe(
    crlf(
      'm=video 9 UDP/TLS/RTP/SAVPF 96',
      'a=rtcp-mux',
      'a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid',
      'a=rtcp-fb:96 nack pli',
    ),
  );
});
