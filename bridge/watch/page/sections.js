"use strict";
// What stands beside the charts.

let glossary = [];

function entryOf(metric) {
  const own = glossary.find((entry) => entry.name === metric);
  return own || glossary.find((entry) => entry.name.includes("<") && metric.startsWith(entry.name.split("<")[0]));
}

const head = (title, ...more) => el("div", { class: "head" }, el("h2", {}, title), ...more);

function helpButton(metric) {
  const show = () => {
    const entry = entryOf(metric);
    const row = (name, text) => (text ? [el("dt", {}, name), el("dd", {}, text)] : []);
    byId("help").replaceChildren(el("h2", { class: "mono" }, metric), el("p", {}, entry ? entry.meaning : "No entry."),
      el("dl", {}, ...(entry ? [...row("Healthy", entry.healthy), ...row("Otherwise", entry.remedy), ...row("Unit", entry.unit)] : [])));
    byId("help").showPopover();
  };
  return el("button", { class: "ask", type: "button", "aria-label": `What is ${metric}?`, onclick: show }, "?");
}

const STATES = { running: "running", finished: "finished", stopped: "not running", starting: "not started", unknown: "state not known" };

function showState(now) {
  byId("state").textContent = STATES[now.state];
  byId("state").className = `pill ${now.state}`;
  byId("words").textContent = now.words;
}

function showNumbers(now, points) {
  const h = now.headline, exploring = points.exploring;
  const rate = latest(exploring.rate), i = exploring.rate.findLastIndex(there);
  fill("numbers", [h, rate, now.rows], () => {
    const number = (label, figure, small, note, shade) => el("div", { class: "number" },
      el("div", { class: "label" }, label),
      el("div", { class: `figure ${shade || ""}` }, figure, small ? el("small", {}, small) : null),
      el("div", { class: "note" }, note || "\u00a0"));
    const between = (low, high) => `95 %: ${percent(low)} to ${percent(high)}`;
    return [
      number("noise-free policy", percent(h.evaluated), "", there(h.evaluated)
        ? `${between(h.evaluated_low, h.evaluated_high)}, update ${plain(h.evaluated_at)}` : "not evaluated", "green"),
      number("exploring policy", percent(rate), "", there(rate) ? between(exploring.low[i], exploring.high[i]) : "no update yet", "blue"),
      number("update", plain(h.update), there(h.updates) ? ` of ${plain(h.updates)}` : "", there(h.update_s) ? `${seconds(h.update_s)} each` : ""),
      number("episodes learned from", plain(h.episodes), "", there(h.per_minute) ? `${plain(h.per_minute)} a minute` : ""),
      number("left", seconds(h.left_s), "", there(h.left_s) ? "at this pace" : now.state === "finished" ? "nothing" : "not known yet"),
    ];
  });
}

function showDoctor(now) {
  fill("doctor", [now.findings, now.rows < 3], () => {
    const wrong = now.findings.filter((finding) => !finding.ok).length;
    const list = now.findings.map((finding) => el("li", { class: finding.ok ? "" : "wrong" },
      el("span", { class: "mark", "aria-label": finding.ok ? "fine" : "look at this" }, finding.ok ? "✓" : "!"),
      el("div", {}, el("div", { class: "name" }, finding.name), el("div", { class: "quiet" }, finding.value),
        finding.ok ? null : el("div", { class: "advice" }, finding.advice))));
    const said = wrong ? `${wrong} thing${wrong > 1 ? "s" : ""} to look at` : now.findings.length ? "nothing is wrong" : "";
    return [head("What the doctor would say now", el("span", { class: "quiet" }, said)),
      list.length ? el("ul", { class: "findings" }, list) : el("p", { class: "empty" }, "Nothing yet: it looks at three updates at least.")];
  });
}

