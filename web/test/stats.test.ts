/** Rates from the browser's growing counters. */
import { expect, test } from 'vitest';
import { StatsSampler } from '../src/client/stats';

function report(seconds: number, bytes: number, lost: number): [string, unknown][] {
  const timestamp = seconds * 1000;
  const entries = [
    { id: 'T', type: 'transport', selectedCandidatePairId: 'P2' },
    { id: 'P1', type: 'candidate-pair', currentRoundTripTime: 9 },
    { id: 'P2', type: 'candidate-pair', currentRoundTripTime: 0.025, availableOutgoingBitrate: 2e6 },
    { id: 'C', type: 'codec', mimeType: 'video/VP8' },
    {
      id: 'I',
      type: 'inbound-rtp',
      kind: 'video',
      mid: '5',
      codecId: 'C',
      bytesReceived: bytes,
      packetsReceived: bytes / 1000,
      packetsLost: lost,
      framesPerSecond: 30,
      frameHeight: 360,
      framesDecoded: 240,
    },
    { id: 'O', type: 'outbound-rtp', kind: 'video', mid: '1', rid: 'f', bytesSent: bytes * 2 },
    { id: 'R', type: 'remote-inbound-rtp', fractionLost: 0.02 },
  ];
  return entries.map((entry) => [entry.id, { timestamp, ...entry }]);
}

test('rates are the growth between two samples', () => {
  const sampler = new StatsSampler();
  expect(sampler.sample(report(10, 50_000, 0), 0)).toMatchObject({ inBps: 0, outBps: 0, inLoss: 0 });
  const sample = sampler.sample(report(12, 140_000, 10), 0);
  expect(sample.inBps).toBe(360_000);
  expect(sample.outBps).toBe(720_000);
  expect(sample.inLoss).toBeCloseTo(0.1);
  expect(sample.outLoss).toBe(0.02);
  expect(sample.rttMs).toBe(25);
  expect(sample.uplinkBps).toBe(2e6);
  expect(sample.streams).toMatchObject([
    { mid: '5', direction: 'in', height: 360, fps: 30, frames: 240, codec: 'vp8' },
    { mid: '1', direction: 'out', rid: 'f' },
  ]);
});

test('a counter that starts over, as after a reconnect, is no negative rate', () => {
  const sampler = new StatsSampler();
  sampler.sample(report(10, 900_000, 50), 0);
  const sample = sampler.sample(report(11, 1_000, 0), 0);
  expect(sample.inBps).toBe(0);
  expect(sample.inLoss).toBe(0);
});
