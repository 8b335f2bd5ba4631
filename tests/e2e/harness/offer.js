/**
 * An offer of nothing but a data channel, as a browser makes it: for calls whose answer is a refusal.
 */
export default [
  'v=0',
  'o=- 4611731400430051336 2 IN IP4 127.0.0.1',
  's=-',
  't=0 0',
  'a=group:BUNDLE 0',
  'a=msid-semantic: WMS',
  'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
  'c=IN IP4 0.0.0.0',
  'a=ice-ufrag:Qm9B',
  'a=ice-pwd:RJ6wHn8Yx0bR3kPpJ4f7cT2s',
  'a=ice-options:trickle',
  `a=fingerprint:sha-256 ${Array(32).fill('A7').join(':')}`,
  'a=setup:actpass',
  'a=mid:0',
  'a=sctp-port:5000',
  'a=max-message-size:262144',
  '',
].join('\r\n');
