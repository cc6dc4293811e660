/** Every text that people read, in one place. Words as in the glossary. */
import { CODES } from './protocol/codes';

type Word = (typeof CODES)[number]['word'];

export const strings = {
  app: 'Farhelm',
  loading: 'Opening…',
  back: 'Back',
  close: 'Close',
  cancel: 'Cancel',
  copy: 'Copy',
  copied: 'Copied',
  dismiss: 'Dismiss',
  more: 'More',
  less: 'Less',

  nav: { label: 'Main', sessions: 'Sessions', approvals: 'Approvals', devices: 'Devices' },

  insecure: {
    title: 'This page needs a secure connection',
    why: 'Browsers give pages their own keys only over HTTPS or on the machine itself.',
    steps: [
      'On the machine that runs the relay, open http://localhost with the relay’s port.',
      'From anywhere else, open the relay by its https:// address. `farhelm up --tunnel` makes one.',
    ],
  },
  unsupported: {
    title: 'This browser is too old',
    why: 'Farhelm needs Ed25519 and X25519 keys that cannot be exported. Chrome 137, Firefox 130, Safari 17 and later have them.',
  },
  broken: { title: 'Farhelm stopped', reload: 'Reload' },
  local: {
    storage_full: 'this browser has no room left for this site; free some space on this device',
    storage_gone:
      'what this site keeps in this browser was cleared, or opened by another version; reload to go on',
  },
  storage: {
    full: 'No room is left in this browser. What is new cannot be kept, so it is not shown until there is room; older pages were dropped and can be read again.',
    notKept: 'Not kept and not sent.',
    putBack: 'Your words are back in the box.',
    unpromised:
      'This browser may clear what it keeps for this site, and the keys with it; this device would have to be paired again.',
    promise: 'Ask it not to',
  },

  pair: {
    title: 'Pair this device',
    lead: 'On the machine where your agents run, type',
    command: 'farhelm pair',
    leadAfter: 'and scan the code, or paste the link here.',
    link: 'Pairing link',
    linkHint: 'https://…/#pair=…',
    linkReady: 'Pairing link received',
    otherLink: 'Use another link',
    name: 'Name of this device',
    nameHint: 'So that you recognise it in the list of devices.',
    submit: 'Pair',
    scan: 'Scan a QR code',
    scanning: 'Point the camera at the code on the host.',
    noCamera: 'The camera cannot be used. Paste the link instead.',
    asking: 'Asking the host…',
    askingWhy: 'The host must be running and connected to the relay.',
    compare: 'Compare this code',
    compareWhy: (host: string) =>
      `${host} must show the same digits. Confirm there only when they are the same.`,
    waiting: 'Waiting for the answer on the host',
    done: (host: string) => `Paired with ${host}`,
    doneWhy: 'This device has its own keys. They never leave this browser.',
    go: 'Open sessions',
    again: 'Try again',
    failed: 'Not paired',
    elsewhere: 'This link is for another relay. Open it there:',
    lost: 'This browser is not paired any more',
    lostWhy:
      'What this site kept here was cleared, and the keys with it: nothing can be read or sent. Pair again; the old device stays in the list of devices until you remove it there.',
  },

  link: {
    idle: 'Not connected',
    connecting: 'Connecting to the relay…',
    connected: (relay: string) => `Connected to ${relay}`,
    waiting: 'No connection to the relay',
    byHttp: 'by plain HTTP',
    byHttpShort: 'HTTP',
    byHttpWhy: 'Something in between lets no WebSocket through. Everything works, a little slower.',
    short: 'No relay',
    shortConnecting: 'Connecting…',
    again: (seconds: number) => (seconds <= 0 ? 'trying again' : `trying again in ${seconds} s`),
  },
  host: {
    online: 'Online',
    offline: (seen: string) => `Offline, last seen ${seen}`,
    offlineNever: 'Offline',
    silent: (seen: string) => `The host does not answer, last seen ${seen}`,
    silentNever: 'The host does not answer',
    silentShort: 'No answer',
    asking: 'Asking the host…',
    unknown: (seen: string) => `Unknown while the relay is away, last seen ${seen}`,
    unknownNever: 'Unknown',
    reading: 'Reading…',
    keyMissing: 'Waiting for a key from the host',
    alarm: 'Alarm',
    clock: 'The clock of this device differs from the relay’s. Ages shown here may be wrong.',
    revoked: 'This device was removed',
  },

  sessions: {
    title: 'Sessions',
    none: 'No sessions yet',
    noneWhy: 'Start one here, or type `farhelm up` in a folder on the host.',
    start: 'New session',
    ended: 'Ended',
    pending: (count: number) => (count === 1 ? '1 approval waits' : `${count} approvals wait`),
    choose: 'Choose a session',
    chooseWhy: 'Its conversation opens here.',
    addHost: 'Pair another host',
  },
  activity: {
    starting: 'Starting',
    idle: 'Idle',
    running: 'Running',
    requires_action: 'Waits for you',
    agent_gone: 'Agent gone',
    ended: 'Ended',
  },
  activityAsOf: (ago: string) => (ago === 'now' ? 'a moment ago' : `${ago} ago`),
  activityUnknown: 'some time ago',
  facts: {
    title: 'What is known',
    link: 'This device at the relay',
    host: 'Host, by the relay’s word',
    path: 'Host, by its own word',
    keeper: 'Keeper of the session',
    agent: 'Agent’s program',
    turn: 'Session',
    connected: 'connected',
    away: 'not connected',
    byHttp: 'connected, by plain HTTP',
    runs: 'runs',
    gone: 'does not run',
    unknown: 'unknown',
    echo: (millis: number) => `answered in ${millis} ms`,
    noEcho: 'does not answer',
    seen: (ago: string) => (ago === 'now' ? 'now' : `${ago} ago`),
    never: 'never seen',
    heard: (ago: string) =>
      ago === 'now' ? 'The agent last said something just now.' : `The agent last said something ${ago} ago.`,
    heldBack: (count: number) =>
      `The relay says that it is up to date and holds back ${count === 1 ? 'the newest event' : `the newest ${count} events`} of this session. What you see is not the present; do not answer by it.`,
    held: (since: string) => `The session waits since ${since}:`,
  },
  start: {
    title: 'New session',
    host: 'Host',
    dir: 'Folder',
    dirHint: '/home/you/project',
    agent: 'Agent',
    agentHint: 'the host’s choice',
    prompt: 'First prompt',
    promptHint: 'What should be done?',
    submit: 'Start',
  },

  conversation: {
    composer: 'Prompt',
    placeholder: 'Say what should be done…',
    placeholderEnded: 'This session has ended',
    send: 'Send',
    stop: 'Stop',
    stopping: 'Stopping…',
    queued: 'Waiting',
    paused: {
      agent_ended: 'Paused: the agent’s program has ended. Nothing of this is sent until you say so.',
      host_restarted: 'Paused: the host was started again. Nothing of this is sent until you say so.',
      stopped: 'Paused: the turn was stopped. Nothing of this is sent until you say so.',
    },
    goOn: 'Go on',
    gone: 'The agent’s program has ended. The next prompt, or this button, starts it again.',
    edit: 'Edit',
    save: 'Save',
    up: 'Move up',
    taken: 'Somebody has changed it meanwhile.',
    handed: 'with the agent',
    resume: 'Start the agent',
    withdraw: 'Take back',
    withdrawing: 'Taking back…',
    mode: 'Mode',
    latest: 'Latest',
    older: 'Reading older events…',
    beginning: 'Beginning of the session',
    approvalBelow: 'Waiting approval',
    thought: 'Thought',
    plan: 'Plan',
    promptUnknown: 'A prompt from before this page',
    menu: 'Session',
    rename: 'Rename',
    end: 'End session',
    endSure: 'The agent’s program is ended too. Files stay as they are.',
    title: 'Title',
    live: 'Growing',
    noView: 'This device has not read this session yet.',
  },
  sync: {
    waiting: 'Not read from the relay yet',
    waitingOld: 'As it was when the relay was last reached',
    reading: 'Reading…',
    key_missing: 'Waiting for a key from the host. It is sent when the host is online.',
    limited:
      'History limited: the relay has not all of it. The rest comes from the host, once it is connected.',
    alarm: 'What the relay shows is not what the host wrote.',
    notListed:
      'The relay does not serve this to this device: the device was removed, or the host has not come back yet. Nothing new is read or sent.',
  },
  author: {
    local: 'at the host',
    agent: 'the agent',
    host: 'the host',
    rule: (name: string) => `rule “${name}”`,
    self: 'you, on this device',
  },
  note: {
    opened: (agent: string, dir: string) => `Session opened: ${agent} in ${dir}`,
    renamed: (title: string, by: string) => `Renamed to “${title}” by ${by}`,
    agentStarted: (name: string, version: string) => `${name}${version} is running`,
    agentResumed: (name: string, version: string) =>
      `${name}${version} is running and continues the conversation`,
    agentExited: (how: string) => `The agent’s program ended${how}`,
    restarting: (by: string) => `The agent is started again by ${by}`,
    modeRequested: (mode: string, by: string) => `Mode “${mode}” requested by ${by}`,
    mode: (mode: string, by: string) => `Mode “${mode}” set by ${by}`,
    config: (option: string, value: string, by: string) => `“${option}” = “${value}” requested by ${by}`,
    edited: (by: string) => `A waiting prompt was changed by ${by}`,
    moved: (by: string) => `A waiting prompt was moved by ${by}`,
    paused: {
      agent_ended: 'What waits is paused: the agent has ended',
      host_restarted: 'What waits is paused: the host was started again',
      stopped: 'What waits is paused: the turn was stopped',
    },
    goesOn: (by: string) => `What waits goes on, says ${by}`,
    withdrawn: (by: string) => `A waiting prompt was taken back by ${by}`,
    cancel: (by: string) => `Stop requested by ${by}`,
    ended: (by: string) => `Session ended by ${by}`,
    exitCode: (code: number) => ` with exit code ${code}`,
    signal: (signal: number) => ` by signal ${signal}`,
    stderr: 'What it wrote last',
    broken: 'This cannot be shown by this version. Here it is as it came:',
    unknown: (kind: string) => `Unknown message “${kind}”`,
  },
  turn: {
    end_turn: 'Done',
    cancelled: 'Stopped',
    max_tokens: 'Ended: the answer reached its length limit',
    max_turn_requests: 'Ended: too many requests to the model',
    refusal: 'The model refused',
    failed: 'The agent answered with an error',
    agent_died: 'The agent’s program ended',
  },
  tool: {
    pending: 'Pending',
    in_progress: 'Running',
    completed: 'Done',
    failed: 'Failed',
    rejected: 'Rejected',
    cut: 'Cut off',
    unended: 'No end reported',
    ran: 'Was running',
    beyond: 'Ends further down',
    unnamed: 'Tool call',
    input: 'Arguments',
    showAll: (size: string) => `Show all ${size}`,
    fetching: 'Fetching…',
    part: (from: string, to: string, of: string) => `${from} to ${to} of ${of}`,
    before: 'Before',
    after: 'After',
    begin: (size: string) => `Show what is between, by parts (${size} in all)`,
    hide: 'Ends only',
    place: 'Place in the output',
    hiddenBytes: (size: string) => `${size} hidden here`,
    image: (mime: string, size: string) => `Show picture (${mime}, ${size})`,
    subagent: 'Subagent',
  },
  diff: {
    created: 'new file',
    hiddenLines: (count: number) => (count === 1 ? '1 unchanged line' : `${count} unchanged lines`),
    showLines: (count: number) => `Show ${count} more lines`,
    same: 'No line differs',
    noNewline: 'no newline at the end',
    tooLarge: 'Too different for a line-by-line view: all old lines, then all new ones.',
  },

  approval: {
    waits: 'Approval',
    heading: {
      command: 'Run a command',
      edit: 'Change files',
      tool: 'Use a tool',
      plan: 'Carry out a plan',
      questions: 'The agent asks',
      form: 'The agent asks for details',
      visit: 'Open an address',
    },
    unreadable: 'This question cannot be shown by this version. Answer it on the host.',
    agentTitle: 'Agent’s title',
    agentSays: 'The agent says',
    notTheCommand: 'in its own words; the exact request is above',
    inFolder: 'in',
    length: (chars: number, lines: number) =>
      `${chars} character${chars === 1 ? '' : 's'}${lines > 1 ? `, ${lines} lines` : ''}`,
    marks: (count: number) => `${count} hidden or look-alike character${count === 1 ? '' : 's'} marked`,
    reason: 'Reason, for the agent to read (sent when you reject)',
    addReason: 'Add a reason',
    answer: 'Send answers',
    ownAnswer: 'Another answer',
    required: 'required',
    missing: 'Some answers are missing.',
    visit: 'Open in a new tab',
    noOptions: 'The agent offers no answers.',
    alarm: 'Answers are blocked while there is an alarm.',
    past: 'It does not wait for an answer any more.',
    notGranted: 'This device may not answer approvals.',
    expands: (count: number) => `Show the ${count} hidden characters`,
    hidden: (count: number) => `${count} characters hidden`,
    sentReason: 'Reason',
    answered: 'Answers',
    allowed: 'Allowed',
    rejected: 'Rejected',
    decided: 'Decided',
    void: 'Void',
    by: (who: string) => `by ${who}`,
    applied: 'the agent has the answer',
    notApplied: 'not given to the agent yet',
    empty: 'Nothing waits for you',
    emptyWhy: 'Questions of all sessions appear here.',
    open: 'Open the session',
    ignored: 'Too early: look first, then tap again.',
  },
  receipt: {
    label: 'How far it has come',
    kept: 'Kept here',
    posted: 'At the relay',
    received: 'At the host',
    handed: 'With the agent',
    consumed: 'Taken',
    applied: 'Applied',
    refused: 'Refused',
    expired: 'Too late, as far as is known',
    indeterminate: 'Nobody knows',
    void: 'Taken back',
    retried: 'Sent again',
    why: {
      expired:
        'Its time was over before the host said a word. The host is asked, and will do nothing more of it.',
      indeterminate:
        'The agent’s program ended when it had this, and has not shown whether it took it. Look first, then send it again or leave it.',
    },
    recall: 'Take back',
    recalling: 'Taking it back; the host has the last word.',
    retry: 'Send again',
    leave: 'Leave it',
  },

  devices: {
    title: 'Devices',
    this: 'this device',
    host: 'host',
    since: (when: string) => `since ${when}`,
    until: (when: string) => `until ${when}`,
    revoke: 'Remove',
    revokeSure: (name: string) => `Remove “${name}”? It can read and do nothing from then on.`,
    removed: 'removed',
    former: 'this browser, before it lost its keys',
    namesake: 'same name as this device',
    waiting: 'Wants to be paired',
    waitingWhy: 'Accept only when the new device shows the same code.',
    accept: 'Accept',
    refuse: 'Refuse',
    add: 'Pair another device',
    addWhy: 'Makes a link that works once, for ten minutes.',
    making: 'Making a link…',
    link: 'Pairing link',
    linkWhy: 'Open it on the other device. Both will show a code to compare.',
    qr: 'The link as a QR code',
    verified: 'From the host’s signed roster, verified on this device.',
    forget: 'Forget this host here',
    forgetSure: 'This browser forgets the host’s keys and everything it has read.',
    all: 'everything',
  },

  diffLabel: (path: string) => `Changes to ${path}`,
} as const;

