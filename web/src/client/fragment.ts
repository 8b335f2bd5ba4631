/**
 * SDP text: the fragments of RFC 8840 that restart ICE, and the Opus settings that only the answer can carry.
 * Lines end in CRLF (RFC 8866 §5); what comes from outside may end in a bare LF.
 */

const lines = (text: string): string[] => text.split(/\r?\n/).filter((line) => line !== '');
const text = (all: string[]): string => `${all.join('\r\n')}\r\n`;

/** Value of the first line that starts with `prefix`. */
function value(all: string[], prefix: string): string | undefined {
  return all.find((line) => line.startsWith(prefix))?.slice(prefix.length);
}

/**
 * The fragment that tells the server of new ICE credentials (RFC 9725 §4.3.3): bundled, so one m-line stands
 * for all. Undefined when the description names no credentials.
 */
export function restartFragment(localSdp: string): string | undefined {
  const all = lines(localSdp);
  const ufrag = value(all, 'a=ice-ufrag:');
  const pwd = value(all, 'a=ice-pwd:');
  const media = value(all, 'm=');
  const mid = value(all, 'a=mid:');
  if (!ufrag || !pwd || !media || mid === undefined) return undefined;
  const group = value(all, 'a=group:BUNDLE');
  const head = group === undefined ? [] : [`a=group:BUNDLE${group}`];
  const section = [`m=${media}`, `a=mid:${mid}`, `a=ice-ufrag:${ufrag}`, `a=ice-pwd:${pwd}`];
  return text([...head, ...section]);
}

/** Header extensions and feedback that no part of the server reads, and lines that say nothing. */
const UNREAD_EXTENSIONS =
  'toffset|playout-delay|video-content-type|video-timing|color-space|video-layers-allocation\\d*';
const UNREAD = new RegExp(`^a=(rtcp:9 |rtcp-fb:\\d+ goog-remb|extmap:\\d+ \\S+(${UNREAD_EXTENSIONS})$)`);

/**
 * The offer as it is sent: a wall of slots repeats every line, and a body has at most 64 KiB. The answer, to
 * less than was offered here, is an answer to the whole.
 */
export function compactOffer(offer: string): string {
  return text(lines(offer).filter((line) => !UNREAD.test(line)));
}

const ICE_LINE = /^a=(ice-ufrag:|ice-pwd:|candidate:|end-of-candidates)/;

/**
 * Puts the server's new credentials and candidates into its earlier description. Candidates stay with the
 * first m-line, which carries the bundle; a fragment without any keeps those that were known.
 */
export function spliceFragment(remoteSdp: string, fragment: string): string {
  const news = lines(fragment);
  const ufrag = value(news, 'a=ice-ufrag:');
  const pwd = value(news, 'a=ice-pwd:');
  if (!ufrag || !pwd) throw new Error('the fragment names no ICE credentials');
  const fresh = news.filter((line) => line.startsWith('a=candidate:'));
  const old = lines(remoteSdp);
  const candidates =
    fresh.length > 0 ? fresh : [...new Set(old.filter((line) => line.startsWith('a=candidate:')))];
  const out: string[] = [];
  let sections = 0;
  const credentials = () => {
    if (sections === 0) return;
    out.push(`a=ice-ufrag:${ufrag}`, `a=ice-pwd:${pwd}`);
    if (sections === 1) out.push(...candidates);
  };
  for (const line of old) {
    if (line.startsWith('m=')) {
      credentials();
      sections += 1;
    }
    if (!ICE_LINE.test(line)) out.push(line);
  }
  credentials();
  return text(out);
}

/** Asks the browser's Opus encoder to send nothing in silence and to carry forward error correction. */
export function preferOpusDtx(answer: string): string {
  const all = lines(answer);
  const opus = new Set(all.flatMap((line) => /^a=rtpmap:(\d+) opus\/48000/i.exec(line)?.[1] ?? []));
  const described = new Set<string>();
  const out = all.map((line) => {
    const match = /^a=fmtp:(\d+) (.*)$/.exec(line);
    const [, payload, settings] = match ?? [];
    if (!payload || settings === undefined || !opus.has(payload)) return line;
    described.add(payload);
    const kept = settings.split(';').filter((setting) => !/^\s*(usedtx|useinbandfec)=/.test(setting));
    return `a=fmtp:${payload} ${[...kept, 'useinbandfec=1', 'usedtx=1'].join(';')}`;
  });
  return text(
    out.flatMap((line) => {
      const payload = /^a=rtpmap:(\d+) /.exec(line)?.[1];
      const bare = payload !== undefined && opus.has(payload) && !described.has(payload);
      return bare ? [line, `a=fmtp:${payload} useinbandfec=1;usedtx=1`] : [line];
    }),
  );
}
