// Makes elements. Everything that came from a network becomes a text node here, and nothing becomes markup.
//
//     el("p", { class: "words" }, text)      children: nodes, texts, or null for none
//     clean(text, most)                      what people may see of a text that somebody else wrote
//     stranger(text)                         such a text, kept apart from the direction of the words around it

const SVG = "http://www.w3.org/2000/svg";
// control characters, marks that turn the direction of what follows, and invisible ones
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]/g;
// more than three marks on one letter draw over the lines around it
const PILED = /(\p{M}{3})\p{M}+/gu;

export function clean(text, most = 300) {
  const plain = String(text ?? "").slice(0, most * 4).replace(HIDDEN, " ").replace(PILED, "$1").trim();
  const letters = Array.from(plain);
  return letters.length > most ? letters.slice(0, most).join("") + "…" : plain;
}

export function el(tag, how = {}, ...children) {
  const made = document.createElement(tag);
  set(made, how);
  put(made, ...children);
  return made;
}

export function set(node, how) {
  for (const [name, value] of Object.entries(how)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name in DIRECT) node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
}

const DIRECT = { value: 1, checked: 1, disabled: 1, hidden: 1 };

export function put(node, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function stranger(text, most = 300) {
  return el("bdi", { class: "stranger" }, clean(text, most));
}

const ICONS = {
  alerts: "M12 3a6 6 0 0 0-6 6v4l-2 4h16l-2-4V9a6 6 0 0 0-6-6zM9.5 20a2.6 2.6 0 0 0 5 0",
  cameras: "M3 7h11v10H3zM14 11l6-3v8l-6-3",
  known: "M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6zM9 12l2.2 2.2L15.5 10",
  visitors: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h2v2h-2zM18 18h2v2h-2zM18 14h2M14 18v2",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M13 4.5h4v5h-4zM7 14.5h4v5H7z",
  sound: "M4 9.5v5h3.5L12 18V6L7.5 9.5zM15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
  silent: "M4 9.5v5h3.5L12 18V6L7.5 9.5zM16 9.5l5 5M21 9.5l-5 5",
  back: "M15 5l-7 7 7 7",
};

export function icon(name) {
  const drawn = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    drawn.setAttribute(key, value);
  }
  line.setAttribute("d", ICONS[name]);
  drawn.append(line);
  return drawn;
}

export function outline(path, size, label) {
  const drawn = document.createElementNS(SVG, "svg");
  const shape = document.createElementNS(SVG, "path");
  const how = { viewBox: `0 0 ${size} ${size}`, class: "qr", role: "img", "aria-label": label };
  for (const [key, value] of Object.entries(how)) drawn.setAttribute(key, value);
  shape.setAttribute("d", path);
  drawn.append(shape);
  return drawn;
}

// Keeps children in order without moving what is in its place, so that nothing loses the focus.
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const node of nodes) {
    // One that has gone further down is moved when its turn comes, and not all that stand before its new place; but
    // one with the focus stays, since it would lose it.
    if (node !== at && node === at?.nextElementSibling && !at.contains(document.activeElement)) at = node;
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
}
