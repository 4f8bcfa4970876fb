"use strict";
// An evaluation, or two side by side: what is said of it, and its films behind the initial states.

const shown = JSON.parse(byId("exported").textContent);
const before = shown.kind === "comparison";

const head = (title, ...more) => el("div", { class: "head" }, el("h2", {}, title), ...more);
const section = (id, ...children) => {
  byId(id).replaceChildren(...children.flat().filter((child) => child != null));
  byId(id).hidden = false;
};
const between = (limits, digits = 1) => (limits ? `${(100 * limits[0]).toFixed(digits)} to ${percent(limits[1], digits)}` : "–");
const points = (value) => `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`;
const address = (path) => path.split("/").map(encodeURIComponent).join("/");
const film = (path) => el("video", { src: `${address(path)}#t=0.001`, controls: true, preload: "metadata", muted: true, playsinline: true });

// Of a rate in [0, 1], or of a difference in [-1, 1].
function interval(value, limits, signed = false) {
  const at = (x) => `${signed ? 50 + 50 * x : 100 * x}%`;
  const [low, high] = limits;
  const bar = el("i", { class: "bar" }), range = el("i", { class: "range" });
  const start = signed ? Math.min(0, value) : 0, end = signed ? Math.max(0, value) : value;
  const place = (piece, from, to) => {
    piece.style.left = at(from);
    piece.style.width = `${(signed ? 50 : 100) * (to - from)}%`;
  };
  place(bar, start, end);
  place(range, low, high);
  return el("div", { class: "interval", role: "img", "aria-label": `${percent(value, 1)}, 95 %: ${between(limits)}` },
    bar, signed ? el("i", { class: "middle" }) : null, range);
}

const WORDS = { won: "success", lost: "failure" };

function wordsOf(cell) {
  if (!before) return WORDS[cell.success ? "won" : "lost"];
  return `${WORDS[cell.a ? "won" : "lost"]} before, ${WORDS[cell.b ? "won" : "lost"]} after`;
}

function showFilm(task, cell) {
  const places = before ? [["before", cell.video_a], ["after", cell.video_b]] : [["", cell.video]];
  byId("film").replaceChildren(
    el("h2", {}, task.name), el("p", {}, task.instruction || ""),
    el("p", { class: "quiet" }, `initial state ${cell.init_state}, seed ${cell.seed}: ${wordsOf(cell)}`),
    el("div", { class: "sides" }, places.filter(([, path]) => path).map(([name, path]) => el("figure", { style: null },
      name ? el("h3", {}, name) : null, film(path), el("a", { href: address(path), target: "_blank" }, path)))));
  byId("film").showPopover();
}

// ● success, ○ failure; of two evaluations ▲ won, ▼ lost, else what both were.
function cellOf(task, cell) {
  const success = before ? cell.b : cell.success;
  const flipped = before && cell.a !== cell.b;
  const look = before && !flipped ? "same" : success ? "won" : "lost";
  const mark = flipped ? (success ? "▲" : "▼") : success ? "●" : "○";
  const has = cell.video || cell.video_a || cell.video_b;
  const title = `${task.name}, initial state ${cell.init_state}, seed ${cell.seed}: ${wordsOf(cell)}${has ? "; shows the film" : ""}`;
  const common = { class: `cell ${look}`, title, "aria-label": title };
  return has ? el("button", { ...common, type: "button", onclick: () => showFilm(task, cell) }, mark)
    : el("span", { ...common, role: "img" }, mark);
}

const taskName = (task) => el("div", {}, el("div", { class: "name" }, task.name), el("div", { class: "quiet" }, task.instruction || ""));

function suiteCard(suite) {
  const rows = suite.tasks.map((task) => [
    taskName(task),
    before ? interval(task.difference, task.difference_ci95, true) : interval(task.success, task.ci95),
    ...(before ? [percent(task.success_a, 1), percent(task.success_b, 1), points(task.difference), task.p_holm.toPrecision(2)]
      : [percent(task.success, 1), between(task.ci95)]),
    plain(task.cells.length),
    el("div", { class: "cells" }, task.cells.map((cell) => cellOf(task, cell)))]);
  const numbers = before ? ["before", "after", "points", "p, Holm"] : ["success", "95 %"];
  const said = before ? `${points(suite.difference)} points, 95 %: ${points(suite.difference_ci95[0])} to ${points(suite.difference_ci95[1])}`
    : `${percent(suite.success, 1)}, 95 % on these tasks: ${between(suite.ci95)}`;
  return el("section", { class: "card suite", "aria-label": suite.name },
    head(suite.name, el("span", { class: "value" }, said)),
    table([{ title: "task", kind: "task" }, { title: before ? "difference, 95 % interval" : "success, 95 % interval", kind: "rate" },
      ...numbers.map((title) => ({ title, kind: "n" })), { title: "n", kind: "n" },
      { title: "by initial state", kind: "map" }], rows));
}

function showFlips() {
  const all = shown.suites.flatMap((suite) => suite.tasks);
  const side = (title, wanted) => {
    const found = all.map((task) => [task, task.cells.filter((cell) => cell.a !== cell.b && cell.b === wanted)]).filter(([, cells]) => cells.length);
    const count = found.reduce((sum, [, cells]) => sum + cells.length, 0);
    return el("div", {}, el("h3", {}, `${count} ${title}`), found.length ? found.map(([task, cells]) => el("div", { class: "flip" }, taskName(task),
      el("div", { class: "cells" }, cells.map((cell) => cellOf(task, cell))),
      el("div", { class: "quiet" }, `initial state ${cells.map((cell) => cell.init_state).join(", ")}`)))
      : el("p", { class: "empty" }, "none"));
  };
  const o = shown.overall;
  section("flips", head("What changed", el("span", { class: "quiet" }, "the same episodes, before and after")),
    el("p", {}, `${plain(o.pairs)} pairs: ${percent(o.success_a, 1)} before, ${percent(o.success_b, 1)} after, ${points(o.difference)} points `
      + `(95 %: ${points(o.difference_ci95[0])} to ${points(o.difference_ci95[1])}); McNemar's exact p = ${o.p_mcnemar.toPrecision(2)}.`),
    el("p", {}, shown.verdict),
    el("div", { class: "sides" }, side("went from success to failure", false), side("went from failure to success", true)));
}

function showNumbers() {
  section("numbers", shown.numbers.map((one) => el("div", { class: "number" }, el("div", { class: "label" }, one.name),
    el("div", { class: "figure" }, percent(one.success, 1)),
    el("div", { class: "note" }, `these tasks, 95 %: ${between(one.ci95)}`),
    el("div", { class: "note" }, one.ci95_new_tasks ? `new tasks of this kind: ${between(one.ci95_new_tasks)}` : "says nothing of other tasks"),
    el("div", { class: "note" }, `n = ${plain(one.n)}`))));
}

byId("name").textContent = document.title = shown.title;
byId("words").textContent = shown.words;
if (shown.notices.length) {
  byId("notice").textContent = shown.notices.join(" ");
  byId("notice").hidden = false;
}
if (before) showFlips();
else showNumbers();
if (shown.grid) {
  section("grid", head("Episodes", el("span", { class: "quiet" }, "of each task some, in the order of the tasks; framed in green or red once they have ended")),
    film(shown.grid));
}
byId("suites").replaceChildren(...shown.suites.map(suiteCard));
section("how", head("How it was measured"), el("dl", { class: "facts" }, shown.facts.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]).flat()));
