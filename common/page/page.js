"use strict";
const pictures = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const [viewer, stage, above, below, handle, slider] =
  ["viewer", "stage", "above", "below", "handle", "position"].map(find);
const ZOOMS = [["Fit", 0], ["100 %", 1], ["200 %", 2], ["400 %", 4]];
const state = { picture: 0, left: 0, right: 0, zoom: 0, position: 0.5 };

// Names come from anywhere: they are put into the page as text only.
function makeButtons(parent, prefix, names, chosen, choose) {
  parent.replaceChildren(...(prefix ? [prefix] : []), ...names.map((name, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-pressed", String(index === chosen));
    button.addEventListener("click", () => choose(index));
    return button;
  }));
}

function drawBorder() {
  const x = Math.min(stage.clientWidth, viewer.scrollLeft + state.position * viewer.clientWidth
    - (viewer.clientWidth > stage.clientWidth ? (viewer.clientWidth - stage.clientWidth) / 2 : 0));
  const inside = Math.max(0, x);
  above.style.clipPath = `inset(0 ${stage.clientWidth - inside}px 0 0)`;
  handle.style.left = `${inside}px`;
  find("left-name").style.right = `${stage.clientWidth - inside + 4}px`;
  find("right-name").style.left = `${inside + 4}px`;
  for (const id of ["left-name", "right-name"]) find(id).style.top = `${viewer.scrollTop}px`;
  slider.value = String(Math.round(1000 * state.position));
}

function layOut() {
  const { width, height } = pictures[state.picture];
  const ratio = window.devicePixelRatio || 1;
  const zoom = ZOOMS[state.zoom][1];
  const fit = Math.min(viewer.parentElement.clientWidth / width,
    0.75 * window.innerHeight / height, 4 / ratio);
  const factor = zoom ? zoom / ratio : fit;
  viewer.classList.toggle("zoomed", zoom > 0);
  stage.classList.toggle("pixels", factor * ratio >= 2);
  stage.style.width = `${width * factor}px`;
  stage.style.height = `${height * factor}px`;
  drawBorder();
}

function draw() {
  const picture = pictures[state.picture];
  const last = picture.versions.length - 1;
  state.left = Math.min(state.left, last);
  state.right = Math.min(state.right, last);
  const [left, right] = [picture.versions[state.left], picture.versions[state.right]];
  const labels = picture.versions.map((version) => version.label);
  above.src = left.source;
  below.src = right.source;
  above.alt = left.label;
  below.alt = right.label;
  find("left-name").textContent = left.label;
  find("right-name").textContent = right.label;
  find("caption").textContent = picture.caption;
  if (pictures.length > 1) {
    makeButtons(find("names"), "", pictures.map((each) => each.name), state.picture,
      (index) => change({ picture: index }));
  }
  makeButtons(find("left"), "Left:", labels, state.left, (index) => change({ left: index }));
  makeButtons(find("right"), "Right:", labels, state.right, (index) => change({ right: index }));
  makeButtons(find("zoom"), "Size:", ZOOMS.map(([name]) => name), state.zoom,
    (index) => change({ zoom: index }));
  layOut();
}

function change(values) {
  // The buttons are made anew, so the one with the focus gets it back.
  const focused = document.activeElement;
  const group = focused && focused.closest(".choice, #names");
  const place = group ? [...group.children].indexOf(focused) : -1;
  Object.assign(state, values);
  draw();
  if (place >= 0) group.children[place].focus();
}

function moveTo(event) {
  const box = viewer.getBoundingClientRect();
  state.position = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  drawBorder();
}

if (pictures.length) {
  find("compare").hidden = false;
  state.right = pictures[0].shown;
  let drags = false;
  stage.addEventListener("pointerdown", (event) => {
    // A finger on an enlarged picture moves the picture, unless it is on the border.
    if (event.pointerType === "touch" && state.zoom && event.target !== handle) return;
    drags = true;
    stage.setPointerCapture(event.pointerId);
    moveTo(event);
  });
  stage.addEventListener("pointermove", (event) => { if (drags) moveTo(event); });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, () => { drags = false; });
  }
  slider.addEventListener("input", () => {
    state.position = slider.value / 1000;
    drawBorder();
  });
  viewer.addEventListener("scroll", drawBorder);
  window.addEventListener("resize", layOut);
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    // The browser moves an enlarged picture that has the focus.
    if (state.zoom && event.target === viewer && event.key.startsWith("Arrow")) return;
    const isButton = event.target instanceof HTMLButtonElement;
    const step = event.shiftKey ? 0.1 : 0.02;
    const by = (number) => () => change({
      picture: (state.picture + number + pictures.length) % pictures.length,
    });
    const push = (distance) => () => {
      state.position = Math.min(1, Math.max(0, state.position + distance));
      drawBorder();
    };
    const actions = {
      ArrowLeft: push(-step), ArrowRight: push(step),
      z: () => change({ zoom: (state.zoom + 1) % ZOOMS.length }),
    };
    if (pictures.length > 1) Object.assign(actions, { ArrowUp: by(-1), ArrowDown: by(1) });
    if (!isButton) actions[" "] = () => change({ left: state.right, right: state.left });
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });
  draw();
}
