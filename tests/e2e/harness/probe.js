/**
 * What a test reads inside a page: the browser's own counters, by wrapping `RTCPeerConnection` before the
 * page runs. Nothing of the page is changed.
 */

/**
 * Runs in the page, before its own scripts. Leaves `window.probe`.
 *
 * @param {{ width: number, height: number, fps: number } | null} camera what the device can do at most
 */
export function installProbe(camera) {
  /** @type {RTCPeerConnection[]} */
  const connections = [];
  /** @param {string} text a message of the server */
  const keepRoom = (text) => {
    const message = JSON.parse(text);
    if (message.type === 'room' || message.type === 'welcome') probe.room = message.room;
  };
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    /** @param {RTCConfiguration} [configuration] */
    constructor(configuration) {
      super(configuration);
      connections.push(this);
    }

    /**
     * @param {string} label
     * @param {RTCDataChannelInit} [options]
     */
    createDataChannel(label, options) {
      const channel = super.createDataChannel(label, options);
      if (label === 'control') channel.addEventListener('message', ({ data }) => keepRoom(data));
      return channel;
    }
  };

  // A small camera, and a screen that is grabbed as seldom: many pages share few cores in these tests.
  if (camera !== null && navigator.mediaDevices !== undefined) {
    const devices = navigator.mediaDevices;
    const original = devices.getUserMedia.bind(devices);
    devices.getUserMedia = (constraints) => {
      if (typeof constraints?.video !== 'object' && constraints?.video !== true) return original(constraints);
      const asked = constraints.video === true ? {} : constraints.video;
      const { width, height, fps } = camera;
      return original({ ...constraints, video: { ...asked, width, height, frameRate: fps } });
    };
    const display = devices.getDisplayMedia.bind(devices);
    devices.getDisplayMedia = (constraints) => {
      const asked = typeof constraints?.video === 'object' ? constraints.video : {};
      return display({ ...constraints, video: { ...asked, frameRate: camera.fps } });
    };
  }

  /** @returns {Promise<any[]>} every entry of every open connection's statistics */
  const entries = async () => {
    const open = connections.filter((connection) => connection.connectionState !== 'closed');
    const reports = await Promise.all(open.map((connection) => connection.getStats()));
    return reports.flatMap((report) => [...report.values()]);
  };

  /** @param {any[]} all @param {any} entry */
  const codecOf = (all, entry) => all.find((other) => other.id === entry.codecId)?.mimeType;

  const probe = {
    connections,
    /** What the page was told last of its room. @type {any} */
    room: undefined,
    /** What each receiving stream has got so far. */
    async inbound() {
      const all = await entries();
      return all
        .filter((entry) => entry.type === 'inbound-rtp')
        .map((entry) => ({
          kind: entry.kind,
          mid: entry.mid,
          track: entry.trackIdentifier,
          codec: codecOf(all, entry),
          packets: entry.packetsReceived ?? 0,
          lost: entry.packetsLost ?? 0,
          frames: entry.framesDecoded ?? 0,
          width: entry.frameWidth ?? 0,
          height: entry.frameHeight ?? 0,
          freezes: entry.freezeCount ?? 0,
          energy: entry.totalAudioEnergy ?? 0,
          samples: entry.totalSamplesReceived ?? 0,
        }));
    },
    /** What each sending stream, one for each layer, has sent so far. */
    async outbound() {
      const all = await entries();
      return all
        .filter((entry) => entry.type === 'outbound-rtp')
        .map((entry) => ({
          kind: entry.kind,
          rid: entry.rid,
          scalability: entry.scalabilityMode,
          codec: codecOf(all, entry),
          active: entry.active ?? true,
          packets: entry.packetsSent ?? 0,
          frames: entry.framesEncoded ?? 0,
          height: entry.frameHeight ?? 0,
        }));
    },
    /** The transports in use: their ciphers, and the protocol and kind of the candidate pair. */
    async transports() {
      const all = await entries();
      return all
        .filter((entry) => entry.type === 'transport')
        .map((entry) => {
          const pair = all.find((other) => other.id === entry.selectedCandidatePairId);
          const local = all.find((other) => other.id === pair?.localCandidateId);
          return {
            srtp: entry.srtpCipher,
            dtls: entry.dtlsState,
            tlsVersion: entry.tlsVersion,
            protocol: local?.protocol,
            tcpType: local?.tcpType,
            candidateType: local?.candidateType,
          };
        });
    },
    /**
     * The stream that plays in the tile of a participant.
     *
     * @param {string} participant
     * @param {string} [source]
     */
    async video(participant, source) {
      const shown = [...document.querySelectorAll('[data-testid="tile"]')].filter(
        (tile) =>
          tile.getAttribute('data-participant') === participant &&
          (source === undefined || tile.getAttribute('data-source') === source),
      );
      const streams = await probe.inbound();
      for (const tile of shown) {
        const element = tile.querySelector('video');
        const stream = element?.srcObject;
        if (!(stream instanceof MediaStream)) continue;
        const ids = stream.getVideoTracks().map((track) => track.id);
        const found = streams.find((entry) => entry.kind === 'video' && ids.includes(entry.track));
        if (found !== undefined)
          return { ...found, paused: element?.paused, shownHeight: element?.clientHeight };
      }
      return null;
    },
  };
  Object.assign(window, { probe });
}
