/** What a page costs: its heap and its worker's, its nodes, and how long it did not answer. */
import type { CDPSession, Page } from 'playwright-core';

export type Cost = { readonly page: number; readonly worker: number; readonly nodes: number };

export class Gauge {
  readonly #page: Page;
  readonly #session: CDPSession;
  readonly #workers = new Set<string>();
  readonly #answers = new Map<number, (result: Record<string, number>) => void>();
  #asked = 0;

  private constructor(page: Page, session: CDPSession) {
    this.#page = page;
    this.#session = session;
    session.on('Target.attachedToTarget', ({ sessionId, targetInfo }) => {
      if (targetInfo.type === 'worker') this.#workers.add(sessionId);
    });
    session.on('Target.detachedFromTarget', ({ sessionId }) => this.#workers.delete(sessionId));
    session.on('Target.receivedMessageFromTarget', ({ message }) => {
      const { id, result } = JSON.parse(message) as { id: number; result: Record<string, number> };
      this.#answers.get(id)?.(result);
    });
  }

  static async of(page: Page): Promise<Gauge> {
    const session = await page.context().newCDPSession(page);
    const gauge = new Gauge(page, session);
    const attach = { autoAttach: true, waitForDebuggerOnStart: false, flatten: false };
    await session.send('Target.setAutoAttach', attach);
    await session.send('Performance.enable');
    return gauge;
  }

  /** In bytes and nodes, with the garbage gone. */
  async cost(): Promise<Cost> {
    await this.#session.send('HeapProfiler.collectGarbage');
    const { metrics } = await this.#session.send('Performance.getMetrics');
    const metric = (name: string) => metrics.find((each) => each.name === name)?.value ?? 0;
    let worker = 0;
    for (const target of this.#workers) {
      await this.#ask(target, 'HeapProfiler.collectGarbage');
      worker += (await this.#ask(target, 'Runtime.getHeapUsage'))['usedSize'] ?? 0;
    }
    const nodes = await this.#page.evaluate(() => document.querySelectorAll('*').length);
    return { page: metric('JSHeapUsedSize'), worker, nodes };
  }

  /** Begins to look at how long the page does nothing else. */
  async watch(): Promise<void> {
    await this.#page.evaluate(() => {
      const longest = globalThis as unknown as { longest: number };
      longest.longest = 0;
      new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) longest.longest = Math.max(longest.longest, duration);
      }).observe({ entryTypes: ['longtask'] });
    });
  }

  /** The longest time since then, in milliseconds; none below 50 is noticed. */
  async longest(): Promise<number> {
    return this.#page.evaluate(() => (globalThis as unknown as { longest: number }).longest);
  }

  #ask(target: string, method: string): Promise<Record<string, number>> {
    this.#asked += 1;
    const id = this.#asked;
    const answer = new Promise<Record<string, number>>((resolve) => this.#answers.set(id, resolve));
    const message = JSON.stringify({ id, method });
    return this.#session
      .send('Target.sendMessageToTarget', { sessionId: target, message })
      .then(() => answer);
  }
}

/** Costs in megabytes, for people. */
export function inWords({ page, worker, nodes }: Cost): string {
  const mib = (bytes: number) => (bytes / 1024 / 1024).toFixed(1);
  return `page ${mib(page)} MiB, worker ${mib(worker)} MiB, ${nodes} nodes`;
}
