/** The browser's counters, turned into rates: each sample is the difference to the one before. No I/O. */
import type { Kind } from './protocol';

/** One sending encoding or one receiving slot over the last interval. */
export interface StreamRate {
  mid: string;
  kind: Kind;
  direction: 'in' | 'out';
  rid?: string | undefined;
  bps: number;
  /** Share of packets lost, 0–1. */
  loss: number;
  fps?: number | undefined;
  height?: number | undefined;
  /** Decoded since the beginning. */
  frames?: number | undefined;
  /** Of the interval: its length, the frames that were decoded and dropped in it, and what one took. */
  seconds: number;
  decoded?: number | undefined;
  dropped?: number | undefined;
  decodeMs?: number | undefined;
  /** How long what was played in it had waited to be. */
  bufferMs?: number | undefined;
  codec?: string | undefined;
}

export interface Sample {
  atMs: number;
  inBps: number;
  outBps: number;
  /** Share lost of what came in, 0–1. */
  inLoss: number;
  /** Share lost of what went out, as the other side reports it, 0–1. */
  outLoss: number;
  rttMs?: number | undefined;
  /** The browser's estimate of its uplink. */
  uplinkBps?: number | undefined;
  streams: StreamRate[];
}

type Entry = Record<string, unknown> & { id: string; type: string; timestamp: number };

const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);
const string = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

export class StatsSampler {
  #before = new Map<string, Entry>();

  /** The first call gives rates of zero: there is nothing to compare with yet. */
  sample(report: Iterable<[string, unknown]>, atMs: number): Sample {
    const now = new Map<string, Entry>();
    for (const [id, entry] of report) now.set(id, entry as Entry);
    const streams: StreamRate[] = [];
    const sample: Sample = { atMs, inBps: 0, outBps: 0, inLoss: 0, outLoss: 0, streams };
    const inbound = { lost: 0, packets: 0 };
    let outLoss = 0;
    for (const entry of now.values()) {
      if (entry.type === 'inbound-rtp' || entry.type === 'outbound-rtp') {
        const stream = this.#stream(entry, now);
        streams.push(stream);
        if (stream.direction === 'in') {
          inbound.lost += this.#delta(entry, 'packetsLost');
          inbound.packets += this.#delta(entry, 'packetsReceived');
        }
      } else if (entry.type === 'remote-inbound-rtp') {
        outLoss = Math.max(outLoss, number(entry.fractionLost) ?? 0);
      } else if (entry.type === 'candidate-pair' && this.#selected(entry, now)) {
        const rtt = number(entry.currentRoundTripTime);
        sample.rttMs = rtt === undefined ? undefined : rtt * 1000;
        sample.uplinkBps = number(entry.availableOutgoingBitrate);
      }
    }
    sample.inLoss = share(inbound.lost, inbound.lost + inbound.packets);
    sample.outLoss = outLoss;
    sample.inBps = total(streams, 'in');
    sample.outBps = total(streams, 'out');
    this.#before = now;
    return sample;
  }

  #stream(entry: Entry, all: ReadonlyMap<string, Entry>): StreamRate {
    const direction = entry.type === 'inbound-rtp' ? 'in' : 'out';
    const seconds = this.#seconds(entry);
    const bytes = this.#delta(entry, direction === 'in' ? 'bytesReceived' : 'bytesSent');
    const lost = direction === 'in' ? this.#delta(entry, 'packetsLost') : 0;
    const packets = direction === 'in' ? this.#delta(entry, 'packetsReceived') : 0;
    const mime = string(all.get(string(entry.codecId) ?? '')?.mimeType);
    return {
      mid: string(entry.mid) ?? '',
      kind: entry.kind === 'audio' ? 'audio' : 'video',
      direction,
      rid: string(entry.rid),
      bps: seconds > 0 ? (bytes * 8) / seconds : 0,
      loss: share(lost, lost + packets),
      fps: number(entry.framesPerSecond),
      height: number(entry.frameHeight),
      frames: number(entry.framesDecoded),
      seconds,
      ...(direction === 'in' ? this.#playing(entry) : {}),
      codec: mime?.split('/')[1]?.toLowerCase(),
    };
  }

  /** What became of a stream that comes in. */
  #playing(entry: Entry): Partial<StreamRate> {
    const has = (field: string) => number(entry[field]) !== undefined;
    const decoded = has('framesDecoded') ? this.#delta(entry, 'framesDecoded') : undefined;
    const emitted = this.#delta(entry, 'jitterBufferEmittedCount');
    const playing: Partial<StreamRate> = {
      decoded,
      dropped: has('framesDropped') ? this.#delta(entry, 'framesDropped') : undefined,
    };
    if (decoded && has('totalDecodeTime'))
      playing.decodeMs = (this.#delta(entry, 'totalDecodeTime') * 1000) / decoded;
    if (emitted > 0) playing.bufferMs = (this.#delta(entry, 'jitterBufferDelay') * 1000) / emitted;
    return playing;
  }

  #selected(entry: Entry, all: ReadonlyMap<string, Entry>): boolean {
    for (const one of all.values()) {
      if (one.type === 'transport' && one.selectedCandidatePairId !== undefined) {
        return one.selectedCandidatePairId === entry.id;
      }
    }
    // Firefox names the pair on the pair itself.
    return entry.selected === true;
  }

  /** Growth of a counter since the last sample; a counter that was reset has not grown. */
  #delta(entry: Entry, field: string): number {
    const before = number(this.#before.get(entry.id)?.[field]);
    return before === undefined ? 0 : Math.max(0, (number(entry[field]) ?? 0) - before);
  }

  #seconds(entry: Entry): number {
    const before = this.#before.get(entry.id);
    return before ? (entry.timestamp - before.timestamp) / 1000 : 0;
  }
}

const share = (part: number, whole: number): number => (whole > 0 ? part / whole : 0);

function total(streams: readonly StreamRate[], direction: 'in' | 'out'): number {
  return streams.reduce((sum, one) => (one.direction === direction ? sum + one.bps : sum), 0);
}
