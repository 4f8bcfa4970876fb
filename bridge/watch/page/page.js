"use strict";
// Asks for what is new, and shows it.

const EVERY_MS = 2000;
const exported = byId("exported") !== null;

let points = null, about = null, now = null;

// Puts new points in the place of those from `first` on: the last known one may have been a part of one.
function merge(news) {
  const fresh = news.first === 0 || points === null || points.key !== news.key;
  if (fresh) points = { key: news.key, width: news.width, x: {}, mean: {}, low: {}, high: {}, exploring: {} };
  const count = news.x.step.length;
  for (const group of ["x", "mean", "low", "high", "exploring"]) {
    for (const [name, values] of Object.entries(news[group])) {
      const known = points[group][name] || new Array(news.first).fill(null);
      known.splice(news.first, known.length, ...values);
      points[group][name] = known;
    }
  }
  return fresh || count > 1 || news.now.rows !== now?.rows;
}

function successFrame() {
  fill("success", "frame", () => [
    head("Success", helpButton("train/success_rate"), el("span", { class: "quiet" }, "with 95 % intervals; exploring: pooled over five points")),
    el("div", { class: "legend", id: "success-legend" }),
    el("div", { class: "plot", id: "success-plot", role: "img", "data-height": "300" }),
    el("p", { class: "empty", id: "success-empty" })]);
}

function drawAll() {
  const empty = points.x.step.length === 0;
  byId("success-empty").hidden = !empty;
  byId("success-plot").hidden = byId("success-legend").hidden = empty;
  byId("success-empty").textContent = now.words;
  byId("charts").hidden = empty;
  if (empty) return;
  successCard(points, now.evaluations);
  for (const chart of CHARTS) metricCard(chart, points, about?.config);
}

function show(news) {
  if (news.about) {
    about = news.about;
    glossary = Object.values(about.glossary).flat();
  }
  const before = JSON.stringify([now?.evaluations, now?.words, about?.hash]);
  const changed = merge(news);
  now = news.now;
  byId("name").textContent = about.name;
  byId("path").textContent = about.given;
  byId("path").title = about.path;
  document.title = `${about.name} · ${percent(now.headline.evaluated ?? latest(points.exploring.rate))} · pirl-watch`;
  showState(now);
  showNumbers(now, points);
  showDoctor(now);
  showTime(now);
  showActors(now);
  showTasks(now);
  showFiles(about);
  showConfig(about);
  showMetrics(points, now);
  showFoot(now, points);
  if (changed || before !== JSON.stringify([now.evaluations, now.words, about.hash])) drawAll();
  document.body.dataset.rows = now.rows;
}

async function news() {
  const asked = new URLSearchParams({ key: points?.key ?? "", known: points?.x.step.length ?? 0, about: about?.hash ?? "" });
  return (await fetch(`/news?${asked}`)).json();
}

async function poll() {
  let answer;
  try {
    answer = await news();
  } catch {
    byId("state").textContent = "the page's server is gone";
    byId("state").className = "pill gone";
    setTimeout(whenSeen, EVERY_MS);
    return;
  }
  setTimeout(whenSeen, answer.rest > 1 << 20 ? 0 : EVERY_MS); // a long file is read in parts
  show(answer);
}

function whenSeen() {
  if (!document.hidden) poll();
  else document.addEventListener("visibilitychange", poll, { once: true });
}

successFrame();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => points && drawAll());
if (exported) show(JSON.parse(byId("exported").textContent));
else poll();
