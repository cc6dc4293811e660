// Made from the Rust types by `make types`; never edited by hand.

export type Timestamp = number;

export type Content = { "kind": "text", 
/** The text. */
text: string, } | { "kind": "clipped", 
/** How it begins. */
head: string, 
/** How it ends. */
tail: string, 
/** How long it is, in bytes. */
bytes: number, 
/** Where it is. */
blobs: Array<BlobRef>, } | { "kind": "diff", 
/** The file. */
path: string, 
/** What it held; nothing when it is new. */
old: string | null, 
/** What it holds afterwards. */
new: string, } | { "kind": "image", 
/** Its MIME type. */
mime: string, 
/** Where it is. */
blobs: Array<BlobRef>, 
/** How long it is, in bytes. */
bytes: number, } | { "kind": "link", 
/** The address. */
uri: string, 
/** Its name. */
name: string, } | { "kind": "raw", 
/** Its JSON, cut when long. */
json: string, };

export type BlobRef = { 
/** SHA-256 of the sealed bytes, in hexadecimal. */
name: string, 
/** The epoch whose content key seals it. */
epoch: number, 
/** How many bytes it holds when opened. */
bytes: number, };

export type ToolPatch = { 
/** The agent's id of the call. */
id: string, 
/** What it does, in the agent's words. */
title?: string, 
/** `read`, `edit`, `delete`, `move`, `search`, `execute`, `think`, `fetch`, or what else the
 * agent says. */
kind?: string, 
/** How far it is. */
status?: ToolStatus, 
/** What it shows; replaces what it showed. */
content?: Array<Content>, 
/** The files it touches. */
locations?: Array<FileLocation>, 
/** Its arguments: JSON, cut when long. */
input?: string, 
/** The call of the subagent that made it. */
parent?: string, };

export type ToolStatus = "pending" | "in_progress" | "completed" | "failed" | "rejected";

export type FileLocation = { 
/** The file. */
path: string, 
/** The line, from 1. */
line: number | null, };

export type Ask = { 
/** The tool call that waits for the answer. */
tool: string | null, 
/** What it is about, in the agent's words; never instead of `subject`. */
title: string, 
/** What it is about. */
subject: Subject, 
/** The answers the agent offers. */
options: Array<Choice>, 
/** What the agent says about it, labelled as such. */
description: string | null, 
/** The call of the subagent that asks. */
parent: string | null, };

export type Subject = { "kind": "command", 
/** The command, exactly. */
command: string, 
/** Where. */
dir: string, } | { "kind": "edit", 
/** The changes. */
content: Array<Content>, 
/** The tool's arguments: JSON. */
input: string, } | { "kind": "tool", 
/** Its name. */
name: string, 
/** Its arguments: JSON. */
input: string, 
/** What else the agent showed. */
content: Array<Content>, } | { "kind": "plan", 
/** The plan, Markdown. */
text: string, } | { "kind": "questions", 
/** Them. */
questions: Array<Question>, } | { "kind": "form", 
/** What it says. */
message: string, 
/** JSON schema of an object with plain fields. */
schema: string, } | { "kind": "visit", 
/** What it says. */
message: string, 
/** The address. */
url: string, };

export type Question = { 
/** Names it in the answers. */
id: string, 
/** A word or two. */
header: string, 
/** The question. */
text: string, 
/** The answers to choose from; a person may also write another. */
choices: Array<Answer>, 
/** Whether several may be chosen. */
multiple: boolean, };

export type Answer = { 
/** The answer. */
label: string, 
/** What it means. */
description: string | null, };

export type Choice = { 
/** Its id. */
id: string, 
/** Its name. */
name: string, 
/** What it amounts to. */
kind: ChoiceKind, };

export type ChoiceKind = "allow_once" | "allow_always" | "reject_once" | "reject_always" | "other";

export type Verdict = { "kind": "selected", 
/** Its id. */
option: string, 
/** Whether that lets the agent go ahead. */
allows: boolean, 
/** What the person adds, for the agent to read. */
reason: string | null, } | { "kind": "answered", 
/** Them. */
answers: Record<string, unknown>, } | { "kind": "void", 
/** Why. */
why: string, };

