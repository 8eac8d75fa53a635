// The page for visitors: in plain words what leaves the box, the proved number, and what is not proved. No token.

import { clean, el } from "./dom.js";
import { follow, paint } from "./kept.js";
import { languages, schemes } from "./settings.js";
import { digits, language, percent, span, t, word } from "./words.js";

const PART = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
const page = document.getElementById("page");
let found = null;
let failed = false;

function place() {
  const parts = location.pathname.split("/").slice(2).filter((part) => PART.test(part));
  return parts.join(" / ");
}

function draw() {
  document.documentElement.lang = language();
  document.title = t("visitor.title");
  const here = place();
  page.replaceChildren(el("div", { class: "public" },
    el("div", { class: "tools" }, el("label", { class: "unseen", for: "language" }, t("settings.language")),
      languages(draw), el("label", { class: "unseen", for: "scheme" }, t("settings.scheme")), schemes()),
    el("main", {}, el("h1", {}, t("visitor.title")),
      here ? el("p", { class: "soft" }, `${t("visitor.here")}: `, el("bdi", {}, clean(here, 130))) : null, told())));
}

function told() {
  if (failed) return el("p", { class: "error", role: "alert" }, t("visitor.failed"));
  if (!found) return el("p", { role: "status" }, t("loading"));
  const n = digits(String(found.n));
  const { event, visit_5min: visit } = found.spans;
  const list = (keys, values = {}) => el("ul", {}, keys.map((key) => el("li", {}, t(`visitor.${key}`, values))));
  const labels = found.labels.map((label) => clean(word("label", label), 64)).join(", ");
  return [
    el("p", { class: "lead" }, t("visitor.short", { n })),
    el("h2", {}, t("visitor.leaves")),
    list(["numbers", "same", "technical"], { n, slot: span(found.slot_s) }),
    el("h2", {}, t("visitor.proved")),
    el("p", {}, t("visitor.pass", { p: percent(event.name_one_of["1000"]) })),
    el("p", {}, t("visitor.bits", { bits: digits(event.bits) })),
    el("h2", {}, t("visitor.table")), table(),
    found.views > 1 ? el("p", {}, t("visitor.views", { count: digits(String(found.views)) })) : null,
    el("h2", {}, t("visitor.not")),
    list(["stay", "habit", "other", "box"], { p: percent(visit.name_one_of["1000"]) }),
    el("h2", {}, t("visitor.tells")), el("p", {}, t("visitor.staff", { labels })), el("p", {}, t("visitor.rights")),
  ];
}

function table() {
  const head = [t("known.span"), t("known.bit"), t("known.one", { m: digits("1000") })];
  const rows = [
    ...found.in_view.map((row) => [t("visitor.view", { time: span(row.seconds) }), row]),
    ...["hour", "day"].map((name) => [t(`known.${name}`), found.spans[name]]),
  ];
  return el("div", { class: "card wide" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((each) => el("th", { scope: "col" }, each)))),
    el("tbody", {}, rows.map(([title, each]) => el("tr", {}, el("th", { scope: "row" }, title),
      el("td", {}, digits(each.bits)), el("td", {}, percent(each.name_one_of["1000"])))))));
}

paint();
follow(() => {});
draw();
fetch("/v1/visitor", { cache: "no-store" })
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.statusText))))
  .then((numbers) => (found = numbers), () => (failed = true))
  .finally(draw);
