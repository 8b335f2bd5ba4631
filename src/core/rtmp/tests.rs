//! Chunks in every order, values of every kind, and nonsense.

use proptest::prelude::*;

use super::*;

fn text(value: &str) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value.as_bytes());
    bytes
}

/// A command without more.
fn command(name: &str) -> Vec<u8> {
    [text(name), vec![0; 9], vec![5]].concat()
}

/// A header of format 0.
fn full(id: u8, at_ms: u32, length: usize, kind: u8) -> Vec<u8> {
    let mut bytes = vec![id];
    bytes.extend(&at_ms.to_be_bytes()[1..]);
    bytes.extend(&(length as u32).to_be_bytes()[1..]);
    bytes.extend([kind, 1, 0, 0, 0]);
    bytes
}

fn read(chunks: &mut Chunks, bytes: &[u8]) -> Result<Vec<Message>, RtmpFault> {
    chunks.push(bytes);
    let mut messages = Vec::new();
    while let Some(message) = chunks.poll()? {
        messages.push(message);
    }
    Ok(messages)
}

#[test]
fn messages_whose_chunks_come_between_each_others_are_told_apart() {
    let (sound, picture) = ([1; 200], [2; 300]);
    let bytes = [
        [full(4, 40, 200, 8), sound[..128].to_vec()].concat(),
        [full(6, 41, 300, 9), picture[..128].to_vec()].concat(),
        [vec![0xc4], sound[128..].to_vec()].concat(),
        [vec![0xc6], picture[128..256].to_vec()].concat(),
        [vec![0xc6], picture[256..].to_vec()].concat(),
    ]
    .concat();
    // However the network cuts them.
    for step in [1, 7, bytes.len()] {
        let mut chunks = Chunks::default();
        let read = bytes.chunks(step).flat_map(|bytes| read(&mut chunks, bytes).unwrap());
        let read: Vec<_> = read.map(|message| (message.at_ms, message.kind, message.body)).collect();
        assert_eq!(read, [(40, 8, sound.to_vec()), (41, 9, picture.to_vec())]);
        assert_eq!(chunks.streams.unfinished, 0);
    }
}

#[test]
fn times_are_whole_differences_and_long() {
    let bytes = [
        [full(4, 1_000, 1, 8), vec![1]].concat(),
        // A difference, with the length as before; then nothing: as before.
        vec![0x84, 0, 0, 20, 1],
        vec![0xc4, 1],
        // One that has more than 24 bits, and what goes on of it.
        [full(6, EXTENDED, 130, 9), 0x0100_0000_u32.to_be_bytes().to_vec(), vec![2; 128]].concat(),
        [vec![0xc6], 0x0100_0000_u32.to_be_bytes().to_vec(), vec![2; 2]].concat(),
    ]
    .concat();
    let messages = read(&mut Chunks::default(), &bytes).unwrap();
    let times: Vec<u32> = messages.iter().map(|message| message.at_ms).collect();
    assert_eq!(times, [1_000, 1_020, 1_040, 0x0100_0000]);
}

#[test]
fn the_size_of_chunks_and_what_is_given_up_are_seen_to_here() {
    let mut chunks = Chunks::default();
    let size = [full(2, 0, 4, SET_CHUNK_SIZE), 5_000_u32.to_be_bytes().to_vec()].concat();
    assert_eq!(read(&mut chunks, &size).unwrap(), []);
    let whole = [full(4, 0, 4_000, 9), vec![3; 4_000]].concat();
    assert_eq!(read(&mut chunks, &whole).unwrap().len(), 1);
    let begun = [full(4, 0, 9_000, 9), vec![3; 5_000]].concat();
    let abort = [full(2, 0, 4, ABORT), 4_u32.to_be_bytes().to_vec()].concat();
    assert_eq!(read(&mut chunks, &[begun, abort, whole].concat()).unwrap().len(), 1);
    assert_eq!(chunks.streams.unfinished, 0);
    for size in [0, 1 << 31] {
        let size = [full(2, 0, 4, SET_CHUNK_SIZE), u32::to_be_bytes(size).to_vec()].concat();
        assert_eq!(read(&mut Chunks::default(), &size), Err(RtmpFault::ChunkSize));
    }
}

