//! The dependency descriptor, a header extension that says which layer a frame is of and which frames it
//! needs (AV1 RTP specification, appendix A). Any codec may carry one.
//!
//! A stream's [`Structure`] comes with its key frames and is kept by the [`DependencyReader`] of that stream;
//! the other packets refer to it. All numbers here are the sender's; [`Rewrite`] gives a packet new ones.

mod structure;

use std::sync::Arc;

use smallvec::SmallVec;
use structure::TEMPLATE_IDS;
pub use structure::{DecodeTarget, Indication, Indications, References, Structure};

use super::FrameInfo;
use super::bits::Bits;

/// URI by which the extension is negotiated.
pub const URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
/// Longest descriptor that is read: what a two-byte header extension holds (RFC 8285 section 4.3).
pub const DESCRIPTOR_BYTES_MAX: usize = 255;

/// The extension's bytes as they are on the wire, carried as a user value of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescriptorBytes(SmallVec<[u8; 16]>);

impl DescriptorBytes {
    /// At most [`DESCRIPTOR_BYTES_MAX`] are kept; more cannot have come in one extension.
    pub fn new(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes.get(..DESCRIPTOR_BYTES_MAX).unwrap_or(bytes)))
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Where the frame of a packet stands in its stream, known once the stream's structure is.
#[derive(Debug, Clone)]
pub struct FrameDependency {
    pub spatial: u8,
    pub temporal: u8,
    pub indications: Indications,
    pub references: References,
    pub structure: Arc<Structure>,
    /// Decode targets that the sender now produces.
    pub active: u32,
}

/// One packet's dependency descriptor.
#[derive(Debug, Clone)]
pub struct DependencyDescriptor {
    pub start_of_frame: bool,
    pub end_of_frame: bool,
    pub template_id: u8,
    pub frame_number: u16,
    /// The packet carries the structure: it is the first of a coded video sequence, a key frame.
    pub attached: bool,
    /// `None` for a packet that came before the structure it refers to (lost, or overtaken).
    pub frame: Option<FrameDependency>,
    bytes: DescriptorBytes,
    /// Where the active decode targets stand in `bytes`, or would, in bits.
    mask_at: u16,
    mask_present: bool,
}

impl DependencyDescriptor {
    /// The descriptor as it came in.
    pub fn bytes(&self) -> &DescriptorBytes {
        &self.bytes
    }

    pub(super) fn describe(&self, info: &mut FrameInfo) {
        info.start_of_frame = self.start_of_frame;
        info.end_of_frame = self.end_of_frame;
        info.keyframe |= self.attached && self.start_of_frame;
        let Some(frame) = &self.frame else { return };
        info.spatial = Some(frame.spatial);
        info.temporal = Some(frame.temporal);
        if self.attached && frame.structure.resolutions[0].is_some() {
            info.resolutions = frame.structure.resolutions;
        }
    }

    /// The descriptor with other numbers, and the active decode targets said where `active` asks for it.
    pub fn rewrite(&self, change: Rewrite) -> DescriptorBytes {
        let mut out = self.bytes.clone();
        if let Some(active) = change.active
            && let Some(frame) = &self.frame
        {
            let masked = self.with_mask(active, frame.structure.target_count());
            if masked.0.len() <= DESCRIPTOR_BYTES_MAX {
                out = masked;
            }
        }
        let bytes = &mut out.0;
        if let [first, high, low, rest @ ..] = &mut bytes[..] {
            let id = (self.template_id + change.template_shift) % TEMPLATE_IDS;
            *first = *first & 0xc0 | id;
            [*high, *low] = change.frame_number.to_be_bytes();
            if self.attached
                && let [flags, more, ..] = rest
            {
                let offset = (*flags & 0x07) << 3 | *more >> 5;
                let offset = (offset + change.template_shift) % TEMPLATE_IDS;
                *flags = *flags & 0xf8 | offset >> 3;
                *more = *more & 0x1f | offset << 5;
            }
        }
        out
    }

    /// Puts `active` where the mask is, or inserts it.
    fn with_mask(&self, active: u32, targets: u8) -> DescriptorBytes {
        const MANDATORY_BITS: usize = 24;
        const FLAG_BITS: usize = 5;
        const MASK_PRESENT: u32 = 0b01000;
        let old = &self.bytes.0;
        let extended = old.len() * 8 > MANDATORY_BITS;
        let width = u32::from(targets);
        let mut bits = Bits::new(old);
        let mut out = BitWriter::default();
        out.copy(&mut bits, MANDATORY_BITS);
        let flags = if extended { bits.number(FLAG_BITS as u32).unwrap_or(0) } else { 0 };
        out.push(flags | MASK_PRESENT, FLAG_BITS as u32);
        if extended {
            out.copy(&mut bits, usize::from(self.mask_at).saturating_sub(MANDATORY_BITS + FLAG_BITS));
            if self.mask_present {
                bits.skip(width as usize);
            }
        }
        out.push(active, width);
        if extended {
            out.copy(&mut bits, usize::MAX);
        }
        DescriptorBytes(out.bytes)
    }
}

