//! What an agent prints: lines, and what the adapters of both dialects make of them, up to the
//! events of a session.

use std::time::Duration;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, Verdict};
use farhelm_core::assemble::{Assembler, Made};
use farhelm_core::session::{Input, Session};
use farhelm_host::agents::files::FileError;
use farhelm_host::agents::lines::{Lines, Piece};
use farhelm_host::agents::{Conversation, Deed, Interpreter, acp, claude};
use farhelm_host::keeper::End;
use farhelm_proto::Timestamp;
use serde_json::Value;

/// Cuts bytes into lines. The first byte says how long a line may be that is held, the second how
/// the bytes come, the third how often each byte of the rest stands for itself.
pub(crate) fn lines(bytes: &[u8]) -> bool {
    let [longest, cut, often, rest @ ..] = bytes else {
        return false;
    };
    let longest = usize::from(*longest) * 1024 + 16;
    let often = if *often < 128 {
        1
    } else {
        usize::from(*often) * 8
    };
    let most = (1 << 20) / often;
    let said: Vec<u8> = rest
        .iter()
        .take(most)
        .flat_map(|byte| {
            // What means something in JSON is not repeated, so that strings become long.
            let times = if byte.is_ascii_alphanumeric() {
                often
            } else {
                1
            };
            core::iter::repeat_n(*byte, times)
        })
        .collect();
    let whole = cut_up(&said, longest, said.len());
    let some = usize::from(*cut) * 97 + 1;
    let pieces = cut_up(&said, longest, some);
    // Where a line gets too long may show only with the next bytes, and its parts are nobody's.
    let kept = |pieces: &[Piece]| -> Vec<String> {
        let lines = pieces.iter().filter_map(|piece| match piece {
            Piece::Line(line) => Some(line.clone()),
            Piece::Part(_) | Piece::LongLine { .. } | Piece::TooLong { .. } => None,
        });
        lines.collect()
    };
    assert_eq!(
        kept(&whole),
        kept(&pieces),
        "lines do not depend on how they come"
    );
    pieces
        .iter()
        .all(|piece| !matches!(piece, Piece::TooLong { .. }))
}

fn cut_up(said: &[u8], longest: usize, size: usize) -> Vec<Piece> {
    let mut lines = Lines::new(longest);
    let mut found: Vec<Piece> = crate::pieces(said, size)
        .flat_map(|piece| lines.feed(piece))
        .collect();
    found.extend(lines.finish());
    for piece in &found {
        if let Piece::LongLine { line, strings } = piece {
            let held: usize = strings.iter().map(|string| string.stand_in.len()).sum();
            assert!(
                line.len() <= said.len() * 3 + held && strings.len() <= said.len() / (64 << 10)
            );
        }
    }
    found
}

/// Plays lines to the adapter for ACP.
pub(crate) fn acp(bytes: &[u8]) -> bool {
    play(bytes, |conversation, mode| {
        Interpreter::acp(acp::Setup {
            dir: "/w".to_owned(),
            conversation,
            mode,
            files: true,
        })
    })
}

/// Plays lines to the adapter for Claude Code.
pub(crate) fn claude(bytes: &[u8]) -> bool {
    play(bytes, |conversation, mode| {
        Interpreter::claude(claude::Setup::new(
            "/w".to_owned(),
            conversation,
            mode,
            "u-1".to_owned(),
        ))
    })
}

/// One run of an agent, with the session that it belongs to.
struct Run {
    interpreter: Interpreter,
    assembler: Assembler,
    session: Session,
    asks: Vec<(String, Ask)>,
    made: u8,
    work: u64,
}

