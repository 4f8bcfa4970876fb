"use strict";
// Elements, made of text alone: nothing that a run's files say is ever read as HTML.

function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

const byId = (id) => document.getElementById(id);

const shownLast = new Map();

// Fills an element anew, only if what it is made of has changed: a video that plays goes on.
function fill(id, source, make) {
  const text = JSON.stringify(source);
  if (shownLast.get(id) === text) return;
  shownLast.set(id, text);
  const children = make();
  byId(id).replaceChildren(...children.filter((child) => child != null));
  byId(id).hidden = children.length === 0;
}

function table(columns, rows) {
  const cell = (tag, column, content) => el(tag, { class: column.kind }, content);
  const head = el("tr", {}, columns.map((column) => cell("th", column, column.title)));
  const body = rows.map((row) => el("tr", {}, row.map((content, i) => cell("td", columns[i], content))));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, body)));
}
