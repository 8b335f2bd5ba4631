//! Members and publishers on any node: connected where they came, seated at their room's home.

use std::time::{Duration, Instant};

use antiphon::bench::client::{Channel, Offer};
use antiphon::bench::person::Person;
use antiphon::bench::source::{AudioSource, VideoSource, simulcast};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::history::{all_acknowledged, chatter, history_has, verified};
use crate::nodes::{Links as Between, Setup, World};
use crate::stage::{Stage, TOP_BPS};
use crate::{bound, until};

const SENT: &str = "antiphon_relay_packets_total{way=\"sent\"}";
const LODGERS: &str = "antiphon_relay_lodgers";
/// Over what one more hop may cost: a network's round trip is nothing here.
const HOP_MAX_MS: f64 = 5.0;
/// Between two words of each.
const PACE: Duration = Duration::from_millis(100);
/// From when a path works again to when all that was said meanwhile is shown.
const REFORMED_WITHIN: Duration = Duration::from_secs(2);

/// Somebody with a page: a connection of the stage's, and what it was told.
pub struct Member {
    pub seat: usize,
    session: String,
    told: Vec<Value>,
    asked: u64,
}

impl Member {
    /// Joins through a node, and is welcomed there.
    pub fn join(world: &World, stage: &mut Stage, node: usize, room: &str, name: &str, number: u32) -> Self {
        let query = format!("identity={name}");
        Self::try_join(world, stage, node, room, &query, number).expect("it is served there")
    }

    /// The same, or where it was sent.
    fn try_join(
        world: &World,
        stage: &mut Stage,
        node: usize,
        room: &str,
        query: &str,
        number: u32,
    ) -> Result<Self, String> {
        let mut member = Self::come(world, stage, node, room, query, number)?;
        member.hears(stage, "welcome", |message| message["type"] == "welcome");
        Ok(member)
    }

    /// Waits in the lobby.
    pub fn knock(world: &World, stage: &mut Stage, node: usize, room: &str, name: &str, number: u32) -> Self {
        let query = format!("identity={name}");
        let mut member = Self::come(world, stage, node, room, &query, number).expect("it is served there");
        member.hears(stage, "it waits", |message| message["type"] == "waiting");
        member
    }

    fn come(
        world: &World,
        stage: &mut Stage,
        node: usize,
        room: &str,
        query: &str,
        number: u32,
    ) -> Result<Self, String> {
        let now = Instant::now();
        let offer = Offer {
            video: Some(VideoSource::new(number, simulcast(TOP_BPS), now, Duration::from_secs(3600))),
            audio: Some(AudioSource::new(number, now)),
            video_slots: 3,
            audio_slots: 3,
            timeline: true,
            channels: true,
        };
        let (seat, sdp) = stage.engine.add(offer).expect("a socket");
        let url = format!("{}/participants?{query}", world.url_of(node, room));
        let (status, location, answer) = world.join(&url, sdp);
        let location = location.unwrap_or_default();
        if status == StatusCode::TEMPORARY_REDIRECT {
            return Err(location);
        }
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        stage.engine.answer(seat, &answer);
        let session = world.nodes[node].absolute(&location);
        Ok(Self { seat, session, told: Vec::new(), asked: 0 })
    }

    pub fn ask(&mut self, stage: &mut Stage, mut message: Value) -> u64 {
        self.asked += 1;
        message["request"] = self.asked.into();
        let sent = stage.engine.send(self.seat, Channel::Control, message.to_string().as_bytes());
        assert!(sent, "the channel is open");
        self.asked
    }

    pub fn listen(&mut self, stage: &mut Stage) {
        while let Some(message) = stage.engine.seats[self.seat].client.poll_message() {
            self.told.extend(serde_json::from_slice::<Value>(&message.data).ok());
        }
    }

