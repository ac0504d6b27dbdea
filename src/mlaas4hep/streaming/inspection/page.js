"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const body = document.querySelector("#branches tbody");
  const rows = Array.from(body.rows);
  const search = document.getElementById("search"), kind = document.getElementById("kind");
  const log = document.getElementById("log"), count = document.getElementById("count");
  const dialog = document.getElementById("detail");
  const SVG = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg").namespaceURI;
  let opened = null;

  const nameOf = (row) => row.querySelector("th button").textContent;

  function filter() {
    const words = search.value.trim().toLowerCase().split(/[\s,]+/).filter(Boolean);
    const tests = words.map((word) => {
      if (!/[*?]/.test(word)) return (name) => name.includes(word);
      const pattern = new RegExp("^" + word.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".") + "$");
      return (name) => pattern.test(name);
    });
    let shown = 0;
    for (const row of rows) {
      const name = nameOf(row).toLowerCase();
      const hit = (!tests.length || tests.some((test) => test(name))) && (!kind.value || row.dataset.kinds.split(" ").includes(kind.value));
      row.hidden = !hit;
      shown += hit;
    }
    count.textContent = shown === rows.length ? `${shown} branches` : `${shown} of ${rows.length} branches`;
  }

  function sort(button) {
    const column = Number(button.dataset.column), texts = column < 2;
    let order = button.getAttribute("aria-sort");
    order = order === "descending" ? "ascending" : order === "ascending" ? "descending" : texts ? "ascending" : "descending";
    for (const other of document.querySelectorAll("thead button")) other.removeAttribute("aria-sort");
    button.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      if (column === 0) return nameOf(row).toLowerCase();
      if (column === 1) return row.cells[1].textContent;
      if (column === 2) return -Number(row.dataset.number);
      const value = row.cells[column].dataset.value;
      return value === "" ? null : Number(value);
    };
    const keyed = rows.map((row) => [key(row), row]);
    keyed.sort(([a], [b]) => (a === null ? 1 : 0) - (b === null ? 1 : 0) || (a < b ? -sign : a > b ? sign : 0));
    body.append(...keyed.map(([, row]) => row));
  }

  function swap() {
    for (const path of document.querySelectorAll("path[data-log]")) {
      const other = path.dataset.log;
      path.dataset.log = path.getAttribute("d");
      path.setAttribute("d", other);
    }
    if (opened) show(opened);
  }

  const make = (name, attributes, parent, text) => {
    const element = ["svg", "path", "text", "g"].includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  function ticks(low, high, wanted) {
    const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw) || raw;
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9 && found.length < 20; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
    return found;
  }

  const label = (value) => {
    const size = Math.abs(value);
    const text = size && (size >= 1e6 || size < 1e-3) ? value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e") : String(Number(value.toPrecision(5)));
    return text.replace("-", "−");
  };

  function plot(parent, caption, edges, top, bottom, bins, paths, lines, xTitle, yTitle) {
    const figure = make("figure", { class: "plot" }, parent);
    make("figcaption", {}, figure, caption);
    const width = Math.max(320, Math.min(900, dialog.clientWidth - 40)), height = Math.round(Math.max(200, width * 0.38));
    const left = 64, right = 12, head = 10, foot = 44;
    const wide = width - left - right, high = height - head - foot;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": caption }, figure);
    const x = (value) => left + (value - edges[0]) / (edges[1] - edges[0]) * wide;
    const room = 1.06;
    const y = log.checked ? (value) => head + high - Math.log(value / bottom) / Math.log(top / bottom) / room * high : (value) => head + high - value / top / room * high;
    let levels = ticks(0, top * 1.03, 5);
    if (log.checked) {
      levels = [];
      const first = Math.ceil(Math.log10(bottom)), last = Math.floor(Math.log10(top)), skip = Math.max(1, Math.ceil((last - first) / 7));
      for (let power = first; power <= last; power += skip) levels.push(10 ** power);
    }
    for (const value of levels) {
      make("path", { class: "grid", d: `M${left} ${y(value)}h${wide}` }, svg);
      make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, svg, label(value));
    }
    for (const value of ticks(edges[0], edges[1], Math.max(3, Math.min(9, Math.floor(wide / 80))))) {
      make("path", { class: "axis", d: `M${x(value)} ${head + high}v5` }, svg);
      make("text", { x: x(value), y: head + high + 18, "text-anchor": "middle" }, svg, label(value));
    }
    const group = make("g", { class: lines ? "lines" : "area", transform: `translate(${left} ${head + high - high / room}) scale(${wide / (10 * bins)} ${high / room / 200})` }, svg);
    for (const [style, d] of paths) make("path", { class: style, d }, group);
    make("path", { class: "axis", d: `M${left} ${head}v${high}h${wide}` }, svg);
    make("text", { x: left + wide, y: height - 6, "text-anchor": "end" }, svg, xTitle);
    make("text", { x: 14, y: head + 4, "text-anchor": "end", transform: `rotate(-90 14 ${head + 4})` }, svg, yTitle);
  }

  function show(row) {
    opened = row;
    const detail = data.branches[Number(row.dataset.number)], name = nameOf(row);
    dialog.replaceChildren();
    if (!dialog.open) dialog.showModal();
    make("button", { type: "button", class: "close", "aria-label": "Close" }, dialog, "×").addEventListener("click", () => dialog.close());
    make("h2", { id: "detail-name" }, dialog, name);
    const facts = Array.from(row.cells).filter((cell) => cell.dataset.title && cell.textContent).map((cell) => `${cell.dataset.title.toLowerCase()} ${cell.textContent}`);
    make("p", { class: "facts-line" }, dialog, facts.join(" · "));
    const source = row.querySelector("svg"), lines = source.classList.contains("lines");
    const paths = Array.from(source.querySelectorAll("path"), (path) => [path.getAttribute("class"), path.getAttribute("d")]);
    const beyond = [[detail.below, "below"], [detail.above, "above"]].filter(([n]) => n).map(([n, side]) => `${n.toLocaleString("en")} ${side}`);
    const outside = beyond.length ? ` (${beyond.join(" and ")} what is drawn)` : "";
    plot(dialog, "Values" + outside, detail.edges, detail.top, detail.bottom, source.viewBox.baseVal.width / 10, paths, lines, name, lines ? "share of values" : "values");
    if (detail.lengths) {
      const many = detail.lengths;
      plot(dialog, "Values of an event", many.edges, many.top, many.bottom, many.bins, [["f0", log.checked ? many.log : many.d]], false, "number of values", "events");
    }
    if (detail.rows.length) {
      const table = make("table", {}, make("div", { class: "wide" }, dialog));
      const head = make("tr", {}, make("thead", {}, table));
      for (const title of ["File", "Values", "Min", "Max", "Mean", "Std. dev.", "Median", "NaN", "Empty", "Widest"]) make("th", { scope: "col" }, head, title);
      const rest = make("tbody", {}, table);
      detail.rows.forEach((numbers, place) => {
        const line = make("tr", {}, rest), first = make("th", { scope: "row" }, line);
        const key = make("svg", { class: "key", viewBox: "0 0 20 10" }, first);
        make("path", { class: `f${place}`, d: "M0 5h20" }, key);
        first.append(data.files[place].split("/").pop());
        if (numbers) for (const value of numbers) make("td", {}, line, value.replace("&lt;", "<"));
        else make("td", { colspan: 9 }, line, "has no such branch");
      });
    }
  }

  search.addEventListener("input", filter);
  kind.addEventListener("change", filter);
  log.addEventListener("change", swap);
  document.querySelector("#branches thead").addEventListener("click", (event) => event.target.dataset.column && sort(event.target));
  body.addEventListener("click", (event) => { const row = event.target.closest("tr"); if (row) show(row); });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => { opened = null; });
  if (log.checked) swap();
  filter();
})();