function showTime(now) {
  const shades = ["sky", "purple", "yellow", "blue"];
  fill("time", now.time_split, () => {
    const title = head("Where the time goes", el("span", { class: "quiet" }, "mean of the last 10 updates"));
    const total = now.time_split.reduce((sum, part) => sum + part.seconds, 0);
    if (!total) return [title, el("p", { class: "empty" }, "No update has said it yet.")];
    const bar = el("div", { class: "split", role: "img", "aria-label": "shares of a turn" });
    now.time_split.forEach((part, i) => {
      const piece = el("div");
      piece.style.cssText = `flex: ${part.seconds} 0 0; background: var(--${shades[i]})`;
      if (part.seconds) bar.append(piece);
    });
    const rows = now.time_split.map((part, i) => {
      const chip = el("i");
      chip.style.color = `var(--${shades[i]})`;
      return [el("span", { class: "legend" }, el("span", {}, chip, part.name)), seconds(part.seconds), percent(part.seconds / total)];
    });
    return [title, bar, table([{ title: "" }, { title: "an update", kind: "n" }, { title: "share", kind: "n" }], rows)];
  });
}

function showActors(now) {
  fill("actors", now.actors, () => {
    const title = head("Actors", el("span", { class: "quiet" }, now.actors.length ? String(now.actors.length) : ""));
    if (!now.actors.length) {
      const running = now.state === "running";
      return [title, el("p", { class: "empty" }, running
        ? "None is connected: start some (pirl-launch does), or look into their logs."
        : "No actor has been written down: a learner does so in status.json while it runs.")];
    }
    const rows = now.actors.map((actor) => [actor.name, there(actor.behind) ? plain(actor.behind) : "–",
      plain(actor.episodes), there(actor.per_minute) ? plain(actor.per_minute) : "–", `${seconds(actor.seen_s)} ago`]);
    const columns = ["actor", "versions behind", "episodes", "a minute", "last seen"];
    return [title, table(columns.map((name, i) => ({ title: name, kind: i ? "n" : "" })), rows)];
  });
}

function showTasks(now) {
  fill("tasks", now.tasks, () => {
    if (!now.tasks.length) return [];
    const bar = (shade, value) => {
      const piece = el("i", { class: shade });
      piece.style.width = percent(value ?? 0, 1).replace(" ", "");
      return el("div", {}, piece);
    };
    const rows = now.tasks.map((task) => [task.name,
      el("div", { class: "bars" }, bar("blue", task.exploring), there(task.evaluated) ? bar("green", task.evaluated) : null),
      el("span", { class: "blue" }, percent(task.exploring)), el("span", { class: "green" }, percent(task.evaluated))]);
    return [head("Success by task", el("span", { class: "quiet" }, "exploring: last 10 updates; noise-free: newest evaluation")),
      table([{ title: "task" }, { title: "", kind: "bar" }, { title: "exploring", kind: "n" }, { title: "noise-free", kind: "n" }], rows)];
  });
}

function link(path, text) {
  const parts = path.split("/").map(encodeURIComponent).join("/");
  return el("a", { href: exported ? parts : `/files/${parts}`, target: "_blank", rel: "noreferrer" }, text || path);
}

function copyButton(text) {
  const copied = async (event) => {
    await navigator.clipboard.writeText(text);
    event.target.textContent = "copied";
  };
  return el("button", { class: "copy", type: "button", title: text, onclick: copied }, "copy path");
}

function showFiles(about) {
  const { checkpoints, reports, videos } = about.listing;
  fill("checkpoints", checkpoints, () => {
    if (!checkpoints.length) return [head("Checkpoints"), el("p", { class: "empty" }, "None is saved yet.")];
    const rows = checkpoints.map((one) => [
      el("span", {}, plain(one.step), ...one.names.map((name) => el("span", { class: "tag" }, name))),
      percent(one.score), percent(one.evaluated), one.complete ? "complete" : "trained part", copyButton(`${about.path}/${one.path}`)]);
    return [head("Checkpoints"), table([{ title: "update" }, { title: "exploring", kind: "n" }, { title: "noise-free", kind: "n" },
      { title: "weights" }, { title: "", kind: "n" }], rows)];
  });
  fill("videos", videos, () => {
    if (!videos.length) return [];
    const figures = videos.map((one) => el("figure", {},
      exported ? null : el("video", { src: `/files/${one.path.split("/").map(encodeURIComponent).join("/")}#t=0.001`, controls: true, preload: "metadata", muted: true, playsinline: true }),
      el("figcaption", {}, link(one.path), one.failed ? el("span", { class: "tag bad" }, "failed") : null,
        el("div", { class: "quiet" }, `${moment(one.time)}, ${bytes(one.size)}`))));
    return [head("Videos", el("span", { class: "quiet" }, "failures first, then the newest")), el("div", { class: "media" }, figures)];
  });
  fill("reports", reports, () => (reports.length
    ? [head("Reports and pictures"), table([{ title: "file" }, { title: "changed", kind: "n" }], reports.map((one) => [link(one.path), moment(one.time)]))]
    : []));
}