/// New numbers for a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    pub frame_number: u16,
    /// Added to template ids and to their offset, modulo 64.
    pub template_shift: u8,
    /// Decode targets that are forwarded, where that has to be said.
    pub active: Option<u32>,
}

#[derive(Default)]
struct BitWriter {
    bytes: SmallVec<[u8; 16]>,
    length: usize,
}

impl BitWriter {
    fn push(&mut self, value: u32, width: u32) {
        for bit in (0..width).rev() {
            self.push_bit(value >> bit & 1 == 1);
        }
    }

    fn push_bit(&mut self, bit: bool) {
        if self.length.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (7 - self.length % 8);
        }
        self.length += 1;
    }

    fn copy(&mut self, from: &mut Bits<'_>, bits: usize) {
        for _ in 0..bits {
            let Some(bit) = from.flag() else { break };
            self.push_bit(bit);
        }
    }
}

/// Reads the descriptors of one stream (one SSRC), in the order of their arrival.
#[derive(Debug, Default)]
pub struct DependencyReader {
    current: Option<Arc<Structure>>,
    /// For packets of before the last key frame that arrive after it.
    previous: Option<Arc<Structure>>,
    active: u32,
    /// Frame number that last changed the structure or the mask; an older packet must not change them back.
    changed_at: u16,
}

impl DependencyReader {
    /// `None` where the bytes are no descriptor.
    pub fn read(&mut self, bytes: &[u8]) -> Option<DependencyDescriptor> {
        if bytes.len() > DESCRIPTOR_BYTES_MAX {
            return None;
        }
        let mut bits = Bits::new(bytes);
        let mut descriptor = DependencyDescriptor {
            start_of_frame: bits.flag()?,
            end_of_frame: bits.flag()?,
            template_id: bits.number(6)? as u8,
            frame_number: bits.number(16)? as u16,
            attached: false,
            frame: None,
            bytes: DescriptorBytes::new(bytes),
            mask_at: 0,
            mask_present: false,
        };
        let extended = bytes.len() > 3;
        let mut custom = Custom::default();
        if extended {
            descriptor.attached = bits.flag()?;
            descriptor.mask_present = bits.flag()?;
            custom = Custom { indications: bits.flag()?, references: bits.flag()? };
            bits.skip(1)?;
            if descriptor.attached {
                let structure = Arc::new(Structure::read(&mut bits)?);
                self.attach(structure, descriptor.frame_number);
            }
            descriptor.mask_at = u16::try_from(bits.position()).ok()?;
        }
        let structure = [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .find(|structure| structure.template(descriptor.template_id).is_some())
            .cloned();
        if let Some(structure) = structure {
            descriptor.frame = Some(self.read_frame(&mut bits, &descriptor, custom, structure)?);
        }
        Some(descriptor)
    }

    fn attach(&mut self, structure: Arc<Structure>, frame_number: u16) {
        let late = self.current.is_some() && is_before(frame_number, self.changed_at);
        if late {
            return;
        }
        self.active = structure.all_targets();
        self.changed_at = frame_number;
        // Each packet of a key frame may bring it: only the first makes the former one the previous.
        if self.current.as_ref() != Some(&structure) {
            self.previous = self.current.replace(structure);
        }
    }

    fn read_frame(
        &mut self,
        bits: &mut Bits<'_>,
        descriptor: &DependencyDescriptor,
        custom: Custom,
        structure: Arc<Structure>,
    ) -> Option<FrameDependency> {
        if descriptor.mask_present {
            let mask = bits.number(u32::from(structure.target_count()))?;
            if !is_before(descriptor.frame_number, self.changed_at) {
                self.active = mask;
                self.changed_at = descriptor.frame_number;
            }
        }
        let template = *structure.template(descriptor.template_id)?;
        let indications = if custom.indications {
            Indications::read(bits, structure.target_count())?
        } else {
            template.indications
        };
        let references = if custom.references { References::read(bits)? } else { template.references };
        Some(FrameDependency {
            spatial: template.spatial,
            temporal: template.temporal,
            indications,
            references,
            active: self.active,
            structure,
        })
    }
}

#[derive(Default, Clone, Copy)]
struct Custom {
    indications: bool,
    references: bool,
}

fn is_before(a: u16, b: u16) -> bool {
    a != b && b.wrapping_sub(a) < 0x8000
}

#[cfg(test)]
pub(in crate::core) mod tests;
