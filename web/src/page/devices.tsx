/** Choosing the camera, the microphone and the speaker. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { type DeviceChoice, type Devices, listDevices } from '../client';
import { cameraId, microphoneId, speakerId } from './prefs';

function Choice(props: {
  label: string;
  none: string;
  choices: DeviceChoice[];
  value: string;
  onPick: (deviceId: string) => void;
}) {
  const { choices, value } = props;
  const known = choices.some(({ deviceId }) => deviceId === value);
  return (
    <label class="field">
      <span>{props.label}</span>
      <select
        value={known ? value : (choices[0]?.deviceId ?? '')}
        disabled={choices.length === 0}
        onChange={({ currentTarget }) => props.onPick(currentTarget.value)}
      >
        {choices.length === 0 && <option value="">{props.none}</option>}
        {choices.map(({ deviceId, label }) => (
          <option key={deviceId} value={deviceId}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}

interface Props {
  /** Counts up when a device was allowed: only then are the names known. */
  version: number;
  onPick: (kind: 'camera' | 'microphone', deviceId: string) => void;
}

export function DevicePickers({ version, onPick }: Props) {
  const devices = useSignal<Devices>({ cameras: [], microphones: [], speakers: [] });
  useEffect(() => {
    let current = true;
    const list = () =>
      listDevices().then(
        (found) => {
          if (current) devices.value = found;
        },
        () => undefined,
      );
    void list();
    const source = navigator.mediaDevices as MediaDevices | undefined;
    source?.addEventListener('devicechange', list);
    return () => {
      current = false;
      source?.removeEventListener('devicechange', list);
    };
  }, [version]);
  const { cameras, microphones, speakers } = devices.value;
  return (
    <div class="pickers">
      <Choice
        label="Microphone"
        none="None allowed yet"
        choices={microphones}
        value={microphoneId.value}
        onPick={(deviceId) => {
          microphoneId.value = deviceId;
          onPick('microphone', deviceId);
        }}
      />
      <Choice
        label="Camera"
        none="None allowed yet"
        choices={cameras}
        value={cameraId.value}
        onPick={(deviceId) => {
          cameraId.value = deviceId;
          onPick('camera', deviceId);
        }}
      />
      {speakers.length > 0 && (
        <Choice
          label="Speaker"
          none="The system’s"
          choices={speakers}
          value={speakerId.value}
          onPick={(deviceId) => {
            speakerId.value = deviceId;
          }}
        />
      )}
    </div>
  );
}
