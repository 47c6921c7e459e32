// The page: the address gives the view, the view asks the server, answers become cards.

import { film, get } from "./api.js";
import { card, tile } from "./cards.js";
import * as dialog from "./dialog.js";
import { $, make } from "./elements.js";
import { HUES, isPlaying, setPlaying } from "./film.js";
import * as views from "./state.js";

const { FIELDS } = views;

const PAGE = 12;
const SIDES = ["0", "1"];

let about = null;
let state = views.read();
let cards = [];
let found = []; // nouns of the query
let asked = null; // the request in progress

const actions = {
  open: (clip, side = "0") => go({ clip: clip.number, side }),
  like: (clip) => beginAnew({ like: clip.number }),
  toggle,
};

function nothing() {
  const empty = Object.fromEntries(FIELDS.map((name) => [name, ""]));
  return { ...empty, like: null, clip: null, side: "0", page: 1, by_video: false, nouns: [], off: [] };
}

// Change the view: a new entry of the history.
function go(changes) {
  const before = views.searchParameters(state, "", PAGE).toString() + state.compare;
  state = { ...state, ...changes };
  history.pushState(null, "", views.address(state));
  const after = views.searchParameters(state, "", PAGE).toString() + state.compare;
  render(before !== after);
}

// Another search, whose results replace the button that asked for it.
function beginAnew(changes) {
  go({ ...nothing(), ...changes });
  $("results").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function render(searches) {
  fill();
  if (searches) search();
  else lightUp();
  showClip();
}

// --- nouns ---

function nouns() {
  const names = [...new Set([...found, ...state.nouns])].slice(0, HUES.length);
  return names.map((noun, place) => ({ noun, hue: HUES[place], on: !state.off.includes(noun) }));
}

// Switch a noun; one that is not there yet is added.
function toggle(noun) {
  const name = noun.trim().toLowerCase().replace(/\s+/g, " ");
  if (!name) return;
  const known = nouns().find((one) => one.noun.toLowerCase() === name);
  if (known) {
    const off = state.off.filter((one) => one !== known.noun);
    replace({ off: known.on ? [...off, known.noun] : off });
  } else if (nouns().length < HUES.length) {
    replace({ nouns: [...state.nouns, name], off: state.off.filter((one) => one !== name) });
  } else {
    warn(`At most ${HUES.length} nouns are located at once. Remove one.`);
  }
}

function replace(changes) {
  state = { ...state, ...changes };
  history.replaceState(null, "", views.address(state));
  lightUp();
}

function lightUp() {
  const lit = nouns();
  $("nouns").hidden = !lit.length && !cards.length;
  const focused = document.activeElement?.dataset?.noun;
  $("chips").replaceChildren(
    ...lit.map(({ noun, hue, on }) => {
      const added = !found.includes(noun);
      const chip = make(
        "button",
        { type: "button", class: added ? "chip added" : "chip", hue, "aria-pressed": String(on), "data-noun": noun, onclick: () => toggle(noun) },
        make("i", { "aria-hidden": "true" }),
        noun,
      );
      const solo = (only) => light(lit.map((one) => ({ ...one, on: only ? one.noun === noun : one.on })));
      chip.addEventListener("pointerenter", () => on && solo(true));
      chip.addEventListener("pointerleave", () => solo(false));
      const drop = added && make("button", { type: "button", class: "drop", "aria-label": `Remove ${noun}`, onclick: () => replace({ nouns: state.nouns.filter((one) => one !== noun) }) }, "×");
      return make("li", {}, chip, drop || null);
    }),
  );
  if (focused) [...$("chips").querySelectorAll("button")].find((one) => one.dataset.noun === focused)?.focus();
  light(lit);
}

function light(lit) {
  for (const one of cards) one.relight(lit);
  dialog.relight(lit);
}

// --- search ---

async function search() {
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  warn("");
  if (!views.isQuery(state)) {
    found = [];
    return begin(signal);
  }
  $("status").textContent = "Searching…";
  $("columns").setAttribute("aria-busy", "true");
  try {
    const sides = state.compare && about.runs.length > 1 ? SIDES : SIDES.slice(0, 1);
    const answers = await Promise.all(
      sides.map((side) => get("search", views.searchParameters(state, side, PAGE), signal)),
    );
    found = answers[0].nouns;
    present(answers);
  } catch (error) {
    if (error.name === "AbortError") return;
    present([]);
    $("status").textContent = "No answer";
    warn(error.message);
  } finally {
    if (!signal.aborted) $("columns").removeAttribute("aria-busy");
  }
}

function clear() {
  for (const one of cards) one.film.close();
  cards = [];
  $("columns").replaceChildren();
  $("examples").hidden = true;
  $("key").hidden = true;
  $("pages").hidden = true;
}

function present(answers) {
  clear();
  const two = answers.length > 1;
  $("columns").className = two ? "two" : "";
  const ranks = answers.map(({ results }) => new Map(results.map((one) => [one.number, one.rank])));
  answers.forEach(({ results }, side) => {
    const best = Math.max(...results.map((one) => one.score), 0);
    const list = make("ol", { class: "found" });
    for (const clip of results) {
      const elsewhere = two ? ranks[1 - side].get(clip.number) : undefined;
      const other = two ? { rank: elsewhere, run: about.runs[1 - side].name } : null;
      const one = card(clip, SIDES[side], best, [], other, actions);
      cards.push(one);
      list.append(one.element);
    }
    const run = about.runs[side];
    const title = two ? make("h3", {}, run.name, make("span", {}, `step ${run.step.toLocaleString("en")}`)) : null;
    $("columns").append(make("div", { class: "column" }, ...(title ? [title] : []), list));
  });
  lightUp();
  if (!answers.length) return;
  const places = cards.map((one) => one.film.clip.rank);
  const none = state.page > 1 ? "No further clip" : "No clip fits the filters";
  const range = `Clips ${Math.min(...places)} to ${Math.max(...places)}, the most similar first`;
  $("status").textContent = places.length ? range : none;
  $("key").hidden = !places.length;
  const more = answers.some((one) => one.more);
  $("pages").hidden = state.page === 1 && !more;
  $("page").textContent = `Page ${state.page}`;
  $("previous").disabled = state.page <= 1;
  $("next").disabled = !more;
}

// Before the first query: captions to search for, and some clips.
async function begin(signal) {
  clear();
  lightUp();
  $("status").textContent = "Try a caption, or open one of the clips";
  $("examples").hidden = !about.examples.length;
  $("examples").replaceChildren(
    ...about.examples.map((text) => make("button", { type: "button", onclick: () => beginAnew({ text }) }, text)),
  );
  try {
    const clips = await Promise.all(about.spread.map((number) => get(`clips/${number}`, null, signal)));
    cards = clips.map((clip) => tile(clip, actions.open));
    $("columns").className = "";
    $("columns").replaceChildren(make("ul", { class: "wall" }, ...cards.map((one) => one.element)));
  } catch (error) {
    if (error.name !== "AbortError") warn(error.message);
  }
}

function warn(message) {
  $("wrong").textContent = message;
  $("wrong").hidden = !message;
}

// --- one clip ---

async function showClip() {
  if (state.clip === null) {
    if ($("clip").open) $("clip").close();
    return;
  }
  const side = about.runs.length > 1 ? state.side : "0";
  if (dialog.opened(side) === state.clip) return;
  const shown = cards.find(({ film }) => film.clip.number === state.clip && film.side === side);
  try {
    const clip = shown?.film.clip ?? (await get(`clips/${state.clip}`));
    const run = about.runs.length > 1 ? about.runs[Number(side)] : null;
    dialog.open(clip, side, run, nouns(), actions);
  } catch (error) {
    warn(error.message);
  }
}

// --- forms and buttons ---

function fill() {
  const form = $("search");
  for (const name of FIELDS)
    if (form.elements[name] !== document.activeElement || !form.elements[name].value)
      form.elements[name].value = state[name];
  form.elements.by_video.checked = state.by_video;
  const set = FIELDS.slice(1).filter((name) => state[name]);
  const count = set.length + Number(state.by_video);
  $("filter-count").textContent = count ? `(${count})` : "";
  if (count) $("filters").open = true;
  $("compare").hidden = about.runs.length < 2;
  $("compare").setAttribute("aria-pressed", String(state.compare));
  $("like").hidden = state.like === null;
  if (state.like !== null) showLike(state.like);
  document.title = state.text ? `${state.text} – svilm` : "svilm: search clips";
}

async function showLike(number) {
  try {
    const [clip, image] = await Promise.all([get(`clips/${number}`), film(number)]);
    const side = Math.min(clip.width, clip.height);
    const context = $("like-frame").getContext("2d");
    context.drawImage(image, (clip.width - side) / 2, (clip.height - side) / 2, side, side, 0, 0, 96, 96);
    $("like-name").textContent = clip.caption || clip.clip_id;
  } catch {
    $("like-name").textContent = `clip ${number}`;
  }
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new FormData(event.target);
  const changes = { page: 1, clip: null, side: "0", by_video: given.has("by_video"), off: [] };
  for (const name of FIELDS)
    changes[name] = (given.get(name) ?? "").trim();
  if (changes.text !== state.text) changes.nouns = [];
  go(changes);
});
$("clear").addEventListener("click", () => {
  document.activeElement?.blur();
  go({ ...nothing(), text: state.text, like: state.like });
  $("filters").querySelector("summary").focus();
});
$("unlike").addEventListener("click", () => {
  go({ like: null, page: 1 });
  $("text").focus();
});
$("add-noun").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("noun").value.trim().toLowerCase();
  if (name && !nouns().some((one) => one.noun === name && one.on)) toggle(name);
  $("noun").value = "";
});
$("play").addEventListener("click", () => {
  setPlaying(!isPlaying());
  showPlaying();
});
function showPlaying() {
  $("play").textContent = isPlaying() ? "Pause films" : "Play films";
}
$("compare").addEventListener("click", () => go({ compare: !state.compare, page: 1 }));
for (const [id, step] of [["previous", -1], ["next", 1]])
  $(id).addEventListener("click", () => {
    go({ page: state.page + step });
    $("results").focus();
    $("results").scrollIntoView();
  });
