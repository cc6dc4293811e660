/** The road to a host in one word: this device's connection, the relay's word, and the host's own. */
import { reachOf, turnOf } from '../engine/presence';
import type { HostView, LinkView } from '../engine/views';
import type { Activity } from '../protocol/types';

export type Connection =
  | { readonly kind: 'idle' | 'connecting' }
  | { readonly kind: 'no_relay'; readonly until: number; readonly code: string }
  | { readonly kind: 'relay'; readonly relay: string }
  /** The host itself has just answered, after so long. */
  | { readonly kind: 'online'; readonly millis: number | null }
  /** The relay is there, and the host has not answered yet, or not any more. */
  | { readonly kind: 'unknown' | 'silent'; readonly seen: number }
  | { readonly kind: 'offline'; readonly seen: number };

/** "Online" is the host's own word alone, and only while it is fresh. */
export function connectionOf(link: LinkView, host: HostView | null, now: number): Connection {
  switch (link.state) {
    case 'idle':
      return { kind: 'idle' };
    case 'connecting':
      return { kind: 'connecting' };
    case 'waiting':
      return { kind: 'no_relay', until: link.until, code: link.code };
    case 'connected':
      break;
  }
  if (host === null) return { kind: 'relay', relay: link.relay };
  const { path } = host.known;
  const seen = Math.max(path.proven ?? 0, host.presence.state === 'online' ? 0 : host.presence.lastSeen);
  switch (reachOf(host.known, now)) {
    case 'live':
      return { kind: 'online', millis: path.millis };
    case 'silent':
      return { kind: 'silent', seen };
    case 'host_away':
      return { kind: 'offline', seen };
    case 'unproven':
    case 'offline':
      return { kind: 'unknown', seen };
  }
}

/** What a session is doing, or was when that was last known for certain. */
export type Doing = { readonly state: Activity; readonly fresh: boolean; readonly seen: number | null };

/** `told` is what the session's log says, where it was read; else the host's list. */
export function doingOf(
  host: HostView | null,
  session: string,
  told: Activity | null,
  now: number,
): Doing | null {
  const summary = host?.sessions.find((each) => each.session === session) ?? null;
  if (host === null) return told === null ? null : { state: told, fresh: told === 'ended', seen: null };
  const { state, age_millis: age, fresh } = turnOf(host.known, session, now);
  const known = told ?? state ?? summary?.state ?? null;
  if (known === null) return null;
  return {
    state: known,
    fresh: fresh || known === 'ended',
    seen: age === null ? (summary?.at ?? null) : now - age,
  };
}
