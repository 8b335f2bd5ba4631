/**
 * A live line on a canvas: the last minute, scaled to its highest point. Redrawn once a sample, never a
 * frame.
 */
import { useEffect, useRef } from 'preact/hooks';

/** One sample a second for a minute. */
export const SAMPLES_MAX = 60;

export interface Line {
  name: string;
  /** Newest last; undefined where nothing was measured. */
  values: readonly (number | undefined)[];
  /** A CSS custom property that holds its colour. */
  colour: string;
}

interface Props {
  label: string;
  lines: readonly Line[];
  /** The scale reaches at least this far, so that noise near zero stays flat. */
  floor: number;
}

function draw(canvas: HTMLCanvasElement, lines: readonly Line[], floor: number): void {
  const context = canvas.getContext('2d');
  if (!context) return;
  const ratio = devicePixelRatio;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  context.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const top = Math.max(floor, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0))) * 1.1;
  context.strokeStyle = style.getPropertyValue('--line');
  context.beginPath();
  for (const part of [0.25, 0.5, 0.75]) {
    context.moveTo(0, Math.round(height * part) + 0.5);
    context.lineTo(width, Math.round(height * part) + 0.5);
  }
  context.stroke();
  context.lineWidth = 1.5;
  context.lineJoin = 'round';
  for (const { values, colour } of lines) {
    context.strokeStyle = style.getPropertyValue(colour);
    context.beginPath();
    let drawing = false;
    values.forEach((value, at) => {
      const x = width - ((values.length - 1 - at) / (SAMPLES_MAX - 1)) * width;
      const y = height - 1.5 - ((value ?? 0) / top) * (height - 3);
      if (value !== undefined && drawing) context.lineTo(x, y);
      else if (value !== undefined) context.moveTo(x, y);
      drawing = value !== undefined;
    });
    context.stroke();
  }
}

export function Plot({ label, lines, floor }: Props) {
  const ref = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (ref.current) draw(ref.current, lines, floor);
  });
  return <canvas ref={ref} class="plot" role="img" aria-label={label} />;
}
