/**
 * The messages of the `control` data channel, protocol `antiphon.v1`.
 *
 * Generated from `src/core/protocol.rs`; do not edit. Rewrite it with
 * `UPDATE=1 cargo test --lib protocol_export`.
 */

export const PROTOCOL = 'antiphon.v1';
export const CONTROL_LABEL = 'control';
export const LOSSY_LABEL = 'lossy';
export const MESSAGE_BYTES_MAX = 65536;

/**
 * A room's name, as in its link: 3–64 characters of `[A-Za-z0-9_-]`.
 */
export type RoomName = string;

/**
 * Who a participant is within a room: a token's `sub`, or what a guest calls itself. Unique in the room.
 */
export type Identity = string;

/**
 * A chat message's id, made by its author so that sending it again is not a second message.
 */
export type MessageId = string;

/**
 * Forwarded as it is (SFU), or decoded and mixed (MCU).
 */
export type Mode = "sfu" | "mcu";

/**
 * Who may join without a token of the room.
 */
export type Access = "open" | "private";

export type Kind = "audio" | "video";

/**
 * What a track shows. Its name is the track's id within its participant.
 */
export type Source = "microphone" | "camera" | "screen" | "screen-audio" | "mix" | "mix-audio";

/**
 * How a picture of another shape is put into its area.
 */
export type Fit = "cover" | "contain";

/**
 * An opaque colour; in JSON `#rrggbb`.
 */
export type Colour = string;

/**
 * A place on the canvas for one picture, in thousandths of the canvas's width and height.
 */
export type LayoutBox = { x: number, y: number, width: number, height: number, 
/**
 * Kept free for this participant; absent, it is filled in the room's order.
 */
participant?: Identity, 
/**
 * Absent: screens are shown whole, cameras fill the box.
 */
fit?: Fit, };

/**
 * How a mixed picture is laid out. Pictures come in the room's order: who speaks now is first.
 */
export type Layout = { "kind": "grid" } | { "kind": "speaker" } | { "kind": "presenter" } | { "kind": "picture_in_picture" } | { "kind": "custom", boxes: Array<LayoutBox>, };

/**
 * Whether people are asked before they are recorded.
 */
export type ConsentRule = "notice" | "ask";

/**
 * Why a recording is over.
 */
export type EndReason = "stopped" | "empty" | "closed" | "disk_full" | "too_large" | "failed";

/**
 * Names a recording within its room; also its folder.
 */
export type RecordingId = string;

/**
 * A recording that runs, as everyone in the room sees it.
 */
export type RecordingState = { id: RecordingId, 
/**
 * Each track is recorded, in a file of its own.
 */
tracks: boolean, 
/**
 * The mix is recorded.
 */
mix: boolean, 
/**
 * False until its recorder runs, and while a failed one is replaced.
 */
active: boolean, 
/**
 * Milliseconds since the Unix epoch.
 */
started_at_ms: number, 
/**
 * Who started it; absent when the API did.
 */
by?: Identity, };

/**
 * The room as everyone in it sees it.
 */
export type RoomState = { name: RoomName, mode: Mode, 
/**
 * Of the mixed picture.
 */
layout: Layout, 
/**
 * Behind and between its tiles.
 */
background: Colour, 
/**
 * There is a picture over that colour.
 */
has_backdrop: boolean, 
/**
 * Its people encrypt what they send with keys that the server has not: it forwards and cannot mix. Said
 * when the room is made, for good.
 */
e2ee: boolean, access: Access, 
/**
 * Nobody new gets in but those with an admin grant.
 */
locked: boolean, 
/**
 * New people wait until an admin admits them.
 */
lobby: boolean, participants_max: number, 
/**
 * The programme is streamed by HLS.
 */
hls: boolean, 
/**
 * Services that the programme is pushed to.
 */
restreams: number, 
/**
 * Milliseconds since the Unix epoch.
 */
opened_at_ms: number, 
/**
 * The recording that runs.
 */
recording?: RecordingState, 
/**
 * Whether people are asked before they are recorded.
 */
recording_consent: ConsentRule, };

/**
 * A change of a room's settings; absent fields stay. The body of `PATCH /v1/rooms/{room}` too.
 */
export type RoomChange = { mode?: Mode, layout?: Layout, background?: Colour, access?: Access, locked?: boolean, lobby?: boolean, participants_max?: number, recording_consent?: ConsentRule, };

