// Every word of the page in four languages: one table. A text that is not in it, such as a new label, is shown as it is.
//
//     t("ago", { time: "3 min" })     the sentence in the language that was chosen, {time} filled in

import { choose, chosen } from "./kept.js";
import { STAFF } from "./words_staff.js";
import { VISITOR } from "./words_visitor.js";

export const LANGUAGES = { en: "English", de: "Deutsch", fr: "Français", es: "Español" };
export const TABLE = { ...STAFF, ...VISITOR };

const NAMES = Object.keys(LANGUAGES);

let now = "";

export function language() {
  if (!now) {
    const wanted = [chosen("language"), ...(navigator.languages ?? [])].map((name) => name.slice(0, 2).toLowerCase());
    now = wanted.find((name) => NAMES.includes(name)) ?? "en";
  }
  return now;
}

export function speak(name) {
  choose("language", name);
  now = "";
}

export function t(key, values = {}) {
  const row = TABLE[key];
  if (!row) return key;
  return row[NAMES.indexOf(language())].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// Formatters are dear to make, so each is made once.
const formers = new Map();

function former(kind, how) {
  const key = kind + language() + JSON.stringify(how);
  if (!formers.has(key)) formers.set(key, new Intl[kind](language(), how));
  return formers.get(key);
}

// A word of the bridge, such as a label or a reason: translated where we know it.
export const word = (kind, text) => (Object.hasOwn(TABLE, `${kind}.${text}`) ? t(`${kind}.${text}`) : text);

// A number that the server rounded up, with the marks of the language; no digit of it changes.
export function digits(text) {
  const places = (text.split(".")[1] ?? "").length;
  const how = { minimumFractionDigits: places, maximumFractionDigits: places };
  return former("NumberFormat", how).format(Number(text));
}

export const percent = (text) => `${digits(text)} %`;

export function clock(at_s, seconds = true) {
  const how = { hour: "2-digit", minute: "2-digit", hour12: false, ...(seconds ? { second: "2-digit" } : {}) };
  return former("DateTimeFormat", how).format(new Date(at_s * 1000));
}

export function moment(at_s) {
  const today = new Date().toDateString() === new Date(at_s * 1000).toDateString();
  const day = former("DateTimeFormat", { day: "numeric", month: "short" });
  return today ? clock(at_s) : `${day.format(new Date(at_s * 1000))}, ${clock(at_s, false)}`;
}

// A length of time in the largest unit that is whole enough.
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const [unit, size] = s < 90 ? ["second", 1] : s < 5400 ? ["minute", 60] : s < 129600 ? ["hour", 3600] : ["day", 86400];
  const how = { style: "unit", unit, unitDisplay: "short" };
  return former("NumberFormat", how).format(Math.floor(s / size));
}

export const ago = (at_s, now_s) => t("ago", { time: span(now_s - at_s) });
