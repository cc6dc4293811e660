//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The heading of the options that every command has.
const EVERYWHERE: &str = "With every command";

/// Remote control for coding agents.
#[derive(Debug, Parser)]
#[command(name = "farhelm", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// The state folder; separates several hosts and devices on one machine
    #[arg(long, env = "FARHELM_HOME", global = true, help_heading = EVERYWHERE, value_name = "DIR", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// Print JSON for scripts
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// Which paired host to steer, by name or id, when this machine is joined to several
    #[arg(long, global = true, value_name = "HOST", help_heading = EVERYWHERE)]
    pub(crate) host: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a session with an agent in a folder, and the daemon if none runs
    Up(Up),
    /// Let another device in: print a link and a QR code, compare codes, confirm
    Pair(Pair),
    /// Make this machine a device of a host
    Join {
        /// The pairing link; `-` reads it from standard input, where no process list shows it
        link: String,
        /// What this machine is called on the host
        #[arg(long)]
        name: Option<String>,
    },
    /// List the devices of the fleet
    Devices,
    /// Remove a device: it reads nothing new and can do nothing from then on
    Revoke {
        /// Its name or id
        device: String,
    },
    /// List the sessions
    Ls {
        /// Also those that have ended
        #[arg(long)]
        all: bool,
    },
    /// Print a session's log
    Log {
        /// Id, the end of an id, or title
        session: String,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
        /// Begin at this event
        #[arg(long, value_name = "N", default_value_t = 1)]
        from: u64,
        /// Print what passed between the agent and Farhelm, line by line, as far as it is kept on
        /// this machine
        #[arg(long, conflicts_with_all = ["follow", "from"])]
        raw: bool,
    },
    /// Print what a tool put out
    Output {
        /// Id, the end of an id, or title
        session: String,
        /// The tool call's id, or the end of it
        tool: String,
        /// Only the bytes from A up to B
        #[arg(long, value_name = "A-B")]
        range: Option<String>,
    },
    /// Send a prompt to a session
    Send {
        /// Id, the end of an id, or title
        session: String,
        /// The prompt
        #[arg(required = true)]
        text: Vec<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// List the prompts that wait in a session, change one, or take one back
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Queue {
        /// Id, the end of an id, or title
        #[arg(required = true)]
        session: Option<String>,
        #[command(subcommand)]
        command: Option<QueueCommand>,
    },
    /// List what this machine sent and whose end is not known; send one again or take one back
    #[command(args_conflicts_with_subcommands = true)]
    Outbox {
        #[command(subcommand)]
        command: Option<OutboxCommand>,
    },
    /// List the questions that wait for an answer
    Approvals,
    /// Answer a question: go ahead
    Approve(Approve),
    /// Answer a question: do not
    Deny {
        /// The question's id, or the end of it
        id: String,
        /// What the agent is told
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Stop the running turn of a session
    Stop {
        /// Id, the end of an id, or title
        session: String,
        /// End the whole session and its agent
        #[arg(long)]
        end: bool,
        #[command(flatten)]
        sending: Sending,
    },
    /// Go on after a pause: start the agent again when it has ended, and work on what waits
    Resume {
        /// Id, the end of an id, or title
        session: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Say how the daemon, the relay and the fleet are
    Status,
    /// Look at everything that a message needs on its way, and name what is wrong
    Doctor,
    /// Make the daemon a service of this user: started with the machine, and again when it ends
    Service {
        #[command(subcommand)]
        action: crate::commands::service::Action,
    },
    /// End the daemon and its agents
    Down,
    /// Run the relay alone; the program farhelm-relay does the same
    Relay(Box<farhelm_relay::program::Args>),
    /// Run the daemon in this process
    #[command(hide = true)]
    Host(Host),
    /// List the places where `FARHELM_FAIL` can make this build fail
    #[cfg(debug_assertions)]
    #[command(hide = true)]
    Failpoints,
    /// Our own agent, for tests and first tries
    #[command(hide = true)]
    ScriptedAgent {
        /// The scenario file
        #[arg(long)]
        scenario: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The folder to work in
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The agent: claude, codex, gemini, opencode, …, or one of your configuration; the first one
    /// found on the PATH unless given
    #[arg(long, conflicts_with = "agent_cmd")]
    pub(crate) agent: Option<String>,
    /// Any program that speaks the Agent Client Protocol, with its arguments
    #[arg(long, value_name = "COMMAND")]
    pub(crate) agent_cmd: Option<String>,
    /// The relay to use, as https://relay.example; an embedded one unless given
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// Give the embedded relay an https address: tailscale or cloudflared
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["via_cmd", "relay"])]
    pub(crate) via: Option<String>,
    /// The same with any program that prints an https address; {port} and {url} are replaced
    #[arg(long, value_name = "COMMAND", conflicts_with = "relay")]
    pub(crate) via_cmd: Option<String>,
    /// The first prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Start it, print the link, and return
    #[arg(long)]
    pub(crate) headless: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pair {
    /// Print the link and return; confirm later with --accept
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Let in the device that shows this code
    #[arg(long, value_name = "CODE", conflicts_with_all = ["no_wait", "refuse"])]
    pub(crate) accept: Option<String>,
    /// Turn away the device that shows this code
    #[arg(long, value_name = "CODE", conflicts_with = "no_wait")]
    pub(crate) refuse: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// The question's id, or the end of it
    pub(crate) id: String,
    /// Which of the offered options, by id, name or number; the first that allows once unless given
    #[arg(long)]
    pub(crate) option: Option<String>,
    /// An answer to a question, by its id, header, text or number, or to a field of a form; may be
    /// repeated
    #[arg(long = "answer", value_name = "QUESTION=ANSWER")]
    pub(crate) answers: Vec<String>,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

/// How a wish is sent.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Sending {
    /// It has no effect when it arrives later than this from here: 90s, 10m, 2h, 1d; 1d unless given
    #[arg(long, value_name = "TIME", value_parser = crate::sending::read_time)]
    pub(crate) not_after: Option<std::time::Duration>,
    /// Return once it has come so far
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = Wait::Host)]
    pub(crate) wait: Wait,
}

/// How far a wish comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Wait {
    /// Written down on this machine
    Kept,
    /// In the host's mailbox
    Relay,
    /// Written down at the host
    #[default]
    Host,
    /// Given to the agent
    Handed,
    /// The agent has shown that it took it
    Consumed,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Let a waiting prompt say something else
    Edit {
        /// Id, the end of an id, or title
        session: String,
        /// The prompt's id, or the end of it
        prompt: String,
        /// What it says instead
        #[arg(required = true)]
        text: Vec<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Give a waiting prompt another place
    Move {
        /// Id, the end of an id, or title
        session: String,
        /// The prompt's id, or the end of it
        prompt: String,
        /// The prompt that is to come after it; it comes last unless given
        #[arg(long, value_name = "PROMPT")]
        before: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Take a waiting prompt back
    Cancel {
        /// Id, the end of an id, or title
        session: String,
        /// The prompt's id, or the end of it
        prompt: String,
        #[command(flatten)]
        sending: Sending,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// Send one again of which nobody knows whether it had its effect
    Retry {
        /// Its id, or the end of it
        id: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Take one back: unless it had its effect, it will never have one
    Cancel {
        /// Its id, or the end of it
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Host {
    #[command(subcommand)]
    pub(crate) command: HostCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Run the daemon until it is told to stop
    Run {
        /// The relay to use
        #[arg(long, value_name = "URL")]
        relay: Option<String>,
        /// Wait while another daemon uses the state folder
        #[arg(long)]
        wait: bool,
    },
}
