// The lists of tables and sinks, what needs attention, and the details of one table.

import { chart } from "./charts.js";
import { at, bytes, clock, compact, count, each, el, health, MARKS, plural, seconds, set, stateOf, text } from "./dom.js";

const gaps = (table) => (table.gaps.counts.open ?? 0) + (table.gaps.counts.healing ?? 0) + (table.gaps.counts.unhealed ?? 0);

const TABLES = [
  { name: "table", value: (t) => t.name, heading: true },
  { name: "state", value: stateOf, state: true },
  { name: "records/s", value: (t) => t.records_per_second, show: compact },
  { name: "received", value: (t) => t.received, show: count },
  { name: "pending", value: (t) => t.pending, show: count },
  { name: "lag", value: (t) => t.lag_seconds, show: seconds },
  { name: "gaps", value: gaps, show: count, bad: true },
  { name: "dead letters", value: (t) => t.dead_letters, show: count, bad: true },
  { name: "lost", value: (t) => t.lost, show: count, bad: true },
  { name: "restarts", value: (t) => t.restarts, show: count },
  { name: "spool", value: (t) => t.spool_bytes, show: bytes },
  { name: "host", value: (t) => t.host ?? "–" },
];

const SINKS = [
  { name: "sink", value: (s) => s.name, heading: true },
  { name: "kind", value: (s) => s.kind },
  { name: "state", value: stateOf, state: true },
  { name: "records/s", value: (s) => s.records_per_second, show: compact },
  { name: "delivered", value: (s) => s.records, show: count },
  { name: "requests", value: (s) => s.requests, show: count },
  { name: "retries", value: (s) => s.retries, show: count },
  { name: "refused", value: (s) => s.refused, show: count, bad: true },
  { name: "buffered", value: (s) => s.buffered_bytes, show: bytes },
  { name: "circuit", value: (s) => s.circuit ?? "–" },
  { name: "restarts", value: (s) => s.restarts, show: count },
];

const order = { column: null, down: true };

// -- what needs attention ----------------------------------------------------------------------------------------

// {key, health, text, table}, the worst first.
export function problems(status) {
  const found = [];
  const parts = [["table", status.tables], ["sink", status.sinks], ["decoder", status.decoders.members]];
  for (const [kind, members] of parts) {
    for (const part of members) {
      const state = health(part);
      if (state !== "good" || (part.problem && kind !== "decoder")) {
        found.push({
          key: `${kind}/${part.name}`, health: state === "bad" ? "bad" : "warn", table: kind === "table" ? part.name : null,
          text: `${kind} ${part.name}: ${part.failed ? "has just failed, now " : ""}${stateOf(part)}`
            + (part.problem ? `, ${part.problem}` : ""),
        });
      }
    }
  }
  for (const table of status.tables) {
    if (table.lost) found.push({ key: `lost/${table.name}`, health: "bad", table: table.name, text: `table ${table.name}: ${count(table.lost)} lost` });
    if (table.standby && table.standby.state !== "ready") {
      found.push({ key: `standby/${table.name}`, health: "warn", table: table.name,
        text: `table ${table.name}: its standby is ${table.standby.state}${table.standby.problem ? `, ${table.standby.problem}` : ""}` });
    }
  }
  for (const spool of status.spools) {
    found.push({ key: `spool/${spool.host}/${spool.table}`, health: "warn",
      text: `${plural(spool.records, "record")} of ${spool.table}: ${spool.problem ?? spool.state}` });
  }
  status.alerts.forEach((alert, index) => found.push({ key: `alert/${index}/${alert}`, health: "warn", text: alert }));
  return found.sort((a, b) => (a.health === "bad" ? 0 : 1) - (b.health === "bad" ? 0 : 1));
}

const SHOWN = 8;

export function showProblems(found, open) {
  const more = found.length - SHOWN;
  const items = more > 1 ? [...found.slice(0, SHOWN), { key: "more", health: "warn", text: `and ${more} more, see the lists below` }] : found;
  at("problems").hidden = !found.length;
  each(at("problem-list"), items, (item) => item.key, (item) => {
    const words = item.table ? el("button", { type: "button", class: "link" }) : el("span");
    if (item.table) words.addEventListener("click", () => open(item.table));
    return el("li", {}, el("span", { class: "mark", "aria-hidden": "true" }), " ", words);
  }, (node, item) => {
    set(node, { class: item.health });
    text(node.firstElementChild, MARKS[item.health]);
    text(node.lastElementChild, item.text);
  });
}

// -- lists -------------------------------------------------------------------------------------------------------