/**
 * What a participant may do: a token's `room` grant, without the room's name.
 */
export type Grant = { publish: boolean, subscribe: boolean, chat: boolean, files: boolean, admin: boolean, 
/**
 * Of each picture the lowest layer alone.
 */
lowest_layer?: boolean, };

export type TrackState = { source: Source, kind: Kind, muted: boolean, 
/**
 * Such as `vp8` or `opus`; absent until the first packet.
 */
codec?: string, };

/**
 * A file that is played, as everyone in the room sees it. While it is not paused it is at
 * `position_ms` plus what has passed since `at_ms`.
 */
export type Playing = { 
/**
 * Names it in the API.
 */
id: string, paused: boolean, position_ms: number, 
/**
 * Milliseconds since the Unix epoch.
 */
at_ms: number, duration_ms?: number, };

export type ParticipantState = { identity: Identity, 
/**
 * What to show; the identity unless the participant chose another name.
 */
name: string, grant: Grant, tracks: Array<TrackState>, hand_raised: boolean, 
/**
 * False while the connection is lost and may still resume.
 */
connected: boolean, 
/**
 * Names it among the CSRCs of mixed packets (RFC 3550 §5.1).
 */
csrc: number, joined_at_ms: number, 
/**
 * Whether it may be recorded, once it was asked.
 */
recording_consent?: boolean, 
/**
 * Of one that plays a file to all.
 */
playing?: Playing, };

/**
 * What a receive slot carries now. A slot with no `participant` is silent.
 */
export type SlotState = { 
/**
 * The client's m-line (RFC 5888 `mid`) that is this slot.
 */
mid: string, kind: Kind, participant?: Identity, source?: Source, 
/**
 * Bound, but nothing is sent: off screen, or no bandwidth for its lowest layer.
 */
paused: boolean, };

/**
 * A wish for one video slot; a slot never wished for gets the default of 720 lines and an automatic track.
 */
export type SlotWish = { mid: string, 
/**
 * Height in pixels at which the slot is shown; 0 for off screen: nothing is sent.
 */
max_height: number, 
/**
 * Pins a participant's track to the slot; absent, the room picks.
 */
participant?: Identity, 
/**
 * With `participant`: which of its tracks. Default `camera`.
 */
source?: Source, };

/**
 * Says what one of the client's sending m-lines carries.
 */
export type PublishedTrack = { mid: string, source: Source, muted: boolean, 
/**
 * Height in pixels of the fullest encoding, when known; lets layers be matched to slots.
 */
height?: number, };

/**
 * A file as the message that carries it shows it. Its contents lie under `/v1/rooms/{room}/files/{id}`,
 * where
 * `id` is the message's.
 */
export type FileState = { 
/**
 * Made safe: no path, no control characters.
 */
name: string, size_bytes: number, 
/**
 * By its contents, whatever its name says.
 */
media_type: string, 
/**
 * SHA-256 of the contents, in hex.
 */
sha256: string, 
/**
 * Pixels, of a picture or a video.
 */
width?: number, height?: number, 
/**
 * Of sound or a video.
 */
duration_ms?: number, 
/**
 * There is a small picture of it at its path with `/thumbnail`.
 */
thumbnail: boolean, 
/**
 * Kept as long as the node keeps files; its contents are gone.
 */
expired?: boolean, };

/**
 * A chat message as it stands now, edits and reactions applied.
 */
export type ChatMessage = { id: MessageId, 
/**
 * Its place in the room's one order, from 1.
 */
seq: number, identity: Identity, name: string, 
/**
 * Plain text; empty once deleted. Never HTML.
 */
text: string, sent_at_ms: number, edited_at_ms?: number, deleted: boolean, reply_to?: MessageId, file?: FileState, 
/**
 * Emoji → who reacted with it.
 */
reactions: { [key in string]: Array<Identity> }, };

/**
 * What one slot gets at the moment, for the stats panel.
 */
export type SlotStats = { mid: string, 
/**
 * The RID or spatial layer being sent, such as `q`, `h`, `f` or `s1`; absent when nothing is.
 */
layer?: string, bitrate_bps: number, };

/**
 * Why somebody gets the room as they do.
 */
export type ModeReason = "room" | "chosen" | "downlink" | "device" | "starting" | "failed" | "unavailable";

/**
 * Why a participant is gone.
 */
export type LeaveReason = "left" | "lost" | "removed" | "denied" | "replaced" | "closed" | "draining" | "moved";

