// What could be known at most: a slider over the rows that the server worked out and rounded up. Nothing is computed
// here but which row is shown.

import { ask } from "./api.js";
import { clean, el, put } from "./dom.js";
import { digits, percent, span, t } from "./words.js";

const GALLERIES = [["1000", "0.1"], ["100000", "0.001"], ["10", "10"]];
const START_S = 5;
const SPANS = ["release", "event", "visit_5min", "hour", "day"];

export function known(ward) {
  const body = el("div", {}, el("p", { role: "status" }, t("loading")));
  const node = el("div", {}, el("h1", { tabindex: -1 }, t("known.title")), el("p", {}, t("known.lead")), body);
  ask("/v1/bounds").then(
    (found) => body.replaceChildren(gauge(found), ledger(found)),
    (error) => {
      body.replaceChildren(el("p", { class: "error", role: "alert" },
        t("failed", { why: error.status ? clean(error.message) : t("no answer") })));
      if (error.status === 401) ward.refused(401);
    });
  return { node, show() {} };
}

function gauge(found) {
  const times = found.cameras["1"].map((row) => row.seconds);
  const said = el("output", { class: "gauge", for: "seconds" });
  const shown = el("div", {});
  const slider = el("input", { type: "range", id: "seconds", min: 0, max: times.length - 1, step: 1, input: show,
    value: String(Math.max(0, times.indexOf(START_S))) });
  const choices = Object.keys(found.cameras).map((count) => {
    const one = el("input", { type: "radio", name: "cameras", value: count, change: show, checked: count === String(found.views) });
    return el("label", { class: "check" }, one, count);
  });

  function show() {
    const cameras = choices.map((each) => each.firstChild).find((one) => one.checked).value;
    const row = found.cameras[cameras][Number(slider.value)];
    said.textContent = span(row.seconds);
    slider.setAttribute("aria-valuetext", said.textContent);
    shown.replaceChildren(...measures(row));
    const half = found.time_in_view_s[cameras]["1000"]["0.5"];
    put(shown, el("p", { class: "soft" }, t("known.half", { time: span(half) })));
  }
  show();
  return el("section", { class: "card" },
    el("div", { class: "row" }, el("label", { for: "seconds", class: "grow" }, t("known.time")), said), slider,
    el("fieldset", {}, el("legend", {}, t("known.cameras")), el("div", { class: "row" }, choices)), shown);
}

function measures(row) {
  const made = GALLERIES.map(([m, blind]) =>
    measure(t("known.of", { m: digits(m) }), row.name_one_of[m], t("known.blind", { p: percent(blind) })));
  made.push(measure(t("known.attribute"), row.attribute["0.5"], t("known.blind", { p: percent("50") })));
  const values = { bits: digits(row.bits), releases: digits(String(row.releases)) };
  made.push(el("p", {}, t("known.bits", values)));
  if (Number(row.name_one_of["1000"]) >= 100) made.push(el("p", { class: "warned" }, t("known.open")));
  return made;
}

function measure(title, chance, without) {
  const most = t("known.most", { p: percent(chance) });
  const bar = el("meter", { min: 0, max: 100, "aria-label": `${title}: ${most}` });
  bar.value = Number(chance);
  return el("div", { class: Number(chance) >= 100 ? "measure full" : "measure" },
    el("div", { class: "line" }, el("span", {}, title), el("strong", {}, most)), bar,
    el("div", { class: "soft small" }, without));
}

function ledger(found) {
  const head = [t("known.span"), t("known.bit"), t("known.one", { m: digits("1000") })];
  const rows = SPANS.map((name) => {
    const each = found.spans[name];
    return el("tr", {}, el("th", { scope: "row" }, t(`known.${name}`)), el("td", { class: "number" }, digits(each.bits)),
      el("td", { class: "number" }, percent(each.name_one_of["1000"])));
  });
  return el("section", {}, el("h2", {}, t("known.ledger")), el("div", { class: "card wide" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((each) => el("th", { scope: "col" }, each)))), el("tbody", {}, rows))),
    el("p", { class: "soft small" }, t("known.rests")));
}
