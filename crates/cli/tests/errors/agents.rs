//! Agents that are not there, do not start, or do not speak; folders that are not there.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Station, folder, is_alive, script, wait_until};

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let world = World::new();
    let missing = world.path("missing");
    let args = ["up", "--dir", &missing, "--agent", "scripted", "--headless"];
    world
        .host
        .refuses(&args, 1, "folder_missing", &[&missing, "does not exist"]);
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    let args = ["up", "--dir", &file, "--agent", "scripted", "--headless"];
    world
        .host
        .refuses(&args, 1, "folder_missing", &["is not a folder"]);
    world.host.still_works(&world.dir);
}

#[test]
fn a_folder_whose_name_cannot_be_shown_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let world = World::new();
    let odd = world.dir.join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&odd).unwrap();
    let mut command = world
        .host
        .command(&["up", "--agent", "scripted", "--headless", "--json"]);
    let output = command.current_dir(&odd).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("\"folder_missing\"") && said.contains("rename the folder"),
        "{said}"
    );
    world.host.still_works(&world.dir);
}

#[test]
fn an_unknown_agent_is_answered_with_those_there_are() {
    let world = World::new();
    let args = world.up(&["--agent", "claud"]);
    world.host.refuses(
        &strs(&args),
        1,
        "agent_unknown",
        &["\"claud\"", "claude, codex, gemini, opencode"],
    );
    world.host.still_works(&world.dir);
}

#[test]
fn a_known_agent_that_is_not_installed_says_what_to_install() {
    let mut world = World::new();
    world.host.set("PATH", world.path("empty"));
    let args = world.up(&["--agent", "gemini"]);
    world.host.refuses(
        &strs(&args),
        1,
        "agent_missing",
        &["\"gemini\"", "npm install -g @google/gemini-cli"],
    );
    let args = world.up(&[]);
    world.host.refuses(
        &strs(&args),
        1,
        "agent_missing",
        &[
            "no agent was found on the PATH",
            "npm install",
            "--agent-cmd",
        ],
    );
    world.host.still_works(&world.dir);
}

#[test]
fn a_command_that_is_not_found_is_named() {
    let world = World::new();
    let args = world.up(&["--agent-cmd", "no-such-agent --acp"]);
    world.host.refuses(
        &strs(&args),
        1,
        "agent_missing",
        &["\"no-such-agent\"", "not on the PATH"],
    );
    let plain = world.path("plain");
    std::fs::write(&plain, "").unwrap();
    let args = world.up(&["--agent-cmd", &plain]);
    world.host.refuses(
        &strs(&args),
        1,
        "agent_missing",
        &[&plain, "not an executable file"],
    );
    let args = world.up(&["--agent-cmd", "it's"]);
    world.host.refuses(
        &strs(&args),
        1,
        "agent_unknown",
        &["a quotation mark is not closed"],
    );
    world.host.still_works(&world.dir);
}

#[test]
fn an_agent_that_exits_at_once_is_shown_with_status_and_stderr_and_the_prompt_waits_for_the_next_try()
 {
    let world = World::new();
    let repaired = world.path("repaired");
    let text = format!(
        "[ -e '{repaired}' ] && exec '{FARHELM}' scripted-agent\necho 'no config: run agent --setup' >&2\nexit 3"
    );
    let agent = script(&world.root().join("agent"), &text);
    let (session, _) = world
        .host
        .up(&world.dir, &["--agent-cmd", &agent, "--prompt", "hello"]);
    let notice = world.notice(&session, "agent_exited");
    assert!(
        notice.contains("code 3") && notice.contains("run agent --setup"),
        "{notice}"
    );
    let exit = world.host.wait_for_nth(&session, "agent_exited", 1);
    assert_eq!(exit["code"], 3);
    assert!(
        exit["stderr"]
            .as_str()
            .unwrap()
            .contains("run agent --setup"),
        "{exit}"
    );
    let shown = world.host.ok(&["log", &session]);
    assert!(
        shown.contains("ended with status 3") && shown.contains("    no config: run agent --setup"),
        "{shown}"
    );

    std::fs::write(&repaired, "").unwrap();
    world.host.ok(&["send", &session, "again"]);
    world.host.ok(&["resume", &session]);
    world.host.wait_for_nth(&session, "agent_started", 1);
    world.host.wait_for_nth(&session, "approval_requested", 1);
    let log = world.host.log_of(&session);
    let started: Vec<_> = of_type(&log, "turn_started")
        .map(|event| event["prompt"].clone())
        .collect();
    let queued: Vec<_> = of_type(&log, "prompt_queued")
        .map(|event| event["prompt"].clone())
        .collect();
    assert_eq!(started[0], queued[0], "the first prompt was not lost");
}

