//! The number of this start of a node: above those of all earlier ones, whatever the clock was set to.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// The file's name in the data directory.
const FILE_NAME: &str = "incarnation";

/// The time, or where the last start had one as high the next number. It is on the disk on return; a disk
/// that takes nothing leaves the node to its clock.
pub fn incarnation(directory: &Path, unix_ms: u64) -> u64 {
    let path = directory.join(FILE_NAME);
    let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let next = last.map_or(unix_ms, |last| unix_ms.max(last.saturating_add(1)));
    if let Err(error) = write(directory, next) {
        tracing::warn!(%error, "the number of this start cannot be kept: the clock must not be set back");
    }
    next
}

fn write(directory: &Path, number: u64) -> io::Result<()> {
    let beside = directory.join(format!("{FILE_NAME}.new"));
    let mut file = File::create(&beside)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    fs::rename(beside, directory.join(FILE_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_though_the_clock_does_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(incarnation(directory.path(), 1_000), 1_000);
        assert_eq!(incarnation(directory.path(), 2_000), 2_000);
        assert_eq!(incarnation(directory.path(), 500), 2_001);
        assert_eq!(incarnation(directory.path(), 500), 2_002);
        fs::write(directory.path().join(FILE_NAME), "not a number").expect("written");
        assert_eq!(incarnation(directory.path(), 700), 700);
        assert_eq!(incarnation(&directory.path().join("missing"), 9), 9, "it goes on without");
    }
}
