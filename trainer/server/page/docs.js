// The API's description, from its OpenAPI schema.

import { $, make } from "./elements.js";

const schema = await (await fetch("openapi.json")).json();

function typed(one) {
  if (!one) return "";
  if (one.$ref) return one.$ref.split("/").pop();
  if (one.anyOf) return one.anyOf.map(typed).filter((name) => name !== "null").join(" or ");
  if (one.enum) return one.enum.join(" or ");
  if (one.type === "array") return `list of ${typed(one.items)}`;
  return one.type ?? "";
}

function limits(one) {
  const parts = [one, ...(one?.anyOf ?? []), ...(one?.items ? [one.items] : [])];
  const named = [["minimum", "≥"], ["maximum", "≤"], ["exclusiveMaximum", "<"], ["maxLength", "length ≤"], ["maxItems", "items ≤"]];
  return parts.flatMap((part) => named.filter(([key]) => part?.[key] !== undefined).map(([key, sign]) => `${sign} ${part[key]}`)).join(", ");
}

function table(head, rows) {
  const body = make("tbody", {}, ...rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, make("code", {}, first)), ...rest.map((cell) => make("td", {}, cell)))));
  const top = make("thead", {}, make("tr", {}, ...head.map((cell) => make("th", { scope: "col" }, cell))));
  return make("div", { class: "scroll" }, make("table", {}, top, body));
}

function route(path, method, about) {
  const parameters = (about.parameters ?? []).filter((one) => one.in !== "header");
  const rows = parameters.map((one) => [one.name, typed(one.schema), limits(one.schema), one.description ?? one.schema.description ?? ""]);
  const answer = about.responses?.["200"]?.content?.["application/json"]?.schema;
  return make(
    "article",
    {},
    make("p", {}, make("b", {}, `${method.toUpperCase()} `), make("code", {}, path)),
    make("p", {}, about.description ?? ""),
    ...(rows.length ? [make("h3", {}, "Parameters"), table(["name", "type", "limits", "meaning"], rows)] : []),
    ...(answer?.$ref ? [make("p", {}, `Answer: ${typed(answer)}`)] : []),
  );
}

function type(name, about) {
  const rows = Object.entries(about.properties ?? {}).map(([field, one]) => [field, typed(one), one.description ?? ""]);
  return make("article", {}, make("p", {}, make("b", {}, name)), make("p", {}, about.description ?? ""), ...(rows.length ? [table(["field", "type", "meaning"], rows)] : []));
}

const routes = Object.entries(schema.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, about]) => route(path, method, about)));
const types = Object.entries(schema.components.schemas)
  .filter(([name]) => !name.includes("ValidationError"))
  .map(([name, about]) => type(name, about));
$("routes").replaceChildren(
  make("p", {}, "Requests need no header on this machine. With a token: "),
  make("p", {}, make("code", {}, "Authorization: Bearer TOKEN")),
  make("h2", {}, "Requests"),
  ...routes,
  make("h2", {}, "Types"),
  ...types,
);