$("close").addEventListener("click", () => $("clip").close());
$("clip").addEventListener("click", (event) => event.target === $("clip") && $("clip").close());
$("clip").addEventListener("close", () => {
  dialog.close();
  if (state.clip !== null) replace({ clip: null, side: "0" });
});
addEventListener("popstate", () => {
  state = views.read();
  document.activeElement?.blur();
  render(true);
});
addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "/" && !typing && !$("clip").open) {
    event.preventDefault();
    $("text").focus();
    $("text").select();
  }
});

// Fill a filter's list, and hide a filter that could not divide the clips.
function offer(name, values, least) {
  const list = $("search").elements[name];
  list.append(...values.map((value) => make("option", { value }, value)));
  list.parentElement.hidden = values.length < least;
}

async function start() {
  showPlaying();
  try {
    about = await get("about");
  } catch (error) {
    return warn(error.message);
  }
  const run = about.runs[0];
  const names = about.snapshots.map((one) => one.name).join(", ");
  const clips = `${about.clips.toLocaleString("en")} clips of ${names}`;
  $("about").textContent = `${clips}, searched with ${run.name}, step ${run.step.toLocaleString("en")}`;
  offer("label", about.labels, 1);
  offer("dataset", [...new Set(about.snapshots.map((one) => one.dataset))], 2);
  render(true);
}
start();
