/**
 * What is on show, turned into wishes: gathered for a moment, compared with what was wished before, and sent
 * only where it differs. Until something is shown nothing is wished for, and the room serves every slot by
 * default.
 */
import type { Identity, SlotWish, Source } from './protocol';
import { changedWishes, planWishes, type SlotTable, type View, viewKey } from './slots';

const DELAY_MS = 120;
/** Heights are wished for in these steps, so that a window being dragged does not chatter. */
const STEP = 30;

export class Viewing {
  #views = new Map<string, View>();
  #sent = new Map<string, SlotWish>();
  #used = false;
  #hidden = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `send` gives false when the wishes could not be sent; they are planned again on the next connection. */
  constructor(
    private readonly slots: SlotTable,
    private readonly send: (wishes: SlotWish[]) => boolean,
  ) {}

  show(view: View): void {
    this.#used = true;
    const height = Math.ceil(view.height / STEP) * STEP;
    this.#views.set(viewKey(view.participant, view.source), { ...view, height });
    this.planSoon();
  }

  hide(participant: Identity, source: Source): void {
    if (this.#views.delete(viewKey(participant, source))) this.planSoon();
  }

  setHidden(hidden: boolean): void {
    this.#hidden = hidden;
    this.planSoon();
  }

  /** A new connection knows of no wishes. */
  reset(): void {
    this.#sent.clear();
  }

  planSoon(): void {
    if (!this.#used) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const views = [...this.#views.values()];
      const plan = planWishes(this.slots.all, views, this.#sent, this.#hidden);
      const wishes = changedWishes(plan, this.#sent);
      if (wishes.length > 0 && !this.send(wishes)) this.#sent.clear();
    }, DELAY_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
