/** A microphone's loudness as a row of bars, measured ten times a second. */
import { useEffect, useRef } from 'preact/hooks';

const BARS = 24;
const EVERY_MS = 100;
/** Speech lies between these levels, in dBFS. */
const QUIET_DB = -60;
const LOUD_DB = -12;

/** 0 for silence, 1 for loud. */
function loudness(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const db = 10 * Math.log10(sum / samples.length + 1e-10);
  return Math.min(1, Math.max(0, (db - QUIET_DB) / (LOUD_DB - QUIET_DB)));
}

export function Meter({ track }: { track: MediaStreamTrack | null }) {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const meter = ref.current;
    if (!track || !meter) return;
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    analyser.fftSize = 1024;
    context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const wake = () => void context.resume();
    addEventListener('pointerdown', wake);
    const timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const lit = Math.round(loudness(samples) * BARS);
      for (const [at, bar] of [...meter.children].entries()) bar.classList.toggle('lit', at < lit);
    }, EVERY_MS);
    return () => {
      clearInterval(timer);
      removeEventListener('pointerdown', wake);
      void context.close();
      for (const bar of meter.children) bar.classList.remove('lit');
    };
  }, [track]);
  return (
    <div ref={ref} class="meter" role="img" aria-label="Microphone level">
      {Array.from({ length: BARS }, (_, at) => (
        <span key={at} />
      ))}
    </div>
  );
}
