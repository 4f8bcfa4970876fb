"use strict";
// The charts: what is drawn, and how.

const CHARTS = [
  { metric: "train/approx_kl", title: "KL to the acting policy", unit: "nats a chunk", target: "target_kl" },
  { metric: "train/clip_fraction", title: "Clip fraction", percent: true },
  { metric: "train/explained_variance", title: "Explained variance of the critic", level: 0, least: -1.05 },
  { metric: "train/entropy", title: "Entropy", unit: "nats a chunk" },
  { metric: "train/actor_learner_logprob_gap", title: "Gap between actor and learner", unit: "nats a chunk", log: true },
  { metric: "train/lr", title: "Learning rate" },
  { metric: "train/return", title: "Return of an episode" },
  { metric: "train/episode_chunks", title: "Length of an episode", unit: "chunks" },
  { metric: "train/stale_fraction", title: "Chunks of older policies", percent: true },
  { metric: "train/value_loss", title: "Loss of the critic" },
  { metric: "train/grad_norm", title: "Norm of the policy's gradient", log: true },
  { metric: "train/loss", title: "Supervised loss", log: true },
];

const drawn = new Map(); // metric or "success" → uPlot

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const faint = (name, part) => `color-mix(in srgb, ${colour(name)} ${part}%, transparent)`;

function axis(label, format) {
  const font = "12px system-ui, sans-serif";
  return {
    stroke: colour("quiet"), font, labelFont: font, label, labelSize: label ? 18 : 0, labelGap: 0,
    grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, gap: 6,
    values: (_, ticks, __, ___, step) => ticks.map((tick) => (tick === null ? "" : format(tick, step))),
  };
}

