// One clip: its film or video with the clip's span, what the model sees, and its record.

import { Film, share } from "./film.js";
import { $, caption, make, time } from "./elements.js";

let current = null;

export function close() {
  current?.film.close();
  current = null;
  $("clip-body").replaceChildren();
}

export const opened = (side) => (current?.film.side === side ? current.clip.number : null);

export function relight(nouns) {
  if (current) current.relight(nouns);
}

// `run` is the run of this side, if there are two.
export function open(clip, side, run, lit, actions) {
  close();
  const stage = make("canvas", { class: "big", "aria-hidden": "true" });
  const strip = make("canvas", { class: "strip", "aria-hidden": "true" });
  const windows = make("canvas", { class: "windows", "aria-hidden": "true" });
  const scrub = make("input", { type: "range", min: 0, max: clip.frames - 1, value: 0, "aria-label": "Frame of the clip" });
  const matrix = make("canvas", { class: "matrix", role: "img" });
  const legend = make("ul", { class: "legend" });
  const none = make("p", { class: "meta" }, "Choose a noun of the caption, or add one to the page.");
  const title = $("clip-title");
  const film = new Film(clip, side, { stage, strip, windows, scrub });
  const body = make(
    "div",
    { class: "clip-grid" },
    make("section", {}, make("h3", {}, "As the model sees it"), make("div", {}, stage)),
    make(
      "section",
      {},
      ...facts(clip, run),
      buttons(clip, actions),
      make("h3", {}, "Where the nouns are"),
      legend,
      none,
      make("h3", {}, "Windows compared"),
      matrix,
    ),
    make("section", { class: "whole" }, make("h3", {}, "Frames, and windows alike the one that plays"), make("div", { class: "films" }, strip, windows, scrub)),
    clip.video ? video(clip) : null,
  );
  $("clip-body").replaceChildren(body);
  current = {
    clip,
    film,
    relight(nouns) {
      if (!title.contains(document.activeElement))
        title.replaceChildren(...caption(clip, nouns, actions.toggle));
      if (!clip.caption) title.textContent = clip.clip_id;
      film.setNouns(nouns);
      none.hidden = nouns.length > 0;
      describe(legend, nouns, film.maps);
    },
  };
  stage.addEventListener("located", () => {
    describe(legend, film.nouns, film.maps);
    draw(matrix, film.structure.similarity);
  });
  current.relight(lit);
  if (!$("clip").open) $("clip").showModal();
}

function facts(clip, run) {
  const rows = [
    ["Clip", clip.clip_id],
    ["Video", clip.video_id],
    ["Time", `${time(clip.start_us)} to ${time(clip.end_us)}`],
    ["Number", clip.number],
    ...(run ? [["Run", `${run.name}, step ${run.step.toLocaleString("en")}`]] : []),
    ...(clip.labels.length ? [["Labels", clip.labels.join(", ")]] : []),
    ...(clip.score === undefined ? [] : [["Cosine", clip.score.toFixed(4)]]),
  ];
  const list = make("dl");
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", {}, String(value)));
  return [make("h3", {}, "The record"), list];
}

function buttons(clip, actions) {
  const copy = make("button", { type: "button", class: "quiet" }, "Copy the link");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Copy the address of the page";
    }
  });
  const like = () => {
    $("clip").close();
    actions.like(clip);
  };
  return make("p", { class: "row" }, make("button", { type: "button", onclick: like }, "More like this"), copy);
}

function describe(legend, nouns, maps) {
  legend.replaceChildren(
    ...nouns.map(({ noun, hue }) => {
      const found = maps?.get(noun);
      const empty = found && found.share === 0;
      const text = !found ? "" : empty ? " its group has no patch" : ` cosine ${found.cosine.toFixed(2)} · ${Math.round(100 * found.share)} % of the patches`;
      return make("li", {}, make("i", { hue }), noun, make("span", {}, text));
    }),
  );
}

function draw(canvas, similarity) {
  const count = similarity.length;
  canvas.width = canvas.height = count;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  similarity.forEach((row, y) =>
    row.forEach((value, x) => {
      context.globalAlpha = 1;
      context.fillStyle = style.getPropertyValue("--wash");
      context.fillRect(x, y, 1, 1);
      context.globalAlpha = share(value);
      context.fillStyle = style.getPropertyValue("--ours");
      context.fillRect(x, y, 1, 1);
    }),
  );
  const apart = similarity.flatMap((row, y) => row.filter((_, x) => x > y));
  const least = apart.length ? Math.min(...apart).toFixed(2) : "1";
  canvas.setAttribute("aria-label", `Cosines of the clip's ${count} windows; the lowest is ${least}`);
}

// The whole video, with the clip's span on its time line.
function video(clip) {
  const [from, to] = [clip.start_us / 1e6, clip.end_us / 1e6];
  const player = make("video", { controls: true, preload: "metadata", muted: true, playsinline: true, "aria-label": `Video ${clip.video_id}`, src: `api/clips/${clip.number}/video#t=${from}` });
  player.muted = true;
  const span = make("div", { class: "span" });
  const head = make("div", { class: "head" });
  const line = make("div", { class: "timeline", "aria-hidden": "true" }, span, head);
  const length = make("span");
  const wrong = make("p", { class: "meta", hidden: true }, "This browser cannot play the video.");
  let stop = Infinity;
  const play = make("button", { type: "button", class: "quiet", onclick: () => {
    player.currentTime = from;
    stop = to;
    player.play().catch(() => {});
  } }, "Play the span");
  player.addEventListener("loadedmetadata", () => {
    const whole = Math.max(player.duration, to) || 1;
    span.style.left = `${(100 * from) / whole}%`;
    span.style.width = `${(100 * (to - from)) / whole}%`;
    length.textContent = time(player.duration * 1e6);
    player.dataset.ready = "1";
  });
  player.addEventListener("timeupdate", () => {
    head.style.left = `${(100 * player.currentTime) / Math.max(player.duration, to)}%`;
    if (player.currentTime >= stop) {
      player.pause();
      stop = Infinity;
    }
  });
  player.addEventListener("error", () => (wrong.hidden = false));
  line.addEventListener("click", (event) => {
    const box = line.getBoundingClientRect();
    if (player.duration) player.currentTime = ((event.clientX - box.left) / box.width) * player.duration;
  });
  return make(
    "section",
    { class: "whole" },
    make("h3", {}, "The clip in its video"),
    player,
    wrong,
    line,
    make("p", { class: "timeline-text" }, make("span", {}, "0:00.0"), make("span", {}, `clip: ${time(clip.start_us)}–${time(clip.end_us)}`), length),
    make("p", { class: "row" }, play),
  );
}
