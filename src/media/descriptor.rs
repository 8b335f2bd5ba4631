//! The dependency descriptor header extension (AV1 RTP specification, appendix A), carried as opaque bytes.
//!
//! Core reads and rewrites them, and our own ingress and egress carry them; str0m negotiates the extension,
//! which it knows only by this.

use str0m::rtp::{ExtensionSerializer, ExtensionValues};

use crate::core::payload::DescriptorBytes;

/// A one-byte extension header holds no more (RFC 8285 §4.2).
const ONE_BYTE_FORM_MAX: usize = 16;

#[derive(Debug)]
pub struct DependencyDescriptorSerializer;

impl ExtensionSerializer for DependencyDescriptorSerializer {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(descriptor) = values.user_values.get::<DescriptorBytes>() else { return 0 };
        let bytes = descriptor.as_slice();
        let Some(room) = buf.get_mut(..bytes.len()) else { return 0 };
        room.copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(DescriptorBytes::new(buf));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        let descriptor = values.user_values.get::<DescriptorBytes>();
        descriptor.is_some_and(|bytes| bytes.as_slice().len() > ONE_BYTE_FORM_MAX)
    }
}