// A range that leaves room, and is no single point where all values are one.
function padded(low, high, least) {
  if (low === null || high === null) return [0, 1];
  if (low === high) return [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const room = 0.08 * (high - low);
  return [least === undefined ? low - room : Math.max(least, low - room), high + room];
}

function brief(value) {
  if (Math.abs(value) < 10000) return plain(value);
  return Math.abs(value) < 1e6 ? `${plain(value / 1000)}k` : `${plain(value / 1e6)}M`;
}

// What stands at an axis: as many digits as tell its ticks apart.
function tickText(value, step) {
  const digits = (String(Number(step.toPrecision(3))).split(".")[1] || "").length;
  return step < 1 && step >= 1e-5 && Math.abs(value) >= step ? value.toFixed(digits) : plain(value);
}

function options(host, xLabel, scale, yAxis, series, bands, onCursor, hooks = {}) {
  return {
    width: Math.max(200, host.clientWidth), height: host.dataset.height ? Number(host.dataset.height) : 170,
    legend: { show: false }, padding: [8, 18, 0, 0],
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
    scales: { x: { time: false }, y: scale },
    axes: [{ ...axis(xLabel, brief), size: 26, space: 70 }, { ...yAxis, size: 54 }],
    series: [{}, ...series], bands,
    hooks: { setCursor: [(u) => onCursor(u.cursor.idx)], ...hooks },
  };
}

function draw(key, host, opts, data) {
  drawn.get(key)?.destroy();
  host.replaceChildren();
  const plot = new uPlot(opts, data, host);
  drawn.set(key, plot);
  if (!host.dataset.watched) {
    host.dataset.watched = "yes";
    new ResizeObserver(() => {
      const now = drawn.get(key);
      if (now && host.clientWidth && now.width !== host.clientWidth) {
        now.setSize({ width: host.clientWidth, height: now.height });
      }
    }).observe(host);
  }
}

// A dashed line across a chart at a value that matters.
function level(value) {
  return (u) => {
    if (!there(value) || value < u.scales.y.min || value > u.scales.y.max) return;
    const y = Math.round(u.valToPos(value, "y", true));
    u.ctx.save();
    u.ctx.strokeStyle = colour("orange");
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
    u.ctx.beginPath();
    u.ctx.moveTo(u.bbox.left, y);
    u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
    u.ctx.stroke();
    u.ctx.restore();
  };
}

function latest(values) {
  for (let i = values.length - 1; i >= 0; i--) if (there(values[i])) return values[i];
  return null;
}

function metricCard(chart, points, config) {
  const id = `chart-${chart.metric.split("/")[1]}`;
  const format = chart.percent ? (value) => percent(value, 1) : plain;
  const values = points.mean[chart.metric] || [];
  let card = byId(id);
  if (!values.some(there)) {
    if (card) card.remove();
    drawn.delete(chart.metric);
    return;
  }
  if (!card) {
    card = el("div", { class: "card", id },
      el("div", { class: "head" },
        el("h2", {}, chart.title), helpButton(chart.metric),
        el("span", { class: "value" }, ""), el("span", { class: "quiet" }, chart.unit || "")),
      el("div", { class: "plot", role: "img" }));
    const order = CHARTS.indexOf(chart);
    const next = CHARTS.slice(order + 1).map((other) => byId(`chart-${other.metric.split("/")[1]}`)).find(Boolean);
    byId("charts").insertBefore(card, next || null);
  }
  const host = card.querySelector(".plot"), shown = card.querySelector(".value");
  const steps = points.x.step;
  const say = (i) => {
    const hovered = there(i) && there(values[i]);
    shown.textContent = hovered ? `${brief(steps[i])}: ${format(values[i])}` : format(latest(values));
  };
  say(null);
  host.setAttribute("aria-label", `${chart.title}, now ${format(latest(values))} ${chart.unit || ""}`);
  const wide = points.width > 1;
  // A logarithm has no place for zero and below.
  const kept = (list) => (chart.log ? list.map((v) => (there(v) && v > 0 ? v : null)) : list);
  const data = [steps, kept(values)];
  if (wide) data.push(kept(points.low[chart.metric]), kept(points.high[chart.metric]));
  const log = chart.log && data[1].some(there);
  const few = steps.length < 40;
  const hidden = { stroke: "transparent", points: { show: false } };
  const target = chart.target ? config?.[chart.target] : chart.level;
  const y = axis("", chart.percent ? (value) => percent(value) : chart.log ? plain : tickText);
  draw(chart.metric, host, options(host, "update",
    log ? { distr: 3 } : { range: (u, low, high) => {
      const top = there(target) && high !== null && chart.target ? Math.max(high, target) : high;
      return padded(chart.percent && low !== null ? Math.min(low, 0) : low, top, chart.least ?? (chart.percent ? 0 : undefined));
    } },
    y,
    [{ stroke: colour("blue"), width: 1.8, points: { show: few, size: 4, fill: colour("blue") } }, ...(wide ? [hidden, hidden] : [])],
    wide ? [{ series: [3, 2], fill: faint("blue", 18) }] : [], say,
    { draw: [level(target)] }), data);
}

function successCard(points, evaluations) {
  const host = byId("success-plot"), { rate, low, high } = points.exploring;
  const raw = points.mean["train/success_rate"] || [];
  const exploring = [points.x.episodes, rate, low, high, raw];
  const measured = ["episodes", "rate", "low", "high"].map((name) => evaluations.map((one) => one[name]));
  const order = evaluations.map((_, i) => i).sort((a, b) => measured[0][a] - measured[0][b]);
  const data = uPlot.join([exploring, measured.map((list) => order.map((i) => list[i]))]);
  const legend = byId("success-legend");
  const text = (values, [a, b, c], i) => (there(values[a][i]) ? `${percent(values[a][i])} (${percent(values[b][i])}–${percent(values[c][i])})` : "–");
  const say = (i) => {
    const last = (row) => data[row].findLastIndex(there);
    const at = (row) => (there(i) && there(data[row][i]) ? i : last(row));
    const item = (name, shade, row) => el("span", { class: shade }, el("i"), `${name} `, el("b", {}, text(data, [row, row + 1, row + 2], at(row))));
    legend.replaceChildren(
      el("span", {}, there(i) ? `after ${plain(data[0][i])} episodes:` : "now:"),
      item("exploring", "blue", 1), ...(evaluations.length ? [item("noise-free", "green", 5)] : []));
  };
  say(null);
  const line = (name, more) => ({ stroke: colour(name), width: 2.2, spanGaps: true, points: { show: false }, ...more });
  const hidden = { stroke: "transparent", spanGaps: true, points: { show: false } };
  const dot = (name) => ({ points: { show: true, size: 7, fill: colour(name), stroke: colour("card") } });
  host.setAttribute("aria-label", `Success, now ${percent(latest(rate))} exploring, ${percent(latest(measured[1]))} noise-free`);
  draw("success", host, options(host, "episodes",
    { range: [0, 1.02] }, { ...axis("", (value) => percent(value)), splits: () => [0, 0.25, 0.5, 0.75, 1] },
    [line("blue", raw.length < 3 ? dot("blue") : {}), hidden, hidden,
      { stroke: faint("blue", 45), width: 1, spanGaps: true, points: { show: false } },
      line("green", dot("green")), hidden, hidden],
    [{ series: [3, 2], fill: faint("blue", 16) }, { series: [7, 6], fill: faint("green", 16) }], say), data);
}
