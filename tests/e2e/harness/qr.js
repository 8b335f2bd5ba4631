/** Reads a QR code off a screenshot, with a decoder that is not the encoder's. */
import { readFile } from 'node:fs/promises';
import jsQR from 'jsqr';
import { PNG } from 'pngjs';

/** @param {string} path of a PNG */
export async function readCode(path) {
  const { data, width, height } = PNG.sync.read(await readFile(path));
  const read = /** @type {typeof jsQR.default} */ (/** @type {unknown} */ (jsQR.default ?? jsQR));
  return read(new Uint8ClampedArray(data), width, height)?.data;
}
