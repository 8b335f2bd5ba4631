//! GStreamer graphs as text: one file in `pipelines/` for each stage, built into the binary.
//!
//! A graph is what `gst-launch-1.0` takes, with `{name}` for values and `#` lines for comments. It takes its
//! input at an `appsrc` called `in` and gives its output at an `appsink` called `out`.

use std::collections::BTreeSet;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};

/// One step of the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    DecodeVp8,
    DecodeVp9,
    DecodeH264,
    DecodeAv1,
    DecodeOpus,
    EncodeVp8,
    EncodeH264,
    /// By hardware, where there is any.
    EncodeH264Nvidia,
    EncodeH264Va,
    EncodeH264Vaapi,
    EncodeH264Quicksync,
    EncodeOpus,
    Label,
    /// Files.
    DecodePng,
    DecodeJpeg,
}

/// Why there is no graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error("GStreamer does not start: {0}")]
    NoGstreamer(gst::glib::Error),
    #[error("the graph {stage:?} cannot be built: {source}")]
    Broken { stage: Stage, source: gst::glib::Error },
    #[error("the graph {stage:?} has no element {name} of the right kind")]
    NoEnd { stage: Stage, name: &'static str },
    #[error("the graph {stage:?} does not run: {source}")]
    Stuck { stage: Stage, source: gst::StateChangeError },
    #[error("the graph {stage:?} gives nothing")]
    NoOutput { stage: Stage },
    #[error("no thread can be had: {0}")]
    NoThread(std::io::Error),
}

/// An element that a stage needs and this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    pub element: String,
    /// The Debian package that brings it.
    pub package: &'static str,
}

/// Debian's packages by the elements that they bring.
const PACKAGES: &[(&str, &[&str])] = &[
    ("gstreamer1.0-plugins-base", &["appsrc", "appsink", "videoconvert", "audioconvert", "audioresample"]),
    ("gstreamer1.0-plugins-base", &["opusenc", "opusdec"]),
    ("gstreamer1.0-plugins-good", &["rtpjitterbuffer", "rtpvp8depay", "rtpvp9depay", "rtph264depay"]),
    ("gstreamer1.0-plugins-good", &["rtpopusdepay", "vp8dec", "vp9dec", "vp8enc", "pngdec", "jpegdec"]),
    ("gstreamer1.0-plugins-bad", &["h264parse", "openh264enc", "openh264dec", "av1dec"]),
    ("gstreamer1.0-libav", &["avdec_h264"]),
    ("gstreamer1.0-x", &["textoverlay"]),
];

impl Stage {
    /// Those that mixing needs.
    pub const ALL: [Self; 11] = [
        Self::DecodeVp8,
        Self::DecodeVp9,
        Self::DecodeH264,
        Self::DecodeAv1,
        Self::DecodeOpus,
        Self::EncodeVp8,
        Self::EncodeH264,
        Self::EncodeOpus,
        Self::Label,
        Self::DecodePng,
        Self::DecodeJpeg,
    ];

    /// The best first.
    const HARDWARE: [Self; 4] =
        [Self::EncodeH264Nvidia, Self::EncodeH264Va, Self::EncodeH264Vaapi, Self::EncodeH264Quicksync];

    fn text(self) -> &'static str {
        match self {
            Self::DecodeVp8 => include_str!("../../pipelines/decode-vp8.txt"),
            Self::DecodeVp9 => include_str!("../../pipelines/decode-vp9.txt"),
            Self::DecodeH264 => include_str!("../../pipelines/decode-h264.txt"),
            Self::DecodeAv1 => include_str!("../../pipelines/decode-av1.txt"),
            Self::DecodeOpus => include_str!("../../pipelines/decode-opus.txt"),
            Self::EncodeVp8 => include_str!("../../pipelines/encode-vp8.txt"),
            Self::EncodeH264 => include_str!("../../pipelines/encode-h264.txt"),
            Self::EncodeH264Nvidia => include_str!("../../pipelines/encode-h264-nvidia.txt"),
            Self::EncodeH264Va => include_str!("../../pipelines/encode-h264-va.txt"),
            Self::EncodeH264Vaapi => include_str!("../../pipelines/encode-h264-vaapi.txt"),
            Self::EncodeH264Quicksync => include_str!("../../pipelines/encode-h264-quicksync.txt"),
            Self::EncodeOpus => include_str!("../../pipelines/encode-opus.txt"),
            Self::Label => include_str!("../../pipelines/label.txt"),
            Self::DecodePng => include_str!("../../pipelines/decode-png.txt"),
            Self::DecodeJpeg => include_str!("../../pipelines/decode-jpeg.txt"),
        }
    }

    /// Encodes by hardware.
    pub fn is_hardware(self) -> bool {
        Self::HARDWARE.contains(&self)
    }

    /// Ways to encode H.264 whose elements this machine has, the best first.
    pub fn h264_encoders() -> Vec<Self> {
        let exists = |name: &String| gst::ElementFactory::find(name).is_some();
        let all = Self::HARDWARE.into_iter().chain([Self::EncodeH264]);
        all.filter(|stage| stage.elements().iter().all(exists)).collect()
    }

    /// The element that is called `encoder`.
    pub fn encoder(self) -> Option<String> {
        let text = self.describe(&[]);
        let link = text.split('!').find(|link| link.contains("name=encoder"))?;
        link.split_whitespace().next().map(str::to_owned)
    }

    /// The graph's description, its values filled in.
    fn describe(self, values: &[(&str, &dyn std::fmt::Display)]) -> String {
        let lines = self.text().lines().filter(|line| !line.starts_with('#'));
        let text = lines.collect::<Vec<_>>().join(" ");
        values
            .iter()
            .fold(text, |text, (name, value)| text.replace(&format!("{{{name}}}"), &value.to_string()))
    }

    /// Names of the elements that it is made of.
    fn elements(self) -> BTreeSet<String> {
        let text = self.describe(&[]);
        let links = text.split('!').filter_map(|link| link.split_whitespace().next());
        links.filter(|name| !name.contains('/')).map(str::to_owned).collect()
    }
}