export type LogRecord = { 
/** Its position: dense, from 1. */
seq: number, 
/** When the host wrote it. */
at: Timestamp, 
/** The command that it is the effect of. */
cause?: string, 
/** What happened. */
event: SessionEvent, };

export type SessionEvent = { "type": "session_opened", 
/** What people call it. */
title: string, 
/** The folder it works in. */
dir: string, 
/** The git branch of that folder, when it is a work tree. */
branch: string | null, 
/** The name of the agent's entry in the configuration. */
agent: string, } | { "type": "title_changed", 
/** The title. */
title: string, 
/** Who changed it. */
by: Author, } | { "type": "agent_started", 
/** The agent's own name for the conversation, for resuming it. */
agent_session: string | null, 
/** What the program calls itself. */
name: string, 
/** Its version. */
version: string | null, 
/** The dialect it speaks: `acp` or `claude`. */
dialect: string, 
/** Whether it continues an earlier conversation. */
resumed: boolean, } | { "type": "agent_exited", 
/** Its exit code. */
code: number | null, 
/** The signal that killed it. */
signal: number | null, 
/** The end of what it wrote to its standard error. */
stderr: string, } | { "type": "agent_restarting", 
/** Who. */
by: Author, } | { "type": "modes_offered", 
/** All of them. */
modes: Array<Mode>, 
/** The current one. */
current: string | null, } | { "type": "mode_requested", 
/** Its id. */
mode: string, 
/** Who. */
by: Author, } | { "type": "config_requested", 
/** Which setting. */
option: string, 
/** To what. */
value: string, 
/** Who. */
by: Author, } | { "type": "mode_changed", 
/** Its id. */
mode: string, 
/** Who changed it. */
by: Author, } | { "type": "config_offered", 
/** All of them. */
options: Array<ConfigOption>, } | { "type": "commands_offered", 
/** All of them. */
commands: Array<AgentCommand>, } | { "type": "prompt_queued", 
/** Its id. */
prompt: string, 
/** What the person wrote. */
text: string, 
/** Who. */
by: Author, } | { "type": "prompt_edited", 
/** Which. */
prompt: string, 
/** Counts its edits, from 1. */
revision: number, 
/** What it says. */
text: string, 
/** Who changed it. */
by: Author, } | { "type": "prompt_moved", 
/** Which. */
prompt: string, 
/** The prompt that comes next after it; the end of the queue when there is none. */
before: string | null, 
/** Who moved it. */
by: Author, } | { "type": "prompt_withdrawn", 
/** Which. */
prompt: string, 
/** Who took it back. */
by: Author, } | { "type": "queue_paused", 
/** Why. */
why: PauseCause, } | { "type": "queue_resumed", 
/** Who said so. */
by: Author, } | { "type": "turn_started", 
/** The turn's id. */
turn: string, 
/** The prompt that it works on. */
prompt: string, } | { "type": "turn_cancel_requested", 
/** Which. */
turn: string, 
/** Who. */
by: Author, } | { "type": "turn_ended", 
/** Which turn. */
turn: string, 
/** Why. */
reason: StopReason, 
/** What the agent said about it, of errors. */
detail: string | null, } | { "type": "message_added", 
/** The message's id; a message in several parts keeps it. */
message: string, 
/** Whose words. */
role: MessageRole, 
/** The words. */
content: Array<Content>, 
/** The tool call of the subagent that said it. */
parent: string | null, } | { "type": "plan_updated", 
/** All of it. */
entries: Array<PlanEntry>, } | { "type": "tool_updated", 
/** What is different. */
tool: ToolPatch, } | { "type": "approval_requested", 
/** Its id. */
approval: string, 
/** The adapter's handle for answering. */
request: string, 
/** The JSON of an [`crate::ask::Ask`]. Devices show what is in these very bytes, and a
 * decision carries their digest. */
ask: string, } | { "type": "approval_decided", 
/** Which. */
approval: string, 
/** Who decided. */
by: Author, 
/** What. */
verdict: Verdict, } | { "type": "approval_applied", 
/** Which. */
approval: string, } | { "type": "usage_updated", 
/** Tokens in use. */
used: number | null, 
/** Tokens there are. */
size: number | null, 
/** Cost so far, in `currency`. */
cost: number | null, 
/** ISO 4217. */
currency: string | null, } | { "type": "raw_noted", 
/** What kind of message it called it. */
kind: string, 
/** The message's JSON, cut when long. */
json: string, } | { "type": "noticed", 
/** What kind of thing. */
code: string, 
/** Detail. */
text: string, } | { "type": "session_ended", 
/** Who ended it. */
by: Author, } | { "type": "snapshot", 
/** The state after all events before this one. */
state: Session, };

