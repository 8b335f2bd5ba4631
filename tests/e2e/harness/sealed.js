/**
 * End-to-end encryption as people bring it to a room that was made with `e2ee`: the page's connections get a
 * transform that seals each frame which leaves and opens each that comes (RTCRtpScriptTransform), with
 * AES-GCM.
 *
 * What codecs keep in the clear for packetizers and servers stays in the clear, and is authenticated: a frame
 * that anybody has changed on its way does not open.
 */

/** @typedef {{ sealed: number, opened: number, refused: number }} Sealed frames of pictures */

/**
 * Runs in the page, before its own scripts. Leaves `window.sealed`, a {@link Sealed}.
 *
 * @param {string} secret of all who are to understand each other
 */
export function sealFrames(secret) {
  /** The worker's own code: it has no other scope. */
  function work() {
    const NONCE_BYTES = 12;
    /** Of VP8, what tells key frames and sizes (RFC 7741 §4.3); of Opus, its first byte (RFC 6716 §3.1). */
    const clearBytes = (/** @type {any} */ frame) =>
      frame.type === undefined || frame.type === 'empty' ? 1 : frame.type === 'key' ? 10 : 3;
    const counts = { sealed: 0, opened: 0, refused: 0 };
    let last = 0;
    const seed = crypto.getRandomValues(new Uint8Array(8));

    /** @param {any} frame @param {CryptoKey} key */
    async function seal(frame, key) {
      const plain = new Uint8Array(frame.data);
      const clear = plain.subarray(0, clearBytes(frame));
      const iv = new Uint8Array(NONCE_BYTES);
      iv.set(seed);
      last += 1;
      new DataView(iv.buffer).setUint32(8, last);
      const cipher = { name: 'AES-GCM', iv, additionalData: clear };
      const body = new Uint8Array(await crypto.subtle.encrypt(cipher, key, plain.subarray(clear.length)));
      const sealed = new Uint8Array(clear.length + body.length + NONCE_BYTES);
      sealed.set(clear);
      sealed.set(body, clear.length);
      sealed.set(iv, clear.length + body.length);
      frame.data = sealed.buffer;
    }

    /** @param {any} frame @param {CryptoKey} key */
    async function open(frame, key) {
      const sealed = new Uint8Array(frame.data);
      const clear = sealed.subarray(0, clearBytes(frame));
      const iv = sealed.subarray(sealed.length - NONCE_BYTES);
      const cipher = { name: 'AES-GCM', iv, additionalData: clear };
      const body = sealed.subarray(clear.length, sealed.length - NONCE_BYTES);
      const opened = new Uint8Array(await crypto.subtle.decrypt(cipher, key, body));
      const plain = new Uint8Array(clear.length + opened.length);
      plain.set(clear);
      plain.set(opened, clear.length);
      frame.data = plain.buffer;
    }

    addEventListener('rtctransform', (/** @type {any} */ { transformer }) => {
      const { secret, sends } = transformer.options;
      const key = crypto.subtle
        .digest('SHA-256', new TextEncoder().encode(secret))
        .then((bytes) => crypto.subtle.importKey('raw', bytes, 'AES-GCM', false, ['encrypt', 'decrypt']));
      const transform = new TransformStream({
        async transform(frame, controller) {
          const isPicture = frame.type !== undefined;
          try {
            await (sends ? seal(frame, await key) : open(frame, await key));
          } catch {
            if (isPicture) counts.refused += 1;
            return;
          }
          if (isPicture) counts[sends ? 'sealed' : 'opened'] += 1;
          controller.enqueue(frame);
        },
      });
      transformer.readable.pipeThrough(transform).pipeTo(transformer.writable);
    });
    setInterval(() => postMessage(counts), 100);
  }

  /** @type {Sealed} */
  const sealed = { sealed: 0, opened: 0, refused: 0 };
  Object.assign(window, { sealed });
  const worker = new Worker(URL.createObjectURL(new Blob([`(${work})()`])));
  worker.addEventListener('message', ({ data }) => Object.assign(sealed, data));
  const add = /** @type {Function} */ (RTCPeerConnection.prototype.addTransceiver);
  RTCPeerConnection.prototype.addTransceiver = function (/** @type {any[]} */ ...words) {
    const transceiver = add.apply(this, words);
    const Transform = /** @type {any} */ (window).RTCRtpScriptTransform;
    transceiver.sender.transform = new Transform(worker, { secret, sends: true });
    transceiver.receiver.transform = new Transform(worker, { secret, sends: false });
    return transceiver;
  };
}