/**
 * Why something was refused: stable strings, the same on the `control` channel and in the HTTP API.
 */
export type Code = "malformed" | "unknown_type" | "too_large" | "rate_limited" | "unauthorized" | "payment_required" | "payout_missing" | "forbidden" | "not_found" | "room_exists" | "room_locked" | "room_full" | "room_private" | "node_full" | "draining" | "bad_offer" | "unsupported_media_type" | "precondition_failed" | "precondition_required" | "end_to_end_encrypted" | "already_recording" | "consent_needed" | "wrong_offset" | "upload_busy" | "checksum_mismatch" | "quota_exceeded" | "storage_full" | "gone" | "range_not_satisfiable" | "unavailable" | "internal";

/**
 * From the client to the server.
 */
export type ClientMessage = { "type": "publish", tracks: Array<PublishedTrack>, } | { "type": "slots.wish", slots: Array<SlotWish>, } | { "type": "chat.send", id: MessageId, text: string, reply_to?: MessageId, } | { "type": "chat.edit", id: MessageId, text: string, } | { "type": "chat.delete", id: MessageId, } | { "type": "chat.react", id: MessageId, emoji: string, on: boolean, } | { "type": "chat.typing", typing: boolean, } | { "type": "file.send", id: MessageId, name: string, size_bytes: number, 
/**
 * Bytes of the file that lie before this part; without it, those that have come.
 */
offset?: number, data: string, } | { "type": "chat.history", before?: number, } | { "type": "react", emoji: string, } | { "type": "me.update", name?: string, hand_raised?: boolean, } | { "type": "moderate.mute", participant: Identity, source?: Source, } | { "type": "moderate.remove", participant: Identity, } | { "type": "moderate.admit", participant: Identity, } | { "type": "moderate.deny", participant: Identity, } | { "type": "room.update" } & RoomChange | { "type": "room.close" } | { "type": "recording.start", tracks: boolean, mix: boolean, } | { "type": "recording.stop" } | { "type": "recording.mark", title: string, } | { "type": "recording.consent", agreed: boolean, } | { "type": "mode.choose", mode?: Mode, } | { "type": "device.strained", strained: boolean, } | { "type": "stats.watch", on: boolean, } | { "type": "ping" };

/**
 * From the server to the client.
 */
export type ServerMessage = { "type": "welcome", protocol: string, room: RoomState, me: Identity, participants: Array<ParticipantState>, slots: Array<SlotState>, 
/**
 * The newest messages, oldest first.
 */
messages: Array<ChatMessage>, 
/**
 * There are older messages than these.
 */
more_messages: boolean, 
/**
 * Identities waiting in the lobby; empty but for admins.
 */
knocking: Array<Identity>, 
/**
 * Seconds during which a lost connection may resume.
 */
resume_seconds: number, } | { "type": "waiting", room: RoomName, } | { "type": "room", room: RoomState, } | { "type": "participant.joined", participant: ParticipantState, } | { "type": "participant.updated", participant: ParticipantState, } | { "type": "participant.left", identity: Identity, reason: LeaveReason, } | { "type": "slots", slots: Array<SlotState>, } | { "type": "mode", mode: Mode, reason: ModeReason, } | { "type": "speakers", speakers: Array<Identity>, } | { "type": "layers", mid: string, active: Array<string>, } | { "type": "chat.message", message: ChatMessage, } | { "type": "chat.history", messages: Array<ChatMessage>, more: boolean, } | { "type": "chat.typing", identity: Identity, typing: boolean, } | { "type": "react", identity: Identity, emoji: string, } | { "type": "knock", identity: Identity, name: string, } | { "type": "knock.gone", identity: Identity, } | { "type": "muted", source: Source, by: Identity, } | { "type": "recording.ended", id: RecordingId, reason: EndReason, 
/**
 * Who stopped it; absent when nobody in the room did.
 */
by?: Identity, } | { "type": "renewal.due", invoice: string, 
/**
 * What is to be paid, in satoshis.
 */
amount_sat: number, ends_at_ms: number, } | { "type": "removed", reason: LeaveReason, } | { "type": "stats", 
/**
 * Send-side bandwidth estimate towards this client.
 */
estimate_bps: number, slots: Array<SlotStats>, } | { "type": "pong", request?: number, } | { "type": "ok", request?: number, } | { "type": "error", request?: number, code: Code, message: string, };
