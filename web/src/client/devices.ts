/** Cameras, microphones and screens: asking for them, and saying in clear words why one cannot be had. */

export type DeviceKind = 'camera' | 'microphone' | 'screen';

export type DeviceTrouble = 'insecure' | 'refused' | 'missing' | 'busy' | 'unsupported' | 'other';

/** A device could not be had; `message` says why and what to do. */
export class DeviceProblem extends Error {
  override readonly name = 'DeviceProblem';

  constructor(
    readonly kind: DeviceKind,
    readonly trouble: DeviceTrouble,
  ) {
    super(words(kind, trouble));
  }
}

function words(kind: DeviceKind, trouble: DeviceTrouble): string {
  const device = kind === 'screen' ? 'screen' : kind;
  switch (trouble) {
    case 'insecure':
      return (
        `The browser withholds the ${device} because this page came over plain HTTP. Open it by HTTPS ` +
        '(the server takes a certificate as tls.cert and tls.key), or as http://localhost on the same machine.'
      );
    case 'refused':
      return kind === 'screen'
        ? 'Nothing was chosen to share.'
        : `The browser was told not to give the ${device}. Allow it by the sign beside the address, then try again.`;
    case 'missing':
      return `No ${device} was found. Plug one in, then try again, or go on without.`;
    case 'busy':
      return `The ${device} is there, but another program seems to hold it. Close that program, then try again.`;
    case 'unsupported':
      return `This browser cannot share a ${device}.`;
    case 'other':
      return `The ${device} could not be opened.`;
  }
}

function troubleOf(error: unknown): DeviceTrouble {
  switch (error instanceof Error ? error.name : '') {
    case 'NotAllowedError':
    case 'SecurityError':
      return 'refused';
    case 'NotFoundError':
    case 'OverconstrainedError':
      return 'missing';
    case 'NotReadableError':
    case 'AbortError':
      return 'busy';
    default:
      return 'other';
  }
}

function mediaDevices(kind: DeviceKind): MediaDevices {
  // Typed as always there, yet withheld outside secure contexts.
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  if (!devices) throw new DeviceProblem(kind, globalThis.isSecureContext ? 'unsupported' : 'insecure');
  return devices;
}

async function open(
  kind: 'camera' | 'microphone',
  constraints: MediaStreamConstraints,
): Promise<MediaStreamTrack> {
  const devices = mediaDevices(kind);
  try {
    const [track] = (await devices.getUserMedia(constraints)).getTracks();
    if (track) return track;
  } catch (error) {
    throw new DeviceProblem(kind, troubleOf(error));
  }
  throw new DeviceProblem(kind, 'missing');
}

/** `ideal`, so that a device remembered from before but unplugged since falls back to another. */
const chosen = (deviceId: string | undefined): MediaTrackConstraints =>
  deviceId ? { deviceId: { ideal: deviceId } } : {};

const cameraWith = (deviceId?: string): MediaTrackConstraints => ({
  ...chosen(deviceId),
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30, max: 30 },
});

const microphoneWith = (deviceId?: string): MediaTrackConstraints => ({
  ...chosen(deviceId),
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
});

export function openCamera(deviceId?: string): Promise<MediaStreamTrack> {
  return open('camera', { video: cameraWith(deviceId) });
}

export function openMicrophone(deviceId?: string): Promise<MediaStreamTrack> {
  return open('microphone', { audio: microphoneWith(deviceId) });
}

/** Both with one question to the person; each one alone where both together cannot be had. */
export async function openBoth(ids: {
  camera?: string;
  microphone?: string;
}): Promise<{ camera: MediaStreamTrack | DeviceProblem; microphone: MediaStreamTrack | DeviceProblem }> {
  try {
    const constraints = { video: cameraWith(ids.camera), audio: microphoneWith(ids.microphone) };
    const stream = await mediaDevices('camera').getUserMedia(constraints);
    const [camera] = stream.getVideoTracks();
    const [microphone] = stream.getAudioTracks();
    if (camera && microphone) return { camera, microphone };
  } catch {
    // Asked one by one below, so that each says what is wrong with it.
  }
  const problem = (error: unknown) => error as DeviceProblem;
  return {
    microphone: await openMicrophone(ids.microphone).catch(problem),
    camera: await openCamera(ids.camera).catch(problem),
  };
}

/** The screen or window that the person picks, with its sound where the browser gives it. */
export async function openScreen(): Promise<{ video: MediaStreamTrack; audio: MediaStreamTrack | null }> {
  const devices = mediaDevices('screen');
  if (!('getDisplayMedia' in devices)) throw new DeviceProblem('screen', 'unsupported');
  try {
    const stream = await devices.getDisplayMedia({
      video: { frameRate: { ideal: 15, max: 30 }, width: { max: 1920 }, height: { max: 1080 } },
      audio: true,
    });
    const [video] = stream.getVideoTracks();
    if (!video) throw new DeviceProblem('screen', 'other');
    // Text first: the encoder keeps the resolution and gives up frames.
    video.contentHint = 'detail';
    return { video, audio: stream.getAudioTracks()[0] ?? null };
  } catch (error) {
    throw error instanceof DeviceProblem ? error : new DeviceProblem('screen', troubleOf(error));
  }
}

export interface DeviceChoice {
  deviceId: string;
  label: string;
}

export interface Devices {
  cameras: DeviceChoice[];
  microphones: DeviceChoice[];
  speakers: DeviceChoice[];
}

/** What can be chosen from; names are known only once a device of that kind was allowed. */
export async function listDevices(): Promise<Devices> {
  const all = (await (navigator.mediaDevices as MediaDevices | undefined)?.enumerateDevices()) ?? [];
  const pick = (kind: MediaDeviceKind, name: string): DeviceChoice[] =>
    all
      .filter((device) => device.kind === kind && device.deviceId !== '')
      .map((device, at) => ({ deviceId: device.deviceId, label: device.label || `${name} ${at + 1}` }));
  return {
    cameras: pick('videoinput', 'Camera'),
    microphones: pick('audioinput', 'Microphone'),
    speakers: pick('audiooutput', 'Speaker'),
  };
}
