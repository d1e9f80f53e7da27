// Enlarges the RGBA in the file `rgba` by the page's code, and a network that sees one neighbor.
// node tiles.mjs tiles.mjs-of-the-page WIDTH HEIGHT SCALE

import fs from "fs";

const [, , file, ...numbers] = process.argv;
const [width, height, scale] = numbers.map(Number);
const { enlarge } = await import(file);
const data = new Uint8ClampedArray(fs.readFileSync("rgba"));

const network = async (planes, w, h) => {
  const out = new Float32Array(3 * w * h * scale ** 2);
  const at = (c, y, x) => (y < 0 || x >= w ? 0 : planes[(c * h + y) * w + x]);
  for (let i = 0; i < out.length; i++) {
    const c = Math.floor(i / (w * h * scale ** 2));
    const y = Math.floor(Math.floor(i / (w * scale)) % (h * scale) / scale);
    const x = Math.floor(i % (w * scale) / scale);
    out[i] = (at(c, y - 1, x) + at(c, y, x + 1) + 2 * at(c, y, x)) / 4;
  }
  return out;
};
const parts = [];
const sr = await enlarge({ data, width, height }, network, { scale, margin: 1 }, (part) => parts.push(part));
fs.writeFileSync("sr", sr.data);
console.log(JSON.stringify(parts));
