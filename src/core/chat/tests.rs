//! Chat against a small log of its own, driven by hand.

mod random;

use super::*;

const CHARS_MAX: u32 = 40;

fn room() -> RoomName {
    RoomName::parse("room-1").expect("a plain name")
}

fn author(name: &str) -> Author {
    let identity = Identity::parse(name).expect("a plain name");
    Author { identity, name: name.to_owned(), is_admin: name == "admin" }
}

fn asker(name: &str, request: u64) -> Asker {
    Asker::Participant { identity: author(name).identity, request: Some(request) }
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).expect("a plain id")
}

fn send(message: &str, text: &str) -> ChatCommand {
    ChatCommand::Send { id: id(message), text: text.into(), reply_to: None }
}

fn reply(message: &str, to: &str) -> ChatCommand {
    ChatCommand::Send { id: id(message), text: "re".into(), reply_to: Some(id(to)) }
}

fn edit(message: &str, text: &str) -> ChatCommand {
    ChatCommand::Edit { id: id(message), text: text.into() }
}

fn react(message: &str, emoji: &str, on: bool) -> ChatCommand {
    ChatCommand::React { id: id(message), emoji: emoji.into(), on }
}

/// What a log does: keeps the first event of an id, and answers with the message as it stands.
#[derive(Debug, Default)]
struct Log {
    events: Vec<EventId>,
    messages: BTreeMap<MessageId, ChatMessage>,
}

impl Log {
    fn append(&mut self, event: &Event) -> Appended {
        let message_id = event.body.message_id().expect("chat is about a message");
        let place = self.events.iter().position(|known| *known == event.id);
        if place.is_none() {
            self.events.push(event.id.clone());
            if let Some(message) = apply(self.messages.get(message_id).cloned(), event) {
                self.messages.insert(message_id.clone(), message);
            }
        }
        Appended {
            id: event.id.clone(),
            offset: place.map_or(self.events.len(), |place| place + 1) as u64,
            is_new: place.is_none(),
            message: self.messages.get(message_id).cloned(),
        }
    }

    fn in_order(&self) -> Vec<ChatMessage> {
        let by_seq: BTreeMap<u64, _> = self.messages.values().map(|m| (m.seq, m.clone())).collect();
        by_seq.into_values().collect()
    }

    fn history(&self) -> RoomHistory {
        let mut messages = self.in_order();
        let last_seq = messages.last().map_or(0, |message| message.seq);
        let more = messages.len() > WINDOW;
        messages.drain(..messages.len().saturating_sub(WINDOW));
        RoomHistory { page: MessagePage { messages, more }, last_seq, last_offset: self.events.len() as u64 }
    }
}

/// A chat beside its log.
struct Rig {
    chat: Chat,
    log: Log,
    request: u64,
}

impl Rig {
    fn new() -> Self {
        Self {
            chat: Chat::restore(room(), CHARS_MAX, RoomHistory::default()),
            log: Log::default(),
            request: 0,
        }
    }

    /// A room with messages `m1` to `m{count}` by `ann`.
    fn with_messages(count: usize) -> Self {
        let mut rig = Self::new();
        for n in 1..=count {
            assert_eq!(rig.ask("ann", send(&format!("m{n}"), "hello")).1, Ok(()));
        }
        rig
    }

    fn drain(&mut self) -> Vec<ChatOutput> {
        std::iter::from_fn(|| self.chat.poll_output()).collect()
    }

    fn command(&mut self, who: &str, command: ChatCommand) -> Vec<ChatOutput> {
        self.request += 1;
        let asker = asker(who, self.request);
        self.chat.handle_command(self.request, asker, author(who), command);
        self.drain()
    }

    /// Gives a command with the log answering everything; what everyone then saw, and the answer.
    fn ask(&mut self, who: &str, command: ChatCommand) -> (Option<ChatMessage>, Result<(), Code>) {
        let (mut seen, mut answers) = (None, Vec::new());
        let mut outputs = VecDeque::from(self.command(who, command));
        while let Some(output) = outputs.pop_front() {
            match output {
                ChatOutput::Append(event) => {
                    let appended = self.log.append(&event);
                    self.chat.handle_appended(appended);
                }
                ChatOutput::Read(id) => {
                    let stored = self.log.messages.get(&id).cloned();
                    self.chat.handle_read(self.request, &id, stored);
                }
                ChatOutput::Publish(message) => seen = Some(message),
                ChatOutput::Ack(_) => answers.push(Ok(())),
                ChatOutput::Refuse(_, refusal) => answers.push(Err(refusal.code)),
            }
            outputs.extend(self.drain());
        }
        assert_eq!(answers.len(), 1, "one answer to each command");
        (seen, answers.remove(0))
    }
}

