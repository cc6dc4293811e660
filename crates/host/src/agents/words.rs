//! A command line into words, by the quoting rules of the POSIX shell. No shell runs: nothing is
//! expanded, and what only a shell could do is refused.

use std::iter::Peekable;
use std::str::Chars;

/// Why a command line has no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A quotation mark has no partner.
    #[error("a quotation mark is not closed")]
    Unclosed,
    /// The line ends in a backslash.
    #[error("the line ends in a backslash")]
    DanglingBackslash,
    /// There is nothing in it.
    #[error("the command is empty")]
    Empty,
}

/// Splits `line` into words.
///
/// # Errors
///
/// When a quotation is not closed, or nothing is there.
pub fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    loop {
        while rest.next_if(|char| char.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            break;
        }
        words.push(word(&mut rest)?);
    }
    if words.is_empty() {
        Err(WordsError::Empty)
    } else {
        Ok(words)
    }
}

fn word(rest: &mut Peekable<Chars<'_>>) -> Result<String, WordsError> {
    let mut word = String::new();
    while let Some(char) = rest.next_if(|char| !char.is_whitespace()) {
        match char {
            '\'' => single_quoted(rest, &mut word)?,
            '"' => double_quoted(rest, &mut word)?,
            '\\' => match rest.next() {
                Some('\n') => {}
                Some(escaped) => word.push(escaped),
                None => return Err(WordsError::DanglingBackslash),
            },
            plain => word.push(plain),
        }
    }
    Ok(word)
}

fn single_quoted(rest: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match rest.next() {
            Some('\'') => return Ok(()),
            Some(char) => word.push(char),
            None => return Err(WordsError::Unclosed),
        }
    }
}

/// In double quotes a backslash escapes only what would mean something there.
fn double_quoted(rest: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match rest.next() {
            Some('"') => return Ok(()),
            Some('\\') => match rest.next() {
                Some('\n') => {}
                Some(char @ ('"' | '\\' | '$' | '`')) => word.push(char),
                Some(char) => word.extend(['\\', char]),
                None => return Err(WordsError::Unclosed),
            },
            Some(char) => word.push(char),
            None => return Err(WordsError::Unclosed),
        }
    }
}

/// Words as a line that [`split`] and a shell would read as the same words.
pub(super) fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_@%+=:,./-".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        for (line, words) in [
            ("agent --acp", vec!["agent", "--acp"]),
            ("  spaced\t out \n", vec!["spaced", "out"]),
            (
                r#"a "b c" 'd "e"' f\ g"#,
                vec!["a", "b c", "d \"e\"", "f g"],
            ),
            (r#""a\"b\\c\d$HOME""#, vec![r#"a"b\c\d$HOME"#]),
            (r"''", vec![""]),
            (r#"pre"mid"'post'"#, vec!["premidpost"]),
            ("a\\\nb", vec!["ab"]),
            ("it\\'s", vec!["it's"]),
            (
                "$(rm) `x` *.txt | y; z",
                vec!["$(rm)", "`x`", "*.txt", "|", "y;", "z"],
            ),
            ("grüße 'ä ö'", vec!["grüße", "ä ö"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        assert_eq!(split("  "), Err(WordsError::Empty));
        assert_eq!(split("'a"), Err(WordsError::Unclosed));
        assert_eq!(split("\"a\\"), Err(WordsError::Unclosed));
        assert_eq!(split("a\\"), Err(WordsError::DanglingBackslash));
    }

    #[test]
    fn joined_words_split_into_the_same_words() {
        let words = ["bash", "-lc", "echo 'a b' > \"$x\"", "", "it's", "\\", "ä"];
        assert_eq!(split(&join(words)).unwrap(), words);
    }
}