    /// Waits until it is told something, and gives that.
    #[track_caller]
    pub fn hears(&mut self, stage: &mut Stage, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        stage.until(what, |stage| {
            self.listen(stage);
            self.told.iter().any(&is_it)
        });
        self.told.iter().find(|message| is_it(message)).cloned().expect("it was told")
    }

    pub fn count(&self, is_it: impl Fn(&Value) -> bool) -> usize {
        self.told.iter().filter(|message| is_it(message)).count()
    }
}

fn is_message(id: &'static str) -> impl Fn(&Value) -> bool {
    move |message| message["type"] == "chat.message" && message["message"]["id"] == id
}

pub fn is_answer(request: u64) -> impl Fn(&Value) -> bool {
    move |message| message["type"] == "ok" && message["request"] == request
}

/// Somebody sees this publisher, by a picture of after `since`.
fn sees(stage: &Stage, seat: usize, publisher: u32, since: Instant) -> bool {
    let slots = stage.engine.seats[seat].client.slots().values();
    let mut shown = slots.flat_map(|slot| slot.playout.timeline.iter().flatten());
    shown.any(|shown| shown.publisher == publisher && shown.at > since)
}

/// Packets of sound that came to somebody.
fn heard(stage: &Stage, seat: usize) -> u64 {
    let slots = stage.engine.seats[seat].client.slots().values();
    slots.filter(|slot| slot.playout.frames == 0).map(|slot| slot.sequence.packets).sum()
}

/// A WHEP viewer of one participant's.
pub fn watch(world: &World, stage: &mut Stage, node: usize, room: &str, of: &str) -> usize {
    let (seat, sdp) = stage.offer();
    let url = format!("{}/whep?identity=viewer-{seat}&participant={of}", world.url_of(node, room));
    let (status, _, answer) = world.join(&url, sdp);
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    stage.engine.answer(seat, &answer);
    seat
}

#[test]
fn members_and_publishers_are_served_where_they_come() {
    let world = World::linked(3, Between::Far);
    let mut stage = Stage::new();
    // Whoever comes first makes the room where it came, and is its admin.
    let mut chair = Member::join(&world, &mut stage, 0, "spread", "chair", 1);
    let home = world.home_of("spread").expect("a home");
    let others: Vec<usize> = (0..3).filter(|node| *node != home).collect();
    let mut bob = Member::join(&world, &mut stage, others[0], "spread", "bob", 2);
    assert!(bob.session.starts_with(&world.nodes[others[0]].url), "requests about it belong there");
    stage.publish_at(&world, others[1], "spread", 3);
    let welcome = bob.hears(&mut stage, "welcome", |message| message["type"] == "welcome");
    let roster: Vec<_> = welcome["participants"].as_array().into_iter().flatten().collect();
    assert_eq!((welcome["me"].as_str(), roster.len()), (Some("bob"), 2), "{welcome}");
    assert_eq!(welcome["slots"].as_array().map(Vec::len), Some(6), "its own slots");
    let began = Instant::now();
    let seen = stage.until("all see each other", |stage| {
        let at_home = sees(stage, chair.seat, 2, began) && sees(stage, chair.seat, 3, began);
        at_home && sees(stage, bob.seat, 1, began) && sees(stage, bob.seat, 3, began)
    });
    stage
        .until("all hear each other", |stage| heard(stage, chair.seat) > 100 && heard(stage, bob.seat) > 100);
    for seat in [chair.seat, bob.seat] {
        assert!(!sees(&stage, seat, if seat == bob.seat { 2 } else { 1 }, began), "nobody sees oneself");
    }
    assert_eq!((world.figure(others[0], LODGERS), world.figure(others[1], LODGERS)), (1.0, 1.0));
    figures(&world, home, &others);
    hops(&world, &mut stage, (home, &others), seen);
    chats(&world, &mut stage, home, &mut chair, &mut bob);
    moderated(&world, &mut stage, home, &mut chair, &mut bob);
}

