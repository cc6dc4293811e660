/** The roster, verified from its first entry; the twin of `core::roster`. */
import type { Capability, Entry, EntryBody, Grant } from '../protocol/types';
import { fromBase64, hex, sameBytes, sha256, utf8 } from './bytes';
import { Failure } from './codes';
import { keysFromText, type RawKeys } from './identity';
import { peerOf } from './ids';
import { importVerifyingKey, verify } from './sign';

type Member = {
  readonly keys: RawKeys;
  readonly name: string;
  /** A host needs none. */
  readonly grant: Grant | null;
  readonly revoked: boolean;
  readonly since: number;
};

/** A verified roster. */
export type Roster = {
  readonly host: string;
  readonly members: ReadonlyMap<string, Member>;
  /** How many entries there are, and the digest of the last. */
  readonly head: RosterHead;
  /** The digest of each entry, in order. */
  readonly digests: readonly string[];
};

export type RosterHead = { readonly number: number; readonly digest: string };

/** Throws `Failure('tampered')` when an entry is forged, missing or out of order. */
export async function verifyRoster(entries: readonly Entry[], host: RawKeys): Promise<Roster> {
  const hostPeer = await peerOf(host.signing);
  const members = new Map<string, Member>();
  const digests: string[] = [];
  for (const [at, entry] of entries.entries()) {
    const body = parseBody(entry);
    if (body.number !== at + 1 || body.prev !== (digests.at(-1) ?? ''))
      tampered('an entry is missing or out of order');
    if (at === 0) await found(entry, body, host, hostPeer, members);
    else await extend(entry, body, hostPeer, members);
    digests.push(hex(await sha256(utf8(entry.body))));
  }
  if (digests.length === 0) tampered('it is empty');
  return { host: hostPeer, members, head: { number: digests.length, digest: digests.at(-1) ?? '' }, digests };
}

/** Whether `roster` continues the one whose head was seen before. */
export function continues(roster: Roster, seen: RosterHead): boolean {
  return roster.digests[seen.number - 1] === seen.digest;
}

function allows(grant: Grant | null, capability: Capability, now: number): boolean {
  if (grant === null) return true;
  return grant.capabilities.includes(capability) && (grant.until === null || now <= grant.until);
}

async function found(
  entry: Entry,
  body: EntryBody,
  host: RawKeys,
  hostPeer: string,
  members: Map<string, Member>,
): Promise<void> {
  if (body.change.type !== 'founded') tampered('the first entry founds nothing');
  const keys = keysFromText(body.change.keys);
  const same =
    keys !== null && sameBytes(keys.signing, host.signing) && sameBytes(keys.sealing, host.sealing);
  if (!same || entry.signer !== hostPeer) tampered('another host founded it');
  await checkSignature(entry, host);
  members.set(hostPeer, { keys: host, name: body.change.name, grant: null, revoked: false, since: body.at });
}

async function extend(
  entry: Entry,
  body: EntryBody,
  hostPeer: string,
  members: Map<string, Member>,
): Promise<void> {
  const signer = members.get(entry.signer);
  if (signer === undefined) tampered('a stranger signed it');
  if (signer.revoked || !allows(signer.grant, 'manage', body.at)) tampered('its signer may not manage');
  await checkSignature(entry, signer.keys);
  const change = body.change;
  switch (change.type) {
    case 'founded':
      return tampered('the fleet is founded twice');
    case 'admitted': {
      const keys = keysFromText(change.keys) ?? tampered('a key is malformed');
      const peer = await peerOf(keys.signing);
      if (peer === hostPeer) tampered('a host is not admitted');
      members.set(peer, { keys, name: change.name, grant: change.grant, revoked: false, since: body.at });
      return;
    }
    case 'revoked': {
      const member = members.get(change.peer);
      if (change.peer === hostPeer || member === undefined) tampered('nobody of that id');
      members.set(change.peer, { ...member, revoked: true });
    }
  }
}

async function checkSignature(entry: Entry, signer: RawKeys): Promise<void> {
  const signature = fromBase64(entry.signature);
  if (signature?.length !== 64) tampered('a signature is malformed');
  const key = await importVerifyingKey(signer.signing);
  if (!(await verify(key, 'roster', utf8(entry.body), signature))) tampered('a signature does not match');
}

function parseBody(entry: Entry): EntryBody {
  try {
    return JSON.parse(entry.body) as EntryBody;
  } catch {
    return tampered('an entry cannot be read');
  }
}

function tampered(why: string): never {
  throw new Failure('tampered', `the roster does not continue: ${why}`);
}
