// What a person chose on this device: language, light or dark, sound. Nothing secret lies here.

const PREFIX = "veilsight-";

export function chosen(name, fallback = "") {
  try {
    return localStorage.getItem(PREFIX + name) ?? fallback;
  } catch {
    return fallback;
  }
}

export function choose(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // a browser that keeps nothing forgets it at the next start
  }
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");

// Puts light or dark on the page: what was chosen, or what the device prefers.
export function paint() {
  const scheme = chosen("scheme", "auto");
  const found = scheme === "auto" ? (dark.matches ? "dark" : "light") : scheme;
  document.documentElement.dataset.scheme = found === "dark" ? "dark" : "light";
}

export function follow(changed) {
  dark.addEventListener("change", () => {
    paint();
    changed();
  });
}
