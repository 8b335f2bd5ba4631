/** The client as a library: joins a room, and keeps joined. Needs a browser's WebRTC, but no page. */
export type { Outgoing, OutgoingState } from './chat';
export { Comparison, type Measured } from './comparison';
export type { Chat } from './conversation';
export {
  type DeviceChoice,
  DeviceProblem,
  type Devices,
  listDevices,
  openCamera,
  openMicrophone,
  openScreen,
} from './devices';
export { asRefused, type RefusalCode, Refused } from './errors';
export type { RoomEvents, RoomOptions, ServerStats, Status } from './events';
export type { Files } from './files';
export { LocalMedia, type LocalTrack } from './local';
export {
  type Bought,
  type Challenge,
  type Claim,
  type ContentRef,
  type Invoice,
  type Offer,
  type Payment,
  Payments,
  type Payout,
  type Period,
  type Rail,
  type Subscriber,
  type Ticket,
} from './payments';
export { SLOTS_DEFAULT, type SlotCounts, VIDEO_SLOTS_MAX } from './peer';
export { type Player, type PlayerChange, Players, positionOf } from './players';
export * from './protocol';
export { END_WORDS, type RecordedFile, type Recording, type Recordings } from './recordings';
export { Room } from './room';
export { createRoom, type NewRoom, presentIdentities } from './signaling';
export { MIXER, type Slot, type View, viewKey } from './slots';
export { SMALL_FILE_BYTES_MAX } from './small-files';
export { type Delivery, myGrant, type Snapshot, wantedMode } from './snapshot';
export { type Sample, StatsSampler, type StreamRate } from './stats';
export { hlsUrl, type Restream, Streams } from './streams';
export type { LeftBehind, Sending, SendingState } from './uploads';
