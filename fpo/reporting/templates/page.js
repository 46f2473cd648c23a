"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const PAGE = 25;
  const { vocabulary, pairs, contexts } = data;
  const said = (tokens) => tokens.map((token) => vocabulary[token]).join("");
  const number = (value) => String(+value.toPrecision(4)).replace("-", "−");

  // Charts: the values under the pointer, or at the place that the arrow keys chose.
  const SVG = "http://www.w3.org/2000/svg";
  document.querySelectorAll("figure[data-chart]").forEach((figure) => {
    const chart = data.charts[figure.dataset.chart];
    const svg = figure.querySelector("svg");
    const scattered = chart.curves.some((curve) => curve.labels.length);
    const every = chart.curves.filter((curve) => !scattered || curve.labels.length).flatMap((curve) => curve.points.map((point) => ({ curve, point })));
    const places = [...new Set(every.map(({ point }) => point[2]))].sort((a, b) => a - b);
    const tip = make("div", "tip");
    tip.hidden = true;
    tip.setAttribute("role", "status");
    figure.append(tip);
    const marks = document.createElementNS(SVG, "g");
    svg.append(marks);
    let at = -1;
    const show = (hits, x, y) => {
      marks.replaceChildren();
      if (!scattered) {
        const line = document.createElementNS(SVG, "line");
        line.setAttribute("class", "cross");
        Object.entries({ x1: x, x2: x, y1: 10, y2: 182 }).forEach(([k, v]) => line.setAttribute(k, v));
        marks.append(line);
      }
      hits.forEach(({ curve, point }) => {
        const dot = document.createElementNS(SVG, "circle");
        dot.setAttribute("class", `dot c${curve.colour}`);
        Object.entries({ cx: point[2], cy: point[3], r: scattered ? 6 : 3.5 }).forEach(([k, v]) => dot.setAttribute(k, v));
        marks.append(dot);
      });
      const lines = scattered
        ? hits.map(({ curve, point }) => `${curve.labels[curve.points.indexOf(point)]}\n${chart.x} ${number(point[0])}, ${number(point[1])}`)
        : [`${chart.x} ${hits[0].point[0]}`, ...hits.map(({ curve, point }) => `${curve.name}  ${number(point[1])}`)];
      tip.textContent = lines.join("\n");
      tip.hidden = false;
      const scale = svg.clientWidth / 360;
      const left = svg.offsetLeft || 12;
      const room = figure.clientWidth - tip.offsetWidth - 8;
      const wanted = left + x * scale + 12;
      tip.style.left = `${Math.max(4, wanted > room ? left + x * scale - tip.offsetWidth - 12 : wanted)}px`;
      tip.style.top = `${figure.querySelector("figcaption").offsetHeight + Math.max(4, (y - 20) * scale)}px`;
    };
    const hide = () => { tip.hidden = true; marks.replaceChildren(); };
    const near = (x) => chart.curves.map((curve) => {
      const point = curve.points.reduce((best, p) => (Math.abs(p[2] - x) < Math.abs(best[2] - x) ? p : best));
      return { curve, point };
    });
    const point = (x, y) => {
      if (scattered) {
        const best = every.reduce((a, b) => (Math.hypot(b.point[2] - x, b.point[3] - y) < Math.hypot(a.point[2] - x, a.point[3] - y) ? b : a));
        show([best], best.point[2], best.point[3]);
        return;
      }
      const hits = near(x);
      const nearest = hits.reduce((a, b) => (Math.abs(b.point[2] - x) < Math.abs(a.point[2] - x) ? b : a)).point;
      show(near(nearest[2]).filter(({ point: p }) => Math.abs(p[2] - nearest[2]) < 12), nearest[2], y);
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      point(((event.clientX - box.left) / box.width) * 360, ((event.clientY - box.top) / box.height) * 210);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      if (scattered) {
        at = (at + step + every.length) % every.length;
        const hit = every[at];
        show([hit], hit.point[2], hit.point[3]);
        return;
      }
      at = Math.min(places.length - 1, Math.max(0, at + step));
      point(places[at], 60);
    });
  });

  // Tables: a click on a column's head sorts by it.
  document.querySelectorAll("table[data-sortable]").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (body) => {
          const cell = body.rows[0].cells[column];
          const value = cell.dataset.value;
          return value === undefined || value === "" ? cell.textContent.trim() : parseFloat(value);
        };
        const order = (a, b) => {
          const [x, y] = [key(a), key(b)];
          if (typeof x === "number" && typeof y === "number") return x - y;
          if (typeof x === "number") return down ? 1 : -1;
          if (typeof y === "number") return down ? -1 : 1;
          return x.localeCompare(y, undefined, { numeric: true });
        };
        const bodies = [...table.tBodies].sort((a, b) => (down ? -1 : 1) * order(a, b));
        table.append(...bodies);
        table.dispatchEvent(new Event("sorted"));
      });
    });
  });

  // Features: search in numbers, promoted tokens and contexts; filter by how they moved.
  // The texts where one is strongest are drawn when they are opened.
  const strongest = (details, shown) => {
    if (details.children.length > 1) return;
    const list = make("ul");
    shown.forEach(({ where, cut, tokens, activations }) => {
      const high = Math.max(...activations.map(Math.abs));
      const line = make("div", "tokens", cut[0] ? "… " : "");
      tokens.forEach((token, i) => {
        const level = high && Math.ceil((4 * Math.abs(activations[i])) / high);
        const span = make("span", level ? `a${level}` : "", vocabulary[token]);
        if (level) span.title = number(activations[i]);
        line.append(span);
      });
      line.append(cut[1] ? " …" : "");
      const item = make("li");
      item.append(make("span", "where", where), line);
      list.append(item);
    });
    details.append(list);
  };
  const features = document.getElementById("feature-table");
  if (features) {
    const search = document.getElementById("feature-search");
    const filter = document.getElementById("feature-filter");
    const count = document.getElementById("feature-count");
    const more = document.getElementById("feature-more");
    const rows = new Map([...features.tBodies].map((body, i) => [body, { contexts: contexts[i], words: null }]));
    rows.forEach((row, body) => {
      const details = body.querySelector("details");
      if (details) details.addEventListener("toggle", () => details.open && strongest(details, row.contexts));
    });
    const text = (row, body) => [body.textContent, ...row.contexts.map(({ tokens }) => said(tokens))].join(" ").toLowerCase();
    let most = PAGE;
    const sieve = () => {
      const words = search.value.trim().toLowerCase();
      let fitting = 0;
      [...features.tBodies].forEach((body) => {
        const moved = !filter || filter.value === "" || body.dataset.moved.split(" ").includes(filter.value);
        const row = rows.get(body);
        const fits = moved && (!words || (row.words ??= text(row, body)).includes(words));
        fitting += fits;
        body.hidden = !fits || fitting > most;
      });
      count.textContent = `${fitting} of ${rows.size}`;
      more.hidden = fitting <= most;
    };
    more.addEventListener("click", () => { most = Infinity; sieve(); });
    features.addEventListener("sorted", sieve);
    window.addEventListener("beforeprint", () => more.click());
    search.addEventListener("input", sieve);
    if (filter) filter.addEventListener("change", sieve);
    sieve();
    features.classList.add("ready");
  }

  // Pairs: a line each; tokens are drawn when a pair is opened.
  const list = document.getElementById("pair-list");
  if (!list) return;
  const level = (change) => {
    const size = Math.abs(change);
    const step = size < 50 ? 0 : size < 200 ? 1 : size < 700 ? 2 : size < 2000 ? 3 : 4;
    return step ? (change > 0 ? "u" : "d") + step : "";
  };
  const nats = (value) => number(value / 1000);
  const mean = (values) => values.reduce((a, b) => a + b, 0) / (values.length || 1);
  const side = (name, shown) => {
    const box = make("div", "side");
    box.append(make("h3", "", name));
    box.append(make("p", "", `mean log π ${nats(mean(shown.before))} → ${nats(mean(shown.after))} over ${shown.tokens.length} tokens`));
    const tokens = make("div", "tokens");
    tokens.tabIndex = 0;
    tokens.setAttribute("role", "group");
    tokens.setAttribute("aria-label", `tokens of ${name}`);
    shown.tokens.forEach((token, i) => {
      const change = shown.after[i] - shown.before[i];
      const span = make("span", level(change), vocabulary[token]);
      span.title = `log π ${nats(shown.before[i])} → ${nats(shown.after[i])} (${change > 0 ? "+" : ""}${nats(change)})`;
      tokens.append(span);
    });
    box.append(tokens);
    return box;
  };
  const open = (details, pair) => {
    if (details.children.length > 1) return;
    const body = make("div", "body");
    const prompt = make("div", "prompt text", pair.prompt);
    prompt.tabIndex = 0;
    prompt.setAttribute("role", "group");
    prompt.setAttribute("aria-label", "prompt");
    const sides = make("div", "sides");
    sides.append(side("chosen", pair.chosen), side("rejected", pair.rejected));
    body.append(prompt, sides);
    details.append(body);
  };
  const text = (pair) => `${pair.row} ${pair.prompt} ${said([...pair.chosen.tokens, ...pair.rejected.tokens])}`.toLowerCase();
  const rows = pairs.map((pair) => {
    const details = make("details", "pair");
    const summary = make("summary");
    const margin = make("span", `margin ${pair.margin > 0 ? "right" : "wrong"}`, (pair.margin > 0 ? "+" : "") + number(pair.margin));
    const start = make("span", "start", pair.prompt.replace(/\s+/g, " ").slice(0, 200));
    summary.append(margin, make("span", "where", `row ${pair.row}`), start);
    details.append(summary);
    details.addEventListener("toggle", () => details.open && open(details, pair));
    return { pair, details, words: null };
  });
  const change = (pair) => mean(pair.chosen.after) - mean(pair.chosen.before) - mean(pair.rejected.after) + mean(pair.rejected.before);
  const orders = {
    lowest: (a, b) => a.pair.margin - b.pair.margin,
    highest: (a, b) => b.pair.margin - a.pair.margin,
    moved: (a, b) => Math.abs(change(b.pair)) - Math.abs(change(a.pair)),
    row: (a, b) => a.pair.row - b.pair.row,
  };
  const search = document.getElementById("pair-search");
  const sort = document.getElementById("pair-sort");
  const filter = document.getElementById("pair-filter");
  const count = document.getElementById("pair-count");
  const more = document.getElementById("pair-more");
  let most = PAGE;
  const draw = () => {
    const words = search.value.trim().toLowerCase();
    const fits = rows.filter((row) => {
      if (filter.value === "wrong" && row.pair.margin > 0) return false;
      if (filter.value === "right" && row.pair.margin <= 0) return false;
      if (!words) return true;
      row.words ??= text(row.pair);
      return row.words.includes(words);
    });
    list.replaceChildren(...fits.sort(orders[sort.value]).slice(0, most).map((row) => row.details));
    more.hidden = fits.length <= most;
    count.textContent = `${fits.length} of ${rows.length}`;
  };
  [search, sort, filter].forEach((control) => control.addEventListener("input", () => { most = PAGE; draw(); }));
  more.addEventListener("click", () => { most += 4 * PAGE; draw(); });
  draw();
  if (rows.length) list.firstElementChild.open = true;
  window.addEventListener("beforeprint", () => [...list.children].slice(0, 10).forEach((details) => { details.open = true; }));
})();
