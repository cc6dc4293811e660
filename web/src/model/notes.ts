/** Events that are told in one line. */
import type { NoteEvent } from '../engine/rows';
import { strings } from '../strings';
import { authorName, shortPath } from './format';

export function noteText(event: NoteEvent, me: string | null): string {
  const { note } = strings;
  switch (event.type) {
    case 'session_opened':
      return note.opened(event.agent, shortPath(event.dir));
    case 'title_changed':
      return note.renamed(event.title, authorName(event.by, me));
    case 'agent_started': {
      const version = event.version === null ? '' : ` ${event.version}`;
      return event.resumed ? note.agentResumed(event.name, version) : note.agentStarted(event.name, version);
    }
    case 'agent_exited': {
      const code = event.code === null ? '' : note.exitCode(event.code);
      return note.agentExited(event.signal === null ? code : note.signal(event.signal));
    }
    case 'agent_restarting':
      return note.restarting(authorName(event.by, me));
    case 'mode_requested':
      return note.modeRequested(event.mode, authorName(event.by, me));
    case 'mode_changed':
      return note.mode(event.mode, authorName(event.by, me));
    case 'config_requested':
      return note.config(event.option, event.value, authorName(event.by, me));
    case 'prompt_withdrawn':
      return note.withdrawn(authorName(event.by, me));
    case 'prompt_edited':
      return note.edited(authorName(event.by, me));
    case 'prompt_moved':
      return note.moved(authorName(event.by, me));
    case 'queue_paused':
      return note.paused[event.why];
    case 'queue_resumed':
      return note.goesOn(authorName(event.by, me));
    case 'turn_cancel_requested':
      return note.cancel(authorName(event.by, me));
    case 'session_ended':
      return note.ended(authorName(event.by, me));
  }
}
