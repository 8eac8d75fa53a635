// The page for staff: sign in, then a frame with the menu, the state of the connection, and one view at a time.
//
//     address #/inbox, #/cameras, #/camera/SITE/CAMERA, #/device/..., #/known, #/visitors, #/settings --> a view
//     view = { node, show(changed), again()?, close()? }

import { ApiError, ask, forget, keep, token } from "./api.js";
import { cameras } from "./cameras.js";
import { device } from "./device.js";
import { clean, el, icon, put } from "./dom.js";
import { inbox } from "./inbox.js";
import { follow, paint } from "./kept.js";
import { known } from "./known.js";
import { languages, schemes, settings } from "./settings.js";
import { Sound } from "./sound.js";
import { forgetColours } from "./strip.js";
import { timeline } from "./timeline.js";
import { visitors } from "./visitors.js";
import { aboutCamera, Ward } from "./ward.js";
import { clock, language, t, word } from "./words.js";

const MENU = [["inbox", "alerts"], ["cameras", "cameras"], ["known", "known"], ["visitors", "visitors"],
  ["settings", "settings"]];
const UNDER = { camera: "cameras", device: "cameras" };
const page = document.getElementById("page");
const sound = new Sound();
let ward = null;
let frame = null;
let ended = "";

function start() {
  paint();
  if (token()) enter();
  else signIn();
}

function signIn() {
  document.documentElement.lang = language();
  document.title = `${t("sign.title")} · Veilsight`;
  const text = el("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false",
    "aria-describedby": "hint", maxlength: 200 });
  const fault = el("p", { class: "error", role: "alert" }, ended);
  const send = async (event) => {
    event.preventDefault();
    keep(text.value.trim());
    try {
      await ask("/v1/overview");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      forget();
      fault.textContent = refusal(error.status);
      text.focus();
      return;
    }
    ended = "";
    enter();
  };
  page.replaceChildren(el("main", { class: "signin" }, el("h1", {}, "Veilsight"),
    el("form", { class: "card stack", submit: send }, el("label", { class: "field", for: "token" }, t("sign.token")), text,
      el("p", { class: "soft small", id: "hint" }, t("sign.hint")), fault,
      el("button", { class: "main" }, t("sign.go"))),
    el("div", { class: "row tools" }, el("label", { class: "unseen", for: "language" }, t("settings.language")),
      languages(signIn), el("label", { class: "unseen", for: "scheme" }, t("settings.scheme")), schemes())));
  text.focus();
}

function refusal(status) {
  if (status === 429) return t("sign.many");
  if (status === 401) return t("sign.bad");
  return t("failed", { why: status ? String(status) : t("no answer") });
}

function enter() {
  ward = new Ward((changed) => frame?.show(changed), (status) => leave(status === 401 ? t("sign.ended") : ""));
  frame = new Frame();
  ward.begin();
}

function leave(words = "") {
  ward?.close();
  frame?.close();
  ward = frame = null;
  forget();
  ended = words;
  signIn();
}

class Frame {
  constructor() {
    this.view = null;
    this.heard = new Set();
    this.begun = false;
    this.moved = () => this.route(true);
    window.addEventListener("hashchange", this.moved);
    this.beat = setInterval(() => this.tick(), 1000);
    sound.woke = () => this.hush();
    this.build();
  }

  close() {
    clearInterval(this.beat);
    window.removeEventListener("hashchange", this.moved);
    this.view?.close?.();
  }

  build() {
    document.documentElement.lang = language();
    this.pill = el("span", { class: "pill", role: "status" });
    this.mute = el("button", { class: "bare hush", click: () => this.turn() });
    this.notices = el("div", { class: "notices" });
    this.said = el("div", { class: "unseen", role: "status", "aria-live": "assertive" });
    this.main = el("main", { id: "main", tabindex: -1 });
    this.badge = el("span", { class: "badge", hidden: true });
    this.links = MENU.map(([name, drawn]) => {
      const words = el("span", {}, t(`nav.${drawn === "alerts" ? "alerts" : name}`));
      return el("a", { href: `#/${name}` }, icon(drawn), words, name === "inbox" ? this.badge : null);
    });
    const skip = (event) => {
      event.preventDefault();
      this.main.focus();
    };
    this.node = el("div", { class: "frame" }, el("a", { class: "skip", href: "#main", click: skip }, t("skip")),
      el("header", { class: "head" }, el("span", { class: "brand" }, "Veilsight"), this.pill, this.mute),
      this.notices, el("nav", { class: "menu", "aria-label": t("nav.label") }, this.links), this.main, this.said);
    page.replaceChildren(this.node);
    this.hush();
    this.route();
    this.show(new Set(["link", "alerts", "cameras"]));
  }

