//! Films that lie on their side, as phones write them, and how they are shown.

use std::path::{Path, PathBuf};

use antiphon::core::feed::ToFeed;
use antiphon::core::payload::Codec;

use super::{FOLDER, Feed, is_like, rgb, shrunk, written};
use crate::stand::ffmpeg;

/// A still of four colours, one in each corner, lying on its side as a phone writes it.
fn held(name: &str, degrees: &str, coding: &[&str]) -> PathBuf {
    let (lying, turned) = (FOLDER.path().join(format!("lying-{name}")), FOLDER.path().join(name));
    let corner = |colour: &str| format!("color={colour}:s=160x90:r=25:d=1");
    let rows = ["red", "lime", "blue", "white"].map(corner);
    let picture = format!(
        "{}[a];{}[b];{}[c];{}[d];[a][b]hstack[e];[c][d]hstack[f];[e][f]vstack",
        rows[0], rows[1], rows[2], rows[3]
    );
    let path = lying.to_str().unwrap();
    let made = ["-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-pix_fmt", "yuv420p"];
    ffmpeg("ffmpeg", &[&made[..], coding, &[path]].concat());
    let rotate = format!("rotate={degrees}");
    let copied = ["-v", "error", "-y", "-i", path, "-c", "copy", "-metadata:s:v:0", &rotate];
    ffmpeg("ffmpeg", &[&copied[..], &[turned.to_str().unwrap()]].concat());
    turned
}

#[test]
fn a_film_of_a_phone_is_shown_as_it_was_held() {
    let coding = ["-c:v", "libx264", "-bf", "0", "-g", "25", "-preset", "ultrafast"];
    for degrees in ["0", "90", "180", "270"] {
        let path = held(&format!("held-{degrees}.mp4"), degrees, &coding);
        let (mut feed, media) = Feed::ready(&path);
        assert_eq!(media.is_copied, degrees == "0", "what is upright goes as it is");
        feed.say(&ToFeed::Start);
        feed.plays_to_its_end();
        let units = feed.pictures(0);
        let codec = if media.is_copied { Codec::H264 } else { Codec::Vp8 };
        let shown = written(codec, &units);
        let corners = |path: &Path| -> Vec<[u8; 3]> {
            shrunk(path, "scale=2:2:flags=area").chunks_exact(3).take(4).map(rgb).collect()
        };
        let (seen, expected) = (corners(shown.path()), corners(&path));
        assert!(
            seen.iter().zip(&expected).all(|(seen, expected)| is_like(*seen, *expected)),
            "turned by {degrees}: {seen:?}, and not {expected:?}"
        );
        let show = ["-v", "error", "-read_intervals", "%+#1", "-show_entries", "frame=width,height"];
        let told =
            ffmpeg("ffprobe", &[&show[..], &["-of", "csv=p=0", shown.path().to_str().unwrap()]].concat());
        let told = String::from_utf8(told).unwrap();
        let upright = if matches!(degrees, "0" | "180") { "320,180" } else { "180,320" };
        assert!(told.starts_with(upright), "turned by {degrees}: {told}");
    }
}
