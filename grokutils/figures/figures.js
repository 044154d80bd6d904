// Figures that answer the hand. A figure is drawn when it comes near and freed when it is far; until then, on paper and
// without scripts its static twin stands in. Controls are the browser's own, and what they are set to stands in the address.
(() => {
  "use strict";
  if (window.grokFigures) return window.grokFigures.scan(); // a notebook's front end runs this once for each output

  // ---- elements -------------------------------------------------------------------------------------------------
  const element = (make) => (tag, attributes = {}, parent = null, text = null) => {
    const node = make(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(name, value);
    if (text !== null) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const html = element((tag) => document.createElement(tag));
  const svg = element((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  const ink = (color, text = false) => (typeof color === "number" ? `var(--figure-${text ? "text-" : ""}${color})` : color);
  let counter = 0;

  // ---- numbers --------------------------------------------------------------------------------------------------
  const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const written = (x) => {
    if (x === 0) return "0";
    const size = Math.abs(x);
    if (size >= 1e5 || size < 1e-3) {
      const power = Math.floor(Math.log10(size) + 1e-9), front = +(x / 10 ** power).toPrecision(3);
      const raised = (power < 0 ? "⁻" : "") + [...String(Math.abs(power))].map((d) => SUPERSCRIPT[d]).join("");
      return front === 1 ? `10${raised}` : `${front}·10${raised}`.replace("-", "−");
    }
    return (+x.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 6 }).replace("-", "−");
  };

  /** A map from [low, high] to pixels [from, to], linear or logarithmic, with the ticks that fit. */
  function scale(type, [low, high], from, to) {
    const log = type === "log", f = log ? Math.log10 : (x) => x;
    const a = f(low), b = f(high), map = (x) => from + ((f(x) - a) / (b - a)) * (to - from);
    const room = Math.max(2, Math.floor(Math.abs(to - from) / 60));
    const ticks = [];
    if (log) {
      const stride = Math.max(1, Math.ceil((b - a) / room));
      for (let e = Math.ceil(a - 1e-9); e <= b + 1e-9; e += stride) ticks.push(10 ** e);
      if (ticks.length < 2) for (const m of [2, 5]) for (let e = Math.floor(a); e <= b; e++) if (m * 10 ** e >= low && m * 10 ** e <= high) ticks.push(m * 10 ** e);
    } else {
      const rough = (b - a) / room, power = 10 ** Math.floor(Math.log10(rough));
      const stride = power * [1, 2, 5, 10].find((m) => m * power >= rough);
      for (let i = Math.ceil(a / stride - 1e-9); i * stride <= b + 1e-9 * stride; i++) ticks.push(+(i * stride).toPrecision(12));
    }
    return Object.assign(map, { ticks, back: (pixel) => { const v = a + ((pixel - from) / (to - from)) * (b - a); return log ? 10 ** v : v; } });
  }

  /** Sorted heights moved as little as needed to be `gap` apart. */
  function apart(wanted, gap) {
    const blocks = [];
    wanted.forEach((y, i) => {
      blocks.push([y - i * gap, 1]);
      while (blocks.length > 1 && blocks.at(-1)[0] < blocks.at(-2)[0]) {
        const [b, m] = blocks.pop(), [a, n] = blocks.pop();
        blocks.push([(a * n + b * m) / (n + m), n + m]);
      }
    });
    return blocks.flatMap(([mean, count]) => Array(count).fill(mean)).map((mean, i) => mean + i * gap);
  }

  // ---- panels: each takes its description and its element, and returns what to do at frame k -----------------------
  const at = (value, k) => (Array.isArray(value?.[0]) ? value[k] : value); // one for all frames, or one each

  function ground(panel, box, height, margin) {
    const width = Math.max(200, box.clientWidth);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" }, box);
    const area = { left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom };
    return { root, area, width };
  }

  function frame(root, panel, area, X, Y, beside) {
    for (const x of X.ticks) {
      svg("line", { class: "grid", x1: X(x), x2: X(x), y1: area.top, y2: area.bottom }, root);
      svg("text", { x: X(x), y: area.bottom + 16, "text-anchor": "middle" }, root, written(x));
    }
    for (const y of Y.ticks) {
      svg("line", { class: "grid", x1: area.left, x2: area.right, y1: Y(y), y2: Y(y) }, root);
      svg("text", { x: area.left - 6, y: Y(y) + 4, "text-anchor": "end" }, root, written(y));
    }
    svg("path", { class: "axis", d: `M${area.left} ${area.top}V${area.bottom}H${area.right}` }, root);
    names(root, panel, area, beside);
  }

  function names(root, panel, area, beside = 40) {
    svg("text", { x: (area.left + area.right) / 2, y: area.bottom + 35, "text-anchor": "middle" }, root, panel.xlabel);
    const middle = (area.top + area.bottom) / 2, x = area.left - beside;
    svg("text", { x, y: middle, "text-anchor": "middle", transform: `rotate(-90 ${x} ${middle})` }, root, panel.ylabel);
  }

  const titled = (box, title) => { if (title) html("p", { class: "figure-title" }, box, title); };

  function key(box, entries) {
    const list = html("ul", { class: "figure-key" }, box);
    for (const { name, color, dash, fill } of entries) {
      const item = html("li", {}, list);
      if (fill) html("span", { class: "swatch", style: `background:${fill}` }, item);
      else svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, style: `stroke:${ink(color)}`, "stroke-width": 2.2, "stroke-dasharray": dash },
        svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, item));
      html("span", {}, item, name);
    }
  }

  const PANELS = {
    lines(panel, box) {
      const named = panel.curves.filter((curve) => curve.name), width = box.clientWidth;
      const longest = Math.max(0, ...named.map((curve) => curve.name.length)) * 6.6 + 8;
      const ends = named.map((curve) => curve.factor || Array.isArray(curve.x[0]) ? NaN : curve.x.at(-1));
      const direct = width >= 400 && longest < 0.3 * width && new Set(ends).size === 1 && ends[0] === ends[0];
      if (named.length && !direct) key(box, named);
      const height = Math.round(Math.min(330, Math.max(210, 0.62 * width)));
      const { root, area } = ground(panel, box, height, { left: panel.ylabel ? 58 : 44, right: direct ? longest + 4 : 18, top: 10, bottom: panel.xlabel ? 44 : 26 });
      const X = scale(panel.xscale, panel.xlim, area.left, area.right), Y = scale(panel.yscale, panel.ylim, area.bottom, area.top);
      frame(root, panel, area, X, Y);
      const clip = `figure-clip-${counter++}`;
      svg("rect", { x: area.left, y: area.top - 1, width: area.right - area.left, height: area.bottom - area.top + 2 }, svg("clipPath", { id: clip }, root));
      const inner = svg("g", { "clip-path": `url(#${clip})` }, root);
      const drawn = panel.curves.map((curve) => svg("path", { class: "curve", style: `stroke:${ink(curve.color)}`, "stroke-dasharray": curve.dash, "stroke-width": curve.width }, inner));
      const cursor = panel.cursor && svg("line", { class: "cursor", y1: area.top, y2: area.bottom }, inner);
      const labels = direct ? named.map((curve) => svg("text", { x: area.right + 6, style: `fill:${ink(curve.color, true)}` }, root, curve.name)) : [];
      return (k) => {
        const last = new Map();
        panel.curves.forEach((curve, i) => {
          const x = at(curve.x, k), y = at(curve.y, k), factor = curve.factor?.[k] ?? 1;
          let d = "", pen = "M";
          for (let j = 0; j < x.length; j++) {
            const px = X(x[j] * factor), py = Y(y[j]);
            if (y[j] === null || !Number.isFinite(px) || !Number.isFinite(py)) { pen = "M"; continue; }
            d += `${pen}${px.toFixed(1)} ${py.toFixed(1)}`;
            pen = "L";
            last.set(curve, py);
          }
          drawn[i].setAttribute("d", d);
        });
        if (cursor) {
          const x = X(panel.cursor[k]);
          cursor.setAttribute("x1", x), cursor.setAttribute("x2", x);
        }
        const order = labels.map((label, i) => [label, last.get(named[i]) ?? area.bottom]).sort((a, b) => a[1] - b[1]);
        apart(order.map(([, y]) => y), 14).forEach((y, i) => order[i][0].setAttribute("y", y + 4));
      };
    },

    table(panel, box) {
      const [rows, columns] = panel.shape, margin = { left: panel.ylabel ? 26 : 6, right: 6, top: 8, bottom: panel.xlabel ? 30 : 8 };
      const room = Math.min(box.clientWidth - margin.left - margin.right, 420);
      const wide = Math.min(room, (panel.square ? 330 * columns / rows : room)), high = panel.square ? wide * rows / columns : Math.min(0.55 * wide, 220);
      const { root, area } = ground(panel, box, high + margin.top + margin.bottom, margin);
      area.right = area.left + wide;
      const image = svg("image", { x: area.left, y: area.top, width: wide, height: high, preserveAspectRatio: "none" }, root);
      svg("rect", { class: "axis", x: area.left, y: area.top, width: wide, height: high }, root);
      names(root, panel, { ...area, bottom: area.bottom - 15 }, 10);
      if (panel.names) key(box, panel.names.map((name, i) => ({ name, fill: panel.shades[i] })));
      else {
        const bar = html("ul", { class: "figure-key" }, box), item = html("li", {}, bar);
        html("span", {}, item, written(panel.limits[0]));
        html("span", { class: "bar", style: `background:linear-gradient(to right,${panel.shades.join(",")})` }, item);
        html("span", {}, item, written(panel.limits[1]) + (panel.label ? `  ${panel.label}` : ""));
      }
      const colors = ramp(panel), cells = Uint8Array.from(atob(panel.cells), (c) => c.charCodeAt(0));
      const canvas = html("canvas", { width: columns, height: rows }), context = canvas.getContext("2d", { willReadFrequently: true });
      const size = rows * columns, frames = cells.length / size;
      return (k) => {
        const pixels = context.createImageData(columns, rows), from = frames === 1 ? 0 : k * size;
        for (let i = 0; i < size; i++) pixels.data.set(colors[cells[from + i]], 4 * i);
        context.putImageData(pixels, 0, 0);
        image.setAttribute("href", canvas.toDataURL());
      };
    },

    space(panel, box, state) {
      const width = Math.max(200, box.clientWidth), height = Math.round(Math.min(420, Math.max(280, 0.72 * width)));
      const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" }, box);
      if (panel.paths.some((path) => path.name)) key(box, panel.paths.filter((path) => path.name));
      const body = svg("g", {}, root), size = 0.36 * Math.min(width, 1.15 * height);
      const unit = (v, i) => (2 * (v - panel.limits[i][0])) / (panel.limits[i][1] - panel.limits[i][0]) - 1;
      return (k) => {
        const turn = (state.turn * Math.PI) / 180, lift = (panel.elevation * Math.PI) / 180;
        const project = ([x, y, z]) => {
          const [a, b, c] = [unit(x, 0), unit(y, 1), unit(z, 2) * panel.flat];
          const u = -Math.sin(turn) * a + Math.cos(turn) * b, depth = Math.cos(turn) * a + Math.sin(turn) * b;
          return [width / 2 + size * u, height / 2 + 6 - size * (c * Math.cos(lift) - depth * Math.sin(lift)), depth * Math.cos(lift) + c * Math.sin(lift)];
        };
        const line = (points) => points.map((p, i) => { const [x, y] = project(p); return `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`; }).join("");
        body.replaceChildren();
        const [[x0, x1], [y0, y1], [z0, z1]] = panel.limits;
        const edges = [[[x0, y0, z0], [x1, y0, z0]], [[x1, y0, z0], [x1, y1, z0]], [[x1, y1, z0], [x0, y1, z0]], [[x0, y1, z0], [x0, y0, z0]]];
        for (const edge of edges) svg("path", { class: "grid", d: line(edge) }, body);
        const middle = ([a, b]) => a.map((v, i) => (v + b[i]) / 2);
        const front = (two) => two.reduce((a, b) => (project(middle(a))[2] > project(middle(b))[2] ? a : b));
        [[front([edges[0], edges[2]]), 0], [front([edges[1], edges[3]]), 1]].forEach(([edge, i]) => {
          const [x, y] = project(middle(edge));
          svg("text", { x, y: y + 20, "text-anchor": "middle" }, body, panel.labels[i]);
          for (const j of [0, 1]) { // a little inside, so that the numbers of two edges do not meet at their corner
            const end = edge[j].map((v, n) => v + 0.08 * (edge[1 - j][n] - v)), [u, v] = project(end);
            svg("text", { x: u, y: v + 15, "text-anchor": "middle" }, body, written(edge[j][i]));
          }
        });
        const post = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map(([x, y]) => [[x, y, z0], [x, y, z1]]).reduce((a, b) => (project(a[0])[0] < project(b[0])[0] ? a : b));
        svg("path", { class: "grid", d: line(post) }, body);
        const [px, py] = project(post[1]);
        svg("text", { x: px, y: py - 7, "text-anchor": "middle" }, body, panel.labels[2]);
        for (const end of post) svg("text", { x: project(end)[0] - 5, y: project(end)[1] + 4, "text-anchor": "end" }, body, written(end[2]));
        for (const surface of panel.surfaces) {
          const quads = [];
          for (let i = 0; i + 1 < surface.x.length; i++)
            for (let j = 0; j + 1 < surface.x[0].length; j++) {
              const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]].map(([a, b]) => [surface.x[a][b], surface.y[a][b], surface.z[a][b]]);
              if (corners.flat().some((v) => v === null)) continue;
              const drawn = corners.map(project), slope = unit(corners[2][2], 2) - unit(corners[0][2], 2);
              quads.push([drawn.reduce((s, p) => s + p[2], 0), drawn, slope]);
            }
          quads.sort((a, b) => a[0] - b[0]);
          for (const [, corners, slope] of quads)
            svg("path", { d: `M${corners.map((p) => `${p[0].toFixed(1)} ${p[1].toFixed(1)}`).join("L")}z`, stroke: "none",
              style: `fill:${ink(surface.color)};stroke:${ink(surface.color)}`, "stroke-width": 0.5, "stroke-opacity": 0.35, "fill-opacity": (0.28 + Math.max(-0.14, Math.min(0.22, 0.8 * slope))).toFixed(2) }, body);
        }
        for (const path of panel.paths) {
          svg("path", { class: "curve", d: line(path.points), style: `stroke:${ink(path.color)}`, "stroke-opacity": panel.frames ? 0.35 : 1 }, body);
          if (!panel.frames) continue;
          const here = Math.round((k / (panel.frames - 1)) * (path.points.length - 1));
          svg("path", { class: "curve", d: line(path.points.slice(0, here + 1)), style: `stroke:${ink(path.color)}`, "stroke-width": 2.6 }, body);
          const [x, y] = project(path.points[here]);
          svg("circle", { cx: x, cy: y, r: 5.5, style: `fill:${ink(path.color)};stroke:var(--figure-ground)`, "stroke-width": 1.5 }, body);
        }
        for (const { name, at: place } of panel.points) {
          const [x, y] = project(place);
          svg("circle", { cx: x, cy: y, r: 4.5, style: "fill:var(--figure-ink)" }, body);
          svg("text", { x: x + 8, y: y - 6 }, body, name);
        }
      };
    },
  };

  /** RGBA of each of a table's values: its kinds, or 255 shades between the stops of its colour bar; the last is "no value". */
  function ramp(panel) {
    const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)), stops = panel.shades.map(rgb);
    if (panel.names) return [...stops.map((s) => [...s, 255]), ...Array(256 - stops.length).fill([0, 0, 0, 0])];
    return Array.from({ length: 256 }, (_, i) => {
      if (i === 255) return [0, 0, 0, 0];
      const x = (i / 254) * (stops.length - 1), j = Math.min(stops.length - 2, Math.floor(x));
      return [...stops[j].map((v, c) => Math.round(v + (x - j) * (stops[j + 1][c] - v))), 255];
    });
  }

  // ---- controls -------------------------------------------------------------------------------------------------
  function range(parent, { name, min, max, step = 1, value, say }, moved) {
    const label = html("label", {}, parent);
    html("span", {}, label, name);
    const input = html("input", { type: "range", min, max, step, value }, label), output = html("output", {}, label);
    const set = (v) => {
      input.value = v;
      output.textContent = say(+input.value);
      input.setAttribute("aria-valuetext", `${name} ${output.textContent}`);
    };
    input.addEventListener("input", () => { set(input.value); moved(+input.value, true); });
    set(value);
    return { set, get value() { return +input.value; }, input };
  }

  /** A button that moves `range` from where it is to its end, or from its start if it is there; returns how to stop it. */
  function player(parent, slider, seconds, moved) {
    const button = html("button", { type: "button" }, parent, "▶ play");
    const { min, max, step } = slider.input;
    let running = 0;
    const stop = () => { cancelAnimationFrame(running); running = 0; button.textContent = "▶ play"; };
    button.addEventListener("click", () => {
      if (running) return stop();
      let from = slider.value >= +max ? +min : slider.value, start = null;
      button.textContent = "■ stop";
      const tick = (now) => {
        start ??= now;
        const value = Math.min(+max, from + ((now - start) / (1000 * seconds)) * (max - min));
        const shown = Math.round((value - min) / step) * step + +min;
        if (shown !== slider.value || value === from) { slider.set(shown); moved(shown, false); }
        if (value >= +max) return stop();
        running = requestAnimationFrame(tick);
      };
      running = requestAnimationFrame(tick);
    });
    slider.input.addEventListener("input", stop);
    parent.prepend(button);
    return stop;
  }

  // ---- kinds of figures: each fills a stage and returns { get, set, free } ------------------------------------------
  const KINDS = {};

  /** Panels along a slider. */
  KINDS.play = (spec, stage) => {
    const state = { k: spec.start, turn: spec.panels.find((p) => p.kind === "space")?.turn ?? 0 };
    const controls = html("div", { class: "figure-controls" }, stage), panels = html("div", { class: "figure-panels" }, stage);
    if (spec.panel_width) panels.style.setProperty("--figure-panel", spec.panel_width);
    let updates = [], stop = () => {}, changed = () => {};
    const update = () => updates.forEach((f) => f(state.k));
    const move = (k) => { state.k = k; update(); changed(); };
    let slider = null, turner = null;
    if (spec.values.length > 1) {
      slider = range(controls, { name: spec.name, min: 0, max: spec.values.length - 1, value: state.k, say: (k) => spec.values[k] }, move);
      stop = player(controls, slider, spec.seconds, move);
    }
    if (spec.panels.some((p) => p.kind === "space"))
      turner = range(controls, { name: "turn", min: -180, max: 180, step: 5, value: state.turn, say: (v) => `${v}°`.replace("-", "−") }, (v) => { state.turn = v; update(); changed(); });
    const draw = () => {
      panels.replaceChildren();
      const boxes = spec.panels.map(() => html("div", { class: "figure-panel" }, panels)); // all, so that the grid knows their widths
      spec.panels.forEach((panel, i) => titled(boxes[i], panel.title));
      updates = spec.panels.map((panel, i) => PANELS[panel.kind](panel, boxes[i], state));
      update();
    };
    return {
      draw, free: () => stop(),
      get: () => [state.k, ...(turner ? [state.turn] : [])],
      set: ([k, turn]) => {
        if (slider && k >= 0 && k < spec.values.length) slider.set((state.k = Math.round(k)));
        if (turner && Math.abs(turn) <= 180) turner.set((state.turn = turn));
        update();
      },
      onchange: (f) => (changed = f),
    };
  };

  /** Gradient flow on (x·w − y)² + λ|w|² in the plane from a start that the reader drags. */
  function linearFlow({ x, y }, lambda, [w1, w2], t) {
    const length = Math.hypot(...x), [u, v] = [x[0] / length, x[1] / length];
    const mu = length * length, end = (length * y) / (mu + lambda);
    const along = end + (u * w1 + v * w2 - end) * Math.exp(-2 * (mu + lambda) * t); // across the line of zero loss: fast
    const beside = (-v * w1 + u * w2) * Math.exp(-2 * lambda * t); // along it: slow
    return [u * along - v * beside, v * along + u * beside];
  }

  KINDS.drag = (spec, stage) => {
    const state = { start: [...spec.start], decay: spec.decays.indexOf(spec.decay), k: spec.steps };
    const controls = html("div", { class: "figure-controls" }, stage), more = html("div", { class: "figure-controls" }, stage);
    const panels = html("div", { class: "figure-panels" }, stage), said = html("p", { class: "figure-said" }, stage);
    const lambda = () => spec.decays[state.decay];
    const time = (k) => spec.times[0] * (spec.times[1] / spec.times[0]) ** (k / spec.steps);
    const place = (k) => linearFlow(spec, lambda(), state.start, time(k));
    const loss = ([a, b]) => (spec.x[0] * a + spec.x[1] * b - spec.y) ** 2;
    let parts = null, changed = () => {};
    const slider = range(controls, { name: "time t", min: 0, max: spec.steps, value: state.k, say: (k) => written(time(k)) }, (k) => { state.k = k; update(); changed(); });
    const stop = player(controls, slider, 6, (k) => { state.k = k; update(); changed(); });
    const limits = spec.limits, decimal = (v) => v.toFixed(1).replace("-", "−");
    const starts = ["start w₁", "start w₂"].map((name, i) =>
      range(more, { name, min: limits[0], max: limits[1], step: 0.1, value: state.start[i], say: decimal }, (v) => { state.start[i] = v; update(); changed(); }));
    const decay = range(more, { name: "decay λ", min: 0, max: spec.decays.length - 1, value: state.decay, say: (i) => written(spec.decays[i]) }, (i) => { state.decay = i; update(); changed(); });
    function draw() {
      panels.replaceChildren();
      const [plane, clock] = [0, 1].map(() => html("div", { class: "figure-panel" }, panels));
      titled(plane, spec.title), titled(clock, "two clocks");
      const side = Math.min(plane.clientWidth, 400);
      const { root, area } = ground({}, plane, side, { left: 44, right: plane.clientWidth - side + 10, top: 10, bottom: 44 });
      const X = scale("linear", limits, area.left, area.right), Y = scale("linear", limits, area.bottom, area.top);
      frame(root, { xlabel: "w₁", ylabel: "w₂" }, area, X, Y, 26);
      const clip = `figure-clip-${counter++}`;
      svg("rect", { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top }, svg("clipPath", { id: clip }, root));
      const inner = svg("g", { "clip-path": `url(#${clip})` }, root);
      const [p, q] = spec.x, far = 50, foot = spec.y / (p * p + q * q);
      const ends = [-far, far].map((s) => [foot * p - s * q, foot * q + s * p]);
      svg("path", { class: "curve", d: `M${ends.map(([a, b]) => `${X(a)} ${Y(b)}`).join("L")}`, style: "stroke:var(--figure-2)", "stroke-width": 2.5 }, inner);
      const nearest = Math.hypot(foot * p, foot * q);
      for (let i = 1; i <= 3; i++) svg("circle", { cx: X(0), cy: Y(0), r: (X(1) - X(0)) * nearest * i, class: "grid", fill: "none" }, inner);
      const path = svg("path", { class: "curve", style: "stroke:var(--figure-0)" }, inner);
      const dot = svg("circle", { r: 6, style: "fill:var(--figure-0);stroke:var(--figure-ground)", "stroke-width": 1.5 }, inner);
      const handle = svg("g", { class: "handle" }, root);
      svg("circle", { r: 20, fill: "transparent" }, handle);
      svg("circle", { r: 8, style: "fill:var(--figure-1);stroke:var(--figure-ground)", "stroke-width": 2 }, handle);
      const held = svg("text", { y: -13, "text-anchor": "middle" }, handle, "drag me");
      handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.preventDefault(); stop(); });
      handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const seen = root.getBoundingClientRect(), zoom = root.viewBox.baseVal.width / seen.width;
        const to = [X.back((event.clientX - seen.left) * zoom), Y.back((event.clientY - seen.top) * zoom)];
        state.start = to.map((v) => Math.round(10 * Math.max(limits[0], Math.min(limits[1], v))) / 10);
        starts.forEach((slider, i) => slider.set(state.start[i]));
        held.textContent = "";
        update();
      });
      handle.addEventListener("pointerup", () => changed());
      const ks = Array.from({ length: spec.steps + 1 }, (_, k) => k), ts = ks.map(time);
      const curves = [["loss ÷ first", 1, null], ["squared norm ÷ last", 0, "6 4"]].map(([name, color, dash]) => ({ name, color, dash, x: ts, y: ts }));
      const panel = { kind: "lines", xlabel: "time t", ylabel: "", xscale: "log", yscale: "log", xlim: spec.times, ylim: [1e-4, 100], curves, cursor: ts };
      const lines = PANELS.lines(panel, clock);
      parts = { X, Y, path, dot, handle, curves, lines, ks };
      update();
    }
    function update() {
      if (!parts) return;
      const { X, Y, path, dot, handle, curves, lines, ks } = parts, points = [state.start, ...ks.map(place)];
      path.setAttribute("d", points.slice(0, state.k + 2).map(([a, b], i) => `${i ? "L" : "M"}${X(a).toFixed(1)} ${Y(b).toFixed(1)}`).join(""));
      const [a, b] = place(state.k);
      dot.setAttribute("cx", X(a)), dot.setAttribute("cy", Y(b));
      handle.setAttribute("transform", `translate(${X(state.start[0])} ${Y(state.start[1])})`);
      const first = loss(state.start), last = linearFlow(spec, lambda(), state.start, Infinity), end = last[0] ** 2 + last[1] ** 2;
      curves[0].y = ks.map((k) => Math.max(loss(place(k)) / first, 1e-9));
      curves[1].y = ks.map((k) => (([u, v]) => (u * u + v * v) / end)(place(k)));
      lines(state.k);
      const fast = Math.log(10) / (2 * (spec.x[0] ** 2 + spec.x[1] ** 2 + lambda())), slow = Math.log(10) / (2 * lambda());
      said.textContent = `Nine tenths of the way to the line take t = ${written(fast)}; nine tenths of the way along it take t = ${written(slow)}, ${written(+(slow / fast).toPrecision(2))} times as long.`;
    }
    return {
      draw, free: stop, get: () => [...state.start, lambda(), state.k],
      set: ([a, b, l, k]) => {
        if (![a, b, l, k].every(Number.isFinite)) return;
        state.start = [a, b].map((v) => Math.max(limits[0], Math.min(limits[1], v)));
        state.decay = Math.max(0, spec.decays.indexOf(l));
        state.k = Math.max(0, Math.min(spec.steps, Math.round(k)));
        starts.forEach((s, i) => s.set(state.start[i]));
        decay.set(state.decay), slider.set(state.k), update();
      },
      onchange: (f) => (changed = f),
    };
  };

  /** The reader guesses when a curve crosses a level; then comes the prediction; then the run. */
  KINDS.guess = (spec, stage) => {
    const state = { i: 0, guess: 0, shown: 0 }; // shown: 0 nothing, 1 the prediction, 2 the run
    const STEPS = 200, stepAt = (g) => spec.xlim[0] * (spec.xlim[1] / spec.xlim[0]) ** (g / STEPS);
    const controls = html("div", { class: "figure-controls" }, stage), buttons = html("div", { class: "figure-controls" }, stage);
    const box = html("div", { class: "figure-panel" }, stage), said = html("p", { class: "figure-said", "aria-live": "polite" }, stage);
    let parts = null, changed = () => {}, running = 0;
    const label = html("label", {}, controls);
    html("span", {}, label, "which run");
    const choice = html("select", { "aria-label": "which run" }, label);
    spec.cases.forEach((one, i) => html("option", { value: i }, choice, one.name));
    const slider = range(controls, { name: "your guess", min: 0, max: STEPS, value: STEPS / 2, say: (g) => `${written(+stepAt(g).toPrecision(3))} steps` }, (g) => { state.guess = g; if (state.shown === 2) reset(); update(1); changed(); });
    state.guess = STEPS / 2;
    const predict = html("button", { type: "button" }, buttons, "predict"), run = html("button", { type: "button" }, buttons, "run");
    const stop = () => { cancelAnimationFrame(running); running = 0; };
    const reset = () => { stop(); state.shown = 0; };
    choice.addEventListener("change", () => { state.i = +choice.value; reset(); draw(); changed(); });
    predict.addEventListener("click", () => { state.shown = Math.max(1, state.shown); update(1); changed(); });
    run.addEventListener("click", () => {
      stop();
      state.shown = 2;
      let start = null;
      const tick = (now) => {
        start ??= now;
        const share = Math.min(1, (now - start) / 3000);
        update(share);
        if (share < 1) running = requestAnimationFrame(tick);
        else changed();
      };
      running = requestAnimationFrame(tick);
    });
    function draw() {
      box.replaceChildren();
      titled(box, spec.title);
      const height = Math.round(Math.min(330, Math.max(220, 0.5 * box.clientWidth)));
      const { root, area } = ground(spec, box, height, { left: 58, right: 14, top: 10, bottom: 44 });
      const X = scale("log", spec.xlim, area.left, area.right), Y = scale("linear", spec.ylim, area.bottom, area.top);
      frame(root, spec, area, X, Y);
      svg("path", { class: "axis", "stroke-dasharray": "2 4", d: `M${area.left} ${Y(spec.level)}H${area.right}` }, root);
      const curve = svg("path", { class: "curve", style: "stroke:var(--figure-0)" }, root);
      const mark = (color, name, row) => {
        const g = svg("g", {}, root);
        svg("line", { y1: area.top, y2: area.bottom, style: `stroke:var(--figure-${color})`, "stroke-width": 2, "stroke-dasharray": row ? "7 4" : null }, g);
        svg("text", { x: 5, y: area.top + 14 + 16 * row, style: `fill:var(--figure-text-${color})` }, g, name);
        return g;
      };
      parts = { X, Y, area, curve, guess: mark(1, "your guess", 0), theory: mark(2, "predicted", 1) };
      update(1);
    }
    function update(share) {
      if (!parts) return;
      const one = spec.cases[state.i], { X, Y, area } = parts, mine = stepAt(state.guess);
      const put = (g, x) => {
        g.setAttribute("transform", `translate(${X(x)} 0)`);
        const left = X(x) > area.right - 80;
        g.lastChild.setAttribute("x", left ? -5 : 5), g.lastChild.setAttribute("text-anchor", left ? "end" : "start");
      };
      put(parts.guess, mine), put(parts.theory, one.predicted);
      parts.theory.style.display = state.shown >= 1 ? "" : "none";
      const until = state.shown === 2 ? spec.xlim[0] * (spec.xlim[1] / spec.xlim[0]) ** share : 0;
      parts.curve.setAttribute("d", one.x.map((x, j) => (x <= until ? `L${X(x).toFixed(1)} ${Y(one.y[j]).toFixed(1)}` : "")).join("").replace("L", "M"));
      const factor = (x) => (Math.max(x, one.measured) / Math.min(x, one.measured));
      const off = (f) => (f < 1.1 ? `${((f - 1) * 100).toPrecision(2)} %` : `a factor of ${f.toPrecision(2)}`);
      const steps = (x) => written(+x.toPrecision(3));
      if (state.shown === 0) said.textContent = "When does it get there? Move your guess, then let the theory say, then run.";
      else if (state.shown === 1) said.textContent = `You say step ${steps(mine)}, the theory says step ${steps(one.predicted)}.`;
      else if (share >= 1) said.textContent = `It happened at step ${steps(one.measured)}. You were off by ${off(factor(mine))}, the theory by ${off(factor(one.predicted))}.`;
    }
    return {
      draw, free: stop, get: () => [state.i, state.guess, state.shown],
      set: ([i, guess, shown]) => {
        if (!spec.cases[i]) return;
        state.i = i, choice.value = i;
        state.guess = Math.max(0, Math.min(STEPS, guess || 0)), slider.set(state.guess);
        state.shown = [0, 1, 2].includes(shown) ? shown : 0;
        draw();
      },
      onchange: (f) => (changed = f),
    };
  };

  /** A figure that plotly draws: without its toolbar, its zoom and its own controls. The library comes with the first. */
  const here = document.currentScript?.src;
  let library = null;
  const plotly = () => (library ??= new Promise((done, failed) => {
    const script = html("script", { src: new URL("plotly.min.js", here) });
    script.onload = () => done(window.Plotly);
    script.onerror = failed;
    document.body.append(script);
  }));
  const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

  KINDS.plotly = (spec, stage) => {
    const controls = html("div", { class: "figure-controls" }, stage), place = html("div", {}, stage);
    if (spec.data.some((trace) => /3d|surface|mesh/.test(trace.type ?? ""))) place.style.pointerEvents = "none"; // its canvas would keep wheel and finger
    const plain = ["sliders", "updatemenus", "width"], layoutOf = () => Object.fromEntries(Object.entries(spec.layout ?? {}).filter(([name]) => !plain.includes(name)));
    const state = { k: 0, turn: null };
    let changed = () => {}, gone = false;
    const colored = (value, look, name = "") => {
      if (name === "colorscale") return value;
      if (typeof value === "string") {
        const i = PALETTE.indexOf(value.toLowerCase());
        if (i >= 0) return look(`--figure-${i}`);
        if (["black", "#000", "#000000"].includes(value.toLowerCase())) return look("--figure-ink");
        if (["white", "#fff", "#ffffff"].includes(value.toLowerCase())) return look("--figure-ground");
        return value;
      }
      if (Array.isArray(value)) return value.map((entry) => colored(entry, look));
      if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, colored(entry, look, key)]));
      return value;
    };
    const solid = (name) => { // a variable may hold another, or a mix: ask for what is painted
      const probe = html("span", { style: `color:var(${name})` }, stage), color = getComputedStyle(probe).color;
      probe.remove();
      return color;
    };
    const slider = spec.layout?.sliders?.[0], scene = spec.data.some((trace) => /3d|surface|mesh/.test(trace.type ?? ""));
    const apply = (k) => plotly().then((P) => {
      if (gone || !place.data) return;
      const { method = "restyle", args = [] } = slider.steps[k];
      return P[method](place, ...colored(args, solid));
    });
    const move = (k) => { state.k = k; apply(k); changed(); };
    let native = null, stop = () => {};
    if (slider) {
      const name = (slider.currentvalue?.prefix ?? "").replace(/[:=\s]+$/, "") || "frame";
      state.k = slider.active ?? 0;
      native = range(controls, { name, min: 0, max: slider.steps.length - 1, value: state.k, say: (k) => slider.steps[k].label ?? String(k) }, move);
      if (spec.frames?.length) stop = player(controls, native, 8, move);
    }
    const eye = () => { const a = (state.turn * Math.PI) / 180; return { x: 1.75 * Math.cos(a), y: 1.75 * Math.sin(a), z: 0.7 }; };
    if (scene) {
      const from = spec.layout?.scene?.camera?.eye ?? { x: 1.25, y: 1.25 };
      state.turn = Math.round((Math.atan2(from.y, from.x) * 180) / Math.PI / 5) * 5;
      range(controls, { name: "turn", min: -180, max: 180, step: 5, value: state.turn, say: (v) => `${v}°`.replace("-", "−") }, (v) => { state.turn = v; plotly().then((P) => P.relayout(place, { "scene.camera.eye": eye() })); });
    }
    const draw = async () => {
      const P = await plotly();
      if (gone) return;
      const color = solid("--figure-ink"), line = `color-mix(in srgb, ${color} 20%, transparent)`;
      const layout = { ...colored(layoutOf(), solid), autosize: true, dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
      layout.font = { ...layout.font, color, family: getComputedStyle(stage).fontFamily, size: 12 };
      const faint = color.replace("rgb(", "rgba(").replace(")", ", 0.18)");
      for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) layout[name] = { ...layout[name], gridcolor: faint, zerolinecolor: faint, fixedrange: true };
      for (const name of ["xaxis", "yaxis"]) layout[name] = { gridcolor: faint, zerolinecolor: faint, fixedrange: true, ...layout[name] };
      if (scene) layout.scene = { ...layout.scene, dragmode: false };
      if (layout.height) layout.height = Math.max(300, layout.height - (slider ? 80 : 0));
      if (layout.margin && slider) layout.margin = { ...layout.margin, b: Math.min(layout.margin.b ?? 50, 50) };
      await P.newPlot(place, colored(spec.data, solid), layout, { responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: false });
      if (spec.frames) await P.addFrames(place, colored(spec.frames, solid));
      if (slider && state.k !== (slider.active ?? 0)) await apply(state.k);
    };
    return {
      draw, recolor: draw,
      free: () => { gone = true; stop(); if (place.data) window.Plotly.purge(place); },
      get: () => [state.k], set: ([k]) => { if (native && slider.steps[k]) { native.set(k); state.k = k; apply(k); } },
      onchange: (f) => (changed = f),
      unresized: true,
    };
  };

  // ---- near, far, and the address --------------------------------------------------------------------------------
  const figures = new Map(); // box → { name, spec, shown, kept }
  const inBook = () => document.querySelector(".bd-article") !== null;

  async function draw(box) {
    const figure = figures.get(box);
    if (figure.shown || matchMedia("print").matches) return;
    const stage = box.querySelector(".figure-stage");
    box.style.minHeight = `${Math.round(box.getBoundingClientRect().height)}px`; // what follows stays where it is
    box.classList.add("figure-drawn");
    const kind = box.classList.contains("plotly-figure") ? "plotly" : figure.spec.kind;
    const shown = (figure.shown = KINDS[kind](figure.spec, stage));
    figure.width = stage.clientWidth;
    try {
      await shown.draw();
    } catch (error) { // the library did not come: the twin stays
      box.classList.remove("figure-drawn");
      throw error;
    }
    if (figure.shown !== shown) return;
    if (figure.kept) shown.set(figure.kept);
    shown.onchange(() => { figure.kept = shown.get(); note(figure); });
    box.style.minHeight = "";
    if (!shown.unresized) sizes.observe(stage);
  }

  function free(box) {
    const figure = figures.get(box), stage = box.querySelector(".figure-stage");
    if (!figure.shown || stage.contains(document.activeElement)) return;
    sizes.unobserve(stage);
    box.style.minHeight = `${Math.round(box.getBoundingClientRect().height)}px`;
    figure.shown.free();
    figure.shown = null;
    box.classList.remove("figure-drawn");
    stage.replaceChildren();
  }

  let noting = 0;
  function note(figure) {
    if (!inBook()) return;
    clearTimeout(noting);
    noting = setTimeout(() => history.replaceState(history.state, "", `#${figure.name}=${figure.kept.join(",")}`), 250);
  }

  function recall() {
    const [, name, values] = location.hash.match(/^#(.+)=(-?[\d.][-+\d.e]*(?:,-?[\d.][-+\d.e]*)*)$/) ?? [];
    for (const [box, figure] of figures)
      if (figure.name === name) {
        figure.kept = values.split(",").map(Number);
        if (figure.shown) figure.shown.set(figure.kept);
        const come = () => box.scrollIntoView({ block: box.offsetHeight > 0.8 * innerHeight ? "start" : "center", behavior: "instant" });
        draw(box).then(() => { come(); setTimeout(come, 400); }); // its neighbours, drawn meanwhile, may have moved it
      }
  }

  const near = new IntersectionObserver((entries) => entries.forEach((e) => e.isIntersecting && draw(e.target)), { rootMargin: "500px 0px" });
  const far = new IntersectionObserver((entries) => entries.forEach((e) => e.isIntersecting || free(e.target)), { rootMargin: "3000px 0px" });
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const figure = figures.get(target.parentElement);
      if (!figure?.shown || !target.clientWidth || figure.width === target.clientWidth) continue;
      figure.width = target.clientWidth;
      requestAnimationFrame(() => figure.shown?.draw());
    }
  });
  new MutationObserver(() => figures.forEach(({ shown }) => shown?.recolor?.())).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  function scan() {
    for (const box of document.querySelectorAll(".figure-box")) {
      if (figures.has(box)) continue;
      const name = box.closest("figure")?.id || box.id || `figure-${figures.size + 1}`;
      figures.set(box, { name, spec: JSON.parse(box.querySelector("script").textContent), shown: null, kept: null });
      near.observe(box), far.observe(box);
    }
    if (inBook()) recall();
  }

  window.grokFigures = { scan, linearFlow, scale, apart, written };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", scan);
  else scan();
  addEventListener("hashchange", recall);
})();