/** What a code says to somebody who holds a phone, where the words of the program do not fit or give no advice. */
const EXPLAINED: Readonly<Partial<Record<Word, { readonly title?: string; readonly todo: string }>>> = {
  internal: {
    title: 'something went wrong on the other side',
    todo: 'Try again; if it stays so, the log of the host or of the relay has the detail',
  },
  unsupported_version: {
    title: 'this page and the other side speak different protocol versions',
    todo: 'Reload this page; if that does not help, update Farhelm on the host',
  },
  bad_frame: {
    title: 'a message between this page and the relay could not be understood',
    todo: 'Reload this page; it connects again by itself',
  },
  too_large: { title: 'this is larger than it may be', todo: 'Send it in smaller parts' },
  unknown_frame: {
    title: 'the other side does not know this kind of message',
    todo: 'Update Farhelm on the host and at the relay',
  },
  not_now: { title: 'that is not allowed at this moment', todo: 'It is tried again by itself' },
  bad_proof: {
    title: 'this device could not prove its key to the relay',
    todo: 'Open the relay by the address of the pairing link',
  },
  timeout: { todo: 'It is tried again by itself' },
  not_found: {
    title: 'no such thing, or not for this device',
    todo: 'Look into the list of sessions; it may have been removed, or this device',
  },
  gap: { title: 'a piece of the log is missing in between', todo: 'It is read again by itself' },
  full: { todo: 'It is sent again by itself once there is room' },
  superseded: { title: 'this device connected again from elsewhere', todo: 'Reload here to go on' },
  restarting: { title: 'the relay restarts', todo: 'It connects again by itself' },
  not_allowed: {
    title: 'this relay does not serve this host',
    todo: 'Ask whoever runs the relay to add it',
  },
  store_failed: {
    todo: 'It is tried again by itself; whoever runs the relay should look at its disk',
  },
  captive_portal: {
    title: 'a page of the network answered in the relay’s place',
    todo: 'Sign in to the network in another tab, then it connects by itself',
  },
  intercepted: {
    title: 'the relay showed a certificate that nobody has reason to trust',
    todo: 'Something in between may be reading along; use another network and accept no warning',
  },
  not_a_relay: {
    title: 'something else than a relay answered at this address',
    todo: 'Check the address, or what stands between here and the relay',
  },
  link_expired: {
    title: 'the pairing link has expired',
    todo: 'Make a new one on the host with `farhelm pair`, or on a paired device',
  },
  link_used: {
    title: 'the pairing link was already used, or newer ones took its place',
    todo: 'Make a new one on the host with `farhelm pair`, or on a paired device',
  },
  pairing_refused: { todo: 'Make a new link there if that was a mistake' },
  bad_seal: {
    title: 'a sealed message did not open: it was altered or is not for this device',
    todo: 'Do not answer by what you see here; look at the host',
  },
  bad_signature: {
    title: 'a signature did not match: the message was altered or forged',
    todo: 'Do not answer by what you see here; look at the host',
  },
  tampered: {
    title: 'the log does not continue what was seen before: the relay may be altering it',
    todo: 'Do not answer by what you see here; look at the host',
  },
  rolled_back: {
    todo: 'If nobody put back an older copy of it, do not trust the relay; look at the host',
  },
  key_missing: { todo: 'The host sends it when it is online' },
  forbidden: { title: 'this device may not do that', todo: 'The owner of the host can grant it' },
  expired: { todo: 'It was not done; send it again if you still want it' },
  approval_not_pending: { todo: 'The session shows how it was decided' },
  digest_mismatch: {
    title: 'what was shown is not what would run',
    todo: 'Nothing was done; look at the question again',
  },
  unknown_option: { todo: 'Look at the question again' },
  session_not_found: { todo: 'Look into the list of sessions' },
  session_ended: { todo: 'Start a new one' },
  nothing_running: { todo: 'There is nothing to stop' },
  prompt_not_queued: { todo: 'The agent has it, or it was taken back' },
  unknown_mode: { todo: 'Choose another one' },
  bad_command: {
    title: 'the host could not understand this',
    todo: 'Reload this page; if that does not help, update Farhelm on the host',
  },
  duplicate_command: { todo: 'Nothing was done; send it anew' },
  queue_full: { todo: 'Wait until the agent has taken some, or take some back' },
  agent_unknown: {
    title: 'the host knows no agent of that name',
    todo: 'Leave the name empty for the host’s choice',
  },
  agent_missing: {
    title: 'the agent’s program is not installed on the host, or not on its PATH',
    todo: 'Install it there, or choose another agent',
  },
  agent_exited: { todo: 'The next prompt starts it again' },
  agent_silent: { todo: 'Stop the turn, or start the agent again' },
  agent_garbage: { todo: 'Update the agent’s program on the host' },
  agent_refused: { todo: 'Read what it says, then send the prompt again' },
  agent_login_needed: {
    title: 'the agent wants to be logged in first',
    todo: 'Run it once by itself on the host, and log in there',
  },
  folder_missing: {
    title: 'the host has no folder of that name',
    todo: 'Give the whole path of a folder that exists there',
  },
  state_unusable: {
    title: 'what is kept on this side cannot be used',
    todo: 'Reload; if that does not help, look at the disk and the rights of the folder',
  },
  already_running: { todo: 'Use that one, or end it first' },
  not_running: {
    title: 'Farhelm does not run on the host',
    todo: 'Start it there with `farhelm up`',
  },
  relay_unreachable: { todo: 'Look at the network of this device; it is tried again by itself' },
  host_offline: {
    title: 'the host is not connected',
    todo: 'What you send waits for it; wake the machine, or type `farhelm up` there',
  },
  journal_failed: {
    title: 'the host could not write its journal',
    todo: 'Free some space on its disk',
  },
  tunnel_failed: { todo: 'Start it again on the host, or use a relay with an address' },
  not_paired: { title: 'this device is not paired', todo: 'Pair it by a link of the host' },
  withheld: { todo: 'Do not answer by what you see here; look at the host, or at the relay' },
  relay_silent: {
    title: 'the relay lets the host connect and does not answer it',
    todo: 'Look at that relay and its log, or restart it; the host tries again by itself',
  },
  host_silent: {
    title: 'the host is connected to the relay and does not answer',
    todo: 'It may sleep or be overloaded; `farhelm doctor` there says more',
  },
  clock_skew: {
    title: 'the clock of a machine is wrong',
    todo: 'Set it, there and on this device; until then commands may count as too late',
  },
  no_service: {
    title: 'the host has no service manager that Farhelm knows',
    todo: 'Start it there with `farhelm up` after each restart',
  },
  copied: {
    title: 'the relay has newer events than the host, as when a second machine runs with its keys',
    todo: 'See `farhelm status` there; of two machines end one, and pair it as a host of its own',
  },
  recalled: { todo: 'Nothing was done; send it again if you want it after all' },
  too_late: {
    title: 'it has had its effect and cannot be taken back',
    todo: 'Look at what it did; stop the turn if it still runs',
  },
  not_indeterminate: {
    title: 'what became of the first one is known',
    todo: 'There is nothing to send again; the session shows how it went',
  },
  history_limited: {
    title: 'the relay does not have that part of the log any more',
    todo: 'The host has it, and it comes when the host is there',
  },
  disk_full: {
    title: 'the disk of the host or of the relay is full',
    todo: 'Free some space there, and what waits goes on by itself',
  },
  journal_full: { todo: 'Give it more room on that host, and start its daemon again' },
  history_damaged: { todo: 'What came before and after is whole; look after that disk' },
  history_dropped: { todo: 'Nothing is to be done; what is newer is whole' },
  too_many_agents: {
    title: 'as many agents run on the host as may at once',
    todo: 'End a session, or raise `agents_at_once` in its config.toml',
  },
  keeper_lost: {
    title: 'the process that held the agent was ended on the host, and the agent with it',
    todo: 'The next prompt starts the agent again; look at what it had done first',
  },
};

/** What a code means, and what to do about it. */
export function explain(code: string): { readonly title: string; readonly todo: string } {
  const local: Readonly<Record<string, string>> = strings.local;
  const known = CODES.find(({ word }) => word === code);
  const text = known?.sentence ?? local[code] ?? code;
  const own = known === undefined ? undefined : EXPLAINED[known.word];
  if (own !== undefined) return { title: upper(own.title ?? text), todo: own.todo };
  const [title = '', ...todo] = text.split('; ');
  return { title: upper(title), todo: upper(todo.join('; ')) };
}

/** The same in one line. */
export function sentence(code: string): string {
  const { title, todo } = explain(code);
  return todo === '' ? `${title}.` : `${title}. ${todo}.`;
}

function upper(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}

/** What is wrong with what the relay shows. */
export function alarmText(code: string): string {
  return code === 'not_found' ? strings.sync.notListed : `${strings.sync.alarm} ${sentence(code)}`;
}
