// All cameras: health, the last minute, and the newest verdict. Those that need somebody come first.

import { arrange, clean, el, put, stranger } from "./dom.js";
import { canvas, counted, drawMinute } from "./strip.js";
import { health, MINUTE_S, ofCamera } from "./ward.js";
import { ago, percent, t, word } from "./words.js";

const ORDER = ["offline", "stale", "not watching", "blind", "late", "waiting", "watching"];
const TOLD_MS = 5000;
const risky = (camera) => camera.open.some((label) => !ofCamera(label));

export function cameras(ward) {
  const list = el("ul", { class: "grid" });
  const none = el("p", { class: "soft", role: "status" });
  const search = el("input", { type: "search", id: "search", class: "grow", input: () => show(new Set(["cameras"])) });
  const only = el("input", { type: "checkbox", id: "only", change: () => show(new Set(["cameras"])) });
  const cards = new Map();
  const node = el("div", {}, el("h1", { tabindex: -1 }, t("cameras.title")),
    el("div", { class: "row tools" },
      el("div", { class: "grow" }, el("label", { class: "field", for: "search" }, t("cameras.search")),
        el("div", { class: "row" }, search)),
      el("label", { class: "check" }, only, t("cameras.trouble"))),
    none, list);

  function show(changed) {
    if (changed.has("cameras") || changed.has("tick")) place();
    if (changed.has("rows")) return cards.forEach((card) => card.strip());
    for (const name of ward.touched) cards.get(name)?.strip();
    if (changed.has("cameras") || changed.has("tick")) cards.forEach((card) => card.late());
  }

  function place() {
    const wanted = [...ward.cameras.values()].filter(fits).sort(byNeed(ward.now()));
    for (const camera of wanted) {
      if (!cards.has(camera.camera)) cards.set(camera.camera, new Card(ward, camera.camera));
      cards.get(camera.camera).show(camera);
    }
    const names = new Set(wanted.map((camera) => camera.camera));
    for (const name of cards.keys()) if (!names.has(name)) cards.delete(name);
    arrange(list, wanted.map((camera) => cards.get(camera.camera).node));
    const words = wanted.length ? "" : t(ward.cameras.size ? "cameras.none" : ward.known ? "cameras.empty" : "loading");
    if (none.textContent !== words) none.textContent = words;
  }

  function fits(camera) {
    const text = search.value.trim().toLowerCase();
    const needs = health(camera, ward.now()) !== "watching" || camera.open.length > 0;
    return (!only.checked || needs) && camera.camera.toLowerCase().includes(text);
  }
  show(new Set(["cameras"]));
  return { node, show };
}

function byNeed(now_s) {
  const need = (camera) => (risky(camera) ? -1 : ORDER.indexOf(health(camera, now_s)));
  return (a, b) => need(a) - need(b) || (a.camera < b.camera ? -1 : 1);
}

class Card {
  constructor(ward, name) {
    this.ward = ward;
    this.name = name;
    this.chip = el("span", { class: "health" });
    this.open = el("p", { class: "error" });
    this.newest = el("p", { class: "newest" });
    this.picture = canvas("strip", () => this.draw());
    this.told = 0;
    this.drawn = 0;
    const [site, camera] = name.split("/");
    const href = `#/camera/${encodeURIComponent(site)}/${encodeURIComponent(camera ?? "")}`;
    this.node = el("li", {}, el("a", { class: "card camera", href },
      el("div", { class: "top" },
        el("div", {}, el("div", { class: "name" }, stranger(camera ?? "", 130)),
          el("div", { class: "soft small" }, stranger(site, 130))), this.chip),
      this.open, this.picture, el("div", { class: "scale", "aria-hidden": "true" },
        el("span", {}, t("minute.then")), el("span", {}, t("minute.now"))), this.newest));
  }

  show(camera) {
    const state = health(camera, this.ward.now());
    if (this.chip.dataset.health !== state) {
      this.chip.dataset.health = state;
      this.chip.textContent = t(`health.${state}`);
    }
    const risks = camera.open.filter((label) => !ORDER.includes(label)).map((label) => clean(word("label", label), 64));
    const said = risks.join(", ");
    this.open.hidden = !said;
    if (this.open.textContent !== said) this.open.textContent = said;
    this.heard = camera.heard_s;
  }

  get rows() {
    return this.ward.minutes.get(this.name) ?? [];
  }

  draw() {
    this.drawn = Date.now();
    drawMinute(this.picture, this.rows, this.ward.now(), this.ward, MINUTE_S);
  }

  // A camera that says nothing is drawn now and then, too: what it said moves on.
  late() {
    if (Date.now() - this.drawn > 1500) this.strip();
  }

  strip() {
    const rows = this.rows;
    const last = rows[rows.length - 1];
    this.draw();
    const fresh = last && this.ward.now() - last.at < MINUTE_S;
    const words = fresh
      ? `${clean(word("label", last.label), 64)} ${percent(String(Math.round(last.p * 100)))}`
      : this.heard ? t("cameras.heard", { ago: ago(this.heard, this.ward.now()) }) : "";
    if (this.newest.textContent !== words) this.newest.textContent = words;
    if (Date.now() - this.told < TOLD_MS) return;
    this.told = Date.now();
    const since = this.ward.now() - MINUTE_S;
    const name = (label) => clean(word("label", label), 64);
    const counts = counted(rows.filter((row) => row.at >= since), name, t("minute.none"));
    this.picture.setAttribute("aria-label", t("minute.label", { counts }));
  }
}

export function chip(camera, now_s) {
  const state = health(camera, now_s);
  const made = el("span", { class: "health", "data-health": state });
  put(made, t(`health.${state}`));
  return made;
}
