// The inbox: what nobody has seen first, then what is open. One tap says "seen"; a card keeps its place and its focus.

import { ask, query } from "./api.js";
import { arrange, clean, el, icon, put, stranger } from "./dom.js";
import { aboutCamera, health } from "./ward.js";
import { ago, moment, t, word } from "./words.js";

const PAGE = 30;

export function inbox(ward) {
  const view = el("div", {});
  const calm = el("div", { class: "card calm" });
  const list = el("ul", { class: "stack", id: "open" });
  const cards = new Map();
  put(view, el("h1", { tabindex: -1 }, t("inbox.title")), el("div", { class: "stack" }, calm, list), history(ward));

  function show(changed) {
    if (["alerts", "cameras", "link", "tick"].every((each) => !changed.has(each))) return;
    const wanted = ward.inbox();
    const keys = new Set(wanted.map(([key]) => key));
    for (const key of cards.keys()) if (!keys.has(key)) cards.delete(key);
    for (const [key, alert] of wanted) {
      if (!cards.has(key)) cards.set(key, new Card(ward));
      cards.get(key).show(alert);
    }
    arrange(list, wanted.map(([key]) => cards.get(key).node));
    quiet(ward, calm, wanted.length);
  }
  show(new Set(["alerts"]));
  return { node: view, show };
}

function quiet(ward, calm, count) {
  calm.hidden = count > 0;
  if (count) return;
  const good = [...ward.cameras.values()].filter((camera) => health(camera, ward.now()) === "watching").length;
  const all = ward.cameras.size;
  const words = ward.live ? t("inbox.watched", { good, all }) : ward.known ? "" : t("inbox.stale");
  const head = ward.live ? t("inbox.calm") : t(`link.${ward.link.state === "lost" ? "lost" : "connecting"}`);
  calm.classList.toggle("dim", !ward.live || good < all);
  const said = head + words;
  if (calm.dataset.said === said) return;
  calm.dataset.said = said;
  calm.replaceChildren(icon("known"), el("div", {}, el("h2", { class: "gauge" }, head), el("p", {}, words)));
}

const link = (camera) => `#/camera/${camera.split("/").map(encodeURIComponent).join("/")}`;

class Card {
  constructor(ward) {
    this.ward = ward;
    this.title = el("h3", {});
    this.where = el("p", { class: "where" });
    this.time = el("p", { class: "soft" });
    this.says = el("p", { class: "says", lang: "en" });
    this.seen = el("p", { class: "soft" });
    this.fault = el("p", { class: "error", role: "alert", hidden: true });
    this.ack = el("button", { class: "main", click: () => this.acknowledge() }, t("alert.ack"));
    this.more = el("button", { click: () => this.toggle(), "aria-expanded": "false" }, t("alert.comment"));
    this.comments = el("div", { class: "comments", hidden: true });
    const acts = el("div", { class: "row acts" }, this.ack, this.more);
    this.node = el("li", { class: "card alert fresh" }, this.title, this.where, this.time, this.says, this.seen, acts,
      this.fault, this.comments);
  }

  show(alert) {
    const now_s = this.ward.now();
    const said = JSON.stringify([alert, this.ward.who.role]);
    if (this.said !== said) {
      this.said = said;
      this.alert = alert;
      this.fill(alert);
    }
    const when = alert.made_s ? `${moment(alert.made_s)} · ${ago(alert.made_s, now_s)}` : "";
    if (this.time.textContent !== when) this.time.textContent = when;
  }

  fill(alert) {
    const what = clean(word("label", alert.label), 64);
    this.node.dataset.rank = aboutCamera(alert) ? "camera" : "risk";
    this.node.dataset.id = alert.id;
    this.node.classList.toggle("answered", Boolean(alert.seen_by));
    this.title.replaceChildren(el("bdi", {}, what), " ");
    if (alert.severity === "emergency") put(this.title, el("span", { class: "tag strong" }, t("alert.emergency")), " ");
    if (!alert.open) put(this.title, el("span", { class: "tag" }, t("alert.over")));
    this.where.replaceChildren(el("a", { href: link(alert.camera) }, stranger(alert.camera, 130)));
    this.says.replaceChildren(stranger(alert.sentence, 500));
    this.says.hidden = !clean(alert.sentence);
    this.says.tabIndex = clean(alert.sentence).length > 200 ? 0 : -1;
    this.seen.replaceChildren();
    if (alert.seen_by) put(this.seen, t("alert.seen", { who: clean(alert.seen_by, 64), time: moment(alert.seen_s) }));
    if (!alert.id) put(this.seen, t("alert.gone"));
    this.ack.hidden = Boolean(alert.seen_by) || !alert.id || !this.ward.may("nurse");
    this.more.hidden = !alert.id;
    const name = `: ${what}, ${clean(alert.camera, 130)}`;
    this.ack.classList.toggle("main", !aboutCamera(alert));
    this.node.classList.toggle("over", !alert.open);
    this.ack.setAttribute("aria-label", t("alert.ack") + name);
    this.more.setAttribute("aria-label", t("alert.comment") + name);
    if (!this.comments.hidden) this.load();
  }

