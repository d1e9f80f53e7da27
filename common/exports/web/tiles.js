// Enlarging pixels in tiles, as upscale.py does it. Nothing here knows the page.

export const SIDE = 1024; // of what the network makes at once, in pixels of the result
const ALIGNMENT = 8; // A2N takes means over cells of this side, with which tiles must begin

// Side of the tiles of a picture, in its own pixels; 0 for the whole picture.
// `margin` is what the network sees around a tile, or null if it cannot be tiled.
export function tileSide(width, height, scale, margin) {
  const side = Math.floor(SIDE / scale);
  if (margin === null || width * height <= side ** 2) return 0;
  return Math.max(64, Math.floor((side - 2 * margin) / ALIGNMENT) * ALIGNMENT);
}

// Enlarges RGBA. `network` is an async function of (planes, width, height) -> planes, where planes
// is a Float32Array of red, green and blue in [0, 1], one after the other. `onDone` gets the part
// that is done, from 0 to 1.
export async function enlarge({ data, width, height }, network, { scale, margin }, onDone) {
  const around = margin === null ? 0 : Math.ceil(margin / ALIGNMENT) * ALIGNMENT;
  const tile = tileSide(width, height, scale, margin === null ? null : around)
    || Math.max(width, height);
  const result = new Uint8ClampedArray(width * height * scale ** 2 * 4);
  const alpha = isOpaque(data) ? null : alphaOf(data);
  const rgba = alpha ? spreadColors(data, width, height) : data;
  for (let top = 0; top < height; top += tile) {
    for (let left = 0; left < width; left += tile) {
      const bottom = Math.min(top + tile, height), right = Math.min(left + tile, width);
      const y0 = Math.max(0, top - around), y1 = Math.min(bottom + around, height);
      const x0 = Math.max(0, left - around), x1 = Math.min(right + around, width);
      const w = x1 - x0, h = y1 - y0;
      const lr = new Float32Array(3 * w * h);
      for (let c = 0; c < 3; c++) {
        for (let y = 0; y < h; y++) {
          for (let x = 0; x < w; x++) {
            lr[(c * h + y) * w + x] = rgba[((y + y0) * width + x + x0) * 4 + c] / 255;
          }
        }
      }
      const sr = await network(lr, w, h);
      for (let y = top * scale; y < bottom * scale; y++) {
        for (let x = left * scale; x < right * scale; x++) {
          const to = (y * width * scale + x) * 4;
          const from = (y - y0 * scale) * w * scale + x - x0 * scale;
          // (This kind of array rounds and clamps.)
          for (let c = 0; c < 3; c++) result[to + c] = sr[from + c * w * h * scale ** 2] * 255;
          result[to + 3] = 255;
        }
      }
      onDone((top * width + (bottom - top) * right) / (width * height));
    }
  }
  if (alpha) bicubic(alpha, width, height, scale).forEach((a, i) => { result[4 * i + 3] = a; });
  return { data: result, width: width * scale, height: height * scale };
}

function isOpaque(rgba) {
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] < 255) return false;
  return true;
}

function alphaOf(rgba) {
  return Float32Array.from({ length: rgba.length / 4 }, (_, i) => rgba[4 * i + 3]);
}

// Gives invisible pixels the color of a visible one near them; their own, often black, would get
// into the visible edge.
function spreadColors(rgba, width, height) {
  const result = rgba.slice();
  const colored = new Uint8Array(width * height);
  let edge = [];
  for (let i = 0; i < colored.length; i++) if (rgba[4 * i + 3]) { colored[i] = 1; edge.push(i); }
  while (edge.length) {
    const next = [];
    for (const i of edge) {
      const x = i % width;
      for (const j of [x > 0 ? i - 1 : -1, x < width - 1 ? i + 1 : -1, i - width, i + width]) {
        if (j < 0 || j >= colored.length || colored[j]) continue;
        colored[j] = 1;
        result.copyWithin(4 * j, 4 * i, 4 * i + 3);
        next.push(j);
      }
    }
    edge = next;
  }
  return result;
}

// Keys' bicubic, a = -0.5, borders by reflection, as the opacity of upscale.py.
export function bicubic(values, width, height, scale) {
  const along = (source, length, stride, lines, lineStride) => {
    const result = new Float32Array(source.length * scale);
    const resultLine = stride === 1 ? length * scale : 1;
    const resultStride = stride === 1 ? 1 : stride;
    for (let i = 0; i < length * scale; i++) {
      const center = (i + 0.5) / scale - 0.5;
      const first = Math.floor(center) - 1;
      for (let line = 0; line < lines; line++) {
        let sum = 0;
        for (let tap = first; tap < first + 4; tap++) {
          let k = ((tap % (2 * length)) + 2 * length) % (2 * length);
          if (k >= length) k = 2 * length - 1 - k;
          sum += keys(Math.abs(center - tap)) * source[k * stride + line * lineStride];
        }
        result[i * resultStride + line * resultLine] = sum;
      }
    }
    return result;
  };
  const rows = along(values, height, width, width, 1);
  return along(rows, width, 1, height * scale, width);
}

function keys(x) {
  if (x <= 1) return 1.5 * x ** 3 - 2.5 * x ** 2 + 1;
  return x < 2 ? -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2 : 0;
}