fn appends(outputs: &[ChatOutput]) -> Vec<Event> {
    let event = |output: &ChatOutput| match output {
        ChatOutput::Append(event) => Some(event.clone()),
        _ => None,
    };
    outputs.iter().filter_map(event).collect()
}

#[test]
fn a_message_is_seen_and_acknowledged_only_once_durable() {
    let mut rig = Rig::new();
    let outputs = rig.command("ann", send("m1", "  hi\r\nthere "));
    let [ChatOutput::Append(event)] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(rig.chat.recent().messages.is_empty());
    let appended = rig.log.append(event);
    rig.chat.handle_appended(appended);
    let outputs = rig.drain();
    let [ChatOutput::Publish(message), ChatOutput::Ack(who)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((message.seq, message.text.as_str(), who), (1, "hi\nthere", &asker("ann", 1)));
    assert_eq!(rig.chat.recent().messages, vec![message.clone()]);
    assert!(rig.chat.is_settled());
}

#[test]
fn a_retry_gets_the_same_answer_and_is_no_second_message() {
    let mut rig = Rig::new();
    let event = appends(&rig.command("ann", send("m1", "hi"))).remove(0);
    assert_eq!(rig.command("ann", send("m1", "hi")), vec![], "still being written");
    let appended = rig.log.append(&event);
    rig.chat.handle_appended(appended);
    let answers = rig.drain().split_off(1);
    assert_eq!(answers, vec![ChatOutput::Ack(asker("ann", 1)), ChatOutput::Ack(asker("ann", 2))]);
    assert_eq!(rig.command("ann", send("m1", "hi")), vec![ChatOutput::Ack(asker("ann", 3))]);
    assert_eq!(rig.chat.recent().messages.len(), 1);
}

#[test]
fn retries_that_wait_are_bounded_and_all_answered() {
    let mut rig = Rig::new();
    let event = appends(&rig.command("ann", send("m1", "hi"))).remove(0);
    let refused = |outputs: &Vec<ChatOutput>| matches!(outputs[..], [ChatOutput::Refuse(..)]);
    let count = (0..100).map(|_| rig.command("ann", send("m1", "hi"))).filter(refused).count();
    let appended = rig.log.append(&event);
    rig.chat.handle_appended(appended);
    let acks = rig.drain().iter().filter(|output| matches!(output, ChatOutput::Ack(_))).count();
    assert!(count > 0 && acks > 1);
    assert_eq!(acks + count, 101);
}

#[test]
fn a_retry_older_than_the_window_is_settled_by_the_log() {
    let mut rig = Rig::with_messages(WINDOW + 1);
    let (seen, answer) = rig.ask("ann", send("m1", "hello"));
    assert_eq!((seen.map(|message| message.seq), answer), (Some(1), Ok(())));
    assert_eq!(rig.ask("bob", send("m1", "mine")), (None, Err(Code::Forbidden)));
    assert_eq!(rig.log.messages.len(), WINDOW + 1);
    assert_eq!(rig.chat.recent().messages.len(), WINDOW);
}

#[test]
fn an_id_of_anothers_message_is_refused() {
    let mut rig = Rig::with_messages(1);
    assert_eq!(rig.ask("bob", send("m1", "mine")), (None, Err(Code::Forbidden)));
    rig.command("ann", send("m2", "pending"));
    assert!(matches!(rig.command("bob", send("m2", "mine"))[..], [ChatOutput::Refuse(..)]));
}

#[test]
fn what_is_durable_out_of_order_is_seen_in_order() {
    let mut rig = Rig::new();
    let first = appends(&rig.command("ann", send("m1", "1"))).remove(0);
    let second = appends(&rig.command("bob", send("m2", "2"))).remove(0);
    let (first, second) = (rig.log.append(&first), rig.log.append(&second));
    rig.chat.handle_appended(second);
    assert_eq!(rig.drain(), vec![]);
    rig.chat.handle_appended(first);
    let seqs: Vec<u64> = rig.chat.recent().messages.iter().map(|message| message.seq).collect();
    assert_eq!((seqs, rig.drain().len()), (vec![1, 2], 4));
}

#[test]
fn a_failed_append_leaves_no_trace_and_may_be_tried_again() {
    let mut rig = Rig::new();
    let first = appends(&rig.command("ann", send("m1", "1"))).remove(0);
    let second = appends(&rig.command("bob", send("m2", "2"))).remove(0);
    let second = rig.log.append(&second);
    rig.chat.handle_appended(second);
    rig.chat.handle_append_failed(&first.id);
    let outputs = rig.drain();
    assert!(matches!(&outputs[0], ChatOutput::Refuse(who, refusal)
        if *who == asker("ann", 1) && refusal.code == Code::Unavailable));
    assert!(matches!(&outputs[1], ChatOutput::Publish(message) if message.seq == 2));
    let (seen, answer) = rig.ask("ann", send("m1", "1"));
    assert_eq!((seen.map(|message| message.seq), answer), (Some(3), Ok(())));
}

#[test]
fn only_the_author_edits_and_an_admin_may_delete() {
    let mut rig = Rig::with_messages(1);
    assert_eq!(rig.ask("bob", edit("m1", "x")).1, Err(Code::Forbidden));
    assert_eq!(rig.ask("admin", edit("m1", "x")).1, Err(Code::Forbidden));
    let edited = rig.ask("ann", edit("m1", "better")).0.expect("seen");
    assert_eq!((edited.text.as_str(), edited.edited_at_ms.is_some()), ("better", true));
    assert_eq!(rig.ask("ann", edit("m1", "better")), (None, Ok(())), "no change, no event");
    let delete = ChatCommand::Delete { id: id("m1") };
    assert_eq!(rig.ask("bob", delete.clone()).1, Err(Code::Forbidden));
    let deleted = rig.ask("admin", delete.clone()).0.expect("seen");
    assert_eq!((deleted.text.as_str(), deleted.deleted), ("", true));
    assert_eq!(rig.ask("ann", delete), (None, Ok(())));
    assert_eq!(rig.ask("ann", edit("m1", "back")).1, Err(Code::NotFound));
    assert_eq!(rig.ask("ann", react("m1", "👍", true)).1, Err(Code::NotFound));
}

#[test]
fn a_message_still_being_written_can_be_edited() {
    let mut rig = Rig::new();
    let sent = appends(&rig.command("ann", send("m1", "teh"))).remove(0);
    let edited = appends(&rig.command("ann", edit("m1", "the"))).remove(0);
    assert_eq!(rig.command("ann", edit("m1", "the")), vec![], "a retry waits for the edit");
    for event in [sent, edited] {
        let appended = rig.log.append(&event);
        rig.chat.handle_appended(appended);
    }
    assert_eq!(rig.drain().iter().filter(|output| matches!(output, ChatOutput::Ack(_))).count(), 3);
    assert_eq!(rig.chat.recent().messages[0].text, "the");
}

#[test]
fn reactions_are_a_bounded_set() {
    let mut rig = Rig::with_messages(1);
    assert_eq!(rig.ask("bob", react("m1", "👍", false)), (None, Ok(())));
    assert_eq!(rig.ask("bob", react("m1", "👍", true)).1, Ok(()));
    assert_eq!(rig.ask("bob", react("m1", "👍", true)), (None, Ok(())));
    let seen = rig.ask("ann", react("m1", "👍", true)).0.expect("seen");
    assert_eq!(seen.reactions["👍"], vec![author("bob").identity, author("ann").identity]);
    assert_eq!(rig.ask("bob", react("m1", "👍", false)).1, Ok(()));
    let seen = rig.ask("ann", react("m1", "👍", false)).0.expect("seen");
    assert!(seen.reactions.is_empty());
    let emoji = |n: u32| char::from_u32(0x1f600 + n).expect("an emoji").to_string();
    for n in 0..EMOJI_PER_MESSAGE_MAX as u32 {
        assert_eq!(rig.ask("bob", react("m1", &emoji(n), true)).1, Ok(()));
    }
    assert_eq!(rig.ask("bob", react("m1", "🎉", true)).1, Err(Code::RateLimited));
    for n in EMOJI_PER_MESSAGE_MAX..REACTIONS_PER_MESSAGE_MAX {
        assert_eq!(rig.ask(&format!("p{n}"), react("m1", &emoji(0), true)).1, Ok(()));
    }
    assert_eq!(rig.ask("ann", react("m1", &emoji(0), true)).1, Err(Code::RateLimited));
}

#[test]
fn an_emoji_is_no_text() {
    for good in ["👍", "❤️", "1️⃣", "🇩🇪", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👨‍👩‍👧‍👦", "🧑🏿‍❤️‍💋‍🧑🏿", "ℹ️", "🅰️", "Ⓜ️", "©️"]
    {
        assert!(is_emoji(good), "{good}");
    }
    let long = "👍".repeat(11);
    for bad in ["", "a", "lol", "<b>", " ", "12", "\u{200d}", "\u{202e}👍", "👍 ", "é", &long] {
        assert!(!is_emoji(bad), "{bad:?}");
    }
}

#[test]
fn text_has_limits_and_markup_stays_text() {
    let mut rig = Rig::new();
    for (bad, code) in [
        ("", Code::Malformed),
        (" \n\t ", Code::Malformed),
        ("bell \u{7}", Code::Malformed),
        ("nul \0", Code::Malformed),
        (&*"é".repeat(41), Code::TooLarge),
    ] {
        assert_eq!(rig.ask("ann", send("m1", bad)), (None, Err(code)), "{bad:?}");
    }
    let markup = "<script>&amp;</script>\n\tx";
    assert_eq!(rig.ask("ann", send("m1", markup)).0.expect("seen").text, markup);
    assert_eq!(rig.ask("ann", send("m2", &"é".repeat(40))).1, Ok(()));
}

#[test]
fn a_reply_is_to_a_message_that_exists() {
    let mut rig = Rig::with_messages(WINDOW + 5);
    assert_eq!(rig.ask("bob", reply("r1", "m1")).1, Ok(()), "older than the window");
    assert_eq!(rig.ask("bob", reply("r2", "m205")).1, Ok(()));
    assert_eq!(rig.ask("bob", reply("r3", "none")).1, Err(Code::NotFound));
    assert_eq!(Rig::new().ask("bob", reply("r1", "none")).1, Err(Code::NotFound));
}

#[test]
fn old_messages_change_through_the_log() {
    let mut rig = Rig::with_messages(WINDOW + 5);
    assert_eq!(rig.ask("ann", edit("m1", "new")).0.expect("seen").text, "new");
    assert_eq!(rig.ask("bob", edit("m1", "mine")).1, Err(Code::Forbidden));
    assert_eq!(rig.ask("bob", react("m2", "👍", true)).1, Ok(()));
    assert_eq!(rig.ask("bob", edit("none", "x")).1, Err(Code::NotFound));
    assert_eq!(rig.log.messages[&id("m1")].text, "new");
    // Two on the same old message at once: one read, and nobody's reaction is lost.
    assert_eq!(rig.command("bob", react("m3", "👍", true)), vec![ChatOutput::Read(id("m3"))]);
    assert_eq!(rig.command("eve", react("m3", "👍", true)), vec![]);
    let stored = rig.log.messages.get(&id("m3")).cloned();
    rig.chat.handle_read(9, &id("m3"), stored);
    for event in appends(&rig.drain()) {
        let appended = rig.log.append(&event);
        rig.chat.handle_appended(appended);
    }
    assert_eq!(rig.log.messages[&id("m3")].reactions["👍"].len(), 2);
    assert!(rig.chat.is_settled());
}

#[test]
fn a_log_that_cannot_be_read_or_keep_up_refuses() {
    let mut rig = Rig::with_messages(WINDOW + 1);
    rig.command("ann", edit("m1", "x"));
    rig.chat.handle_read_failed(&id("m1"));
    assert!(
        matches!(&rig.drain()[..], [ChatOutput::Refuse(_, refusal)] if refusal.code == Code::Unavailable)
    );
    for n in 0..PARKED_MAX {
        rig.command("ann", edit(&format!("old{n}"), "x"));
    }
    assert!(matches!(rig.command("ann", edit("m1", "x"))[..], [ChatOutput::Refuse(..)]));
    for n in 0..PENDING_MAX {
        rig.command("bob", send(&format!("b{n}"), "x"));
    }
    assert!(matches!(rig.command("bob", send("one-more", "x"))[..], [ChatOutput::Refuse(..)]));
}

#[test]
fn a_restored_chat_goes_on_where_it_was() {
    let mut rig = Rig::with_messages(WINDOW + 3);
    assert_eq!(rig.ask("ann", edit("m203", "edited")).1, Ok(()));
    let before = rig.chat.recent();
    assert!(before.more);
    rig.chat = Chat::restore(room(), CHARS_MAX, rig.log.history());
    assert_eq!(rig.chat.recent(), before);
    let (edited, answer) = rig.ask("ann", edit("m203", "again"));
    assert_eq!((edited.expect("a new event").text.as_str(), answer), ("again", Ok(())));
    assert_eq!(rig.ask("ann", send("m204", "on")).0.expect("seen").seq, WINDOW as u64 + 4);
}

#[test]
fn a_page_can_be_cut_to_what_a_channel_carries() {
    let page = Rig::with_messages(10).chat.recent();
    let one = serde_json::to_vec(&page.messages[9]).expect("JSON").len() + 1;
    let cut = page.clone().keep_newest(3 * one);
    assert_eq!((cut.messages.len(), cut.more), (3, true));
    assert_eq!(cut.messages[2], page.messages[9]);
    assert_eq!(page.clone().keep_newest(usize::MAX), page);
    assert_eq!(page.keep_newest(0).messages, vec![]);
}
