/** The pairing screen: a link, a name, a code to compare, and what came of it. */
import type { PairingView } from '../engine/views';
import type { Client } from './client.svelte';
import { deviceName } from './format';

export class PairingModel {
  /** The whole link, as pasted, scanned or opened. */
  link = $state('');
  name = $state('');
  readonly #client: Client;
  readonly #origin: string;

  constructor(client: Client, origin: string, userAgent: string, fragment: string | null) {
    this.#client = client;
    this.#origin = origin;
    this.name = deviceName(userAgent);
    if (fragment !== null) this.link = origin + fragment;
  }

  get view(): PairingView {
    return this.#client.overview?.pairing ?? { step: 'none' };
  }

  /** The address that the link belongs to, when it is not this one. */
  get elsewhere(): string | null {
    const link = this.link.trim();
    const at = link.indexOf('#pair=');
    if (at < 0) return null;
    const relay = link.slice(0, at).replace(/\/+$/, '');
    return relay === '' || relay === this.#origin || !/^https?:\/\//.test(relay) ? null : link;
  }

  get canSubmit(): boolean {
    return this.link.trim() !== '' && this.name.trim() !== '' && this.elsewhere === null;
  }

  submit(): void {
    if (!this.canSubmit) return;
    const link = this.link.trim();
    const whole = link.startsWith('#pair=') ? `${this.#origin}/${link}` : link;
    this.#client.send({ type: 'pair', link: whole, name: this.name.trim() });
  }

  /** Puts the outcome away and begins anew. */
  again(): void {
    this.link = '';
    this.#client.send({ type: 'forget_pairing' });
  }
}
