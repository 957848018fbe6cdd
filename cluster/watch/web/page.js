// The page of a pipeline: asks its supervisor for the status every second while somebody looks, and shows it.

import { chart } from "./charts.js";
import { at, clock, compact, count, each, el, MARKS, plural, seconds, set, text } from "./dom.js";
import { flow } from "./flow.js";
import { problems, showDetails, showProblems, showSinks, showTables } from "./lists.js";

const EVERY = 1000;
const PATIENCE = 8000;
const RED = 5000;

let status = null;
let past = null;
let pastAt = 0;
let detail = null;
let told = 0;

// Part -> its restarts, and when they grew.
const failures = new Map();

// Most restarts take less than a second or two: what failed stays red for long enough to be seen.
function markFailures() {
  const parts = [["table", status.tables], ["sink", status.sinks], ["decoder", status.decoders.members]];
  for (const [kind, members] of parts) {
    for (const part of members) {
      const key = `${kind}/${part.name}`;
      const known = failures.get(key) ?? { restarts: part.restarts, at: -Infinity };
      if (part.restarts > known.restarts) known.at = performance.now();
      known.restarts = part.restarts;
      failures.set(key, known);
      part.failed = performance.now() - known.at < RED;
    }
  }
}

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE), headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function round() {
  try {
    status = await ask("status");
    told = Date.now();
    markFailures();
    if (Date.now() - pastAt > 5000) {
      past = await ask("history");
      pastAt = Date.now();
      if (detail) detail.past = await ask(`history?table=${encodeURIComponent(detail.name)}`).catch(() => null);
    }
    show();
  } catch (error) {
    text(at("age"), told ? `no answer since ${clock(told / 1000)}; trying again` : "no answer yet; trying again");
    set(document.body, { class: "lost" });
  }
}

async function rounds() {
  for (;;) {
    const began = Date.now();
    if (!document.hidden) await round();
    await new Promise((resume) => setTimeout(resume, Math.max(200, EVERY - (Date.now() - began))));
  }
}

function show() {
  const found = problems(status);
  const worst = found.some((each) => each.health === "bad") ? "bad" : found.length || status.state !== "running" ? "warn" : "good";
  set(document.body, { class: "" });
  document.title = `${MARKS[worst]} ${status.pipeline} – Tablecast`;
  text(at("pipeline"), status.pipeline);
  set(at("state"), { class: `pill ${worst}` });
  text(at("state"), `${MARKS[worst]} ${status.state}${found.length ? `, ${plural(found.length, "problem")}` : ", all well"}`);
  text(at("since"), `supervisor up ${seconds(status.time - status.supervisor_since)}`);
  text(at("age"), `as of ${clock(status.time)}`);
  tiles();
  showProblems(found, open);
  flow(at("flow"), status, open);
  if (past) charts();
  pool();
  showTables(status, open);
  showSinks(status);
  details();
}

function total(parts, value) {
  return parts.reduce((sum, part) => sum + value(part), 0);
}

function tiles() {
  const { tables, sinks } = status;
  const open = total(tables, (t) => (t.gaps.counts.open ?? 0) + (t.gaps.counts.healing ?? 0) + (t.gaps.counts.unhealed ?? 0));
  const lag = Math.max(0, ...tables.map((table) => table.lag_seconds));
  const values = [
    ["received", `${compact(total(tables, (t) => t.records_per_second))}/s`, ""],
    ["delivered", `${compact(total(sinks, (s) => s.records_per_second))}/s`, ""],
    ["pending", compact(total(tables, (t) => t.pending)), ""],
    ["lag", seconds(lag), lag > 60 ? "warn" : ""],
    ["restarts", count(status.restarts), ""],
    ["gaps", count(open), open ? "warn" : ""],
    ["dead letters", compact(total(tables, (t) => t.dead_letters)), total(tables, (t) => t.dead_letters) ? "warn" : ""],
    ["lost", compact(total(tables, (t) => t.lost)), total(tables, (t) => t.lost) ? "bad" : ""],
  ];
  each(at("tiles"), values, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd")), (node, [, value, kind]) => {
    set(node, { class: kind });
    text(node.lastChild, value);
  });
}

function charts() {
  const { time = [], received = [], delivered = [], pending = [], lag = [], decoders = [], wanted = [], busy = [] } = past.total;
  const steps = (status.decoders.steps ?? []).map((step) => ({ time: step.time, title: `${step.from} to ${step.to}: ${step.reason}` }));
  const all = [
    { title: "Records per second", show: compact,
      lines: [{ name: "received", kind: "one", values: received }, ...rates(delivered)] },
    { title: "Pending records", show: compact, lines: [{ name: "pending", kind: "one", values: pending }] },
    { title: "Lag", show: seconds, lines: [{ name: "the oldest", kind: "one", values: lag }] },
    { title: "Decoders", show: (value) => (Number.isInteger(value) ? count(value) : value.toFixed(1)), marks: steps,
      lines: [{ name: "running", kind: "one", values: decoders }, { name: "wanted", kind: "two", values: wanted },
        { name: "busy", kind: "three", values: busy.map((part, index) => (part === null ? null : part * (decoders[index] ?? 0))) }] },
  ];
  each(at("charts"), all, (each) => each.title, () => el("div"), (node, each) =>
    chart(node, { times: time, gap: past.interval, ...each }));
}

// A line per sink, or one for all if there are many.
function rates(delivered) {
  const sinks = Object.entries(past.sinks);
  if (sinks.length > 3) return [{ name: "delivered to all sinks", kind: "two", values: delivered }];
  return sinks.map(([name, values], index) => ({ name: `to ${name}`, kind: ["two", "three", "four"][index], values }));
}

function pool() {
  const { decoders } = status;
  const mode = { automatic: `${decoders.min} to ${decoders.max} by load`, manual: "held by hand", fixed: "fixed by the file" }[decoders.mode];
  text(at("verdict"), [`${decoders.running} of ${decoders.wanted} run`, mode, decoders.verdict].filter(Boolean).join("; "));
  const steps = [...(decoders.steps ?? [])].reverse().slice(0, 10);
  each(at("steps"), steps, (step) => `${step.time}`, () => el("li", {}, el("time"), el("strong"), el("span")), (node, step) => {
    text(node.children[0], clock(step.time));
    text(node.children[1], ` ${step.from} → ${step.to} `);
    text(node.children[2], step.reason);
  });
}

// -- one table ---------------------------------------------------------------------------------------------------

async function open(name) {
  detail = { name, past: null };
  at("details-body").replaceChildren();
  details();
  if (!at("details").open) at("details").showModal();
  detail.past = await ask(`history?table=${encodeURIComponent(name)}`).catch(() => null);
  details();
}

function details() {
  if (!detail) return;
  text(at("details-title"), detail.name);
  const table = status.tables.find((each) => each.name === detail.name);
  if (table) showDetails(at("details-body"), table, detail.past);
}

at("details").addEventListener("close", () => { detail = null; });
for (const name of ["filter", "only"]) at(name).addEventListener("input", () => status && showTables(status, open));
addEventListener("resize", () => status && show());
document.addEventListener("visibilitychange", () => document.hidden || round());
rounds();
