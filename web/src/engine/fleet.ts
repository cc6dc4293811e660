/** What a host's own log describes; the twin of `core::fleet::Fleet::apply`. */
import type { Entry, Fleet, HostEvent } from '../protocol/types';
import { STATE_VERSION } from './session';

export const EMPTY_FLEET: Fleet = {
  state_version: STATE_VERSION,
  name: '',
  version: '',
  roster: [],
  sessions: {},
  waiting: {},
};

export function applyHostEvent(fleet: Fleet, event: HostEvent): Fleet {
  switch (event.type) {
    case 'host_started':
      return { ...fleet, name: event.name, version: event.version, waiting: {} };
    case 'roster_extended': {
      const entry = parseEntry(event.entry);
      return entry === null ? fleet : { ...fleet, roster: [...fleet.roster, entry] };
    }
    case 'session_listed':
      return { ...fleet, sessions: { ...fleet.sessions, [event.summary.session]: event.summary } };
    case 'pairing_requested': {
      const { name, code, offer } = event;
      return { ...fleet, waiting: { ...fleet.waiting, [offer]: { name, code } } };
    }
    case 'pairing_settled': {
      const { [event.offer]: _gone, ...waiting } = fleet.waiting;
      return { ...fleet, waiting };
    }
    case 'snapshot':
      return {
        ...EMPTY_FLEET,
        ...event.state,
        state_version: Math.max(event.state.state_version ?? 1, STATE_VERSION),
      };
    default:
      return unknownEvent(event, fleet);
  }
}

function parseEntry(text: string): Entry | null {
  try {
    return JSON.parse(text) as Entry;
  } catch {
    return null;
  }
}

/** An event that a newer host made changes nothing here. */
function unknownEvent(_event: never, fleet: Fleet): Fleet {
  return fleet;
}