export type Author = { "kind": "device", 
/** The device. */
peer: string, 
/** Its name in the roster. */
name: string, } | { "kind": "local" } | { "kind": "agent" } | { "kind": "host" } | { "kind": "rule", 
/** Its name. */
name: string, };

export type PauseCause = "agent_ended" | "host_restarted" | "stopped";

export type MessageRole = "agent" | "thought" | "user";

export type StopReason = "end_turn" | "cancelled" | "max_tokens" | "max_turn_requests" | "refusal" | "failed" | "agent_died";

export type Mode = { 
/** Its id. */
id: string, 
/** Its name. */
name: string, 
/** What it does. */
description: string | null, };

export type ConfigOption = { 
/** Its id. */
id: string, 
/** Its name. */
name: string, 
/** `model`, `mode`, `thought_level`, or what else the agent says. */
category: string | null, 
/** The value in force. */
current: string, 
/** The values there are. */
choices: Array<ConfigChoice>, };

export type ConfigChoice = { 
/** The value. */
value: string, 
/** Its name. */
name: string, };

export type AgentCommand = { 
/** Its name, without the slash. */
name: string, 
/** What it does. */
description: string, };

export type PlanEntry = { 
/** What is to be done. */
content: string, 
/** `pending`, `in_progress`, `completed`, or what else the agent says. */
status: string, 
/** `high`, `medium`, `low`, when the agent says. */
priority: string | null, };

export type HostEvent = { "type": "host_started", 
/** The host's name. */
name: string, 
/** The daemon's version. */
version: string, } | { "type": "roster_extended", 
/** The JSON text of a [`crate::roster::Entry`]. */
entry: string, } | { "type": "session_listed", 
/** The summary from here on. */
summary: Summary, } | { "type": "pairing_requested", 
/** What the device is called. */
name: string, 
/** The code that both sides show. */
code: string, 
/** Which pairing. */
offer: string, } | { "type": "pairing_settled", 
/** Which pairing. */
offer: string, 
/** Whether the device was let in. */
accepted: boolean, } | { "type": "snapshot", 
/** The state after all events before this one. */
state: Fleet, };

export type HostRecord = { 
/** Its position: dense, from 1. */
seq: number, 
/** When the host wrote it. */
at: Timestamp, 
/** The command that it is the effect of. */
cause?: string, 
/** What happened. */
event: HostEvent, };

export type Summary = { 
/** Which. */
session: string, 
/** What people call it. */
title: string, 
/** The folder it works in. */
dir: string, 
/** The git branch of that folder. */
branch: string | null, 
/** The agent's name. */
agent: string, 
/** What it is doing. */
state: Activity, 
/** How many questions wait for a person. */
pending: number, 
/** When something last happened. */
at: Timestamp, };

export type Activity = "starting" | "idle" | "running" | "requires_action" | "agent_gone" | "ended";

export type Live = { "type": "text", 
/** The message's id, as its event will have. */
message: string, 
/** Whose words. */
role: MessageRole, 
/** The tool call of the subagent that says it. */
parent: string | null, 
/** Where `text` begins, in UTF-16 code units; a reader that has less waits for a frame
 * that begins at or before its end. */
offset: number, 
/** The words from there. */
text: string, } | { "type": "tool", 
/** What is different. */
tool: ToolPatch, } | { "type": "paused", 
/** `disk_full` or `journal_failed`. */
code: string, 
/** Since when. */
since: Timestamp, 
/** What is wrong and what to do. */
text: string, };