/// The first byte says how the agent is started. Of each line, the first byte may be an order of the
/// session (`!`), or say that its long strings were cut out (`~`); all others are the agent's.
fn play(bytes: &[u8], start: fn(Conversation, Option<String>) -> Interpreter) -> bool {
    let Some((how, lines)) = bytes.split_first() else {
        return false;
    };
    let conversation = if how & 1 == 0 {
        Conversation::New
    } else {
        Conversation::Continue("s".to_owned())
    };
    let mode = (how & 2 != 0).then(|| "plan".to_owned());
    let mut run = Run {
        interpreter: start(conversation, mode),
        assembler: Assembler::new("r".to_owned()),
        session: Session::default(),
        asks: Vec::new(),
        made: 0,
        work: 0,
    };
    let begun = run.interpreter.begin();
    run.carry_out(begun);
    let mut all = true;
    for line in lines.split(|byte| *byte == b'\n').take(256) {
        let line = String::from_utf8_lossy(line);
        let deeds = match line.as_bytes() {
            [b'!', order, ..] => run.obey(*order),
            [b'~', ..] => run.interpreter.long_line(&line[1..]),
            [b'^'] => run.interpreter.too_long(u64::MAX),
            _ => {
                all &= serde_json::from_str::<Value>(&line).is_ok_and(|line| line.is_object());
                run.interpreter.line(&line)
            }
        };
        run.carry_out(deeds);
        run.write_down();
    }
    let deeds = run.interpreter.late(Duration::MAX);
    run.carry_out(deeds);
    let deeds = run.interpreter.silent();
    run.carry_out(deeds);
    let ended = run.interpreter.ended(&End {
        code: Some(1),
        signal: None,
        stderr: "oh".to_owned(),
    });
    run.carry_out(ended.into_iter().map(Deed::Say).collect());
    let made = run.assembler.finish();
    run.take(made);
    run.decide(Input::Exited {
        code: Some(1),
        signal: None,
        stderr: "oh".to_owned(),
    });
    all
}

impl Run {
    fn obey(&mut self, order: u8) -> Vec<Deed> {
        let order = match order {
            b'p' => Order::Prompt {
                id: "p".to_owned(),
                text: "do it".to_owned(),
            },
            b'c' => Order::Cancel,
            b'm' => Order::SetMode("ask".to_owned()),
            b's' => Order::SetConfig {
                option: "model".to_owned(),
                value: "big".to_owned(),
            },
            other => {
                let Some((request, ask)) = self.asks.pop() else {
                    return Vec::new();
                };
                let option = ask
                    .options
                    .first()
                    .map_or("x", |option| &option.id)
                    .to_owned();
                let verdict = match other {
                    b'y' => Verdict::Selected {
                        option,
                        allows: true,
                        reason: None,
                    },
                    b'n' => Verdict::Selected {
                        option,
                        allows: false,
                        reason: Some("no".to_owned()),
                    },
                    b'a' => Verdict::Answered {
                        answers: serde_json::from_str(r#"{"q":["a",1,null]}"#).unwrap_or_default(),
                    },
                    _ => Verdict::Void {
                        why: "gone".to_owned(),
                    },
                };
                Order::Answer {
                    request,
                    ask,
                    verdict,
                }
            }
        };
        self.interpreter.obey(order)
    }

    fn carry_out(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Say(said) => {
                    if let Said::Asks { request, ask } = &said {
                        self.asks.push((request.clone(), ask.clone()));
                    }
                    let made = self.assembler.push(said);
                    self.take(made);
                }
                Deed::Write(line) => {
                    assert!(!line.get().contains('\n'), "an agent is told whole lines");
                }
                Deed::File { ticket, .. } => {
                    self.work += 1;
                    let outcome = match self.work % 3 {
                        0 => Err(FileError::Missing("f".to_owned())),
                        _ => Ok("text".to_owned()),
                    };
                    let deeds = self.interpreter.filed(ticket, outcome);
                    self.carry_out(deeds);
                }
                Deed::End { .. } => assert!(self.interpreter.is_leaving()),
            }
        }
    }

    fn take(&mut self, made: Vec<Made>) {
        for made in made {
            match made {
                Made::Live(live) => assert!(serde_json::to_string(&live).is_ok()),
                Made::Said(said) => self.decide(Input::Said(said)),
            }
        }
    }

    fn decide(&mut self, input: Input) {
        let mut random = || {
            self.made = self.made.wrapping_add(1);
            [self.made; 10]
        };
        let decided = self.session.decide(Timestamp(5), input, &mut random);
        for event in decided.unwrap_or_default() {
            let _effects = self.session.effects(&event);
            self.session.apply(None, &event);
            let written = serde_json::to_string(&event).unwrap_or_default();
            let again = serde_json::from_str::<farhelm_core::event::Event>(&written);
            assert!(again.is_ok(), "a log that nobody can read: {written}");
        }
    }

    /// A later daemon takes up what this one wrote down.
    fn write_down(&mut self) {
        let written = serde_json::to_string(&self.interpreter).unwrap_or_default();
        self.interpreter = match serde_json::from_str(&written) {
            Ok(again) => again,
            Err(error) => panic!("what was written down cannot be taken up: {error}: {written}"),
        };
    }
}