#[test]
fn an_agent_that_prints_only_garbage_is_quoted() {
    let world = World::new();
    let agent = script(
        &world.root().join("agent"),
        "echo 'Welcome to the agent!'\necho 'Traceback: \u{7}x'\nexit 0",
    );
    let (session, _) = world.host.up(&world.dir, &["--agent-cmd", &agent]);
    let notice = world.notice(&session, "agent_garbage");
    assert!(notice.contains("Welcome to the agent!"), "{notice}");
    world.notice(&session, "agent_exited");
    assert!(
        !world.host.ok(&["log", &session]).contains('\u{7}'),
        "no control reaches the terminal"
    );
    world.host.still_works(&world.dir);
}

#[test]
fn an_agent_that_never_answers_is_ended() {
    let world = World::new();
    world.host.configure("agent_start_s = 1\n");
    let pid = world.path("pid");
    let agent = script(
        &world.root().join("agent"),
        &format!("echo $$ > '{pid}'\necho 'who is there?'\nexec sleep 600"),
    );
    let (session, _) = world.host.up(&world.dir, &["--agent-cmd", &agent]);
    let notice = world.notice(&session, "agent_silent");
    assert!(
        notice.contains("did not answer") && notice.contains("agent_start_s"),
        "{notice}"
    );
    world.host.wait_for_nth(&session, "agent_exited", 1);
    let pid = std::fs::read_to_string(&pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    wait_until("the agent is ended", || !is_alive(pid));
    world.host.still_works(&world.dir);
}

#[test]
fn any_acp_agent_is_one_entry_of_configuration() {
    let world = World::new();
    let scenario = world.path("scenario.json");
    std::fs::write(
        &scenario,
        r#"{"scenarios": {"default": [[{"do": "text", "text": "hello from mine"}]]}}"#,
    )
    .unwrap();
    world.host.configure(&format!(
        "agent = \"mine\"\n[agents.mine]\ncommand = \"{FARHELM}\"\nargs = [\"scripted-agent\"]\n\
         env = {{ FARHELM_SCRIPTED_SCENARIO = \"{scenario}\" }}\n"
    ));
    let (session, _) = world.host.up(&world.dir, &["--prompt", "hello"]);
    world.host.wait_for_nth(&session, "turn_ended", 1);
    let log = world.host.log_of(&session);
    assert_eq!(
        of_type(&log, "session_opened").next().unwrap()["agent"],
        "mine"
    );
    assert!(
        world
            .host
            .ok(&["log", &session])
            .contains("hello from mine")
    );
}

#[test]
fn a_misspelt_key_of_the_configuration_is_named_with_its_line() {
    let world = World::new();
    world
        .host
        .configure("name = \"desk\"\nrelai = \"https://relay.example\"\n");
    let args = world.up(&["--agent", "scripted"]);
    world.host.refuses(
        &strs(&args),
        1,
        "state_unusable",
        &["config.toml", "line 2", "`relai`", "`relay`"],
    );
    let (_, said) = world.host.complains(&strs(&args));
    assert!(said.contains("unknown field `relai`"), "{said}");
    world.host.configure("[agents.mine]\nargs = [\"--acp\"]\n");
    let args = world.up(&["--agent", "mine"]);
    world.host.refuses(
        &strs(&args),
        1,
        "agent_unknown",
        &["\"mine\" has no `command`"],
    );
    world.host.configure("name = \"desk\"\n");
    world.host.ok(&["down"]);
    world.host.still_works(&world.dir);
    assert_eq!(world.host.json(&["status"])["name"], "desk");
}

const FARHELM: &str = env!("CARGO_BIN_EXE_farhelm");

struct World {
    host: Station,
    dir: PathBuf,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = tempfile::tempdir().unwrap();
        let host = Station::new(world.path());
        let dir = folder(world.path(), "project");
        Self {
            host,
            dir,
            folder: world,
        }
    }

    fn root(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> String {
        self.root().join(name).to_str().unwrap().to_owned()
    }

    fn up(&self, more: &[&str]) -> Vec<String> {
        let dir = self.dir.to_str().unwrap();
        [&["up", "--dir", dir, "--headless"], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a notice with this code; gives its text.
    fn notice(&self, session: &str, code: &str) -> String {
        let found = self.host.wait_for(session, code, |event| {
            event["type"] == "noticed" && event["code"] == code
        });
        found["text"].as_str().unwrap().to_owned()
    }
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn of_type<'a>(log: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    log.iter()
        .map(|record| &record["event"])
        .filter(move |event| event["type"] == kind)
}
