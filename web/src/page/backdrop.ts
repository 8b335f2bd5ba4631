/**
 * A picture for behind the tiles: any that this browser reads, made as small as a room takes it. What a
 * camera wrote into the file, such as the place, is not sent.
 */
import { Refused } from '../client';

/** No canvas that a mix has by default shows more. */
const SIDE_MAX = 1920;
const BYTES_MAX = 1 << 20;
/** From good to just good enough; noise at the last one and full size is below the limit. */
const QUALITIES = [0.9, 0.75, 0.5, 0.25];

/** Its size, no side longer than is of use. */
export function fitted(width: number, height: number): { width: number; height: number } {
  const scale = Math.min(1, SIDE_MAX / Math.max(width, height, 1));
  const side = (length: number) => Math.max(2, Math.round(length * scale));
  return { width: side(width), height: side(height) };
}

/** A JPEG of the picture; where that is clear, of `background`. @throws Refused */
export async function backdropOf(file: Blob, background: string): Promise<Blob> {
  const picture = await createImageBitmap(file).catch(() => undefined);
  if (!picture) throw new Refused('unsupported_media_type', 'This file is no picture that can be shown.');
  const canvas = Object.assign(document.createElement('canvas'), fitted(picture.width, picture.height));
  const brush = canvas.getContext('2d');
  if (brush) {
    brush.fillStyle = background;
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
  }
  picture.close();
  for (const quality of QUALITIES) {
    const jpeg = await new Promise<Blob | null>((done) => canvas.toBlob(done, 'image/jpeg', quality));
    if (jpeg && jpeg.size <= BYTES_MAX) return jpeg;
  }
  throw new Refused('too_large', 'This picture cannot be made small enough.');
}
