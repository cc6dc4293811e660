/** The list of hosts and sessions, and starting a session. */
import type { HostView, LinkView, WishView } from '../engine/views';
import type { Summary } from '../protocol/types';
import type { Client } from './client.svelte';
import { isOver } from './wishes';

export class SessionsModel {
  host = $state('');
  dir = $state('');
  agent = $state('');
  prompt = $state('');
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  get hosts(): readonly HostView[] {
    return this.#client.overview?.hosts ?? [];
  }

  get link(): LinkView {
    return this.#client.overview?.link ?? { state: 'idle' };
  }

  get clockOff(): number | null {
    return this.#client.overview?.clockOff ?? null;
  }

  /** Sessions that go on, newest first, then those that ended. */
  sessionsOf(host: HostView): { open: Summary[]; ended: Summary[] } {
    const open = host.sessions.filter(({ state }) => state !== 'ended');
    const ended = host.sessions.filter(({ state }) => state === 'ended');
    return { open, ended };
  }

  /** Sessions that were wished for and are not there yet. */
  startsOf(host: HostView): WishView[] {
    const wishes = this.#client.overview?.wishes ?? [];
    return wishes.filter(
      ({ host: peer, command, stage }) =>
        peer === host.peer && command.type === 'start_session' && !isOver(stage),
    );
  }

  /** Folders that sessions have worked in, newest first. */
  folders(peer: string): string[] {
    const sessions = this.hosts.find((host) => host.peer === peer)?.sessions ?? [];
    return [...new Set(sessions.map(({ dir }) => dir))].slice(0, 8);
  }

  agents(peer: string): string[] {
    const sessions = this.hosts.find((host) => host.peer === peer)?.sessions ?? [];
    return [...new Set(sessions.map(({ agent }) => agent))];
  }

  /** Fills the form in for a new session. */
  prepare(): void {
    const [first] = this.hosts;
    this.host = this.hosts.some(({ peer }) => peer === this.host) ? this.host : (first?.peer ?? '');
    this.dir = this.folders(this.host)[0] ?? '';
    this.agent = '';
    this.prompt = '';
  }

  get canStart(): boolean {
    return this.host !== '' && this.dir.trim() !== '';
  }

  start(): void {
    if (!this.canStart) return;
    const orNull = (text: string) => (text.trim() === '' ? null : text.trim());
    this.#client.wish(this.host, {
      type: 'start_session',
      dir: this.dir.trim(),
      agent: orNull(this.agent),
      prompt: orNull(this.prompt),
    });
  }

  dismiss(wish: WishView): void {
    this.#client.send({ type: 'dismiss', id: wish.id });
  }
}
