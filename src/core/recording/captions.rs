//! Chapters and chat of a recording as WebVTT (W3C), which players and browsers show beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Messages and chapters that are kept. More: the oldest go.
const LINES_MAX: usize = 20_000;
/// How long a message is shown.
const MESSAGE_MS: u64 = 6_000;
/// No chapter is shorter, nor any message.
const CUE_MS_MIN: u64 = 1;

/// What was said and what happened, in the order in which it is shown.
#[derive(Debug, Default)]
pub struct Captions {
    /// By id: when, who, what.
    chat: BTreeMap<String, (u64, String, String)>,
    chapters: Vec<(u64, String)>,
}

/// Something with a beginning, in milliseconds since the recording's, and a title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    pub start_ms: u64,
    pub end_ms: u64,
    pub title: String,
}

impl Captions {
    /// A message as it stands now; without text it is taken back.
    pub fn note_message(&mut self, id: String, at_ms: u64, name: String, text: String) {
        if text.is_empty() {
            self.chat.remove(&id);
            return;
        }
        if self.chat.len() >= LINES_MAX && !self.chat.contains_key(&id) {
            let oldest = self.chat.iter().min_by_key(|(_, (at_ms, ..))| *at_ms).map(|(id, _)| id.clone());
            oldest.into_iter().for_each(|id| drop(self.chat.remove(&id)));
        }
        self.chat.insert(id, (at_ms, name, text));
    }

    pub fn note_chapter(&mut self, at_ms: u64, title: String) {
        if self.chapters.len() < LINES_MAX {
            self.chapters.push((at_ms, title));
        }
    }

    /// Each chapter ends where the next begins, the last with the recording.
    pub fn chapters(&self, length_ms: u64) -> Vec<Chapter> {
        let mut chapters = self.chapters.clone();
        chapters.sort_by_key(|(at_ms, _)| *at_ms);
        let starts = chapters.iter().skip(1).map(|(at_ms, _)| *at_ms).chain([length_ms]);
        let all = chapters.iter().zip(starts);
        all.map(|((start_ms, title), next_ms)| Chapter {
            start_ms: *start_ms,
            end_ms: next_ms.max(start_ms + CUE_MS_MIN),
            title: title.clone(),
        })
        .collect()
    }

    /// `None` where nothing was said.
    pub fn chat_vtt(&self) -> Option<String> {
        let mut messages: Vec<_> = self.chat.values().collect();
        messages.sort_by_key(|(at_ms, ..)| *at_ms);
        let cues = messages.iter().map(|(at_ms, name, text)| {
            (*at_ms, at_ms + MESSAGE_MS, format!("<v {}>{}", voice(name), escape(text)))
        });
        write(cues)
    }

    /// `None` where nothing happened.
    pub fn chapters_vtt(&self, length_ms: u64) -> Option<String> {
        let chapters = self.chapters(length_ms).into_iter();
        write(chapters.map(|chapter| (chapter.start_ms, chapter.end_ms, escape(&chapter.title))))
    }
}

fn write(cues: impl Iterator<Item = (u64, u64, String)>) -> Option<String> {
    let mut text = String::from("WEBVTT\n");
    let mut any = false;
    for (start_ms, end_ms, words) in cues {
        any = true;
        // Writing into a string does not fail.
        let _ = write!(text, "\n{} --> {}\n{words}\n", time(start_ms), time(end_ms));
    }
    any.then_some(text)
}

fn time(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Text of a cue: no markup, no arrow, and no empty line, which would end it.
fn escape(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let lines: Vec<String> = lines
        .map(|line| line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\0', ""))
        .collect();
    lines.join("\n")
}

/// A speaker's name: an annotation, which ends at the first `>`.
fn voice(name: &str) -> String {
    escape(name).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cues_as_they_stand_last() {
        let mut captions = Captions::default();
        assert_eq!(captions.chat_vtt(), None);
        let mut note = |id: &str, at_ms, text: &str| {
            captions.note_message(id.into(), at_ms, "Zoë <b>".into(), text.into());
        };
        note("2", 3_661_001, "second");
        note("1", 0, "a --> b\n\n<i>&");
        note("3", 5_000, "taken back");
        note("2", 3_661_001, "edited");
        note("3", 5_000, "");
        let text = "WEBVTT\n\n00:00:00.000 --> 00:00:06.000\n<v Zoë &lt;b&gt;>a --&gt; b\n&lt;i&gt;&amp;\n\n\
                    01:01:01.001 --> 01:01:07.001\n<v Zoë &lt;b&gt;>edited\n";
        assert_eq!(captions.chat_vtt().as_deref(), Some(text));
    }

    #[test]
    fn chapters_follow_each_other_to_the_end() {
        let mut captions = Captions::default();
        captions.note_chapter(2_000, "then".into());
        captions.note_chapter(0, "first".into());
        captions.note_chapter(2_000, "at once".into());
        let chapters = captions.chapters(9_000);
        let spans: Vec<_> = chapters.iter().map(|c| (c.start_ms, c.end_ms, c.title.as_str())).collect();
        assert_eq!(spans, [(0, 2_000, "first"), (2_000, 2_001, "then"), (2_000, 9_000, "at once")]);
        assert!(captions.chapters_vtt(9_000).unwrap().contains("00:00:02.000 --> 00:00:09.000\nat once\n"));
    }

    #[test]
    fn more_than_is_kept_pushes_the_oldest_out() {
        let mut captions = Captions::default();
        for number in 0..=LINES_MAX {
            captions.note_message(number.to_string(), number as u64, "a".into(), "b".into());
        }
        assert_eq!(captions.chat.len(), LINES_MAX);
        assert!(!captions.chat.contains_key("0"));
    }
}
