/**
 * The statistics panel: what flows each way, its losses and delay, and what every tile gets; drawn once a
 * second.
 */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { type Sample, StatsSampler, type StreamRate } from '../client';
import { type Line, Plot, SAMPLES_MAX } from './plot';
import type { Session } from './session';

const EVERY_MS = 1_000;

/** `1.25 Mbit/s`. */
export function rate(bps: number | undefined): string {
  if (bps === undefined) return '–';
  if (bps >= 1e6) return `${(bps / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

const percent = (part: number): string => `${(part * 100).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
const ms = (value: number | undefined): string => (value === undefined ? '–' : `${Math.round(value)} ms`);

/** A minute of one figure for each of the streams, by direction, m-line and encoding. */
class History {
  samples: Sample[] = [];
  estimates: (number | undefined)[] = [];

  add(sample: Sample, estimate: number | undefined): void {
    this.samples = [...this.samples, sample].slice(-SAMPLES_MAX);
    this.estimates = [...this.estimates, estimate].slice(-SAMPLES_MAX);
  }

  of(pick: (sample: Sample) => number | undefined): (number | undefined)[] {
    return this.samples.map(pick);
  }

  ofMid(direction: 'in' | 'out', mid: string): (number | undefined)[] {
    return this.of(({ streams }) => {
      const ours = streams.filter((one) => one.direction === direction && one.mid === mid);
      return ours.length > 0 ? ours.reduce((sum, one) => sum + one.bps, 0) : undefined;
    });
  }
}

function Figure(props: { title: string; now: string; lines: Line[]; floor: number }) {
  return (
    <figure>
      <figcaption>
        <span>{props.title}</span>
        <strong>{props.now}</strong>
      </figcaption>
      <Plot label={`${props.title}: ${props.now}`} lines={props.lines} floor={props.floor} />
    </figure>
  );
}

interface Row {
  key: string;
  title: string;
  detail: string;
  loss: number;
  values: (number | undefined)[];
  bps: number;
}

function describe(stream: StreamRate, layer: string | undefined): string {
  const parts = [
    stream.height ? `${stream.height}p` : undefined,
    stream.fps ? `${Math.round(stream.fps)} fps` : undefined,
    stream.codec,
    layer ? `layer ${layer}` : undefined,
  ];
  return parts.filter(Boolean).join(' · ');
}

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
      title: `${session.nameOf(slot.participant)} · ${source}`,
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
  const now = all.samples.at(-1);
  const line = (name: string, colour: string, values: (number | undefined)[]): Line => ({
    name,
    colour,
    values,
  });
  return (
    <section class="panel-scroll stats" data-testid="stats-panel" tabIndex={0} aria-label="Statistics">
      <div class="figures">
        <Figure
          title="Receiving"
          now={rate(now?.inBps)}
          floor={100_000}
          lines={[
            line('estimate', '--quiet', all.estimates),
            line(
              'receiving',
              '--answer',
              all.of((sample) => sample.inBps),
            ),
          ]}
        />
        <Figure
          title="Sending"
          now={rate(now?.outBps)}
          floor={100_000}
          lines={[
            line(
              'sending',
              '--call',
              all.of((sample) => sample.outBps),
            ),
          ]}
        />
        <Figure
          title="Loss in / out"
          now={`${percent(now?.inLoss ?? 0)} / ${percent(now?.outLoss ?? 0)}`}
          floor={0.05}
          lines={[
            line(
              'in',
              '--answer',
              all.of((sample) => sample.inLoss),
            ),
            line(
              'out',
              '--call',
              all.of((sample) => sample.outLoss),
            ),
          ]}
        />
        <Figure
          title="Round trip"
          now={ms(now?.rttMs)}
          floor={50}
          lines={[
            line(
              'round trip',
              '--accent-text',
              all.of((sample) => sample.rttMs),
            ),
          ]}
        />
      </div>
      <dl class="estimates">
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
