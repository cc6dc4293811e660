/** First in, first out; taking is as cheap from a long one as from a short one. */
export class Queue<T> {
  #items: T[] = [];
  /** Those before it are taken. */
  #at = 0;

  push(item: T): void {
    this.#items.push(item);
  }

  /** The next one, which stays. */
  peek(): T | undefined {
    return this.#items[this.#at];
  }

  take(): T | undefined {
    const item = this.#items[this.#at];
    if (this.#at < this.#items.length) this.#at += 1;
    if (this.#at * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#at);
      this.#at = 0;
    }
    return item;
  }
}
