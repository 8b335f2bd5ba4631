/**
 * What to do when a connection falters: restart ICE first, then join again as the same participant, with
 * growing and jittered pauses, until it works, is refused for good, or the time is up.
 */
import { asRefused, type Refused } from './errors';

export interface Attempts {
  /** Restarts ICE on the connection there is; resolves once it carries the `control` channel again. */
  restart(): Promise<void>;
  /** Builds a new connection that resumes the session; resolves once it is welcomed. */
  rejoin(): Promise<void>;
}

export interface Limits {
  /** After this long without success, the room counts as lost. */
  totalMs: number;
  pauseMinMs: number;
  pauseMaxMs: number;
}

export const LIMITS: Limits = { totalMs: 30_000, pauseMinMs: 400, pauseMaxMs: 5_000 };

/** Pause before the attempt after `failures` failures: doubling, and up to half of it by chance. */
export function pauseMs(failures: number, random: number, limits: Limits = LIMITS): number {
  const full = Math.min(limits.pauseMaxMs, limits.pauseMinMs * 2 ** Math.max(0, failures - 1));
  return Math.round(full * (0.5 + random / 2));
}

export class Reconnector {
  #running: Promise<Refused | undefined> | undefined;
  #stopped = false;
  #hurry: (() => void) | undefined;

  constructor(
    private readonly attempts: Attempts,
    private readonly limits: Limits = LIMITS,
    private readonly random: () => number = Math.random,
  ) {}

  get running(): boolean {
    return this.#running !== undefined;
  }

  /**
   * Tries until connected (undefined) or beyond hope (why). Joins the attempt that is under way, if one is.
   * Without `restart`, the connection is known to be gone and is not tried again.
   */
  run(restart = true): Promise<Refused | undefined> {
    this.#running ??= this.#loop(restart).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** The network has come back: the next attempt starts now. */
  hurry(): void {
    this.#hurry?.();
  }

  /** No further attempt is made. */
  stop(): void {
    this.#stopped = true;
    this.#hurry?.();
  }

  async #loop(restart: boolean): Promise<Refused | undefined> {
    const deadline = Date.now() + this.limits.totalMs;
    let failures = 0;
    let last: Refused | undefined;
    for (;;) {
      try {
        await (restart && failures === 0 ? this.attempts.restart() : this.attempts.rejoin());
        return undefined;
      } catch (error) {
        last = asRefused(error);
      }
      const restartFailed = restart && failures === 0;
      failures += 1;
      if (this.#stopped || (!restartFailed && !last.passing)) return last;
      if (restartFailed) continue;
      const pause = pauseMs(failures, this.random(), this.limits);
      if (Date.now() + pause >= deadline) return last;
      await this.#pause(pause);
      if (this.#stopped) return last;
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#hurry = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#hurry = done;
    });
  }
}