  async acknowledge() {
    this.ack.disabled = true;
    try {
      this.ward.seen(await ask(`/v1/alerts/${this.alert.id}/acknowledge`, { method: "POST" }));
      this.fault.hidden = true;
      if (this.node.isConnected) this.more.focus();
    } catch (error) {
      this.failed(error);
    }
    this.ack.disabled = false;
  }

  failed(error) {
    this.fault.textContent = t("failed", { why: error.status ? clean(error.message) : t("no answer") });
    this.fault.hidden = false;
    if (error.status === 401) this.ward.refused(401);
  }

  toggle() {
    this.comments.hidden = !this.comments.hidden;
    this.more.setAttribute("aria-expanded", String(!this.comments.hidden));
    if (!this.comments.hidden) this.load();
  }

  // An answer that a newer question or comment has overtaken is dropped.
  async load() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    try {
      const found = await ask(`/v1/alerts/${this.alert.id}`);
      if (turn === this.turn) this.list(found);
    } catch (error) {
      this.failed(error);
    }
  }

  list(found) {
    this.said_here ??= el("div", {});
    const rows = found.comments.map((each) =>
      el("li", {}, el("div", { class: "soft small" }, stranger(each.who, 64), ` · ${moment(each.at_s)}`),
        el("div", { class: "words" }, stranger(each.words, 1000))));
    this.said_here.replaceChildren(rows.length ? el("ul", {}, rows) : el("p", { class: "soft" }, t("alert.none")));
    if (!this.said_here.isConnected) put(this.comments, this.said_here, this.form());
  }

  form() {
    if (!this.ward.may("nurse")) return el("p", { class: "soft" }, t("alert.readonly"));
    const name = `words-${this.alert.id}`;
    const text = el("textarea", { id: name, maxlength: 1000 });
    const send = async (event) => {
      event.preventDefault();
      if (!text.value.trim()) return text.focus();
      const body = { words: text.value };
      button.disabled = true; // one comment for one tap
      try {
        const found = await ask(`/v1/alerts/${this.alert.id}/comments`, { method: "POST", body });
        this.turn = (this.turn ?? 0) + 1;
        this.list(found);
        if (text.value === body.words) text.value = ""; // not what was typed meanwhile
        this.fault.hidden = true;
      } catch (error) {
        this.failed(error);
      }
      button.disabled = false;
    };
    const button = el("button", { class: "main" }, t("alert.send"));
    return el("form", { submit: send }, el("label", { class: "field", for: name }, t("alert.words")), text,
      el("div", { class: "row" }, button));
  }
}

// Every change of every alert, the newest first, a page at a time.
function history(ward) {
  const rows = el("ul", { class: "stack" });
  const more = el("button", { click: () => load() }, t("inbox.older"));
  const fault = el("p", { class: "error", role: "alert", hidden: true });
  let after = "";
  async function load() {
    try {
      const found = await ask(`/v1/alerts?${query({ limit: PAGE, after })}`);
      put(rows, found.rows.map(past));
      after = found.next;
      more.hidden = !after;
      fault.hidden = true;
    } catch (error) {
      fault.textContent = t("failed", { why: error.status ? clean(error.message) : t("no answer") });
      fault.hidden = false;
      if (error.status === 401) ward.refused(401);
    }
  }
  return el("section", {}, el("h2", {}, t("inbox.all")), rows, fault, el("p", {}, more));
}

function past(alert) {
  const turned = t(alert.raised ? "alert.turned" : "alert.cleared");
  const seen = alert.seen_by ? t("alert.seen", { who: clean(alert.seen_by, 64), time: moment(alert.seen_s) }) : "";
  return el("li", { class: "card" },
    el("h3", {}, el("bdi", {}, clean(word("label", alert.label), 64)), " ", el("span", { class: "tag" }, turned)),
    el("p", {}, el("a", { href: link(alert.camera) }, stranger(alert.camera, 130))),
    el("p", { class: "soft" }, moment(alert.made_s), seen ? ` · ${seen}` : ""));
}
