//! The recorder as a node sees it: the real process, its socket, real bitstreams in, files out that FFmpeg's
//! command line judges. And in the other direction the feed ([`feed`]): files in, packets out.

#[path = "../mcu/clip.rs"]
mod clip;
mod feed;
mod sender;
#[path = "../mcu/sound.rs"]
mod sound;
mod stand;

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use antiphon::core::mix::Size;
use antiphon::core::payload::Codec;
use antiphon::core::protocol::Source;
use antiphon::core::recording::manifest::Progress;
use antiphon::core::recording::{EndReason, FromRecorder, ToRecorder};
use gstreamer as gst;

use sender::{Clip, Fate, PICTURES, SIZE, Sender};
use stand::{Stand, apart_ms, beeps, decodes, flashes, pictures, probe, samples, unix_ms};

const MS: fn(u64) -> Duration = Duration::from_millis;
/// Sound and picture may be so far apart.
const APART_MS_MAX: f64 = 40.0;
const PICTURE_MS: f64 = 1_000.0 / PICTURES as f64;

static VP8: LazyLock<Clip> = LazyLock::new(|| coded(Codec::Vp8));

fn coded(codec: Codec) -> Clip {
    gst::init().unwrap();
    Clip::new(codec)
}

/// A sequence of numbers that is the same each time.
fn random() -> impl FnMut() -> u32 {
    let mut state = 7_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    }
}

/// The longest time between two pictures.
fn longest_break_ms(pictures: &[(f64, u8)]) -> f64 {
    pictures.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(0.0, f64::max)
}

fn duration_ms(path: &Path) -> f64 {
    probe(path)["format"]["duration"].as_str().unwrap().parse::<f64>().unwrap() * 1_000.0
}

#[test]
fn sound_and_picture_are_together_and_every_frame_is_there() {
    let mut stand = Stand::new(|_| {});
    let mut sender = Sender::new(&VP8, 1, MS(150), MS(20));
    stand.name(&[&sender]);
    let began = stand.began.elapsed();
    stand.run(&mut [&mut sender], MS(5_000));
    let sent = sender.pictures_sent();
    let folder = stand.end(EndReason::Stopped);
    let (picture, sound) = (folder.only(".mkv"), folder.only(".mka"));
    for path in [&picture, &sound] {
        decodes(path);
    }
    let seen = pictures(&picture);
    // What was on its way when the room had enough is not in it.
    let underway = 150.0 / PICTURE_MS + 2.0;
    assert!(
        seen.len() as f64 >= sent as f64 - underway && seen.len() as u64 <= sent,
        "{} of {sent}",
        seen.len()
    );
    assert!(longest_break_ms(&seen) < PICTURE_MS + 5.0);
    let apart = apart_ms(&flashes(&seen), &beeps(&samples(&sound)));
    println!("sound is {apart} ms from its picture");
    assert!(apart.abs() <= APART_MS_MAX);
    let length = duration_ms(&picture) - seen[0].0;
    let expected = seen.len() as f64 * PICTURE_MS;
    assert!((length - expected).abs() <= PICTURE_MS, "{length} ms for {expected}");
    // It begins when the recording did, give or take what it takes to start.
    assert!(seen[0].0 <= began.as_millis() as f64 + 400.0, "{}", seen[0].0);
    let manifest = folder.manifest();
    assert_eq!((manifest.state, manifest.reason), (Progress::Finished, Some(EndReason::Stopped)));
    assert!(manifest.files.iter().all(|file| file.complete && file.bytes > 0), "{manifest:?}");
}