#[test]
fn what_would_break_a_trusting_reader_does_not_reach_it() {
    // A message within another on the same chunk stream.
    let torn = [full(4, 0, 200, 9), vec![0; 128], full(4, 0, 10, 9), vec![0; 10]].concat();
    assert_eq!(read(&mut Chunks::default(), &torn), Err(RtmpFault::Torn));
    assert_eq!(read(&mut Chunks::default(), &[0xc4]), Err(RtmpFault::NoHeader));
    // A command of one value, and objects in objects without end.
    let deep = [command("x"), [3, 0, 1, b'a'].repeat(4_000)].concat();
    let arrays = [command("x"), [10, 0, 0, 0, 1].repeat(4_000)].concat();
    for body in [text("connect"), deep, arrays, vec![], vec![2, 255, 255], vec![77]] {
        for kind in [COMMAND, COMMAND_AMF3] {
            let size = [full(2, 0, 4, SET_CHUNK_SIZE), 0xff_ffff_u32.to_be_bytes().to_vec()].concat();
            let bytes = [size, full(3, 0, body.len(), kind), body.clone()].concat();
            assert_eq!(read(&mut Chunks::default(), &bytes), Err(RtmpFault::Values));
        }
    }
    let bytes = [full(3, 0, 0, COMMAND), full(3, 0, 0, 8)].concat();
    assert_eq!(read(&mut Chunks::default(), &bytes), Err(RtmpFault::Values));
}

#[test]
fn memory_is_bounded() {
    let mut chunks = Chunks::default();
    const CHUNK: usize = 1 << 20;
    read(&mut chunks, &[full(2, 0, 4, SET_CHUNK_SIZE), (CHUNK as u32).to_be_bytes().to_vec()].concat())
        .unwrap();
    // Two messages of 16 MiB, a chunk of each in turn.
    let begun = [3, 4].map(|id| [full(id, 0, 0xff_ffff, 9), vec![0; CHUNK]].concat()).concat();
    read(&mut chunks, &begun).unwrap();
    let both = [0xc3, 0xc4].map(|head| [vec![head], vec![0; CHUNK]].concat()).concat();
    let ended = (0..16).find_map(|_| read(&mut chunks, &both).err());
    assert_eq!(ended, Some(RtmpFault::TooMuch));
    let many: Vec<u8> = (3..=63).chain([3]).flat_map(|id| [full(id, 0, 1, 9), vec![0]].concat()).collect();
    assert_eq!(read(&mut Chunks::default(), &many).unwrap().len(), 62);
    let more = (0..10).flat_map(|id: u8| [vec![0, id], full(0, 0, 1, 9)[1..].to_vec(), vec![0]].concat());
    let mut chunks = Chunks::default();
    read(&mut chunks, &many).unwrap();
    assert_eq!(read(&mut chunks, &more.collect::<Vec<u8>>()), Err(RtmpFault::TooMuch));
}

#[test]
fn a_message_is_written_as_it_is_read() {
    let mut chunks = Chunks::default();
    let mut bytes = Vec::new();
    Message::in_one_chunk().write(&mut bytes);
    let messages = [0, 7, EXTENDED - 1, EXTENDED, u32::MAX].map(|at_ms| {
        let message = Message { at_ms, kind: 9, stream: 1, body: vec![4; 70_000] };
        message.write(&mut bytes);
        message
    });
    assert_eq!(read(&mut chunks, &bytes).unwrap(), messages);
}

proptest! {
    #[test]
    fn nonsense_does_no_harm(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)
    ) {
        let mut chunks = Chunks::default();
        for piece in pieces {
            if read(&mut chunks, &piece).is_err() {
                break;
            }
        }
    }

    #[test]
    fn any_values_are_counted_or_refused(bytes in prop::collection::vec(prop::sample::select(
        &[0u8, 1, 2, 3, 5, 6, 8, 9, 10, b'a', 255][..]), 0..400)) {
        count_values(&bytes);
    }
}
