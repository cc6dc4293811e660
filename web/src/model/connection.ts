/** The road to a host in one word, from the relay's connection and what the relay says. */
import type { HostView, LinkView } from '../engine/views';

export type Connection =
  | { readonly kind: 'idle' | 'connecting' | 'unknown' }
  | { readonly kind: 'no_relay'; readonly until: number }
  | { readonly kind: 'relay'; readonly relay: string }
  | { readonly kind: 'online' }
  | { readonly kind: 'offline'; readonly seen: number };

/** Never "online" while the relay is away: then nobody knows. */
export function connectionOf(link: LinkView, host: HostView | null): Connection {
  switch (link.state) {
    case 'idle':
      return { kind: 'idle' };
    case 'connecting':
      return { kind: 'connecting' };
    case 'waiting':
      return { kind: 'no_relay', until: link.until };
    case 'connected':
      break;
  }
  if (host === null) return { kind: 'relay', relay: link.relay };
  switch (host.presence.state) {
    case 'online':
      return { kind: 'online' };
    case 'offline':
      return { kind: 'offline', seen: host.presence.lastSeen };
    case 'unknown':
      return { kind: 'unknown' };
  }
}
