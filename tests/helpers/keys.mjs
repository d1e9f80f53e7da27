// Runs the script of a page in a document that shows nothing, and tells which arrows the page takes.
// node keys.mjs page.js NUMBER_OF_PICTURES

import fs from "fs";
import vm from "vm";

const [, , file, number] = process.argv;
const versions = [{ label: "a", source: "" }, { label: "b", source: "" }];
const picture = { name: "", caption: "", width: 9, height: 9, shown: 1, versions };
const nothing = () => {};
const makeElement = () => ({
  style: {}, classList: { toggle: nothing }, parentElement: {}, addEventListener: nothing,
  setAttribute: nothing, replaceChildren: nothing,
  textContent: JSON.stringify(Array(Number(number)).fill(picture)),
});
const elements = {};
const find = (id) => elements[id] || (elements[id] = makeElement());
const document = { getElementById: find, createElement: makeElement };
const listeners = {};
const window = { addEventListener: (name, listener) => { listeners[name] = listener; } };
vm.runInNewContext(fs.readFileSync(file, "utf8"), { document, window, HTMLButtonElement: class {} });

function takes(key, target) {
  let taken = false;
  listeners.keydown({ key, target, preventDefault: () => { taken = true; } });
  return taken;
}

const arrows = (target) =>
  ["Left", "Right", "Up", "Down"].filter((name) => takes(`Arrow${name}`, target));
const before = arrows(find("viewer"));
takes("z", find("viewer"));
console.log(JSON.stringify([before, arrows(document), arrows(find("viewer"))]));
