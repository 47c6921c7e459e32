// The view as the page's address: every part of it can be sent to someone else.

export const FIELDS = ["text", "not", "dataset", "label", "video", "shortest", "longest", "min_score"];

export function read() {
  const given = new URLSearchParams(location.search);
  const state = { like: number(given.get("like")), clip: number(given.get("clip")) };
  for (const field of FIELDS) state[field] = given.get(field) ?? "";
  state.side = given.get("side") === "1" ? "1" : "0"; // the run whose clip is open
  state.page = Math.max(1, number(given.get("page")) ?? 1);
  state.by_video = given.has("by_video");
  state.compare = given.has("compare");
  state.nouns = given.getAll("noun").slice(0, 6);
  state.off = given.getAll("off").slice(0, 12);
  return state;
}

export function address(state) {
  const given = new URLSearchParams();
  for (const field of FIELDS) if (state[field]) given.set(field, state[field]);
  if (state.like !== null) given.set("like", state.like);
  if (state.page > 1) given.set("page", state.page);
  for (const field of ["by_video", "compare"]) if (state[field]) given.set(field, "1");
  for (const noun of state.nouns) given.append("noun", noun);
  for (const noun of state.off) given.append("off", noun);
  if (state.clip !== null) given.set("clip", state.clip);
  if (state.clip !== null && state.side === "1") given.set("side", "1");
  const query = given.toString();
  return query ? `?${query}` : "./";
}

export function isQuery(state) {
  return Boolean(state.text.trim()) || state.like !== null;
}

// Parameters of the API's search.
export function searchParameters(state, side, size) {
  const given = new URLSearchParams();
  if (state.text.trim()) given.set("text", state.text);
  if (state.not.trim()) given.set("without", state.not);
  if (state.like !== null) given.set("like", state.like);
  for (const field of ["dataset", "label", "video", "shortest", "longest", "min_score"])
    if (state[field]) given.set(field, state[field]);
  if (state.by_video) given.set("by_video", "true");
  given.set("page", state.page);
  given.set("size", size);
  given.set("side", side);
  return given;
}

function number(text) {
  return /^\d{1,9}$/.test(text ?? "") ? Number(text) : null;
}
