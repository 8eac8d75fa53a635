// The dynamic contour of one camera: an outline figure that the cloud draws from the noised code, and how sure it is.
//
//     stream of contours, one a release --8 figures on the way from one to the next--> an SVG of outlines in layers
//
// How dark a place is says how likely the body covers it: layers lie where an outline may be, wide apart where the
// decoder is unsure. Place, size and looks are not in the code. Who wants less motion gets a still figure, now and then.

import { el, set } from "./dom.js";
import { Stream } from "./stream.js";
import { percent, t } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const POSTURES = ["upright", "bent", "lying", "fighting"];
const COUNTS = ["nobody", "one", "several"];
const RAYS = 48;
const FIGURES = 8;
const WIDEST = 0.5;
const LAYERS = 12;
const DARKEST = 0.9;
const SCALE = 100; // of a body's height
const APART = 48; // two people stand side by side; those who fight, closer: where they are is not in the code
const CLOSE = 26;
const LEAST = 0.04; // of a body's height, that a layer reaches
const STILL_MS = 5000;
const OLD_SLOTS = 4;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function contour(ward, name) {
  const figures = [new Figure(), new Figure()];
  const drawn = svg("svg", { viewBox: "-125 -90 250 180", class: "figure", role: "img" },
    figures[0].node, figures[1].node);
  const says = el("p", { class: "says" });
  const none = el("p", { class: "soft", role: "status" }, t("contour.none"));
  const unsure = el("p", { class: "warned", hidden: true }, t("contour.unsure"));
  const node = el("section", { class: "contour", hidden: !ward.draws }, el("h2", {}, t("contour.title")),
    el("div", { class: "card" }, none, drawn, says, unsure,
      el("p", { class: "soft small" }, el("strong", {}, t("contour.what")), " ", t("contour.how"))));
  let former = null;
  let newest = null;
  let came = 0;
  let shown = 0;
  let told = 0;

  function hear(kind, data) {
    const found = kind === "contour" && data?.camera === name ? read(data) : null;
    if (!found) return;
    former = newest && newest.boot === found.boot ? newest : found;
    newest = found;
    came = Date.now();
  }

  function beat() {
    const slot_ms = ward.slot_s * 1000;
    const old = !newest || Date.now() - came > OLD_SLOTS * slot_ms;
    if (none.hidden === old) none.hidden = !old;
    for (const each of [drawn, says]) each.toggleAttribute("hidden", old);
    if (old) {
      unsure.hidden = true;
      former = newest = null;
      return;
    }
    if (document.visibilityState !== "visible") return;
    if (calm.matches && shown && Date.now() - shown < STILL_MS) return;
    const step = Math.min(FIGURES, 1 + Math.floor(((Date.now() - came) / slot_ms) * FIGURES));
    draw(between(former, newest, calm.matches ? 1 : step / FIGURES));
    shown = Date.now();
    tell();
  }

  function draw(figure) {
    const there = figure.count ? 1 - figure.count[0] : 1;
    const several = figure.count ? figure.count[2] : 0;
    const apart = APART - (APART - CLOSE) * (figure.posture ? figure.posture[3] : 0);
    figures[0].draw(figure.first, there, -apart * several);
    figures[1].draw(figure.second, several, apart);
  }

  function tell() {
    if (Date.now() - told < STILL_MS / 2) return;
    told = Date.now();
    const words = inWords(newest);
    says.textContent = words;
    drawn.setAttribute("aria-label", t("contour.alt", { what: words }));
    unsure.hidden = !newest.unsure;
  }

  const timer = setInterval(beat, (ward.slot_s * 1000) / FIGURES);
  const path = `/v1/stream?${new URLSearchParams({ kind: "contour", camera: name })}`;
  const stream = new Stream(path, hear, (state, status) => state === "refused" && ward.refused(status));
  let runs = false;

  // A page that was loaded here knows only after a moment whether there are contours.
  function show() {
    node.hidden = !ward.draws;
    if (runs || !ward.draws) return;
    runs = true;
    stream.run();
  }

  function close() {
    clearInterval(timer);
    stream.close();
  }
  beat();
  show();
  return { node, show, close };
}

// One outline: layers from the widest to the narrowest, each with the share of what it adds to the darkness.
class Figure {
  constructor() {
    this.layers = Array.from({ length: LAYERS }, (_, at) => svg("path", { "fill-opacity": share(at).toFixed(4) }));
    this.node = svg("g", {}, ...this.layers);
  }