export type Session = { 
/** What the state is written as. */
version: number, 
/** What people call it. */
title: string, 
/** Whether somebody gave it that title; until then it is the folder's name. */
titled: boolean, 
/** The folder it works in. */
dir: string, 
/** The git branch of that folder. */
branch: string | null, 
/** The name of the agent's entry. */
agent: string, 
/** The agent's program. */
program: Program, 
/** The modes the agent offers. */
modes: Array<Mode>, 
/** The mode in force. */
mode: string | null, 
/** The settings the agent offers. */
config: Array<ConfigOption>, 
/** The slash commands the agent offers. */
commands: Array<AgentCommand>, 
/** Prompts that wait. */
queue: Array<Queued>, 
/** Whether the queue waits for a person to say that it goes on. */
paused: boolean, 
/** Why it does. */
pause: PauseCause | null, 
/** The turn that runs. */
turn: Turn | null, 
/** Questions that are not settled. */
approvals: { [key in string]: Approval }, 
/** The agent's plan. */
plan: Array<PlanEntry>, 
/** Tool calls that have not ended, without what they show. */
tools: { [key in string]: ToolPatch }, 
/** Wishes for the agent that it is not known to have taken. */
wishes: { [key in string]: Wish }, 
/** Whether it is over. */
ended: boolean, };

export type Program = { "kind": "starting", 
/** Its own name for the conversation that it is to resume. */
agent_session: string | null, } | { "kind": "up", 
/** Its own name for the conversation. */
agent_session: string | null, } | { "kind": "gone", 
/** Its own name for the conversation, for resuming. */
agent_session: string | null, };

export type Queued = { 
/** Its id. */
prompt: string, 
/** The text. */
text: string, 
/** Who wrote it. */
by: Author, 
/** How often it was edited. */
revision: number, };

export type Turn = { 
/** Its id. */
turn: string, 
/** The prompt it works on. */
prompt: string, 
/** Whether it was asked to stop. */
cancelling: boolean, };

export type Approval = { 
/** The adapter's handle. */
request: string, 
/** The ask's JSON. */
ask: string, 
/** The verdict, when it was decided and the agent has not been told yet. */
decided: Verdict | null, };

export type Wish = { 
/** What the agent is to take. */
aim: Aim, 
/** How far it has come. */
delivery: Delivery, };

export type Aim = { "kind": "prompt", 
/** Which. */
prompt: string, } | { "kind": "answer", 
/** To which question. */
approval: string, 
/** The tool call that waits; any output of the agent counts when there is none. */
tool: string | null, } | { "kind": "stop", 
/** Of which turn. */
turn: string, } | { "kind": "mode", 
/** Its id. */
mode: string, } | { "kind": "setting", 
/** Its id. */
option: string, } | { "kind": "restart" };

export type Delivery = "done" | "waiting" | "handed" | "consumed" | "indeterminate" | "void" | "retried";

export type Fleet = { 
/** What the state is written as. */
state_version: number, 
/** The host's name. */
name: string, 
/** The daemon's version. */
version: string, 
/** The roster's entries; who shows them verifies them first. */
roster: Array<Entry>, 
/** All sessions. */
sessions: { [key in string]: Summary }, 
/** Devices that wait to be let in. */
waiting: { [key in string]: Waiting }, };

export type Waiting = { 
/** What it is called. */
name: string, 
/** The code that it shows. */
code: string, };

