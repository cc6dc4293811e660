/**
 * Wishes that the engine has not kept yet. They outlive a reload of the tab: said again with the
 * same id they have one effect. Those that are older than a moment are not sent any more; a prompt
 * among them goes back into its box.
 */
import type { ToEngine } from '../engine/views';
import type { Shelf } from '../platform/shelf';

type Wish = Extract<ToEngine, { type: 'wish' }>;
type Kept = { readonly at: number; readonly wish: Wish };

/** How long after the tap a wish is still sent by itself. */
const FRESH_MILLIS = 60_000;
const NAME = 'unkept';

export class Unkept {
  readonly #shelf: Shelf;
  #wishes: Kept[] = [];

  constructor(shelf: Shelf, now: number) {
    this.#shelf = shelf;
    for (const kept of parse(shelf.get(NAME))) {
      if (now - kept.at < FRESH_MILLIS) this.#wishes.push(kept);
      else if (kept.wish.command.type === 'prompt')
        this.putDraft(kept.wish.command.session, kept.wish.command.text);
    }
    this.#save();
  }

  get wishes(): readonly Wish[] {
    return this.#wishes.map(({ wish }) => wish);
  }

  add(wish: Wish, now: number): void {
    this.#wishes.push({ at: now, wish });
    this.#save();
  }

  /** It is in the outbox, or was refused a place there; gives it back. */
  drop(id: string): Wish | null {
    const found = this.#wishes.find(({ wish }) => wish.id === id) ?? null;
    if (found === null) return null;
    this.#wishes = this.#wishes.filter((kept) => kept !== found);
    this.#save();
    return found.wish;
  }

  /** What was written in a session's box and not sent. */
  draft(session: string): string {
    return this.#shelf.get(`draft.${session}`) ?? '';
  }

  putDraft(session: string, text: string): void {
    this.#shelf.put(`draft.${session}`, text === '' ? null : text);
  }

  #save(): void {
    this.#shelf.put(NAME, this.#wishes.length === 0 ? null : JSON.stringify(this.#wishes));
  }
}

function parse(text: string | null): Kept[] {
  try {
    const kept: unknown = JSON.parse(text ?? '[]');
    return Array.isArray(kept) ? (kept as Kept[]) : [];
  } catch {
    return [];
  }
}
