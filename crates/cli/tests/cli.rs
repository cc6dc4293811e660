//! What people read and what scripts read, word for word.

#![expect(clippy::unwrap_used, reason = "a story that cannot be told has failed")]

use std::path::PathBuf;

use serde_json::{Map, Value};
use support::{Station, folder};

mod support;

#[test]
fn every_command_explains_itself() {
    let world = tempfile::tempdir().unwrap();
    let nobody = Station::new(world.path());
    let commands = [
        "",
        "up",
        "pair",
        "join",
        "devices",
        "revoke",
        "ls",
        "log",
        "send",
        "approvals",
        "approve",
        "deny",
        "stop",
        "status",
        "doctor",
        "service",
        "down",
        "relay",
    ];
    let help = commands.map(|command| {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        format!("$ farhelm {}\n{}", args.join(" "), nobody.ok(&args))
    });
    insta::assert_snapshot!("help", help.join("\n"));
    let listed = nobody.ok(&["--help"]);
    for command in &commands[1..] {
        assert!(
            listed.contains(&format!("  {command} ")),
            "{command} is in the list"
        );
    }
}

#[test]
fn what_scripts_read_is_stable() {
    let scene = Scene::new();
    for command in ["ls", "devices", "status", "approvals"] {
        insta::assert_json_snapshot!(
            format!("json_{command}"),
            scene.redact(scene.host.json(&[command]))
        );
    }
    insta::assert_json_snapshot!(
        "json_status_of_a_device",
        scene.redact(scene.phone.json(&["status"]))
    );
    for command in ["ls", "approvals"] {
        let of = |station: &Station| {
            let mut rows = station.json(&[command]);
            for row in rows.as_array_mut().into_iter().flatten() {
                assert_eq!(
                    row["presence"]["reach"],
                    row.get("presence").map_or(Value::Null, |_| "live".into())
                );
                row.as_object_mut().unwrap().remove("presence");
            }
            rows
        };
        let (here, there) = (of(&scene.host), of(&scene.phone));
        assert_eq!(here, there, "{command} is the same on both sides");
    }
    let log: Vec<_> = scene
        .host
        .log_of(&scene.session)
        .into_iter()
        .map(|record| scene.redact(record))
        .collect();
    insta::assert_json_snapshot!("json_log", log);
}

#[test]
fn what_commands_that_do_something_print_for_scripts_is_stable() {
    let scene = Scene::new();
    let id = scene.approval.as_str();
    let done: [&[&str]; 6] = [
        &["send", &scene.session, "and then"],
        &["deny", id, "--reason", "not now"],
        &["stop", &scene.session],
        &["stop", &scene.session, "--end"],
        &["revoke", "phone"],
        &["down"],
    ];
    let printed = done.map(|args| {
        let made = scene.host.json(args);
        (args[0], scene.redact(made))
    });
    insta::assert_json_snapshot!("json_done", printed);
}

#[test]
fn what_people_read_is_stable() {
    let scene = Scene::new();
    let both = [(&scene.host, "host"), (&scene.phone, "phone")];
    let mut text = String::new();
    for command in ["ls", "devices", "status", "approvals"] {
        for (station, name) in both {
            text += &format!(
                "{name}$ farhelm {command}\n{}\n",
                scene.readable(&station.ok(&[command]))
            );
        }
    }
    scene
        .phone
        .ok(&["deny", &scene.approval, "--reason", "not now"]);
    scene.host.wait_for_nth(&scene.session, "turn_ended", 1);
    text += &format!(
        "host$ farhelm log\n{}\n",
        scene.readable(&scene.host.ok(&["log", &scene.session]))
    );
    insta::assert_snapshot!("text", text);
}

#[test]
fn a_form_is_shown_as_its_fields_and_answered_by_name() {
    let scene = Scene::new();
    scene.host.ok(&["deny", &scene.approval]);
    scene.host.wait_for_nth(&scene.session, "turn_ended", 1);
    scene.host.ok(&["send", &scene.session, "SCENARIO:form"]);
    scene
        .host
        .wait_for_nth(&scene.session, "approval_requested", 2);
    let id = scene.phone.wait_for_question()["approval"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = scene.phone.ok(&["approvals"]);
    assert!(
        shown.contains("- colour (Colour): red | blue") && shown.contains("--answer colour="),
        "{shown}"
    );
    scene.phone.ok(&["approve", &id, "--answer", "colour=2"]);
    scene.host.wait_for_nth(&scene.session, "turn_ended", 2);
    let log = scene.host.ok(&["log", &scene.session]);
    assert!(
        log.contains("answered by phone: blue") && log.contains(r#"{"colour":"blue"}"#),
        "{log}"
    );
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let scene = Scene::new();
    let code = |args: &[&str]| scene.host.run(args).status.code();
    assert_eq!(code(&["ls"]), Some(0));
    assert_eq!(code(&["log", "nothing"]), Some(1), "cannot");
    assert_eq!(code(&["nothing"]), Some(2), "usage");
    assert_eq!(code(&["--host", "nobody", "ls"]), Some(4), "denied");
    scene.host.ok(&["down"]);
    assert_eq!(code(&["ls"]), Some(3), "unreachable");
}

#[test]
fn a_reader_that_goes_away_is_nothing_to_complain_about() {
    let scene = Scene::new();
    let mut command = scene.host.command(&["log", &scene.session]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        said.lines().count() == 1 && said.starts_with("── asks (1); its agent runs"),
        "only how the session is: {said}"
    );
}

/// A host called desk with a device called phone, and a session whose agent asks something.
struct Scene {
    host: Station,
    phone: Station,
    session: String,
    approval: String,
    world: tempfile::TempDir,
}

const SCENARIO: &str = r#"{"scenarios": {
    "default": [[
        {"do": "thought", "text": "A command will do."},
        {"do": "text", "text": "I will look around."},
        {"do": "shell", "command": "echo hello"},
        {"do": "text", "text": "That was all."}
    ]],
    "form": [[
        {"do": "question", "message": "Which colour?", "schema": {"type": "object", "required": ["colour"],
            "properties": {"colour": {"type": "string", "title": "Colour", "enum": ["red", "blue"]}}}}
    ]]
}}"#;