#[test]
fn a_layer_that_comes_later_goes_on_with_the_next_picture_and_names_the_file_s_size() {
    let larger = Size { width: 2 * SIZE.width, height: 2 * SIZE.height };
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
        let (low, top) = (coded(codec), Clip::of_size(codec, larger));
        let mut stand = Stand::new(|_| {});
        // It rises where the clip begins anew, so that its key frame has the colour of its time.
        let mut sender = Sender::new(&low, 1, MS(30), MS(20)).rising(&top, 2 * PICTURES);
        stand.name(&[&sender]);
        stand.run(&mut [&mut sender], MS(5_500));
        let sent = sender.pictures_sent();
        let folder = stand.end(EndReason::Stopped);
        let (picture, sound) = (folder.only(".mkv"), folder.only(".mka"));
        decodes(&picture);
        let seen = pictures(&picture);
        let underway = 30.0 / PICTURE_MS + 2.0;
        let share = seen.len() as f64;
        assert!(share <= sent as f64 && share >= sent as f64 - underway, "{codec:?}: {share} of {sent}");
        let steps: Vec<f64> = seen.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(steps.iter().all(|step| (step - PICTURE_MS).abs() < 10.0), "{codec:?}: {steps:?}");
        let apart = apart_ms(&flashes(&seen), &beeps(&samples(&sound)));
        println!("{codec:?}: sound is {apart} ms from its picture");
        assert!(apart.abs() <= APART_MS_MAX);
        let stream = &probe(&picture)["streams"][0];
        // PixelWidth (RFC 9559 §5.1.4.1.28.6), as ffprobe may say what the first picture has.
        let head = std::fs::read(&picture).unwrap();
        let width = [&[0xb0, 0x82][..], &(larger.width as u16).to_be_bytes()].concat();
        assert!(head[..1_024].windows(4).any(|bytes| bytes == width), "{codec:?} says another width");
        assert!(stream["tags"]["title"].is_string(), "{stream}");
        let manifest = folder.manifest();
        let file = manifest.files.iter().find(|file| picture.ends_with(&file.name)).unwrap();
        assert_eq!(file.bytes, std::fs::metadata(&picture).unwrap().len());
        assert!(file.complete);
        // One file of all, as `antiphon remux` makes it.
        let one = folder.path.join("one.mkv");
        let made =
            Command::new(stand::program()).arg("remux").arg(&folder.path).arg("--output").arg(&one).status();
        assert!(made.unwrap().success());
        decodes(&one);
        assert_eq!(pictures(&one).len(), seen.len());
    }
}

#[test]
fn two_who_clap_at_once_are_together_though_their_clocks_and_paths_differ() {
    let mut stand = Stand::new(|_| {});
    let mut one = Sender::new(&VP8, 1, MS(10), MS(10));
    let mut other = Sender::new(&VP8, 11, MS(80), MS(15));
    other.began = one.began;
    stand.name(&[&one, &other]);
    stand.run(&mut [&mut one, &mut other], MS(4_000));
    let folder = stand.end(EndReason::Stopped);
    let first = flashes(&pictures(&folder.path.join("p0-camera-1.mkv")));
    let second = beeps(&samples(&folder.path.join("p1-microphone-12.mka")));
    let apart = apart_ms(&first, &second);
    println!("{apart} ms between two people");
    // The shortest way of each is all that is known of its clock: 5 ms lie between them.
    assert!(apart.abs() <= APART_MS_MAX);
}

#[test]
fn every_codec_is_written_as_it_came() {
    for (codec, name) in [(Codec::Vp9, "vp9"), (Codec::H264, "h264"), (Codec::Av1, "av1")] {
        let clip = coded(codec);
        let mut stand = Stand::new(|_| {});
        let mut sender = Sender::new(&clip, 1, MS(10), MS(10));
        stand.name(&[&sender]);
        stand.run(&mut [&mut sender], MS(3_500));
        let folder = stand.end(EndReason::Stopped);
        let path = folder.only(".mkv");
        decodes(&path);
        let probed = probe(&path);
        assert_eq!(probed["streams"][0]["codec_name"], name);
        let frames: u32 = probed["streams"][0]["nb_read_frames"].as_str().unwrap().parse().unwrap();
        assert!(frames > 40, "{name}: {frames} frames");
        let apart = apart_ms(&flashes(&pictures(&path)), &beeps(&samples(&folder.only(".mka"))));
        assert!(apart.abs() <= APART_MS_MAX, "{name}: {apart} ms");
    }
}

