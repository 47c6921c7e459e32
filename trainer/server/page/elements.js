// Elements of the page. Texts of a snapshot are only ever text.

export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (name === "hue") element.style.setProperty("--hue", value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function time(us) {
  const seconds = us / 1e6;
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

// A caption whose nouns are buttons that locate them.
export function caption(clip, lit, toggle) {
  const parts = [];
  let rest = clip.caption;
  for (const noun of clip.nouns) {
    const at = rest.toLowerCase().indexOf(noun.toLowerCase());
    if (at < 0) continue;
    parts.push(rest.slice(0, at));
    const chip = lit.find((one) => one.noun.toLowerCase() === noun.toLowerCase());
    parts.push(
      make(
        "button",
        {
          type: "button",
          class: chip?.on ? "word lit" : "word",
          hue: chip?.hue ?? "transparent",
          title: "Locate it in all clips",
          onclick: () => toggle(noun.toLowerCase()),
        },
        rest.slice(at, at + noun.length),
      ),
    );
    rest = rest.slice(at + noun.length);
  }
  parts.push(rest);
  return parts;
}