  draw({ radii, spread }, opacity, x) {
    this.node.setAttribute("opacity", opacity.toFixed(3));
    this.node.setAttribute("transform", `translate(${x.toFixed(1)} 0)`);
    this.layers.forEach((layer, at) => layer.setAttribute("d", curve(radii, spread, away(at))));
  }
}

// Laplace's quantiles: a body's outline lies beyond layer k with a chance of (k + 1) / (LAYERS + 1).
function away(at) {
  const chance = 1 - (at + 1) / (LAYERS + 1);
  return chance > 0.5 ? -Math.log(2 * (1 - chance)) : Math.log(2 * chance);
}

function share(at) {
  const before = (DARKEST * at) / LAYERS;
  return DARKEST / LAYERS / (1 - before);
}

// A closed curve through the middles between neighbouring points, `offset` spreads out of the outline.
function curve(radii, spread, offset) {
  const points = radii.map((radius, ray) => {
    const reach = SCALE * Math.max(LEAST, radius + offset * spread[ray]);
    const turn = (2 * Math.PI * ray) / RAYS;
    return [reach * Math.cos(turn), -reach * Math.sin(turn)];
  });
  const middle = (ray) => {
    const [a, b] = [points[ray % RAYS], points[(ray + 1) % RAYS]];
    return `${((a[0] + b[0]) / 2).toFixed(1)} ${((a[1] + b[1]) / 2).toFixed(1)}`;
  };
  const parts = points.map(([x, y], ray) => `Q${x.toFixed(1)} ${y.toFixed(1)} ${middle(ray)}`);
  return `M${middle(RAYS - 1)}${parts.join("")}Z`;
}

export function between(former, newest, part) {
  const mix = (a, b) => (a && b ? b.map((value, at) => a[at] + part * (value - a[at])) : b);
  const outline = (name) => ({
    radii: mix(former[name].radii, newest[name].radii),
    spread: mix(former[name].spread, newest[name].spread),
  });
  const [count, posture] = [mix(former.count, newest.count), mix(former.posture, newest.posture)];
  return { ...newest, count, posture, first: outline("first"), second: outline("second") };
}

// A contour as the stream gives it, or null for what is none.
export function read(data) {
  const [first, second] = [bytes(data?.first), bytes(data?.second)];
  if (!first || !second) return null;
  return {
    boot: data.boot_id,
    posture: chances(data, POSTURES),
    count: chances(data, COUNTS),
    moving: chance(data.moving),
    right: chance(data.right),
    unsure: data.unsure === true,
    first,
    second,
  };
}

function bytes(text) {
  let found = "";
  try {
    found = atob(String(text).slice(0, 4 * RAYS));
  } catch {
    return null;
  }
  if (found.length !== 2 * RAYS) return null;
  const values = Array.from(found, (each) => each.charCodeAt(0) / 255);
  return { radii: values.slice(0, RAYS), spread: values.slice(RAYS).map((value) => value * WIDEST) };
}

const chance = (value) => (typeof value === "number" && value >= 0 && value <= 1 ? value : null);

function chances(data, names) {
  const found = names.map((name) => chance(data[name]));
  return found.includes(null) ? null : found;
}

// "Upright 61 %, one person 72 %, still 90 %": only what the code tells.
export function inWords(figure) {
  const said = [];
  const add = (key, value) => said.push(`${t(key)} ${percent(String(Math.round(100 * value)))}`);
  const likeliest = (names, values, group) => {
    const at = values.indexOf(Math.max(...values));
    add(`${group}.${names[at]}`, values[at]);
  };
  if (figure.count) likeliest(COUNTS, figure.count, "count");
  const nobody = figure.count && figure.count[0] === Math.max(...figure.count);
  if (figure.posture && !nobody) likeliest(POSTURES, figure.posture, "posture");
  if (figure.moving !== null && !nobody) {
    add(figure.moving > 0.5 ? "moves.yes" : "moves.no", Math.max(figure.moving, 1 - figure.moving));
    if (figure.moving > 0.5 && figure.right !== null) {
      add(figure.right > 0.5 ? "moves.right" : "moves.left", Math.max(figure.right, 1 - figure.right));
    }
  }
  return said.join(", ") || t("contour.nothing");
}

function svg(tag, how, ...children) {
  const made = document.createElementNS(SVG, tag);
  set(made, how);
  made.append(...children);
  return made;
}
