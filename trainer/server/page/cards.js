// Found clips as cards, and clips to begin with as a wall.

import { Film } from "./film.js";
import { caption, make, time } from "./elements.js";

// A card; `other` is its place in the other run's list, if there are two, and `actions` are {open, like, toggle}, called with the clip or a noun.
export function card(clip, side, best, lit, other, actions) {
  const stage = make("canvas", { "aria-hidden": "true" });
  const strip = make("canvas", { class: "strip", "aria-hidden": "true" });
  const windows = make("canvas", { class: "windows", "aria-hidden": "true" });
  const name = clip.caption || clip.clip_id;
  const scrub = make("input", {
    type: "range",
    min: 0,
    max: clip.frames - 1,
    value: 0,
    "aria-label": `Frame of clip ${clip.rank}: ${name}`,
  });
  const bar = make("i");
  bar.style.width = `${Math.max(0, Math.min(1, clip.score / Math.max(best, 1e-6))) * 100}%`;
  const words = make("p", { class: "caption" });
  const both = !other ? null : other.rank ? `number ${other.rank} by ${other.run}` : `not on ${other.run}’s page`;
  const element = make(
    "li",
    { class: "card", "data-number": clip.number },
    make(
      "button",
      { type: "button", class: "stage", "aria-label": `Open clip ${clip.rank}: ${name}`, onclick: () => actions.open(clip, side) },
      stage,
    ),
    make(
      "div",
      { class: "text" },
      words,
      make(
        "p",
        { class: "meta" },
        make("span", { class: "score", "aria-hidden": "true" }, bar),
        make("b", {}, clip.score.toFixed(3)),
        ` · ${time(clip.start_us)}–${time(clip.end_us)} of ${clip.video_id}`,
        both && make("span", { class: other.rank ? "both shared" : "both" }, both),
        make("span", { class: "both missed", hidden: true }),
      ),
      make(
        "p",
        { class: "actions" },
        make("button", { type: "button", class: "quiet", "aria-label": `More like clip ${clip.rank}`, onclick: () => actions.like(clip) }, "More like this"),
      ),
    ),
    make("div", { class: "films" }, strip, windows, scrub),
  );
  const film = new Film(clip, side, { stage, strip, windows, scrub });
  const missed = element.querySelector(".missed");
  const report = () => {
    const names = film.nouns.filter(({ noun, on }) => on && film.maps?.get(noun)?.share === 0);
    missed.textContent = names.length ? `no patch for ${names.map(({ noun }) => noun).join(", ")}` : "";
    missed.hidden = !names.length;
  };
  stage.addEventListener("located", report);
  const relight = (nouns) => {
    // The caption is only rebuilt where the keyboard is not.
    if (!words.contains(document.activeElement)) {
      words.replaceChildren(
        make("span", { class: "rank" }, `${clip.rank}.`),
        ...caption(clip, nouns, actions.toggle),
      );
    }
    film.setNouns(nouns);
    report();
  };
  relight(lit);
  return { element, film, relight };
}

// Clips to begin with.
export function tile(clip, open) {
  const stage = make("canvas", { "aria-hidden": "true" });
  const name = clip.caption || clip.clip_id;
  const element = make(
    "li",
    {},
    make("button", { type: "button", class: "stage", "aria-label": `Open clip: ${name}`, onclick: () => open(clip) }, stage),
    make("p", {}, clip.caption),
  );
  const film = new Film(clip, "0", { stage });
  return { element, film, relight: (nouns) => film.setNouns(nouns) };
}