  route(moved = false) {
    const [name = "inbox", ...parts] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
    const made = this.make(name, parts) ?? this.make("inbox", []);
    this.view?.close?.();
    this.view = made;
    this.main.replaceChildren(made.node);
    const here = UNDER[name] ?? name;
    for (const link of this.links) {
      if (link.hash === `#/${here}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (moved) {
      window.scrollTo(0, 0);
      made.node.querySelector("h1")?.focus();
    }
  }

  make(name, [site, camera]) {
    if (name === "cameras") return cameras(ward);
    if (name === "camera" && site && camera) return timeline(ward, site, camera);
    if (name === "device" && site && camera) return device(ward, site, camera);
    if (name === "known") return known(ward);
    if (name === "visitors") return visitors(ward, site, camera);
    if (name === "settings") {
      const changed = { language: () => this.build(), sound: () => this.hush() };
      return settings(ward, sound, changed, () => leave());
    }
    return name === "inbox" ? inbox(ward) : null;
  }

  show(changed) {
    if (changed.has("link")) this.connection();
    if (changed.has("alerts")) this.count();
    this.view?.show(changed);
  }

  tick() {
    this.view?.show(new Set(["tick", "minutes"]));
    if (ward.link.state === "lost") this.connection();
    if (ward.unseen().some((alert) => alert.open && !aboutCamera(alert))) sound.ring();
  }

  connection() {
    const { state } = ward.link;
    const shown = state === "live" && !ward.known ? "connecting" : state;
    if (state !== "live") this.since ??= Date.now() / 1000;
    const lost = state === "lost" || (state === "connecting" && this.begun);
    this.pill.dataset.state = lost ? "lost" : shown;
    const words = t(`link.${lost ? "lost" : shown}`);
    if (this.pill.textContent !== words) this.pill.textContent = words;
    document.body.classList.toggle("dead", lost);
    if (ward.live) {
      if (lost !== this.lost && this.begun) this.view?.again?.();
      this.begun = true;
      this.since = null;
    }
    this.lost = lost;
    this.notice(lost);
  }

  // Says what is wrong, at once and until it is right: a page that hears nothing must not look alive.
  notice(lost) {
    const words = [];
    if (lost) words.push([t("lost.title"), t("lost.since", { time: clock(this.since) })]);
    if (ward.link.status === 503 && lost) words.push([t("lost.full"), ""]);
    if (!ward.well) words.push([t("ill.title"), ""]);
    const said = JSON.stringify(words);
    if (this.notices.dataset.said === said) return;
    this.notices.dataset.said = said;
    this.notices.replaceChildren(...words.map(([title, more]) => el("div", { class: "banner", role: "alert" },
      icon("alerts"), el("div", {}, el("strong", {}, title), more))));
  }

  count() {
    const unseen = ward.unseen();
    this.badge.hidden = !unseen.length;
    this.badge.replaceChildren(String(unseen.length),
      el("span", { class: "unseen" }, ` ${t("inbox.waiting", { count: "" }).trim()}`));
    document.title = unseen.length ? `(${unseen.length}) Veilsight` : "Veilsight";
    const fresh = unseen.filter((alert) => alert.id && !this.heard.has(alert.id));
    for (const alert of fresh) this.heard.add(alert.id);
    const risks = fresh.filter((alert) => !aboutCamera(alert));
    if (!risks.length) return;
    const [first] = risks;
    const values = { what: clean(word("label", first.label), 64), where: clean(first.camera, 130) };
    this.said.textContent = t("alert.announce", values);
    sound.ring(true);
  }

  turn() {
    if (sound.wanted && !sound.ready) sound.wake().then(() => sound.ring(true));
    else sound.turn(!sound.wanted);
    this.hush();
  }

  hush() {
    const state = !sound.wanted ? "off" : sound.ready ? "on" : "tap";
    const words = t(`sound.${state}`);
    this.mute.replaceChildren();
    this.mute.setAttribute("aria-pressed", String(state === "on"));
    this.mute.setAttribute("title", words);
    put(this.mute, icon(state === "on" ? "sound" : "silent"), el("span", { class: "words" }, words));
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

follow(() => {
  forgetColours();
  frame?.show(new Set(["cameras", "rows", "link"]));
});
start();

// For whoever measures the page: what it has taken since it signed in.
export const counts = () => ({ ...ward?.counts });
