// SDP offers of the load tool as mediasoup's parameters, and mediasoup's parameters as the answer.

const TRANSPORT_CC = 'http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01';

/** What follows `a=NAME:` in each such line. */
function values(lines, name) {
  const start = `a=${name}:`;
  return lines.filter((line) => line.startsWith(start)).map((line) => line.slice(start.length));
}

/** The offer's lines of media, and the certificate's fingerprint. */
export function parseOffer(sdp) {
  const [, ...sections] = sdp.split(/^(?=m=)/m);
  const media = sections.map((section) => section.split(/\r?\n/).filter((line) => line));
  const fingerprint = values(sdp.split(/\r?\n/), 'fingerprint')[0];
  if (!fingerprint || media.length === 0) throw new Error('the offer has no media or no fingerprint');
  const [algorithm, value] = fingerprint.split(' ');
  return { fingerprint: { algorithm, value }, lines: media.map(parseLine) };
}

function parseLine(lines) {
  const groups = values(lines, 'ssrc-group').map((group) => group.split(' '));
  const [ssrc] = values(lines, 'ssrc').map((text) => Number.parseInt(text, 10));
  const repair = groups.find(([kind, first]) => kind === 'FID' && Number(first) === ssrc)?.[2];
  const simulcast = values(lines, 'simulcast')[0]?.match(/^send (\S+)/)?.[1];
  return {
    kind: lines[0].slice(2).split(' ')[0],
    mid: values(lines, 'mid')[0],
    codecs: values(lines, 'rtpmap').map((rtpmap) => parseCodec(lines, rtpmap)),
    extensions: values(lines, 'extmap').map((extmap) => {
      const [id, uri] = extmap.split(' ');
      return { id: Number.parseInt(id, 10), uri };
    }),
    cname: values(lines, 'ssrc')
      .find((text) => text.includes(' cname:'))
      ?.split(' cname:')[1],
    ssrc,
    repair: repair && Number(repair),
    rids: simulcast?.split(';') ?? [],
  };
}

function parseCodec(lines, rtpmap) {
  const [payloadType, encoding] = rtpmap.split(' ');
  const [name, clockRate, channels] = encoding.split('/');
  const of = (attribute) =>
    values(lines, attribute)
      .filter((text) => text.startsWith(`${payloadType} `))
      .map((text) => text.slice(payloadType.length + 1));
  const parameters = of('fmtp').flatMap((fmtp) => fmtp.split(';').map((pair) => pair.trim().split('=')));
  const number = (text) => (/^\d+$/.test(text) ? Number(text) : text);
  return {
    name,
    payloadType: Number(payloadType),
    clockRate: Number(clockRate),
    ...(channels && { channels: Number(channels) }),
    parameters: Object.fromEntries(parameters.map(([key, value]) => [key, number(value)])),
    rtcpFeedback: of('rtcp-fb').map((feedback) => {
      const [type, parameter = ''] = feedback.split(' ');
      return { type, parameter };
    }),
  };
}

/** What a publisher sends on this line, as far as the router knows it. */
export function rtpParameters(line, router) {
  const extensions = line.extensions.filter(({ uri }) =>
    router.headerExtensions.some(
      (known) =>
        known.kind === line.kind && known.uri === uri && ['sendrecv', 'recvonly'].includes(known.direction),
    ),
  );
  // As mediasoup's client has it: the receiver estimates nothing where the sender does.
  const numbered = extensions.some(({ uri }) => uri === TRANSPORT_CC);
  const codecs = line.codecs.flatMap(({ name, ...codec }) => {
    const mimeType = `${line.kind}/${name}`;
    const known = router.codecs.find((known) => known.mimeType.toLowerCase() === mimeType.toLowerCase());
    if (!known) return [];
    const rtcpFeedback = codec.rtcpFeedback.filter(
      ({ type, parameter }) =>
        known.rtcpFeedback.some((other) => other.type === type && (other.parameter ?? '') === parameter) &&
        !(numbered && type === 'goog-remb'),
    );
    return [{ ...codec, mimeType, rtcpFeedback }];
  });
  const single = { ssrc: line.ssrc, ...(line.repair && { rtx: { ssrc: line.repair } }) };
  return {
    mid: line.mid,
    codecs,
    headerExtensions: extensions,
    encodings: line.rids.length > 0 ? line.rids.map((rid) => ({ rid })) : [single],
    rtcp: { cname: line.cname, reducedSize: true },
  };
}