function showConfig(about) {
  const config = about.config;
  fill("config", config, () => {
    if (!config) return [head("Configuration"), el("p", { class: "empty" }, "No configuration yet: a learner writes train_config.json once it has read the policy.")];
    const preset = config.preset, all = Object.entries(config.settings);
    const differences = preset ? preset.differences.map((one) => [el("span", { class: "mono" }, one.name), el("span", { class: "mono" }, one.value), el("span", { class: "mono quiet" }, one.preset)]) : [];
    const count = differences.length;
    const words = !preset ? "" : count ? `${count} setting${count > 1 ? "s" : ""} of the method differ${count > 1 ? "" : "s"} from ${preset.name}, which is closest` : `the method is exactly ${preset.name}`;
    return [head("Configuration", el("span", { class: "quiet" }, words)),
      count ? table([{ title: "setting" }, { title: "this run" }, { title: preset.name }], differences) : null,
      el("details", {}, el("summary", {}, `All ${all.length} settings`),
        table([{ title: "setting" }, { title: "value" }], all.map(([name, value]) => [el("span", { class: "mono" }, name), el("span", { class: "mono" }, value)]))),
      el("p", { class: "quiet mono" }, config.path)];
  });
}

let sought = "";

function showMetrics(points, now) {
  const values = { ...now.evaluation };
  for (const [name, list] of Object.entries(points.mean)) values[name] = latest(list);
  delete values.step;
  delete values.time;
  const names = Object.keys(values).filter((name) => there(values[name])).sort();
  const body = () => names.filter((name) => name.includes(sought) || (entryOf(name)?.meaning || "").toLowerCase().includes(sought)).map((name) => {
    const entry = entryOf(name) || {};
    return [el("span", { class: "mono" }, name), `${plain(values[name])} ${entry.unit || ""}`, entry.meaning || "no entry", entry.healthy || "", entry.remedy || ""];
  });
  const columns = [{ title: "metric" }, { title: "newest", kind: "n" }, { title: "what it is" }, { title: "healthy" }, { title: "otherwise" }];
  const open = byId("metrics").querySelector("details")?.open || false;
  if (open && byId("metrics").contains(document.activeElement)) return; // someone types
  fill("metrics", [values, glossary.length], () => {
    if (!names.length) return [];
    const place = el("div", {}, table(columns, body()));
    const search = el("input", { type: "search", placeholder: "find a metric", "aria-label": "find a metric", value: sought, oninput: (event) => {
      sought = event.target.value.toLowerCase();
      place.replaceChildren(table(columns, body()));
    } });
    return [el("details", { open }, el("summary", {}, `All ${names.length} metrics, and what they mean`), search, place)];
  });
}

function showFoot(now, points) {
  const parts = [];
  if (now.broken) parts.push(`${plain(now.broken)} line${now.broken > 1 ? "s" : ""} of metrics.jsonl ${now.broken > 1 ? "are" : "is"} broken and left out.`);
  if (points.width > 1) parts.push(`A point stands for ${points.width} updates: their mean, with the smallest and largest as a band.`);
  parts.push(exported ? `As of ${moment(now.time)}.` : now.last_row ? `Newest row: ${moment(now.last_row)}.` : "No row of metrics.jsonl yet.");
  byId("foot").textContent = parts.join(" ");
}
