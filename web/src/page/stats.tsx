/**
 * The statistics panel: what flows each way, its losses and delay, and what every tile gets; drawn once a
 * second.
 */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { type Delivery, type Sample, StatsSampler, type StreamRate } from '../client';
import { type Line, Plot, SAMPLES_MAX } from './plot';
import type { Session } from './session';

const EVERY_MS = 1_000;

/** One measurement; undefined where nothing was measured. */
type Value = number | undefined;

/** `1.25 Mbit/s`. */
export function rate(bps: Value): string {
  if (bps === undefined) return '–';
  if (bps >= 1e6) return `${(bps / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

const percent = (part: number): string => `${(part * 100).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
const ms = (value: Value): string => (value === undefined ? '–' : `${Math.round(value)} ms`);

/** What was measured at one moment, here and by the server. */
type Moment = Sample & { downlinkBps: Value };

/** A minute of moments. */
class History {
  moments: Moment[] = [];

  add(sample: Sample, downlinkBps: Value): void {
    this.moments = [...this.moments, { ...sample, downlinkBps }].slice(-SAMPLES_MAX);
  }

  line(name: string, colour: string, pick: (moment: Moment) => Value): Line {
    return { name, colour, values: this.moments.map(pick) };
  }

  /** The rate of all encodings of one m-line. */
  ofMid(direction: 'in' | 'out', mid: string): Value[] {
    return this.moments.map(({ streams }) => {
      const ours = streams.filter((one) => one.direction === direction && one.mid === mid);
      return ours.length > 0 ? ours.reduce((sum, one) => sum + one.bps, 0) : undefined;
    });
  }
}

function Figure({ title, now, lines, floor }: { title: string; now: string; lines: Line[]; floor: number }) {
  return (
    <figure>
      <figcaption>
        <span>{title}</span>
        <strong>{now}</strong>
      </figcaption>
      <Plot label={`${title}: ${now}`} lines={lines} floor={floor} />
    </figure>
  );
}

function Figures({ history, now }: { history: History; now: Moment | undefined }) {
  const receiving = [
    history.line('estimate', '--quiet', (moment) => moment.downlinkBps),
    history.line('receiving', '--answer', (moment) => moment.inBps),
  ];
  const sending = [history.line('sending', '--call', (moment) => moment.outBps)];
  const loss = [
    history.line('in', '--answer', (moment) => moment.inLoss),
    history.line('out', '--call', (moment) => moment.outLoss),
  ];
  const lost = `${percent(now?.inLoss ?? 0)} / ${percent(now?.outLoss ?? 0)}`;
  const roundTrip = [history.line('round trip', '--accent-text', (moment) => moment.rttMs)];
  return (
    <div class="figures">
      <Figure title="Receiving" now={rate(now?.inBps)} floor={100_000} lines={receiving} />
      <Figure title="Sending" now={rate(now?.outBps)} floor={100_000} lines={sending} />
      <Figure title="Loss in / out" now={lost} floor={0.05} lines={loss} />
      <Figure title="Round trip" now={ms(now?.rttMs)} floor={50} lines={roundTrip} />
    </div>
  );
}

const MODE_WORDS: Record<Delivery['mode'], string> = { sfu: 'Forwarded', mcu: 'Mixed' };
const REASON_WORDS: Record<Delivery['reason'], string> = {
  room: 'as the room has it',
  chosen: 'as you have chosen',
  downlink: 'as your connection cannot carry everyone’s own picture',
  device: 'as your device cannot keep up with everyone’s own picture',
  starting: 'until the mix has started',
  failed: 'while a mix that failed starts again',
  unavailable: 'as the server cannot mix it now',
};

interface Row {
  key: string;
  title: string;
  detail: string;
  loss: number;
  values: Value[];
  bps: number;
}

function describe(stream: StreamRate, layer: string | undefined): string {
  const parts = [
    stream.height ? `${stream.height}p` : undefined,
    stream.fps ? `${Math.round(stream.fps)} fps` : undefined,
    stream.frames ? `${stream.frames} frames` : undefined,
    stream.codec,
    layer ? `layer ${layer}` : undefined,
  ];
  return parts.filter(Boolean).join(' · ');
}

const isMix = (source: string): boolean => source === 'mix' || source === 'mix-audio';

/** One row for each bound slot: whose, which layer, how much. */
function receivingRows(session: Session, history: History, sample: Sample): Row[] {
  const told = new Map(session.stats.value?.slots.map((one) => [one.mid, one]));
  return session.room.slots.all.flatMap((slot) => {
    if (slot.participant === undefined) return [];
    const stream = sample.streams.find((one) => one.direction === 'in' && one.mid === slot.mid);
    const source = slot.source ?? slot.kind;
    const layer = slot.kind === 'video' ? told.get(slot.mid)?.layer : undefined;
    const detail = stream ? describe(stream, layer) : '';
    return {
      key: slot.mid,
      title: isMix(source) ? `Everyone · ${source}` : `${session.nameOf(slot.participant)} · ${source}`,
      detail: slot.paused ? 'paused' : detail,
      loss: stream?.loss ?? 0,
      values: history.ofMid('in', slot.mid),
      bps: stream?.bps ?? 0,
    };
  });
}

/** One row for each source of ours; the encodings that flow are named. */
function sendingRows(session: Session, history: History, sample: Sample): Row[] {
  const sources = ['microphone', 'camera', 'screen', 'screen-audio'] as const;
  return sources.flatMap((source) => {
    const mid = session.room.midOf(source);
    if (mid === undefined || !session.room.local.isOn(source)) return [];
    const streams = sample.streams.filter((one) => one.direction === 'out' && one.mid === mid);
    const flowing = streams.filter((one) => one.bps > 0);
    const rids = flowing.flatMap(({ rid, height }) => (rid ? `${rid}${height ? ` ${height}p` : ''}` : []));
    return {
      key: mid,
      title: `You · ${source}`,
      detail: [...rids, flowing[0]?.codec].filter(Boolean).join(' · '),
      loss: 0,
      values: history.ofMid('out', mid),
      bps: streams.reduce((sum, one) => sum + one.bps, 0),
    };
  });
}

function Rows({ title, rows, colour }: { title: string; rows: Row[]; colour: string }) {
  return (
    <section>
      <h3>{title}</h3>
      {rows.length === 0 && <p class="quiet">Nothing at the moment.</p>}
      {rows.map(({ key, title: name, detail, loss, values, bps }) => (
        <div class="stream-row" key={key}>
          <span class="stream-name">{name}</span>
          <strong>{rate(bps)}</strong>
          <small>{[detail, loss > 0 && `${percent(loss)} lost`].filter(Boolean).join(' · ') || 'idle'}</small>
          <Plot label={`${name}: ${rate(bps)}`} lines={[{ name, values, colour }]} floor={50_000} />
        </div>
      ))}
    </section>
  );
}

export function StatsPanel({ session }: { session: Session }) {
  const history = useSignal(new History());
  const tick = useSignal(0);
  useEffect(() => {
    const sampler = new StatsSampler();
    session.room.watchStats(true);
    const measure = async () => {
      const report = await session.room.getStats();
      if (!report) return;
      history.value.add(sampler.sample(report, Date.now()), session.stats.value?.estimate_bps);
      tick.value += 1;
    };
    void measure();
    const timer = setInterval(() => void measure(), EVERY_MS);
    return () => {
      clearInterval(timer);
      session.room.watchStats(false);
    };
  }, [session]);
  void tick.value;
  const all = history.value;
  const now = all.moments.at(-1);
  const { mode, reason } = session.delivery.value;
  return (
    <section class="panel-scroll stats" data-testid="stats-panel" tabIndex={0} aria-label="Statistics">
      <Figures history={all} now={now} />
      <dl class="estimates">
        <dt>How you get the room</dt>
        <dd data-testid="stats-mode">
          {MODE_WORDS[mode]}, {REASON_WORDS[reason]}
        </dd>
        <dt>Downlink, by the server’s estimate</dt>
        <dd>{rate(session.stats.value?.estimate_bps)}</dd>
        <dt>Uplink, by the browser’s estimate</dt>
        <dd>{rate(now?.uplinkBps)}</dd>
      </dl>
      {now && <Rows title="What comes in" colour="--answer" rows={receivingRows(session, all, now)} />}
      {now && <Rows title="What goes out" colour="--call" rows={sendingRows(session, all, now)} />}
    </section>
  );
}