/// A graph that runs until it is dropped.
#[derive(Debug)]
pub struct Graph {
    pub pipeline: gst::Pipeline,
    pub input: AppSrc,
    pub output: AppSink,
}

impl Graph {
    /// Builds a stage with its values and lets it run.
    ///
    /// # Errors
    /// [`GraphError`]: an element is missing, the text or a value is wrong.
    pub fn start(stage: Stage, values: &[(&str, &dyn std::fmt::Display)]) -> Result<Self, GraphError> {
        let broken = |source| GraphError::Broken { stage, source };
        let element = gst::parse::launch(&stage.describe(values)).map_err(broken)?;
        let no_end = |name| GraphError::NoEnd { stage, name };
        let pipeline = element.downcast::<gst::Pipeline>().map_err(|_| no_end("pipeline"))?;
        let input = pipeline.by_name("in").and_then(|end| end.downcast().ok()).ok_or(no_end("in"))?;
        let output = pipeline.by_name("out").and_then(|end| end.downcast().ok()).ok_or(no_end("out"))?;
        let graph = Self { pipeline, input, output };
        let stuck = |source| GraphError::Stuck { stage, source };
        graph.pipeline.set_state(gst::State::Playing).map_err(stuck)?;
        Ok(graph)
    }

    /// Stops on a thread of its own: an element that hangs hangs whoever stops it.
    pub fn put_away(self) {
        // What it still gives is no news.
        self.output.set_callbacks(AppSinkCallbacks::builder().build());
        let burial = std::thread::Builder::new().name("burial".into()).spawn(move || drop(self));
        if let Err(error) = burial {
            tracing::error!(%error, "no thread to put a graph away");
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // A graph that does not stop has nothing that anyone waits for.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Loads GStreamer; once is enough.
///
/// # Errors
/// [`GraphError::NoGstreamer`].
pub fn start() -> Result<(), GraphError> {
    gst::init().map_err(GraphError::NoGstreamer)
}

/// Elements that the stages need and this machine lacks, after [`start`].
pub fn missing() -> Vec<Missing> {
    let needed: BTreeSet<String> = Stage::ALL.into_iter().flat_map(Stage::elements).collect();
    let missing = needed.into_iter().filter(|name| gst::ElementFactory::find(name).is_none());
    missing.map(|element| Missing { package: package_of(&element), element }).collect()
}

fn package_of(element: &str) -> &'static str {
    let found = PACKAGES.iter().find(|(_, elements)| elements.contains(&element));
    found.map_or("gstreamer1.0-plugins-bad", |(package, _)| package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_can_be_built_and_has_its_ends() {
        start().unwrap();
        assert_eq!(missing(), Vec::new());
        for stage in Stage::ALL {
            let values: [(&str, &dyn std::fmt::Display); 6] = [
                ("latency_ms", &40),
                ("width", &640),
                ("height", &360),
                ("frames_per_second", &30),
                ("bitrate_bps", &500_000),
                ("font_px", &20),
            ];
            let text = stage.describe(&values);
            assert!(!text.contains('{'), "{stage:?} wants a value that nobody gives: {text}");
            Graph::start(stage, &values).unwrap();
        }
    }

    #[test]
    fn encoders_are_known_by_their_elements() {
        start().unwrap();
        assert_eq!(Stage::EncodeVp8.encoder().as_deref(), Some("vp8enc"));
        assert_eq!(Stage::EncodeH264Nvidia.encoder().as_deref(), Some("nvh264enc"));
        assert_eq!(Stage::DecodeVp8.encoder(), None);
        assert_eq!(Stage::h264_encoders().last(), Some(&Stage::EncodeH264));
    }
}
