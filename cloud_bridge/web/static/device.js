// One device, for whoever looks after it: key, engine, place in its stream, and what was refused.

import { ask } from "./api.js";
import { chip } from "./cameras.js";
import { clean, el, icon, stranger } from "./dom.js";
import { ago, digits, moment, t } from "./words.js";

export function device(ward, site, camera) {
  const name = `${site}/${camera}`;
  const here = `${encodeURIComponent(site)}/${encodeURIComponent(camera)}`;
  const body = el("div", { class: "card" }, el("p", { role: "status" }, t("loading")));
  const node = el("div", {},
    el("p", {}, el("a", { class: "button bare", href: `#/camera/${here}` }, icon("back"), stranger(name, 130))),
    el("h1", { tabindex: -1 }, t("device.title")), body);
  async function load() {
    try {
      body.replaceChildren(...facts(await ask(`/v1/devices/${here}`), ward));
    } catch (error) {
      body.replaceChildren(el("p", { class: "error", role: "alert" },
        t("failed", { why: error.status ? clean(error.message) : t("no answer") })));
      if (error.status === 401) ward.refused(401);
    }
  }
  load();
  return { node, show() {}, again: load };
}

function facts(found, ward) {
  const { counts, engine } = found;
  const heard = found.heard_s ? `${moment(found.heard_s)} (${ago(found.heard_s, ward.now())})` : t("device.never");
  const rows = [
    [t("device.heard"), heard],
    [t("device.key"), el("code", {}, clean(found.public_key, 128))],
    [t("device.boot"), el("code", {}, clean(found.boot_id, 32) || "–")],
    [t("device.slot"), digits(String(found.next_slot))],
    [t("device.model"), el("code", {}, `${clean(engine.family, 64)} ${clean(engine.model, 32)}`)],
    [t("device.profile"), el("bdi", {}, clean(engine.profile, 32))],
    [t("device.bridge"), el("bdi", {}, clean(engine.software, 32))],
  ];
  if (counts) {
    rows.push([t("device.received"), digits(String(counts.received))], [t("device.gaps"), digits(String(counts.gaps))],
      [t("device.refused"), refused(counts.refused)]);
  } else rows.push([t("device.received"), t("device.elsewhere")]);
  return [el("p", {}, chip(found, ward.now())), el("dl", { class: "facts" },
    rows.map(([title, value]) => [el("dt", {}, title), el("dd", {}, value)]))];
}

function refused(counts) {
  const rows = Object.entries(counts);
  if (!rows.length) return t("device.none");
  return el("div", {}, rows.map(([reason, count]) => el("div", {}, `${clean(reason, 32)}: ${digits(String(count))}`)));
}