export function showTables(status, open) {
  const wanted = at("filter").value.toLowerCase();
  const only = at("only").checked;
  let rows = status.tables.filter((table) => table.name.toLowerCase().includes(wanted));
  if (only) rows = rows.filter((t) => health(t) !== "good" || t.problem || gaps(t) || t.dead_letters || t.lost);
  const column = TABLES.find((each) => each.name === order.column);
  if (column) {
    rows.sort((a, b) => {
      const [left, right] = [column.value(a), column.value(b)];
      return (left < right ? -1 : left > right ? 1 : 0) * (order.down ? -1 : 1);
    });
  }
  text(at("shown"), rows.length === status.tables.length ? `${rows.length}` : `${rows.length} of ${status.tables.length}`);
  list(at("tables"), TABLES, rows, open, (name) => {
    const first = TABLES.find((each) => each.name === name);
    order.down = order.column === name ? !order.down : Boolean(first.show);
    order.column = name;
    showTables(status, open);
  });
}

export const showSinks = (status) => list(at("sinks"), SINKS, status.sinks, null, null);

function list(table, columns, rows, open, sort) {
  if (!table.tHead) {
    const headings = columns.map((column) => el("th", { scope: "col", class: column.show ? "number" : "" },
      sort ? el("button", { type: "button", class: "sort" }, column.name) : column.name));
    table.append(el("thead", {}, el("tr", {}, ...headings)), el("tbody"));
  }
  [...table.tHead.rows[0].cells].forEach((cell, index) => {
    const { name } = columns[index];
    if (!sort) return;
    cell.firstChild.onclick = () => sort(name);
    set(cell, { "aria-sort": order.column !== name ? null : order.down ? "descending" : "ascending" });
  });
  each(table.tBodies[0], rows, (row) => row.name, () => row(columns, open), (node, part) => {
    set(node, { class: health(part), "data-state": part.state });
    columns.forEach((column, index) => cell(node.cells[index], column, column.value(part), part));
  });
}

function row(columns, open) {
  const node = el("tr", {}, ...columns.map((column) => el(column.heading ? "th" : "td",
    column.heading ? { scope: "row" } : { class: column.show ? "number" : column.state ? "state" : "" })));
  const heading = node.querySelector("th");
  if (open) {
    const link = el("button", { type: "button", class: "link" });
    link.addEventListener("click", () => open(node.dataset.key));
    heading.append(link);
  }
  return node;
}

function cell(node, column, value, part) {
  const words = column.state ? `${MARKS[health(part)]} ${value}` : column.show ? column.show(value) : value;
  text(node.firstElementChild ?? node, words);
  if (column.show) set(node, { class: `number ${value ? (column.bad ? "bad" : "") : "zero"}` });
}

// -- details of one table ----------------------------------------------------------------------------------------

export function showDetails(body, table, past) {
  const facts = [
    ["state", `${MARKS[health(table)]} ${stateOf(table)}`], ["problem", table.problem], ["host", table.host],
    ["process", table.pid], ["records per second", count(table.records_per_second)], ["received", count(table.received)],
    ["progress", table.progress && `${table.progress.loaded ?? "?"} of ${table.progress.total ?? "?"} ${table.progress.msg}`],
    ["last received", table.last_received && clock(table.last_received)], ["pending", count(table.pending)],
    ["lag", seconds(table.lag_seconds)], ["spool", bytes(table.spool_bytes)],
    ["memory", table.resident_bytes && bytes(table.resident_bytes)], ["dead letters", count(table.dead_letters)],
    ["lost", count(table.lost)],
    ["restarts", `${table.restarts}${table.recovery_seconds.length ? `, the last took ${seconds(table.recovery_seconds.at(-1))}` : ""}`],
    ["standby", table.standby && table.standby.state],
    ["catching up", table.catch_up && [table.catch_up.state, table.catch_up.problem].filter(Boolean).join(", ")],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!body.children.length) {
    body.append(el("dl", { class: "sheet" }), el("div", { class: "small" }, el("div"), el("div")), el("h3", {}, "Lanes"), el("ul"),
      el("h3", {}, "Gaps"), el("ul"));
  }
  const [list, charts, , lanes, , holes] = body.children;
  each(list, facts, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd")), (node, [, value]) => text(node.lastChild, String(value)));
  if (past) {
    const common = { times: past.time, gap: past.interval };
    chart(charts.children[0], { ...common, title: "Records per second", lines: [{ name: "received", kind: "one", values: past.rate }], show: compact });
    chart(charts.children[1], { ...common, title: "Lag", lines: [{ name: "lag", kind: "two", values: past.lag }], show: seconds });
  }
  each(lanes, table.lanes, (lane) => `${lane.feed}>${lane.sink}`, () => el("li"), (node, lane) =>
    text(node, `${lane.feed} → ${lane.sink}: ${lane.state}, ${count(lane.pending_records)} pending`
      + (lane.account ? `, ${count(lane.account.delivered)} delivered` : "") + (lane.problem ? `: ${lane.problem}` : "")));
  const latest = table.gaps.latest.length ? table.gaps.latest : [null];
  each(holes, latest, (gap) => (gap ? gap.number : "none"), () => el("li"), (node, gap) =>
    text(node, gap ? `${clock(gap.began)}–${gap.ended ? clock(gap.ended) : "now"}: ${gap.cause}; ${gap.state}, ${count(gap.recovered)} fetched`
      + (gap.note ? `; ${gap.note}` : "") : "none"));
}
