// A picture small enough for one message of the data channel.

import { Problem } from "./problems.js";

const SIDES = [1536, 1280, 1024, 768, 512, 384, 256]; // px of the longer one
const QUALITIES = [0.85, 0.7];

/** `file` as the data URL of a JPEG that is at most `most` characters long. Throws a Problem where it is none. */
export async function asJpeg(file, most) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Problem("That is not a picture", "The browser can read JPEG, PNG, WebP, GIF and AVIF.");
  }
  try {
    const longer = Math.max(bitmap.width, bitmap.height);
    for (const side of SIDES.filter((px, i) => px < longer || SIDES[i - 1] === undefined || SIDES[i - 1] >= longer)) {
      for (const quality of QUALITIES) {
        const url = drawn(bitmap, Math.min(1, side / longer)).toDataURL("image/jpeg", quality);
        if (url.length <= most) return url;
      }
    }
  } finally {
    bitmap.close();
  }
  throw new Problem("The picture does not fit", "Not even small. Try one with less in it.");
}

function drawn(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // what is transparent would become black
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}