export type Command = { "type": "start_session", 
/** The folder. */
dir: string, 
/** The agent; the host's choice when absent. */
agent: string | null, 
/** The first prompt. */
prompt: string | null, } | { "type": "prompt", 
/** Which session. */
session: string, 
/** The text. */
text: string, } | { "type": "edit_prompt", 
/** Which session. */
session: string, 
/** Which prompt. */
prompt: string, 
/** The revision that was shown; another one in force means that somebody was first. */
revision: number, 
/** The text. */
text: string, } | { "type": "move_prompt", 
/** Which session. */
session: string, 
/** Which prompt. */
prompt: string, 
/** The prompt that is to come after it; the end of the queue when there is none. */
before: string | null, } | { "type": "withdraw_prompt", 
/** Which session. */
session: string, 
/** Which prompt. */
prompt: string, } | { "type": "decide_approval", 
/** Which session. */
session: string, 
/** Which question. */
approval: string, 
/** [`crate::ask::digest`] of the ask as it was shown. */
digest: string, 
/** The answer. */
verdict: Verdict, } | { "type": "cancel_turn", 
/** Which session. */
session: string, } | { "type": "set_mode", 
/** Which session. */
session: string, 
/** The mode's id. */
mode: string, } | { "type": "set_config", 
/** Which session. */
session: string, 
/** The setting's id. */
option: string, 
/** The value. */
value: string, } | { "type": "rename", 
/** Which session. */
session: string, 
/** The title. */
title: string, } | { "type": "resume_agent", 
/** Which session. */
session: string, } | { "type": "end_session", 
/** Which session. */
session: string, } | { "type": "open_pairing", } | { "type": "settle_pairing", 
/** Which pairing. */
offer: string, 
/** Whether it may come in. */
accept: boolean, } | { "type": "revoke_device", 
/** Which. */
peer: string, } | { "type": "recall", 
/** Which. */
command: string, } | { "type": "send_keys", 
/** Which. */
stream: string, };

export type CommandBody = { 
/** The wish. */
command: Command, 
/** The command that this one repeats, because nobody knows whether it had its effect. The host
 * takes it only while that is so. */
retries?: string, };

export type Rejection = { 
/** Why. */
code: string, 
/** Detail for people. */
text: string, };

export type Receipt = { 
/** Which command. */
command: string, 
/** How far. */
outcome: Outcome, };

export type Outcome = { "kind": "received" } | { "kind": "applied", 
/** The stream that holds the effect. */
stream: string, 
/** The last event of the effect. */
seq: number, 
/** What the command made: a session's id, a pairing link. */
made: string | null, 
/** How far it has come with the agent. */
delivery: Delivery, } | { "kind": "refused", 
/** Why. */
rejection: Rejection, };

export type Capability = "view" | "prompt" | "approve" | "terminal" | "files" | "manage";

export type Grant = { 
/** What it may do. */
capabilities: Array<Capability>, 
/** Until when; for ever when absent. */
until: Timestamp | null, };

export type PublicKeys = { 
/** Ed25519. */
signing: string, 
/** X25519. */
sealing: string, };

export type KeyBundle = { 
/** The stream they are for. */
stream: string, 
/** The keys. */
keys: Array<EpochKey>, };

export type EpochKey = { 
/** Its epoch. */
epoch: number, 
/** The key, base64url without padding. */
key: string, };

export type Entry = { 
/** The JSON text of an [`EntryBody`]. */
body: string, 
/** Who signed it. */
signer: string, 
/** Ed25519 over the body, base64url without padding. */
signature: string, };

export type EntryBody = { 
/** SHA-256 over the body of the entry before it, in hexadecimal; empty in the first. */
prev: string, 
/** Counts from 1. */
number: number, 
/** When it was made. */
at: Timestamp, 
/** What changes. */
change: Change, };

export type Change = { "type": "founded", 
/** Its keys. */
keys: PublicKeys, 
/** Its name. */
name: string, } | { "type": "admitted", 
/** Its keys. */
keys: PublicKeys, 
/** Its name. */
name: string, 
/** What it may do. */
grant: Grant, } | { "type": "revoked", 
/** Which. */
peer: string, };

export type PairRequest = { 
/** What the device calls itself. */
name: string, 
/** Its keys; the letter is signed by them. */
keys: PublicKeys, };

export type PairAnswer = { "type": "challenge", 
/** 32 bytes, base64url without padding. */
nonce: string, 
/** The host's name. */
host: string, 
/** [`compare_code`]'s first argument, base64url: binds the answer to the request. */
request: string, } | { "type": "accepted", 
/** The whole roster. */
roster: Array<Entry>, } | { "type": "refused", 
/** Why. */
code: string, };