impl Scene {
    fn new() -> Self {
        let world = tempfile::tempdir().unwrap();
        let mut host = Station::new(world.path());
        let phone = Station::new(&folder(world.path(), "phone"));
        let dir: PathBuf = folder(world.path(), "project");
        let scenario = world.path().join("scenario.json");
        std::fs::write(&scenario, SCENARIO).unwrap();
        host.set("FARHELM_SCRIPTED_SCENARIO", scenario.to_str().unwrap());
        host.configure("name = \"desk\"\n");
        let (session, _) = host.up(&dir, &["--agent", "scripted"]);
        host.pair(&phone, "phone");
        host.ok(&["send", &session, "look around"]);
        host.wait_for_nth(&session, "approval_requested", 1);
        let approval = phone.wait_for_question()["approval"]
            .as_str()
            .unwrap()
            .to_owned();
        Self {
            host,
            phone,
            session,
            approval,
            world,
        }
    }

    /// The value without what is different each time.
    fn redact(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.word(&text).into(),
            Value::Array(items) => items.into_iter().map(|item| self.redact(item)).collect(),
            Value::Object(fields) => {
                let field = |(name, value): (String, Value)| match (name.as_str(), &value) {
                    ("pid", Value::Number(_)) => (name, "[pid]".into()),
                    ("at" | "since" | "until" | "seen" | "proven" | "heard", Value::Number(_)) => {
                        (name, "[time]".into())
                    }
                    ("millis" | "skew_millis" | "age_millis", Value::Number(_)) => {
                        (name, "[millis]".into())
                    }
                    // The agent of a session that was ended may still be leaving.
                    ("agents", Value::Number(_)) => (name, "[agents]".into()),
                    // How far the agent has come meanwhile is a matter of moments.
                    ("stage", Value::String(stage)) if stage != "done" => (name, "[stage]".into()),
                    ("version" | "digest" | "agent_session", Value::String(_)) => {
                        (name.clone(), format!("[{name}]").into())
                    }
                    _ => (name, self.redact(value)),
                };
                Value::Object(fields.into_iter().map(field).collect::<Map<_, _>>())
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }

    /// A string without what is different each time. An ask and an input are JSON in a string.
    fn word(&self, text: &str) -> String {
        if let Ok(inner @ Value::Object(_)) = serde_json::from_str(text) {
            return self.redact(inner).to_string();
        }
        let is_id = text.split_once('_').is_some_and(|(kind, id)| {
            kind.chars().all(char::is_alphabetic)
                && id.len() == 32
                && id.chars().all(|c| c.is_ascii_hexdigit())
        });
        if is_id {
            return text
                .split_once('_')
                .map(|(kind, _)| format!("[{kind}]"))
                .unwrap();
        }
        if text.len() == 13 && text.bytes().take(8).all(|byte| byte.is_ascii_hexdigit()) {
            return "[message]".to_owned();
        }
        self.place(text)
    }

    /// Text without the folder and the port of this time.
    fn place(&self, text: &str) -> String {
        let text = text.replace(self.world.path().to_str().unwrap(), "[world]");
        match text.split_once("http://localhost:") {
            Some((before, rest)) => {
                let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{before}http://localhost:[port]{rest}")
            }
            None => text,
        }
    }

    /// The same for what people read.
    fn readable(&self, text: &str) -> String {
        let status = self.host.json(&["status"]);
        let device = self.phone.json(&["status"])["device"]
            .as_str()
            .unwrap()
            .to_owned();
        let host = status["host"].as_str().unwrap();
        let end = |id: &str| id[id.len() - 6..].to_owned();
        let mut text = self.place(text);
        let (pid, version) = (
            status["pid"].to_string(),
            status["version"].as_str().unwrap(),
        );
        for (found, shown) in [
            (host, "[host]"),
            (&device, "[phone]"),
            (&end(&device), "[phone]"),
            (&end(&self.session), "[sessn]"),
            (&end(&self.approval), "[quest]"),
            (&format!("process {pid}"), "process [pid]"),
            (version, "[version]"),
        ] {
            text = text.replace(found, shown);
        }
        if let Some((before, rest)) = text.clone().split_once("the host answers (") {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            text = format!("{before}the host answers ([millis]{rest}");
        }
        for seconds in 0..10 {
            text = text.replace(&format!(" {seconds} s"), " [age]");
        }
        text
    }
}
