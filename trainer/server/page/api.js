// Calls of the server's API.

export class ApiError extends Error {}

export async function get(path, parameters, signal) {
  const query = parameters ? `?${parameters}` : "";
  let answer;
  try {
    answer = await fetch(`api/${path}${query}`, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?");
  }
  const data = await answer.json().catch(() => null);
  if (answer.ok && data) return data;
  if (answer.status === 401) location.reload(); // which asks for the token
  const field = data?.error?.field ? `${data.error.field}: ` : "";
  throw new ApiError(`${field}${data?.error?.message ?? `status ${answer.status}`}`);
}

const films = new Map();
const FILMS = 200; // decoded images are kept by the browser as long as they are in this map

export function film(number) {
  if (!films.has(number)) {
    const image = new Image();
    image.src = `api/clips/${number}/film.jpg`;
    films.set(number, image.decode().then(() => image));
    films.get(number).catch(() => films.delete(number));
    if (films.size > FILMS) films.delete(films.keys().next().value);
  }
  return films.get(number);
}

const structures = new Map();

// The structure of a clip with the heat of these nouns.
export function structure(number, side, nouns) {
  const given = new URLSearchParams({ side });
  for (const noun of nouns) given.append("noun", noun);
  const key = `${number} ${given}`;
  if (!structures.has(key)) {
    structures.set(key, get(`clips/${number}/structure`, given));
    structures.get(key).catch(() => structures.delete(key));
    if (structures.size > FILMS) structures.delete(structures.keys().next().value);
  }
  return structures.get(key);
}
