//! A command that the scripted agent runs, after asking.

use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::json;

use super::turn::{Halt, Turn};

impl Turn {
    pub(super) fn shell(&mut self, command: &str) -> Result<(), Halt> {
        let mut call = json!({"title": command, "kind": "execute", "rawInput": {"command": command, "cwd": self.dir}});
        if !self.begin(&mut call, None, true)? {
            return Ok(());
        }
        let script = format!("exec 2>&1\n{command}");
        let mut running = Command::new("sh");
        running
            .arg("-c")
            .arg(script)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut running = match running.spawn() {
            Ok(running) => running,
            Err(error) => {
                self.progress(&call, "failed", Some(&error.to_string()));
                return Ok(());
            }
        };
        let output = running.stdout.take().map(pieces);
        let mut shown = String::new();
        while let Some(output) = &output {
            match output.recv_timeout(Duration::from_millis(20)) {
                Ok(piece) => {
                    shown.push_str(&piece);
                    self.progress(&call, "in_progress", Some(&shown));
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if self.cancel.is_set() => {
                    drop((running.kill(), running.wait()));
                    self.progress(&call, "failed", Some(&shown));
                    return Err(Halt::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        match running.wait() {
            Ok(status) if status.success() => self.progress(&call, "completed", Some(&shown)),
            Ok(status) => self.progress(&call, "failed", Some(&format!("{shown}({status})"))),
            Err(error) => self.progress(&call, "failed", Some(&error.to_string())),
        }
        Ok(())
    }
}

/// What a pipe gives, piece by piece, until it ends.
fn pieces(mut pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (piece, pieces) = mpsc::channel();
    drop(std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if piece
                .send(String::from_utf8_lossy(&buffer[..count]).into_owned())
                .is_err()
            {
                return;
            }
        }
    }));
    pieces
}
