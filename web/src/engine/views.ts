/** What passes between a page and the engine. The page never sees a key. */
import type { Activity, BlobRef, Command, Grant, Held, Presence, Session, Summary } from '../protocol/types';
import type { Code } from './codes';
import type { Row, Usage } from './rows';

/** What goes wrong in a browser and never crosses the wire: no room left; the database was cleared. */
type LocalCode = 'storage_full' | 'storage_gone';

/** The connection to the relay, as it is. */
export type Way = 'websocket' | 'http';

export type LinkView =
  | { readonly state: 'idle' }
  | { readonly state: 'connecting'; readonly tries: number }
  | {
      readonly state: 'connected';
      readonly since: number;
      readonly relay: string;
      /** By `http` where something in between lets no WebSocket through. */
      readonly way: Way;
    }
  | { readonly state: 'waiting'; readonly until: number; readonly code: Code; readonly tries: number };

/** Whether the relay says that a host is connected to it. */
export type PresenceView =
  | { readonly state: 'unknown'; readonly lastSeen: number }
  | { readonly state: 'online'; readonly since: number }
  | { readonly state: 'offline'; readonly lastSeen: number };

/** How far a stream has been read. */
export type SyncView =
  | { readonly state: 'waiting' }
  | { readonly state: 'reading' }
  | { readonly state: 'current' }
  | { readonly state: 'key_missing' }
  /** The relay has not all of it, and says so. */
  | { readonly state: 'limited' }
  | { readonly state: 'alarm'; readonly code: Code };

export type DeviceView = {
  readonly peer: string;
  readonly name: string;
  readonly role: 'host' | 'device';
  readonly self: boolean;
  readonly revoked: boolean;
  readonly since: number;
  readonly grant: Grant | null;
};

type WaitingDevice = { readonly offer: string; readonly name: string; readonly code: string };

export type HostView = {
  readonly peer: string;
  readonly name: string;
  readonly version: string;
  readonly presence: PresenceView;
  /** What is known of it, each fact with its time; `engine/presence.ts` says what it amounts to. */
  readonly known: Presence;
  readonly sync: SyncView;
  readonly sessions: readonly Summary[];
  readonly devices: readonly DeviceView[];
  readonly waiting: readonly WaitingDevice[];
  /** What this device may do there; nothing when it was removed. */
  readonly grant: Grant | null;
};

/** How far a wish has come; it only ever moves forward. */
export type Stage =
  | { readonly kind: 'kept' }
  | { readonly kind: 'posted' }
  /** Its time was over before the host said a word: it is not known to have had an effect. */
  | { readonly kind: 'expired' }
  /** Durable at the host. */
  | { readonly kind: 'received' }
  /** The agent has been given it. */
  | { readonly kind: 'handed' }
  /** The agent has shown that it took it. */
  | { readonly kind: 'consumed' }
  | { readonly kind: 'applied'; readonly made: string | null }
  | { readonly kind: 'refused'; readonly code: Code; readonly text: string }
  /** It was with the agent when that ended: nobody knows. */
  | { readonly kind: 'indeterminate' }
  /** It was taken back, or there is nobody any more to take it. */
  | { readonly kind: 'void' }
  /** It was indeterminate, and was sent again as another one. */
  | { readonly kind: 'retried' };

export type WishView = {
  readonly id: string;
  readonly host: string;
  readonly command: Command;
  readonly at: number;
  readonly stage: Stage;
  /** Whether it is being taken back. */
  readonly recalled: boolean;
};

export type PairingView =
  | { readonly step: 'none' }
  | { readonly step: 'asking'; readonly name: string }
  | { readonly step: 'compare'; readonly name: string; readonly host: string; readonly code: string }
  | { readonly step: 'done'; readonly host: string; readonly peer: string }
  | { readonly step: 'failed'; readonly code: Code };

/** A question that waits for a person, in any session that is being read. */
export type PendingApproval = {
  readonly host: string;
  readonly session: string;
  readonly title: string;
  readonly approval: string;
  readonly ask: string;
  readonly at: number;
};

export type Overview = {
  readonly me: string | null;
  readonly link: LinkView;
  readonly hosts: readonly HostView[];
  readonly pairing: PairingView;
  readonly wishes: readonly WishView[];
  readonly approvals: readonly PendingApproval[];
  /** The relay's clock minus ours, when they differ by so much that times here mislead. */
  readonly clockOff: number | null;
  /** Whether this browser has no room left for what is read. */
  readonly full: boolean;
};

/** What is known of one conversation besides its rows. */
export type ConversationState = {
  readonly sync: SyncView;
  readonly session: Session;
  readonly activity: Activity;
  readonly usage: Usage | null;
  /** Whether older pages can be asked for. */
  readonly older: 'none' | 'more' | 'reading';
  /** Whether there are newer rows than those that are shown. */
  readonly newer: 'none' | 'more';
  /** Why the host writes nothing more. */
  readonly paused: Held | null;
};

export type FromEngine =
  /** A page that was here before says again what it shows and wants. */
  | { readonly type: 'ready' }
  | { readonly type: 'overview'; readonly overview: Overview }
  /** All rows, for one page or for all. */
  | {
      readonly type: 'rows_reset';
      readonly session: string;
      readonly rows: readonly Row[];
      readonly state: ConversationState;
      readonly to: string | null;
    }
  | {
      readonly type: 'rows_changed';
      readonly session: string;
      readonly changed: readonly (readonly [number, Row])[];
      readonly state: ConversationState;
    }
  /** A wish is in the outbox; it will not be lost. */
  | { readonly type: 'kept'; readonly id: string }
  /** A wish could not be made durable: it is not sent. */
  | { readonly type: 'not_kept'; readonly id: string; readonly code: LocalCode }
  | { readonly type: 'blob'; readonly request: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: 'blob_failed'; readonly request: string; readonly code: Code }
  /** The engine cannot go on; the page must say so. */
  | { readonly type: 'broken'; readonly code: Code | LocalCode; readonly detail: string };

export type ToEngine =
  | { readonly type: 'hello' }
  | { readonly type: 'pair'; readonly link: string; readonly name: string }
  | { readonly type: 'forget_pairing' }
  | { readonly type: 'open'; readonly host: string; readonly session: string }
  | { readonly type: 'close'; readonly session: string }
  /** The rows that came last are on the page: more may come. */
  | { readonly type: 'drawn'; readonly session: string }
  | { readonly type: 'older' | 'newer' | 'latest'; readonly session: string }
  /** Whether the page stays at the end of a session that it shows. */
  | { readonly type: 'look'; readonly session: string; readonly following: boolean }
  /** The id is made by the page, so that saying it twice does no harm. */
  | { readonly type: 'wish'; readonly id: string; readonly host: string; readonly command: Command }
  | { readonly type: 'dismiss'; readonly id: string }
  /** Takes a wish back that is on its way; unless it had its effect, it will have none. */
  | { readonly type: 'recall'; readonly id: string }
  /** Sends a wish again of which nobody knows whether it had its effect, as `fresh`. */
  | { readonly type: 'retry'; readonly id: string; readonly fresh: string }
  | {
      readonly type: 'want_blob';
      readonly request: string;
      readonly host: string;
      readonly session: string;
      readonly blob: BlobRef;
    }
  | { readonly type: 'forget_host'; readonly host: string }
  /** Whether somebody looks at the page: hosts are asked more often then. */
  | { readonly type: 'watched'; readonly watched: boolean }
  /** The page became visible or the network came back: try now. */
  | { readonly type: 'nudge' };
