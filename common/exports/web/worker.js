// Runs the network beside the page, which stays alive meanwhile.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { enlarge } from "./tiles.js";

ort.env.wasm.numThreads = 1; // more would need headers that a simple web server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
const ready = ort.InferenceSession.create(new URL("network.onnx", import.meta.url).href);
ready.then(
  () => postMessage({ kind: "ready" }),
  (error) => postMessage({ kind: "unusable", reason: `The network cannot be loaded: ${error.message}` }),
);

addEventListener("message", async ({ data: { picture, facts } }) => {
  try {
    const session = await ready;
    const network = async (planes, width, height) => {
      const lr = new ort.Tensor("float32", planes, [1, 3, height, width]);
      const { sr } = await session.run({ lr });
      return sr.data;
    };
    const onDone = (part) => postMessage({ kind: "progress", part });
    const result = await enlarge(picture, network, facts, onDone);
    postMessage({ kind: "done", result }, [result.data.buffer]);
  } catch (error) {
    postMessage({ kind: "failed", reason: inWords(error) });
  }
});

function inWords(error) {
  const text = `${error?.message ?? error}`;
  const memory = error instanceof RangeError || typeof error === "number"
    || /memory|alloc|out of bounds/i.test(text);
  return memory
    ? "The memory that the browser gives to this page is too small for this picture. Try a smaller one, or close other pages."
    : `The network failed: ${text}`;
}
