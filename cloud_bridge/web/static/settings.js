// Language, light or dark, sound, and the way out.

import { el } from "./dom.js";
import { choose, chosen, paint } from "./kept.js";
import { forgetColours } from "./strip.js";
import { language, LANGUAGES, moment, speak, t } from "./words.js";

export function languages(changed) {
  const choice = el("select", { id: "language", change: () => {
    speak(choice.value);
    changed();
  } }, Object.entries(LANGUAGES).map(([value, name]) => el("option", { value, lang: value }, name)));
  choice.value = language();
  return choice;
}

export function schemes(changed) {
  const choice = el("select", { id: "scheme", change: () => {
    choose("scheme", choice.value);
    paint();
    forgetColours();
    changed?.();
  } }, ["auto", "light", "dark"].map((value) => el("option", { value }, t(`scheme.${value}`))));
  choice.value = chosen("scheme", "auto");
  return choice;
}

export function settings(ward, sound, changed, out) {
  const loud = el("input", { type: "checkbox", id: "sound", change: () => {
    sound.turn(loud.checked);
    changed.sound();
  } });
  loud.checked = sound.wanted;
  const who = el("p", {});
  const until = el("p", { class: "soft" });
  const field = (id, title, node) => el("p", {}, el("label", { class: "field", for: id }, title), node);
  const node = el("div", {}, el("h1", { tabindex: -1 }, t("settings.title")),
    el("div", { class: "card" },
      field("language", t("settings.language"), languages(changed.language)),
      field("scheme", t("settings.scheme"), schemes()),
      el("p", {}, el("label", { class: "check" }, loud, t("settings.sound"))),
      el("p", {}, el("button", { click: () => sound.turn(true) }, t("settings.try")))),
    el("h2", {}, t("settings.account")),
    el("div", { class: "card" }, who, until, el("button", { click: out }, t("sign.out"))));

  function show() {
    const { name, role, until_s } = ward.who;
    who.textContent = t("settings.who", { who: name, role: t(`role.${role}`) });
    until.textContent = until_s ? t("settings.until", { time: moment(until_s) }) : "";
    loud.checked = sound.wanted;
  }
  show();
  return { node, show };
}