pub(crate) fn said() -> Vec<Vec<u8>> {
    let text = br#"{"a":"bcd","e":["f\n\u00e9\ud83d\ude00"],"g":1}"#;
    let lines = [&text[..], b"\r\n\n", text, b"\n", text].concat();
    let with = |longest: u8, cut: u8, often: u8| [&[longest, cut, often], &lines[..]].concat();
    vec![with(255, 0, 0), with(1, 3, 0), with(200, 200, 255)]
}

/// What the agent said in the recorded transcripts, and orders between.
fn recorded(transcripts: &[&str]) -> Vec<Vec<u8>> {
    let only = |transcript: &&str| {
        let mut bytes = vec![0];
        for line in transcript.lines() {
            let mut line: Value = serde_json::from_str(line).unwrap_or_default();
            let message = line["msg"].take();
            if line["dir"] == "<" {
                bytes.extend(message.to_string().as_bytes());
                bytes.push(b'\n');
            } else if message["method"] == "session/prompt" || message["type"] == "user" {
                bytes.extend(b"!p\n");
            } else if message["result"]["outcome"].is_object()
                || message["type"] == "control_response"
            {
                bytes.extend(b"!y\n");
            }
        }
        bytes.pop();
        bytes
    };
    transcripts.iter().map(only).collect()
}

pub(crate) fn acp_lines() -> Vec<Vec<u8>> {
    let mut all = recorded(&[
        include_str!("../../host/tests/transcripts/acp-claude-acp-basic.jsonl"),
        include_str!("../../host/tests/transcripts/acp-gemini-basic.jsonl"),
        include_str!("../../host/tests/transcripts/acp-codex-acp-basic.jsonl"),
        include_str!("../../host/tests/transcripts/acp-opencode-basic.jsonl"),
    ]);
    let short = concat!(
        "\0{\"id\":1,\"result\":{\"protocolVersion\":1}}\n",
        "{\"id\":2,\"result\":{\"sessionId\":\"s\"}}\n!p\n",
        "{\"method\":\"session/update\",\"params\":{\"sessionId\":\"s\",\"update\":{\"sessionUpdate\":\"tool_call\",\"toolCallId\":\"t\",\"title\":\"Write\",\"kind\":\"edit\",\"status\":\"pending\",\"content\":[{\"type\":\"diff\",\"path\":\"a\",\"oldText\":null,\"newText\":\"b\"}]}}}\n",
        "{\"id\":\"x\",\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"s\",\"toolCall\":{\"toolCallId\":\"t\"},\"options\":[{\"optionId\":\"y\",\"name\":\"Yes\",\"kind\":\"allow_once\"}]}}\n!y\n",
        "{\"id\":null,\"method\":\"fs/read_text_file\",\"params\":{\"sessionId\":\"s\",\"path\":\"/w/a\",\"line\":1,\"limit\":4294967295}}\n",
        "{\"id\":1.5,\"method\":\"fs/write_text_file\",\"params\":{\"sessionId\":\"s\",\"path\":\"/w/a\",\"content\":\"x\"}}\n",
        "{\"id\":-1,\"method\":\"nobody/knows\"}\n",
        "{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}",
    );
    all.push(short.as_bytes().to_vec());
    all
}

pub(crate) fn claude_lines() -> Vec<Vec<u8>> {
    recorded(&[
        include_str!("../../host/tests/transcripts/claude-ask.jsonl"),
        include_str!("../../host/tests/transcripts/claude-plan.jsonl"),
        include_str!("../../host/tests/transcripts/claude-subagent.jsonl"),
        include_str!("../../host/tests/transcripts/claude-partial.jsonl"),
    ])
}