/** What a viewer can take on this line, in the router's numbers. */
export function rtpCapabilities(line, router) {
  const offered = (codec) =>
    line.codecs.some(({ name }) => `${line.kind}/${name}`.toLowerCase() === codec.mimeType.toLowerCase());
  return {
    codecs: router.codecs.filter(offered),
    headerExtensions: router.headerExtensions.filter(
      (known) => known.kind === line.kind && line.extensions.some(({ uri }) => uri === known.uri),
    ),
  };
}

/** The answer: `lines` are those of the offer, each with its direction and parameters. */
export function answerSdp(transport, lines) {
  const mids = lines.map(({ line }) => line.mid);
  const sdp = [
    'v=0',
    'o=mediasoup 1 1 IN IP4 127.0.0.1',
    's=-',
    't=0 0',
    'a=ice-lite',
    `a=group:BUNDLE ${mids.join(' ')}`,
    'a=extmap-allow-mixed',
    'a=msid-semantic: WMS *',
    ...lines.flatMap((line) => answerLine(transport, line)),
  ];
  return `${sdp.join('\r\n')}\r\n`;
}

function answerLine({ iceParameters, iceCandidates, dtlsParameters }, { line, direction, parameters }) {
  const { algorithm, value } = dtlsParameters.fingerprints.find(({ algorithm }) => algorithm === 'sha-256');
  const sdp = [
    `m=${line.kind} 9 UDP/TLS/RTP/SAVPF ${parameters.codecs.map(({ payloadType }) => payloadType).join(' ')}`,
    'c=IN IP4 0.0.0.0',
    `a=mid:${line.mid}`,
    `a=${direction}`,
    `a=ice-ufrag:${iceParameters.usernameFragment}`,
    `a=ice-pwd:${iceParameters.password}`,
    ...iceCandidates.map(
      ({ foundation, protocol, priority, address, port, type }) =>
        `a=candidate:${foundation} 1 ${protocol} ${priority} ${address} ${port} typ ${type}`,
    ),
    'a=end-of-candidates',
    `a=fingerprint:${algorithm} ${value}`,
    'a=setup:passive',
    'a=rtcp-mux',
    'a=rtcp-rsize',
    ...parameters.headerExtensions.map(({ id, uri }) => `a=extmap:${id} ${uri}`),
    ...parameters.codecs.flatMap(answerCodec),
  ];
  if (direction === 'recvonly' && line.rids.length > 0) {
    sdp.push(...line.rids.map((rid) => `a=rid:${rid} recv`), `a=simulcast:recv ${line.rids.join(';')}`);
  }
  if (direction === 'sendonly') {
    const [{ ssrc, rtx }] = parameters.encodings;
    const { cname } = parameters.rtcp;
    sdp.push(`a=msid:${cname} ${line.mid}`, `a=ssrc:${ssrc} cname:${cname}`);
    if (rtx) sdp.push(`a=ssrc:${rtx.ssrc} cname:${cname}`, `a=ssrc-group:FID ${ssrc} ${rtx.ssrc}`);
  }
  return sdp;
}

function answerCodec({ mimeType, payloadType, clockRate, channels, parameters, rtcpFeedback }) {
  const encoding = [mimeType.split('/')[1], clockRate, ...(channels > 1 ? [channels] : [])].join('/');
  const settings = Object.entries(parameters).map(([key, value]) => `${key}=${value}`);
  return [
    `a=rtpmap:${payloadType} ${encoding}`,
    ...(settings.length > 0 ? [`a=fmtp:${payloadType} ${settings.join(';')}`] : []),
    ...rtcpFeedback.map(
      ({ type, parameter }) => `a=rtcp-fb:${payloadType} ${[type, parameter].filter(Boolean).join(' ')}`,
    ),
  ];
}
