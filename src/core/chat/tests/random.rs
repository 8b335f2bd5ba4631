//! Chat driven at random: whatever its log does, and whoever tries what.

use proptest::prelude::*;

use super::*;

/// One step of a random life of a room.
#[derive(Debug, Clone)]
enum Step {
    Command(&'static str, ChatCommand),
    /// The log takes the oldest event it was given, or fails it.
    Log {
        fails: bool,
    },
    /// One of the answers under way arrives, whichever.
    Answer(usize),
    Restart,
}

fn any_command() -> impl Strategy<Value = ChatCommand> {
    let message = (0..6u8).prop_map(|n| id(&format!("m{n}"))).boxed();
    let text = (0..4u8).prop_map(|n| format!("text {n}"));
    let emoji = prop_oneof![Just("👍".to_owned()), Just("🎉".to_owned())];
    prop_oneof![
        4 => (message.clone(), text.clone(), proptest::option::weighted(0.2, message.clone()))
            .prop_map(|(id, text, reply_to)| ChatCommand::Send { id, text, reply_to }),
        2 => (message.clone(), text).prop_map(|(id, text)| ChatCommand::Edit { id, text }),
        1 => message.clone().prop_map(|id| ChatCommand::Delete { id }),
        2 => (message, emoji, any::<bool>()).prop_map(|(id, emoji, on)| ChatCommand::React { id, emoji, on }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![Just("ann"), Just("bob"), Just("admin")];
    prop_oneof![
        6 => (who, any_command()).prop_map(|(who, command)| Step::Command(who, command)),
        5 => proptest::bool::weighted(0.15).prop_map(|fails| Step::Log { fails }),
        5 => any::<usize>().prop_map(Step::Answer),
        1 => Just(Step::Restart),
    ]
}

/// The room's side of the log: events not yet taken, answers not yet arrived.
#[derive(Default)]
struct Wire {
    events: VecDeque<Event>,
    answers: Vec<Result<Appended, EventId>>,
}

struct World {
    rig: Rig,
    wire: Wire,
    /// What somebody who was there from the start has seen last of each message.
    seen: BTreeMap<u64, ChatMessage>,
    first_seen: Vec<u64>,
    unanswered: BTreeMap<u64, &'static str>,
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Command(who, command) => {
                self.unanswered.insert(self.rig.request + 1, who);
                let outputs = self.rig.command(who, command);
                self.take(outputs);
            }
            Step::Log { fails } => {
                if let Some(event) = self.wire.events.pop_front() {
                    let answer = if fails { Err(event.id) } else { Ok(self.rig.log.append(&event)) };
                    self.wire.answers.push(answer);
                }
            }
            Step::Answer(which) if !self.wire.answers.is_empty() => {
                match self.wire.answers.swap_remove(which % self.wire.answers.len()) {
                    Ok(appended) => self.rig.chat.handle_appended(appended),
                    Err(id) => self.rig.chat.handle_append_failed(&id),
                }
                let outputs = self.rig.drain();
                self.take(outputs);
            }
            Step::Answer(_) => {}
            Step::Restart => self.restart(),
        }
    }

    /// The process dies: what the log has not taken is lost, and so is everyone's connection.
    fn restart(&mut self) {
        self.wire = Wire::default();
        self.unanswered.clear();
        let history = self.rig.log.history();
        self.seen = history.page.messages.iter().map(|message| (message.seq, message.clone())).collect();
        self.first_seen = self.seen.keys().copied().collect();
        self.rig.chat = Chat::restore(room(), CHARS_MAX, history);
    }

    fn take(&mut self, outputs: Vec<ChatOutput>) {
        for output in outputs {
            match output {
                ChatOutput::Append(event) => self.wire.events.push_back(event),
                ChatOutput::Read(_) => panic!("all messages are in the window"),
                ChatOutput::Publish(message) => self.publish(message),
                ChatOutput::Ack(asker) | ChatOutput::Refuse(asker, _) => {
                    let Asker::Participant { identity, request } = asker else { panic!("nobody is outside") };
                    let request = request.expect("each command has one");
                    let who = self.unanswered.remove(&request).expect("answered once");
                    assert_eq!(identity, author(who).identity);
                }
            }
        }
    }

    fn publish(&mut self, message: ChatMessage) {
        match self.seen.get(&message.seq) {
            None => {
                assert!(self.first_seen.last().is_none_or(|last| *last < message.seq), "in order");
                assert!(self.seen.values().all(|other| other.id != message.id), "never doubled");
                self.first_seen.push(message.seq);
            }
            Some(before) => {
                assert_eq!((&before.id, &before.identity), (&message.id, &message.identity));
                assert!(!before.deleted || message.deleted);
            }
        }
        self.seen.insert(message.seq, message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_see_the_same_in_one_order_whatever_the_log_does(
        steps in proptest::collection::vec(any_step(), 1..80)
    ) {
        let mut world = World {
            rig: Rig::new(),
            wire: Wire::default(),
            seen: BTreeMap::new(),
            first_seen: Vec::new(),
            unanswered: BTreeMap::new(),
        };
        for step in steps {
            world.step(step);
        }
        while !world.wire.events.is_empty() {
            world.step(Step::Log { fails: false });
        }
        while !world.wire.answers.is_empty() {
            world.step(Step::Answer(0));
        }
        prop_assert!(world.rig.chat.is_settled());
        prop_assert!(world.unanswered.is_empty());
        let live: Vec<_> = world.seen.values().cloned().collect();
        prop_assert_eq!(&live, &world.rig.chat.recent().messages);
        prop_assert_eq!(live, world.rig.log.in_order());
    }

    /// Whoever tries: a text is its author's, and only its author or an admin takes it away.
    #[test]
    fn nobody_changes_anothers_words(commands in proptest::collection::vec(
        (prop_oneof![Just("ann"), Just("bob"), Just("admin")], any_command()), 1..60)
    ) {
        let mut rig = Rig::new();
        for (who, command) in commands {
            let before = rig.log.messages.clone();
            let _ = rig.ask(who, command);
            for (id, now) in &rig.log.messages {
                let Some(old) = before.get(id) else {
                    prop_assert_eq!(&now.identity, &author(who).identity);
                    continue;
                };
                if old.text != now.text {
                    let by_author = old.identity == author(who).identity;
                    prop_assert!(by_author || (now.deleted && who == "admin"));
                }
            }
        }
    }
}