/// The home shows how the connections of those fare who have none with it.
fn figures(world: &World, home: usize, others: &[usize]) {
    let url = format!("{}/stats", world.url_of(home, "spread"));
    let asked = Instant::now();
    let stats = world.ask("GET", &url, None).expect("an answer").body;
    println!("{}", json!({"what": "member_figures", "asked_ms": asked.elapsed().as_millis()}));
    let of = |name: &str| {
        let all = stats["participants"].as_array().into_iter().flatten();
        all.into_iter().find(|one| one["identity"] == name).cloned().expect("it is in the room")
    };
    assert!(of("chair")["node"].is_null() && of("chair")["rtt_ms"].is_f64(), "{stats}");
    for (name, node) in [("bob", others[0]), ("sender-3", others[1])] {
        let one = of(name);
        assert_eq!(one["node"], format!("node-{node}"), "{one}");
        assert_eq!(one["transport"], "udp", "{one}");
        assert!(one["srtp_profile"].is_string() && one["bytes_received"].as_u64() > Some(10_000), "{one}");
    }
    let bob = of("bob");
    assert!(bob["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 1_000.0), "{bob}");
    assert!(bob["egress_loss"].is_f64() && bob["estimate_bps"].as_u64() > Some(100_000), "{bob}");
    let gets: Vec<_> = bob["gets"].as_array().into_iter().flatten().collect();
    assert!(gets.iter().any(|slot| slot["participant"] == "chair" && slot["layer"].is_string()), "{bob}");
}

/// What a hop costs and what crosses, where somebody watches on each node.
fn hops(world: &World, stage: &mut Stage, (home, others): (usize, &[usize]), seen: Duration) {
    let near = watch(world, stage, others[0], "spread", "bob");
    let middle = watch(world, stage, home, "spread", "bob");
    let beyond = watch(world, stage, others[1], "spread", "bob");
    let began = Instant::now();
    stage.until("all three see the one", |stage| stage.all_see(&[near, middle, beyond], 2, began));
    stage.until("at the top", |stage| {
        [near, middle, beyond].iter().all(|seat| stage.last(*seat).is_some_and(|shown| shown.encoding == 2))
    });
    // Encodings that were taken on the way up rest after seconds.
    stage.run(Duration::from_secs(4));
    let bob = 1;
    let before = (world.figure(others[0], SENT), stage.sent(bob));
    let delays = stage.delays([near, middle, beyond], Duration::from_secs(3)).map(|ns| ns as f64 / 1e6);
    let crossed = world.figure(others[0], SENT) - before.0;
    let (top, all) = stage.sent(bob);
    let (top, all) = (f64::from(top - before.1.0), f64::from(all - before.1.1));
    println!(
        "{}",
        json!({
            "what": "member_hops",
            "all_see_ms": seen.as_millis(),
            "delay_p50_ms": {"where_it_is": delays[0], "at_home": delays[1], "at_a_third": delays[2]},
            "hop_p50_ms": [delays[1] - delays[0], delays[2] - delays[1]],
            "packets_up": crossed,
            "sound_and_top_encoding": top,
            "all_encodings": all,
            "copies": crossed / top,
        })
    );
    // Beside other tests on the same cores each hop waits for its turn as often as the first way does.
    let hop_max_ms = HOP_MAX_MS + delays[0];
    assert!(delays[1] - delays[0] < hop_max_ms && delays[2] - delays[1] < hop_max_ms, "{delays:?}");
    assert!(crossed <= all * 1.05, "at most one copy of each encoding: {crossed} of {all}");
    assert!(crossed > top * 0.9, "and what is watched: {crossed} of {top}");
    for seat in [near, middle, beyond] {
        assert_eq!(stage.faults(seat), (0, 0), "none twice, no picture without what it refers to");
    }
}

fn chats(world: &World, stage: &mut Stage, home: usize, chair: &mut Member, bob: &mut Member) {
    let said = bob.ask(stage, json!({"type": "chat.send", "id": "from-bob", "text": "hello"}));
    bob.hears(stage, "it is acknowledged", is_answer(said));
    chair.hears(stage, "bob is read", is_message("from-bob"));
    chair.ask(stage, json!({"type": "chat.send", "id": "from-chair", "text": "hello"}));
    bob.hears(stage, "the chair is read", is_message("from-chair"));
    bob.ask(stage, json!({"type": "chat.send", "id": "from-bob", "text": "hello"}));
    bob.ask(stage, json!({"type": "chat.history"}));
    let history = bob.hears(stage, "the history", |message| message["type"] == "chat.history");
    let ids: Vec<_> = history["messages"].as_array().into_iter().flatten().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["from-bob", "from-chair"]);
    assert_eq!(bob.count(is_message("from-bob")), 1, "told once");
    let url = format!("{}/messages", world.url_of(home, "spread"));
    let kept = world.ask("GET", &url, None).expect("an answer");
    assert_eq!(kept.body["messages"].as_array().map(Vec::len), Some(2), "{}", kept.body);
    let lossy = |stage: &mut Stage, from: usize, to: usize, data: &[u8]| {
        stage.until("what was sent over the lossy channel comes", |stage| {
            stage.engine.send(from, Channel::Lossy, data);
            stage.run(Duration::from_millis(20));
            std::iter::from_fn(|| stage.engine.seats[to].client.poll_message()).any(|one| one.data == data)
        });
    };
    lossy(stage, bob.seat, chair.seat, b"here I am");
    lossy(stage, chair.seat, bob.seat, b"I see you");
    bob.ask(stage, json!({"type": "me.update", "hand_raised": true}));
    chair.hears(stage, "a hand is up", |message| {
        message["participant"]["identity"] == "bob" && message["participant"]["hand_raised"] == true
    });
}

fn moderated(world: &World, stage: &mut Stage, home: usize, chair: &mut Member, bob: &mut Member) {
    let muted = chair.ask(stage, json!({"type": "moderate.mute", "participant": "bob"}));
    chair.hears(stage, "it is done", is_answer(muted));
    bob.hears(stage, "it is told", |message| message["type"] == "muted" && message["by"] == "chair");
    chair.ask(stage, json!({"type": "moderate.remove", "participant": "bob"}));
    bob.hears(stage, "it is sent away", |message| {
        message["type"] == "removed" && message["reason"] == "removed"
    });
    stage.until("its connection ends", |stage| stage.engine.seats[bob.seat].client.is_closed());
    until("the home has it no more", || {
        let people = world.ask("GET", &format!("{}/participants", world.url_of(home, "spread")), None);
        let people = people.expect("an answer").body;
        people.as_array().is_some_and(|people| people.iter().all(|one| one["identity"] != "bob"))
    });
}

/// Trickle ICE and restarts, a new connection for a lost one, a goodbye: at the node that serves it, and a
/// session that was at one node goes on at another.
#[test]
fn a_session_is_its_clients_wherever_it_comes() {
    let world = World::linked(3, Between::Far);
    let mut stage = Stage::new();
    let mut chair = Member::join(&world, &mut stage, 0, "session", "chair", 1);
    let home = world.home_of("session").expect("a home");
    let other = (home + 1) % 3;
    let bob = Member::join(&world, &mut stage, other, "session", "bob", 2);
    let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    let (status, ours) = world.patch(&bob.session, fragment);
    assert_eq!(status, StatusCode::OK, "{ours}");
    assert!(ours.contains("a=ice-ufrag:"), "{ours}");
    let id = bob.session.rsplit('/').next().expect("a session").to_owned();
    let resume = format!("resume={id}");
    let again =
        Member::try_join(&world, &mut stage, other, "session", &resume, 2).expect("it is served there");
    assert_eq!(again.session, bob.session, "the same session");
    assert_eq!(again.told[0]["me"], "bob");
    let began = Instant::now();
    stage.until("it is seen again", |stage| sees(stage, chair.seat, 2, began));
    // At the home, and back in the branch.
    let at_home =
        Member::try_join(&world, &mut stage, home, "session", &resume, 2).expect("it is served there");
    assert_eq!(at_home.told[0]["me"], "bob");
    until("the branch has let it go", || world.figure(other, LODGERS) == 0.0);
    let began = Instant::now();
    stage.until("it is seen from there", |stage| sees(stage, chair.seat, 2, began));
    let back = Member::try_join(&world, &mut stage, other, "session", &resume, 2);
    let back = match back {
        Ok(member) => member,
        // Its branch has closed meanwhile: the home has its session.
        Err(location) => panic!("sent to {location}"),
    };
    assert_eq!((back.told[0]["me"].as_str(), world.figure(other, LODGERS)), (Some("bob"), 1.0));
    let left = world.ask("DELETE", &back.session, None).expect("an answer");
    assert_eq!(left.status, StatusCode::OK);
    chair.hears(&mut stage, "it has left", |message| {
        message["type"] == "participant.left" && message["identity"] == "bob" && message["reason"] == "left"
    });
    assert_eq!(chair.count(|message| message["type"] == "participant.joined"), 1, "it never left before");
}

#[test]
fn a_busy_home_has_members_served_and_a_node_that_drains_sends_them_on() {
    let world = World::linked(2, Between::Near);
    let mut stage = Stage::new();
    world.make(0, "busy");
    let home = world.home_of("busy").expect("a home");
    let other = 1 - home;
    let sent = Member::try_join(&world, &mut stage, other, "busy", "identity=early", 1).err();
    assert!(sent.is_some_and(|to| to.starts_with(&world.url_of(home, "busy"))), "the home has time for it");
    // From seven connections of ten on the home sends people there itself.
    let mut members = Vec::new();
    let sent = (0..12).find_map(|number| {
        let query = format!("identity=member-{number}");
        let joined = Member::try_join(&world, &mut stage, home, "busy", &query, 10 + number);
        stage.run(Duration::from_millis(400));
        joined.map(|member| members.push(member)).err()
    });
    let sent = sent.expect("the home has enough to do");
    assert!(sent.starts_with(&world.url_of(other, "busy")) && sent.ends_with("&branch=true"), "{sent}");
    let urls = vec![world.nodes[other].url.clone(), world.nodes[home].url.clone()];
    let bob = Person::start("busy", "bob", 2, urls).expect("a thread");
    until("it is served there", || world.figure(other, LODGERS) == 1.0 && bob.story().welcomes == 1);
    world.nodes[other].signal(Signal::TERM);
    until("it goes on at the home", || {
        let story = bob.story();
        story.welcomes == 2 && story.node.as_deref() == Some(&world.nodes[home].url)
    });
    assert_eq!(bob.story().identity, "bob");
}

/// All of these were shown all messages, each no more than once on each connection or welcome.
fn all_read(people: &[&Person], ids: &[String]) -> bool {
    people.iter().all(|person| {
        let story = person.story();
        ids.iter().all(|id| story.shown.contains(id))
    })
}

#[test]
fn a_link_that_is_cut_keeps_members_and_what_they_say() {
    let world = World::linked(3, Between::Far);
    world.make(0, "cut");
    let home = world.home_of("cut").expect("a home");
    let others: Vec<usize> = (0..3).filter(|node| *node != home).collect();
    let person = |name: &str, number, node: usize| {
        Person::start("cut", name, number, vec![world.nodes[node].url.clone()]).expect("a thread")
    };
    let people = [person("ann", 1, home), person("bob", 2, others[0]), person("cal", 3, others[1])];
    let [ann, bob, cal] = [&people[0], &people[1], &people[2]];
    until("all are in", || people.iter().all(|person| person.story().welcomes == 1));
    let at = |person: &Person| person.story().node;
    assert_eq!(at(bob), Some(world.nodes[others[0]].url.clone()), "each where it came");
    assert_eq!(at(cal), Some(world.nodes[others[1]].url.clone()));
    let mut ids = Vec::new();
    let mut say = |person: &Person, id: &str| {
        assert!(person.say(id, "hello"));
        ids.push(id.to_owned());
    };
    say(ann, "a-1");
    say(bob, "b-1");
    say(cal, "c-1");
    until("all have read it", || people.iter().all(|person| person.story().shown.len() >= 3));
    let way = world.nodes[home].way.as_ref().expect("a way");
    way.cut(true);
    say(bob, "b-2");
    say(ann, "a-2");
    until("the links are given up", || {
        others.iter().all(|node| world.figure(*node, "antiphon_relay_failures_total{what=\"lost\"}") >= 1.0)
    });
    say(cal, "c-2");
    way.cut(false);
    let again = Instant::now();
    until("all that was said meanwhile is read", || all_read(&[ann, bob, cal], &ids));
    let reformed = again.elapsed();
    println!("{}", json!({"what": "member_link_cut", "all_read_ms": reformed.as_millis()}));
    assert!(reformed < bound(REFORMED_WITHIN), "{reformed:?}");
    until("all is acknowledged", || people.iter().all(|person| person.story().acknowledged.len() == 2));
    for (person, welcomes) in [(ann, 1), (bob, 2), (cal, 2)] {
        let story = person.story();
        assert_eq!((story.gaps.len(), story.welcomes), (0, welcomes), "no connection was made anew");
    }
    let url = format!("{}/messages", world.url_of(home, "cut"));
    let kept = world.ask("GET", &url, None).expect("an answer").body;
    let kept: Vec<_> =
        kept["messages"].as_array().into_iter().flatten().map(|one| one["id"].to_string()).collect();
    assert_eq!(kept.len(), ids.len(), "each once: {kept:?}");
}

/// The nodes share their log, so that what was acknowledged is in it whoever has the room.
#[test]
fn members_stay_who_they_are_when_their_home_is_killed() {
    let world = World::of(Setup { kafka: true, links: Between::Far, ..Setup::default() });
    world.make(0, "killed");
    let home = world.home_of("killed").expect("a home");
    let others: Vec<usize> = (0..3).filter(|node| *node != home).collect();
    let urls = |first: usize| -> Vec<String> {
        let rest = (0..3).filter(|node| *node != first);
        std::iter::once(first).chain(rest).map(|node| world.nodes[node].url.clone()).collect()
    };
    let person =
        |name: &str, number, node| Person::start("killed", name, number, urls(node)).expect("a thread");
    let people = [person("ann", 1, home), person("bob", 2, others[0]), person("cal", 3, others[1])];
    until("all are in", || people.iter().all(|person| person.story().welcomes == 1));
    let begins = Instant::now();
    let count = chatter(&people, 0, PACE, || begins.elapsed() < Duration::from_secs(1));
    world.nodes[home].signal(Signal::KILL);
    let killed = Instant::now();
    let count = chatter(&people, count, PACE, || killed.elapsed() < world.lease * 2);
    let ids: Vec<String> = (0..3).map(|who| format!("m-{who}-{}", count - 1)).collect();
    until("all are back and have read each other", || all_read(&people.each_ref(), &ids));
    let back = killed.elapsed();
    all_acknowledged(&people, count);
    let anew: Vec<_> = people.iter().map(|person| person.story().gaps.len()).collect();
    println!(
        "{}",
        json!({"what": "member_home_killed", "lease_ms": world.lease.as_millis(), "messages": count * 3,
            "all_back_ms": back.as_millis(), "connections_anew": anew})
    );
    for (person, name) in people.iter().zip(["ann", "bob", "cal"]) {
        assert_eq!(person.story().identity, name, "as the same participant");
    }
    history_has(&world, "killed", &people);
    verified(&world);
}
