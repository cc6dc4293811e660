//! The CLI's end of the local socket.

use std::io;
use std::path::Path;

use farhelm_proto::Code;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{LocalAnswer, LocalRequest};

/// Asks the daemon of this machine.
#[derive(Clone, Debug)]
pub struct LocalClient {
    socket: std::path::PathBuf,
}

/// Why the daemon gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct LocalError {
    /// What kind of failure.
    pub code: Code,
    /// Detail for people.
    pub text: String,
}

impl LocalError {
    fn lost(error: &io::Error) -> Self {
        Self {
            code: Code::NotRunning,
            text: format!("the daemon went away: {error}"),
        }
    }
}

/// The answers to one request, as they come.
#[derive(Debug)]
pub struct Answers {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Kept open: the daemon stops following when it is closed.
    _writer: OwnedWriteHalf,
}

impl LocalClient {
    /// A client of the daemon at `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Whether a daemon answers.
    pub async fn is_running(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// Asks; the answers come one by one.
    ///
    /// # Errors
    ///
    /// [`Code::NotRunning`] when no daemon answers.
    pub async fn ask(&self, request: &LocalRequest) -> Result<Answers, LocalError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|_| LocalError {
                code: Code::NotRunning,
                text: Code::NotRunning.sentence().to_owned(),
            })?;
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_vec(request).unwrap_or_default();
        line.push(b'\n');
        writer
            .write_all(&line)
            .await
            .map_err(|error| LocalError::lost(&error))?;
        Ok(Answers {
            lines: BufReader::new(reader).lines(),
            _writer: writer,
        })
    }

    /// Asks for one answer.
    ///
    /// # Errors
    ///
    /// [`LocalError`] when the daemon is not there, or its answer is that it cannot.
    pub async fn ask_once(&self, request: &LocalRequest) -> Result<LocalAnswer, LocalError> {
        let mut answers = self.ask(request).await?;
        let answer = answers.next().await?;
        answer.ok_or_else(|| LocalError {
            code: Code::NotRunning,
            text: "the daemon went away".to_owned(),
        })
    }
}

impl Answers {
    /// The next answer; nothing when there are no more.
    ///
    /// # Errors
    ///
    /// [`LocalError`] when the daemon says that it cannot, or speaks another version.
    pub async fn next(&mut self) -> Result<Option<LocalAnswer>, LocalError> {
        let line = self
            .lines
            .next_line()
            .await
            .map_err(|error| LocalError::lost(&error))?;
        let Some(line) = line else { return Ok(None) };
        match serde_json::from_str(&line) {
            Ok(LocalAnswer::Failed { code, text }) => Err(LocalError { code, text }),
            Ok(answer) => Ok(Some(answer)),
            Err(_) => Err(LocalError {
                code: Code::UnsupportedVersion,
                text: "the daemon is of another version; run `farhelm down` and try again"
                    .to_owned(),
            }),
        }
    }
}
