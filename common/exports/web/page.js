// What the page does: takes a picture, lets the worker enlarge it, shows it.

const MOST_MEGAPIXELS = 100, LONGEST_SIDE = 16384; // of a result; canvases of browsers end there
const byId = (id) => document.getElementById(id);
const file = byId("file"), canvas = byId("canvas"), before = byId("before");
let worker = null, busy = false, turn = 0, facts = null, started = 0, input = null, output = null, address = null;

function say(text) { byId("status").textContent = text; }

function fail(text) {
  byId("error").textContent = text;
  byId("error").hidden = false;
  byId("work").hidden = true;
  say("Nothing was enlarged.");
}

function startWorker() {
  worker?.terminate();
  busy = false;
  worker = new Worker("worker.js", { type: "module" });
  worker.onerror = (event) => fail(`The network cannot be run in this browser: ${event.message || "it has no module workers"}.`);
  worker.onmessage = ({ data }) => {
    if (data.kind === "ready" && !started) say("Ready.");
    if (data.kind === "progress") showProgress(data.part);
    if (data.kind === "unusable") { file.disabled = true; fail(data.reason); }
    if (data.kind === "failed") { startWorker(); fail(data.reason); }
    if (data.kind === "done") finish(data.result);
  };
}

function showProgress(part) {
  const seconds = (performance.now() - started) / 1000;
  byId("progress").value = part;
  const left = Math.round(seconds / part - seconds);
  say(`${Math.round(part * 100)} % is done after ${Math.round(seconds)} s${left ? `, about ${left} s are left` : ""}.`);
}

async function take(blob) {
  if (!facts || !blob) return;
  const own = ++turn;
  if (busy) startWorker(); // the work at another picture ends
  started = performance.now();
  byId("error").hidden = true;
  byId("result").hidden = true;
  const bitmap = await createImageBitmap(blob).catch(() => null); // upright, in sRGB
  if (own !== turn) return; // another picture came meanwhile
  if (!bitmap) {
    fail(`${blob.name || "What was pasted"} is no picture that this browser can read. Save it as PNG, JPEG or WebP.`);
    return;
  }
  const { width, height } = bitmap, { scale } = facts;
  const megapixels = width * height * scale ** 2 / 1e6;
  if (megapixels > MOST_MEGAPIXELS || Math.max(width, height) * scale > LONGEST_SIDE) {
    fail(`${width}x${height} would become ${width * scale}x${height * scale}; a page like this can make ${MOST_MEGAPIXELS} megapixels and sides of ${LONGEST_SIDE}. Use upscale.py for it.`);
    return;
  }
  const pixels = new OffscreenCanvas(width, height);
  const context = pixels.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const picture = context.getImageData(0, 0, width, height);
  input = bitmap;
  input.fileName = (blob.name || "picture").replace(/\.\w+$/, "");
  byId("progress").removeAttribute("value");
  byId("work").hidden = false;
  say(`Enlarging ${width}x${height} to ${width * scale}x${height * scale}. The first part takes a while.`);
  busy = true;
  worker.postMessage({ picture: { data: picture.data, width, height }, facts });
}

function finish(result) {
  busy = false;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  output = new ImageData(result.data, result.width, result.height);
  canvas.width = result.width;
  canvas.height = result.height;
  before.checked = false;
  show();
  canvas.toBlob((blob) => {
    if (!blob) { fail("The browser has no memory for the file of the result. Try a smaller picture."); return; }
    URL.revokeObjectURL(address);
    address = URL.createObjectURL(blob);
    const link = byId("download");
    link.href = address;
    link.download = `${input.fileName}_x${facts.scale}.png`;
    byId("work").hidden = true;
    byId("result").hidden = false;
    say(`Enlarged to ${result.width}x${result.height} in ${seconds} s.`);
  });
}

function show() {
  const context = canvas.getContext("2d");
  if (before.checked) {
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(input, 0, 0, canvas.width, canvas.height);
  } else {
    context.putImageData(output, 0, 0);
  }
  canvas.setAttribute("aria-label", before.checked ? "The input, enlarged by the browser" : `The input, enlarged by ${facts.network}`);
}

before.addEventListener("change", show);
file.addEventListener("change", () => { take(file.files[0]); file.value = ""; });
byId("stop").addEventListener("click", () => { startWorker(); byId("work").hidden = true; say("Stopped."); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault(); // the browser would show the file in place of this page
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});

try {
  facts = await (await fetch("network.json")).json();
  document.title = `Enlarge a picture ${facts.scale} times by ${facts.network}`;
  byId("title").textContent = document.title;
  say(`Loading the network, ${facts.megabytes} MB, and 14 MB of onnxruntime.`);
  file.disabled = false;
  startWorker();
} catch (error) {
  fail(`network.json, which belongs to this page, cannot be read: ${error.message}.`);
}