#[test]
fn the_mix_is_one_mp4_of_h264_and_aac_that_plays_after_a_kill() {
    let clip = coded(Codec::H264);
    let mix = [Source::Mix, Source::MixAudio];
    for is_killed in [false, true] {
        let mut stand = Stand::new(|settings| settings.recording.mix = true);
        let mut sender = Sender::new(&clip, 1, MS(20), MS(40));
        stand.name_as(&[&sender], mix);
        stand.run(&mut [&mut sender], MS(4_500));
        let folder = if is_killed { stand.kill() } else { stand.end(EndReason::Stopped) };
        let path = folder.path.join("mix.mp4");
        if is_killed {
            decodes(&path);
            assert!(pictures(&path).len() as f64 * PICTURE_MS >= 2_500.0);
            folder.finish();
        }
        decodes(&path);
        let probed = probe(&path);
        let codecs: Vec<&str> = probed["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stream| stream["codec_name"].as_str().unwrap())
            .collect();
        assert_eq!(codecs, ["h264", "aac"]);
        let apart = apart_ms(&flashes(&pictures(&path)), &beeps(&samples(&path)));
        println!("sound of the mix is {apart} ms from its picture");
        assert!(apart.abs() <= APART_MS_MAX);
    }
}

#[test]
fn two_percent_of_loss_leave_no_long_break() {
    let mut random = random();
    let mut stand = Stand::new(|_| {});
    // Most is resent; one packet in two hundred never comes.
    let fate = move || match random() % 1_000 {
        0..5 => Fate::Lost,
        5..20 => Fate::Resent,
        _ => Fate::Comes,
    };
    let mut sender = Sender::new(&VP8, 1, MS(30), MS(30)).losing(fate);
    stand.name(&[&sender]);
    stand.run(&mut [&mut sender], MS(12_000));
    let asked = stand.said.iter().filter(|said| matches!(said, FromRecorder::Keyframe { .. })).count();
    let folder = stand.end(EndReason::Stopped);
    let path = folder.only(".mkv");
    decodes(&path);
    let seen = pictures(&path);
    let longest = longest_break_ms(&seen);
    println!("{} pictures, {asked} key frames asked for, longest break {longest} ms", seen.len());
    assert!(longest < 1_000.0 && seen.len() > 150);
    assert!(folder.manifest().files.iter().any(|file| file.packets_lost > 0), "nothing was lost");
}

#[test]
fn what_was_written_before_a_kill_plays_and_is_made_whole() {
    let mut stand = Stand::new(|_| {});
    let mut sender = Sender::new(&VP8, 1, MS(10), MS(10));
    stand.name(&[&sender]);
    stand.run(&mut [&mut sender], MS(4_500));
    let folder = stand.kill();
    let path = folder.only(".mkv");
    decodes(&path);
    let seen = pictures(&path).len() as f64;
    // All but the second that was not handed on.
    assert!(seen * PICTURE_MS >= 3_000.0, "{seen} pictures");
    assert!(probe(&path)["format"]["duration"].is_null(), "it has no length yet");
    folder.finish();
    decodes(&path);
    assert!((duration_ms(&path) - pictures(&path).last().unwrap().0).abs() < 2.0 * PICTURE_MS);
    let manifest = folder.manifest();
    assert_eq!((manifest.state, manifest.reason), (Progress::Finished, Some(EndReason::Failed)));
    assert!(manifest.files.iter().all(|file| file.complete));
}

#[test]
fn a_disk_that_is_nearly_full_ends_it_cleanly() {
    let mut stand = Stand::new(|_| {});
    let mut sender = Sender::new(&VP8, 1, MS(10), MS(10));
    stand.name(&[&sender]);
    stand.run(&mut [&mut sender], MS(1_500));
    let before = pictures(&stand.end(EndReason::DiskFull).only(".mkv")).len();
    assert!(before > 10);
    // And by itself: more free space is asked for than any disk has.
    let mut stand = Stand::new(|settings| settings.disk_free_min_bytes = u64::MAX);
    stand.name(&[&sender]);
    stand.wait_for(|said| said.contains(&FromRecorder::Ended { reason: EndReason::DiskFull }));
    let manifest = stand.close().manifest();
    assert_eq!((manifest.state, manifest.reason), (Progress::Finished, Some(EndReason::DiskFull)));
}

#[test]
fn a_recording_that_is_too_large_ends_itself_and_is_whole() {
    let mut stand = Stand::new(|settings| settings.bytes_max = 6_000);
    let mut sender = Sender::new(&VP8, 1, MS(10), MS(10));
    stand.name(&[&sender]);
    stand.run(&mut [&mut sender], MS(3_500));
    stand.wait_for(|said| said.contains(&FromRecorder::Ended { reason: EndReason::TooLarge }));
    let folder = stand.close();
    decodes(&folder.only(".mkv"));
    assert_eq!(folder.manifest().reason, Some(EndReason::TooLarge));
}

#[test]
fn a_track_costs_little() {
    /// Of one core, in an unoptimised build on a machine that has other work.
    const SHARE_MAX: f64 = 0.03;
    gst::init().unwrap();
    let clip = Clip::heavy();
    let mut stand = Stand::new(|_| {});
    let mut senders: Vec<Sender> = (0..8).map(|n| Sender::new(&clip, 10 * n + 1, MS(10), MS(10))).collect();
    stand.name(&senders.iter().collect::<Vec<_>>());
    let mut all: Vec<&mut Sender> = senders.iter_mut().collect();
    stand.run(&mut all, MS(2_000));
    let before = stand.said.len();
    stand.run(&mut all, MS(6_000));
    let figures = stand.said[before..].iter().filter_map(|said| match said {
        FromRecorder::Figures(figures) => Some(figures),
        _ => None,
    });
    let (count, cpu_ms, bytes, rss) =
        figures.fold((0_u32, 0_u64, 0_u64, 0_u64), |(count, cpu_ms, bytes, _), figures| {
            (count + 1, cpu_ms + figures.cpu_ms, bytes + figures.bytes, figures.rss_bytes)
        });
    let share = cpu_ms as f64 / 1_000.0 / f64::from(count) / 16.0;
    println!(
        "{count} s of 8 pictures and 8 sounds: {:.2} % of a core a track, {} kB/s in all, {} MiB resident",
        share * 100.0,
        bytes / 1_000 / u64::from(count),
        rss >> 20
    );
    assert!(count >= 4 && share < SHARE_MAX);
    let folder = stand.end(EndReason::Stopped);
    decodes(&folder.path.join("p0-camera-1.mkv"));
}

#[test]
fn a_track_that_goes_ends_its_file_and_chapters_and_chat_lie_beside_it() {
    let mut stand = Stand::new(|_| {});
    let mut one = Sender::new(&VP8, 1, MS(10), MS(10));
    let mut other = Sender::new(&VP8, 11, MS(10), MS(10));
    stand.name(&[&one, &other]);
    stand.say(&ToRecorder::Chapter { at_ms: unix_ms(), title: "Ada <joins>".into() });
    stand.run(&mut [&mut one, &mut other], MS(2_700));
    stand.name(&[&other]);
    let chat = |id: &str, text: &str| ToRecorder::Chat {
        id: id.into(),
        at_ms: unix_ms(),
        name: "Ada".into(),
        text: text.into(),
    };
    stand.say(&chat("1", "hello"));
    stand.say(&chat("2", "gone"));
    stand.say(&chat("2", ""));
    stand.say(&ToRecorder::Chapter { at_ms: unix_ms(), title: "Ada leaves".into() });
    stand.run(&mut [&mut one, &mut other], MS(1_500));
    let folder = stand.end(EndReason::Empty);
    let manifest = folder.manifest();
    let length = |name: &str| {
        let file = manifest.files.iter().find(|file| file.name == name).unwrap();
        file.end_ms - file.start_ms
    };
    assert!(length("p0-camera-1.mkv") + 1_000 < length("p1-camera-11.mkv"), "{manifest:?}");
    let chat = std::fs::read_to_string(folder.path.join("chat.vtt")).unwrap();
    assert!(chat.contains("<v Ada>hello") && !chat.contains("gone"), "{chat}");
    let output = folder.path.join("all.mkv");
    let program = env!("CARGO_BIN_EXE_antiphon");
    let remux = |output: &Path| {
        Command::new(program).arg("remux").arg(&folder.path).arg("--output").arg(output).output().unwrap()
    };
    let made = remux(&output);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let probed = probe(&output);
    let kinds: Vec<&str> =
        probed["streams"].as_array().unwrap().iter().map(|s| s["codec_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["video", "video", "audio", "audio", "subtitle"]);
    let titles: Vec<&str> =
        probed["chapters"].as_array().unwrap().iter().map(|c| c["tags"]["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["Ada <joins>", "Ada leaves"]);
    decodes(&output);
    assert!(apart_ms(&flashes(&pictures(&output)), &beeps(&samples(&output))).abs() <= APART_MS_MAX);
    let refused = remux(&folder.path.join("all.mp4"));
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && words.contains("VP8"), "{words}");
}

/// Times of all frames of a stream that decode.
fn frame_times_ms(path: &Path, stream: &str) -> Vec<f64> {
    let path = path.to_str().unwrap();
    let show = ["-show_entries", "frame=pts_time", "-of", "csv=p=0"];
    let said =
        stand::ffmpeg("ffprobe", &[&["-v", "error", "-select_streams", stream], &show[..], &[path]].concat());
    let said = String::from_utf8(said).unwrap();
    let times = said.lines().map(|line| line.trim_end_matches(',')).filter(|line| !line.is_empty());
    times.map(|line| line.parse::<f64>().unwrap() * 1_000.0).collect()
}

#[test]
fn what_mp4_takes_is_remuxed_into_it_in_step() {
    let clip = coded(Codec::H264);
    let mut stand = Stand::new(|_| {});
    let mut sender = Sender::new(&clip, 1, MS(10), MS(10));
    stand.name(&[&sender]);
    stand.say(&ToRecorder::Chapter { at_ms: unix_ms(), title: "Begin".into() });
    stand.run(&mut [&mut sender], MS(3_500));
    let folder = stand.end(EndReason::Stopped);
    let output = folder.path.join("all.mp4");
    let program = env!("CARGO_BIN_EXE_antiphon");
    let made = Command::new(program).arg("remux").arg(&folder.path).arg("--output").arg(&output).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let probed = probe(&output);
    let codecs: Vec<&str> =
        probed["streams"].as_array().unwrap().iter().map(|s| s["codec_name"].as_str().unwrap()).collect();
    assert_eq!(codecs[..2], ["h264", "opus"], "{probed}");
    assert_eq!(probed["chapters"][0]["tags"]["title"], "Begin");
    // All that was recorded is in it, each at its time, pictures and sound.
    for (stream, recorded) in [("v:0", folder.only(".mkv")), ("a:0", folder.only(".mka"))] {
        let (before, after) = (frame_times_ms(&recorded, stream), frame_times_ms(&output, stream));
        assert_eq!(before.len(), after.len(), "{stream}");
        let apart = before.iter().zip(&after).map(|(before, after)| (before - after).abs());
        let most = apart.fold(0.0, f64::max);
        assert!(most <= 8.0, "{stream}: {most} ms, {:?} {:?}", &before[..3], &after[..3]);
    }
}
