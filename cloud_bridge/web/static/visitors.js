// What hangs beside a camera: the QR code of the page for visitors, to print.

import { ask, query } from "./api.js";
import { clean, el, outline, put } from "./dom.js";
import { t } from "./words.js";

export function visitors(ward, site = "", camera = "") {
  const first = [site, camera].filter(Boolean).join("/");
  const choice = el("select", { id: "place", class: "grow", change: () => draw() });
  const poster = el("div", { class: "card poster" });
  const node = el("div", {}, el("h1", { tabindex: -1 }, t("visitors.title")),
    el("p", { class: "noprint" }, t("visitors.lead")),
    el("div", { class: "row noprint" }, el("div", { class: "grow" },
      el("label", { class: "field", for: "place" }, t("visitors.place")), el("div", { class: "row" }, choice))), poster,
    el("p", { class: "noprint" }, el("button", { class: "main", click: () => window.print() }, t("visitors.print"))));

  function fill() {
    const names = [...ward.cameras.keys()].sort();
    const sites = [...new Set(names.map((name) => name.split("/")[0]))];
    const now = choice.value || first;
    const all = [["", t("visitors.all")], ...sites.map((each) => [each, t("visitors.site", { site: clean(each, 64) })]),
      ...names.map((each) => [each, clean(each, 130)])];
    if (now && !all.some(([value]) => value === now)) all.push([now, clean(now, 130)]);
    const said = JSON.stringify(all);
    if (choice.dataset.said === said) return;
    choice.dataset.said = said;
    choice.replaceChildren(...all.map(([value, text]) => el("option", { value }, text)));
    choice.value = now;
  }

  async function draw() {
    const wanted = choice.value;
    const path = ["visitor", ...wanted.split("/").filter(Boolean).map(encodeURIComponent)].join("/");
    const link = `${location.origin}/${path}`;
    let code;
    try {
      const found = await ask(`/v1/qr?${query({ link })}`);
      code = outline(found.path, found.size, t("visitors.code"));
    } catch (error) {
      code = el("p", { class: "error", role: "alert" },
        t("failed", { why: error.status ? clean(error.message) : t("no answer") }));
      if (error.status === 401) ward.refused(401);
    }
    if (choice.value !== wanted) return;
    poster.replaceChildren(el("p", { class: "gauge" }, t("visitors.poster")), code);
    if (wanted) put(poster, el("p", {}, el("strong", {}, el("bdi", {}, clean(wanted, 130)))));
    put(poster, el("p", { class: "link" }, el("a", { href: link, target: "_blank", rel: "noreferrer" }, link)));
  }

  fill();
  draw();
  return { node, show: (changed) => changed.has("cameras") && fill() };
}