export type ProbeBody = { "type": "probe" } & Probe | { "type": "echo" } & Echo;

export type Probe = { 
/** Fresh random bytes, base64url; the answer repeats it. */
nonce: string, 
/** The sessions that the asker wants to hear about; all that are open when absent. */
sessions?: Array<string>, };

export type Echo = { 
/** The probe's nonce. */
nonce: string, 
/** The clock of whoever answers. */
now: Timestamp, 
/** How often it may be asked by somebody who looks, in milliseconds. */
every_millis: number, 
/** How often otherwise, in milliseconds. */
idle_millis: number, 
/** How much of the host's own log the relay was handed before this answer; none from a
 * device. */
sent?: number, 
/** The sessions asked for that are open. */
sessions: { [key in string]: Pulse }, };

export type Pulse = { 
/** Seq of the last event of its log. */
head: number, 
/** How much of its log the relay was handed before this answer. */
sent: number, 
/** What it is doing. */
state: Activity, 
/** Whether the process that holds the agent's pipes answers; unknown when absent. */
keeper: boolean | null, 
/** Whether the agent's program runs; unknown when absent. */
agent: boolean | null, 
/** When the agent last said something, by the host's clock. */
heard: Timestamp | null, 
/** Why the session waits although nobody was asked. */
held: Held | null, };

export type Held = { 
/** What kind of reason. */
code: string, 
/** The reason, and what a person can do. */
text: string, 
/** Since when, by the host's clock. */
since: Timestamp, };

export type Presence = { 
/** Whether this device is connected to the relay. */
link: Fact<boolean>, 
/** Whether the host is, by the relay's word. */
host: Fact<boolean>, 
/** Whether the host answers, by its own. */
path: Path, 
/** Its sessions, one entry for each for ever. */
sessions: { [key in string]: SessionPresence }, 
/** Logs of which the relay was handed more than has arrived. */
behind: { [key in string]: Behind }, 
/** How far the logs were read that are followed. */
read: { [key in string]: Read }, };

export type Path = { 
/** The host was there after this. */
proven: Timestamp | null, 
/** How long the last echo took. */
millis: number | null, 
/** When the oldest probe was sent that has no echo. */
waiting: Timestamp | null, 
/** How far the host's clock is ahead of this one, in milliseconds. */
skew: number, };

export type Fact<T> = { 
/** The value; unknown when absent. */
value: T | null, 
/** When it last was so for certain; never, when absent. */
seen: Timestamp | null, };

export type SessionPresence = { 
/** Whether the process that holds its agent's pipes answers. */
keeper: Fact<boolean>, 
/** Whether its agent's program runs. */
agent: Fact<boolean>, 
/** What it is doing. */
turn: Fact<Activity>, 
/** When its agent last said something. */
heard: Timestamp | null, 
/** Why it waits although nobody was asked. */
held: Held | null, };

export type Read = { 
/** Seq of the last event. */
head: number, 
/** When it came. */
at: Timestamp, };

export type Behind = { 
/** How much of it the relay was handed. */
sent: number, 
/** Since when it has been so and nothing of it arrived. */
since: Timestamp, };

export type Sighting = { "type": "link", 
/** Whether it is. */
up: boolean, } | { "type": "host", 
/** Whether it is. */
online: boolean, } | { "type": "asked" } | { "type": "echoed", 
/** Which host. */
host: string, 
/** When the probe was sent. */
asked: Timestamp, 
/** It. */
echo: Echo, } | { "type": "read", 
/** Which. */
stream: string, 
/** Seq of the last event. */
head: number, } | { "type": "left", 
/** Which. */
stream: string, } | { "type": "listed", 
/** Which. */
session: string, 
/** What. */
state: Activity, 
/** When, by the host's clock. */
at: Timestamp, };

export type Reach = "live" | "unproven" | "silent" | "host_away" | "offline";

export type TurnSeen = { 
/** What it is doing, or was doing last. */
state: Activity | null, 
/** How old that is, in milliseconds; unknown when absent. */
age_millis: number | null, 
/** Whether it is the present. */
fresh: boolean, };
