//! A terminal for commands that want one, which is tmux's.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the screen may take to show something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal of a server of its own, which ends with it.
pub(crate) struct Terminal(String);

impl Terminal {
    /// None where there is no tmux.
    pub(crate) fn open(folder: &Path, command: &str, test: &str) -> Option<Self> {
        let socket = folder.join("tmux").display().to_string();
        let mut tmux = Command::new("tmux");
        tmux.args(["-f", "/dev/null", "-S", &socket, "new-session", "-d", "-x", "140", "-y", "30", command]);
        match tmux.current_dir(folder).status() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                _ = writeln!(io::stderr(), "skipped: {test}: needs Debian's tmux");
                None
            }
            other => {
                assert!(other.unwrap().success());
                Some(Self(socket))
            }
        }
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.0]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen has all of these words; what it shows.
    #[track_caller]
    pub(crate) fn shows(&self, words: &[&str]) -> String {
        let begin = Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if words.iter().all(|word| screen.contains(word)) {
                return screen;
            }
            assert!(begin.elapsed() < PATIENCE, "{words:?} is not in\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
