// One camera: its health, what is open, and what was read, as a chart and as a list of stretches of one label.

import { ask, query } from "./api.js";
import { clean, el, icon, stranger } from "./dom.js";
import { chip } from "./cameras.js";
import { contour } from "./contour.js";
import { canvas, drawChart, kindOf, risk } from "./strip.js";
import { clock, moment, percent, t, word } from "./words.js";

const PAGE = 300;
const STRETCHES = 60;

export function timeline(ward, site, camera) {
  const name = `${site}/${camera}`;
  const head = el("div", { class: "row" });
  const open = el("div", {});
  const list = el("tbody", {});
  const fault = el("p", { class: "error", role: "alert", hidden: true });
  const none = el("p", { class: "soft", role: "status" }, t("loading"));
  const table = el("div", { class: "wide" }, el("table", {},
    el("caption", { class: "unseen" }, t("time.title")), list));
  let rows = [];
  let after = "";
  let live = true;
  const chart = canvas("chart", () => drawChart(chart, rows, ward));
  const older = el("button", { click: () => load(after) }, t("time.older"));
  const newest = el("button", { click: () => load("") }, t("time.newest"));
  const figure = contour(ward, name);
  const here = `${encodeURIComponent(site)}/${encodeURIComponent(camera)}`;
  const node = el("div", {},
    el("p", {}, el("a", { class: "button bare", href: "#/cameras" }, icon("back"), t("nav.cameras"))),
    el("h1", { tabindex: -1 }, stranger(name, 130)), head, open,
    el("p", { class: "row" }, el("a", { class: "button", href: `#/device/${here}` }, t("device.title")),
      el("a", { class: "button", href: `#/visitors/${here}` }, t("visitors.title"))),
    figure.node,
    el("h2", {}, t("time.title")), el("p", { class: "soft small" }, t("time.caption"), ". ", t("time.sentence")),
    chart, none, fault, table, el("p", { class: "row" }, older, newest));

  async function load(from) {
    live = from === "";
    try {
      const found = await ask(`/v1/verdicts?${query({ camera: name, limit: PAGE, after: from })}`);
      rows = found.rows.reverse().map((row) => ({ ...row, at: row.made_s, p: row.probability }));
      after = found.next;
      fault.hidden = true;
    } catch (error) {
      fault.textContent = t("failed", { why: error.status ? clean(error.message) : t("no answer") });
      fault.hidden = false;
      if (error.status === 401) ward.refused(401);
    }
    draw();
  }

  function draw() {
    none.textContent = rows.length ? "" : t("time.none");
    none.hidden = rows.length > 0;
    chart.hidden = rows.length === 0;
    older.hidden = !after;
    newest.hidden = live;
    list.replaceChildren(...stretches(rows, ward.quiet).slice(0, STRETCHES).map((each) => line(each, ward.quiet)));
    drawChart(chart, rows, ward);
    if (!rows.length) return;
    const most = percent(String(Math.round(100 * Math.max(...rows.map((row) => risk(row, ward.quiet))))));
    const values = { from: clock(rows[0].at), to: clock(rows[rows.length - 1].at), most };
    chart.setAttribute("aria-label", t("time.chart", values));
  }

  let due = 0;
  function hear(data) {
    if (!live || data.camera !== name) return;
    rows.push({ ...data, at: data.told_s ?? ward.now(), p: data.probability });
    if (rows.length > PAGE) rows.shift();
    due = 1;
  }

  function show(changed) {
    if (due || changed.has("rows")) draw();
    due = 0;
    if (!["cameras", "link", "tick"].some((each) => changed.has(each))) return;
    figure.show();
    const found = ward.cameras.get(name);
    head.replaceChildren(...(found ? [chip(found, ward.now())] : []));
    const labels = (found?.open ?? []).map((label) => el("span", { class: "tag strong" }, clean(word("label", label), 64)));
    open.replaceChildren(...(labels.length ? [el("p", { class: "row" }, `${t("time.alerts")}:`, ...labels)] : []));
  }

  function close() {
    ward.listener = null;
    figure.close();
  }

  ward.listener = hear;
  load("");
  show(new Set(["cameras"]));
  return { node, show, again: () => live && load(""), close };
}

// Verdicts in a row that say the same, as one; the newest first.
export function stretches(rows, quiet) {
  const found = [];
  for (const row of rows) {
    const last = found[found.length - 1];
    const kind = kindOf(row, quiet);
    if (last && last.label === row.label && last.kind === kind && last.late === row.late) {
      last.to = row.at;
      last.count += 1;
      last.p = Math.max(last.p, row.p);
      last.sentence = row.sentence || last.sentence;
    } else {
      const { at, label, p, late, sentence } = row;
      found.push({ from: at, to: at, label, kind, late, p, sentence, count: 1 });
    }
  }
  return found.reverse();
}

function line(stretch) {
  const tags = [];
  if (stretch.kind === "unsure" && !stretch.late) tags.push(t("minute.unsure"));
  if (stretch.late) tags.push(t("time.late"));
  const sure = t("time.sure", { p: percent(String(Math.round(100 * stretch.p))) });
  return el("tr", {},
    el("td", { class: "when" }, moment(stretch.from), el("br", {}), "– ", clock(stretch.to)),
    el("td", {}, el("span", { class: "mark", "data-kind": stretch.kind }),
      el("strong", {}, el("bdi", {}, clean(word("label", stretch.label), 64))), " ",
      tags.map((tag) => el("span", { class: "tag" }, tag)),
      el("div", { class: "soft small" }, `${t("time.count", { count: stretch.count })}, ${sure}`),
      stretch.sentence ? el("div", { lang: "en" }, stranger(stretch.sentence, 500)) : null));
}
