//! A stream's template dependency structure, which comes with its key frames (section A.8.2): its layers, its
//! decode targets, and what each kind of frame needs.

use super::super::bits::Bits;
use super::super::{Resolution, SPATIAL_LAYERS_MAX};

const TEMPLATES_MAX: usize = 64;
pub(super) const TEMPLATE_IDS: u8 = 64;
/// Farthest reference that is remembered, in frames; an encoder keeps eight frames.
const REFERENCE_MAX: u32 = 128;
/// Most references one frame may name; AV1 has seven.
const REFERENCES_MAX: usize = 16;

/// How a frame matters to one decode target (table A.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Indication {
    NotPresent = 0,
    Discardable = 1,
    Switch = 2,
    Required = 3,
}

/// The indications for up to 32 decode targets, two bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indications(u64);

impl Indications {
    #[inline]
    pub fn of(self, target: u8) -> Indication {
        match self.0 >> (u32::from(target & 31) * 2) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    pub(super) fn read(bits: &mut Bits<'_>, targets: u8) -> Option<Self> {
        let mut all = 0;
        for target in 0..u32::from(targets) {
            all |= u64::from(bits.number(2)?) << (target * 2);
        }
        Some(Self(all))
    }
}

/// Frames that a frame needs, by how many frame numbers they lie back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct References {
    /// Bit `n` is set for the frame `n + 1` before.
    pub back: u128,
    /// Some reference lies farther back than is remembered.
    pub beyond: bool,
}

impl References {
    /// The references of a frame that has its own (`frame_fdiffs`).
    pub(super) fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let mut references = Self::default();
        for _ in 0..=REFERENCES_MAX {
            match bits.number(2)? {
                0 => return Some(references),
                size => references.add(bits.number(4 * size)? + 1),
            }
        }
        None
    }

    fn add(&mut self, distance: u32) {
        match distance {
            1..=REFERENCE_MAX => self.back |= 1 << (distance - 1),
            _ => self.beyond = true,
        }
    }
}

/// A decode target: what a receiver that takes it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeTarget {
    pub spatial: u8,
    pub temporal: u8,
    /// Decode targets (bit n for target n) whose every frame is among this one's.
    pub covers: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) spatial: u8,
    pub(super) temporal: u8,
    pub(super) indications: Indications,
    pub(super) references: References,
}

/// A stream's template dependency structure (section A.8.2).
#[derive(Debug, PartialEq, Eq)]
pub struct Structure {
    /// `template_id_offset`
    pub offset: u8,
    pub targets: Vec<DecodeTarget>,
    pub resolutions: [Option<Resolution>; SPATIAL_LAYERS_MAX],
    templates: Vec<Template>,
}

impl Structure {
    pub(super) fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let offset = bits.number(6)? as u8;
        let target_count = bits.number(5)? as u8 + 1;
        let mut templates = read_layers(bits)?;
        for template in &mut templates {
            template.indications = Indications::read(bits, target_count)?;
        }
        for template in &mut templates {
            for named in 0.. {
                if !bits.flag()? {
                    break;
                }
                if named == REFERENCES_MAX {
                    return None;
                }
                template.references.add(bits.number(4)? + 1);
            }
        }
        skip_chains(bits, target_count, templates.len())?;
        let mut resolutions = [None; SPATIAL_LAYERS_MAX];
        let highest = templates.last().map_or(0, |template| template.spatial);
        if bits.flag()? {
            for layer in 0..=highest {
                let (width, height) = (bits.number(16)?, bits.number(16)?);
                if let Some(size) = resolutions.get_mut(usize::from(layer)) {
                    *size = Some(Resolution {
                        width: u16::try_from(width + 1).unwrap_or(u16::MAX),
                        height: u16::try_from(height + 1).unwrap_or(u16::MAX),
                    });
                }
            }
        }
        let targets =
            (0..target_count).map(|target| describe_target(&templates, target, target_count)).collect();
        Some(Self { offset, targets, resolutions, templates })
    }

    pub fn target_count(&self) -> u8 {
        // Five bits on the wire, plus one.
        self.targets.len() as u8
    }

    pub fn template_count(&self) -> u8 {
        self.templates.len() as u8
    }

    /// A mask with all decode targets active.
    pub fn all_targets(&self) -> u32 {
        u32::MAX >> (32 - u32::from(self.target_count().clamp(1, 32)))
    }

    /// The highest active decode target that goes neither above `spatial` nor above `temporal`; failing that,
    /// the lowest that is active.
    pub fn choose(&self, spatial: u8, temporal: u8, active: u32) -> Option<u8> {
        let rank = |&(_, target): &(u8, &DecodeTarget)| (target.spatial, target.temporal);
        let active = || (0..).zip(&self.targets).filter(|(index, _)| active >> index & 1 == 1);
        active()
            .filter(|(_, target)| target.spatial <= spatial && target.temporal <= temporal)
            .max_by_key(rank)
            .or_else(|| active().min_by_key(rank))
            .map(|(index, _)| index)
    }

    pub(super) fn template(&self, id: u8) -> Option<&Template> {
        self.templates.get(usize::from(id.wrapping_sub(self.offset) % TEMPLATE_IDS))
    }
}

fn read_layers(bits: &mut Bits<'_>) -> Option<Vec<Template>> {
    const NEXT_TEMPORAL: u32 = 1;
    const NEXT_SPATIAL: u32 = 2;
    const NO_MORE: u32 = 3;
    let mut templates = Vec::new();
    let (mut spatial, mut temporal) = (0_u8, 0_u8);
    loop {
        if templates.len() == TEMPLATES_MAX {
            return None;
        }
        let (indications, references) = (Indications::default(), References::default());
        templates.push(Template { spatial, temporal, indications, references });
        match bits.number(2)? {
            NEXT_TEMPORAL => temporal += 1,
            NEXT_SPATIAL => (spatial, temporal) = (spatial + 1, 0),
            NO_MORE => return Some(templates),
            _ => {}
        }
    }
}

fn skip_chains(bits: &mut Bits<'_>, target_count: u8, template_count: usize) -> Option<()> {
    let chains = bits.non_symmetric(u32::from(target_count) + 1)?;
    if chains > 0 {
        for _ in 0..target_count {
            bits.non_symmetric(chains)?;
        }
        bits.skip(4 * chains as usize * template_count)?;
    }
    Some(())
}

fn describe_target(templates: &[Template], target: u8, target_count: u8) -> DecodeTarget {
    let present = |template: &Template, target| template.indications.of(target) != Indication::NotPresent;
    let frames = || templates.iter().filter(|template| present(template, target));
    let covers = (0..target_count)
        .filter(|&other| templates.iter().all(|frame| !present(frame, other) || present(frame, target)))
        .fold(0, |mask, other| mask | 1 << other);
    DecodeTarget {
        spatial: frames().map(|template| template.spatial).max().unwrap_or(0),
        temporal: frames().map(|template| template.temporal).max().unwrap_or(0),
        covers,
    }
}
