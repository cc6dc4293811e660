/** The devices of each host: who belongs, who waits, and pairing another. */
import type { DeviceView, HostView, WishView } from '../engine/views';
import type { Command } from '../protocol/types';
import type { Client } from './client.svelte';

export class DevicesModel {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  get hosts(): readonly HostView[] {
    return this.#client.overview?.hosts ?? [];
  }

  canManage(host: HostView): boolean {
    const { grant } = host;
    const isInTime = grant !== null && (grant.until === null || this.#client.now() <= grant.until);
    return isInTime && grant.capabilities.includes('manage');
  }

  /** The newest wish about a device, a waiting pairing or a link, while it is worth telling. */
  wishFor(host: HostView, matches: (command: Command) => boolean): WishView | null {
    const wishes = this.#client.overview?.wishes ?? [];
    return wishes.filter((wish) => wish.host === host.peer && matches(wish.command)).at(-1) ?? null;
  }

  /** Whether a device looks like an earlier self of this browser, whose keys are gone. */
  formerly(host: HostView, device: DeviceView): 'former' | 'namesake' | null {
    if (device.self || device.revoked || device.role === 'host') return null;
    const self = host.devices.find((each) => each.self);
    if (this.#client.selves.was(device.peer, self?.peer ?? null)) return 'former';
    return device.name === self?.name ? 'namesake' : null;
  }

  revoke(host: HostView, device: DeviceView): void {
    this.#client.wish(host.peer, { type: 'revoke_device', peer: device.peer });
  }

  settle(host: HostView, offer: string, accept: boolean): void {
    this.#client.wish(host.peer, { type: 'settle_pairing', offer, accept });
  }

  openPairing(host: HostView): void {
    const before = this.wishFor(host, ({ type }) => type === 'open_pairing');
    if (before !== null) this.dismiss(before);
    this.#client.wish(host.peer, { type: 'open_pairing' });
  }

  dismiss(wish: WishView): void {
    this.#client.send({ type: 'dismiss', id: wish.id });
  }

  forget(host: HostView): void {
    this.#client.send({ type: 'forget_host', host: host.peer });
  }
}
