/* Drawings on canvases: addition table, ring, bars, curves, a plane. Colours come from laboratory.css, one set a mode. */
"use strict";

globalThis.Laboratory.drawing = (() => {
  const COLOURS = ["right", "wrong", "known", "known-ink", "blue", "orange", "green", "ink", "axis"];
  const LEGIBLE = 11; // px: smaller numbers are left out of a table

  /** A canvas in CSS pixels, empty: its pen, its size and the mode's colours. */
  function sheet(canvas) {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    pen.scale(ratio, ratio);
    pen.font = `12px ${style.fontFamily}`;
    const colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--lab-${name}`).trim()]));
    return { pen, width, height, colours, family: style.fontFamily };
  }

  /** Calls `draw` whenever one of the canvases changes its size, or the page its mode. */
  function redraw(canvases, draw) {
    const sizes = new ResizeObserver(draw);
    canvases.forEach((canvas) => sizes.observe(canvas));
    new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  function describe(canvas, text) {
    if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
  }

  function line(pen, points, colour, dash = [], thickness = 1.8) {
    pen.beginPath();
    pen.setLineDash(dash);
    points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    pen.stroke();
    pen.setLineDash([]);
  }

  function disc(pen, [x, y], radius, colour) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fillStyle = colour;
    pen.fill();
  }

  function write(pen, text, x, y, colour, align = "left") {
    pen.fillStyle = colour;
    pen.textAlign = align;
    pen.fillText(text, x, y);
  }

  /** The addition table of a task: training pairs grey, held-out pairs blue where the answer is right, else orange. */
  function table(canvas, { p, train }, answers) {
    const { pen, width, height, colours, family } = sheet(canvas), side = Math.min(width, height) / p;
    const trained = new Set(train.flatMap(([a, b]) => [a * p + b, b * p + a])), size = Math.floor(side * 0.55);
    pen.font = `${size}px ${family}`;
    for (let a = 0; a < p; a++)
      for (let b = 0; b < p; b++) {
        const at = a * p + b, known = trained.has(at), right = answers[at] === (a + b) % p;
        pen.fillStyle = colours[known ? "known" : right ? "right" : "wrong"];
        pen.fillRect(b * side, a * side, side - 1, side - 1);
        const ink = known ? colours["known-ink"] : "black";
        if (size >= LEGIBLE) write(pen, answers[at], (b + 0.5) * side, (a + 0.7) * side, ink, "center");
      }
  }

  /** Tokens in the plane of frequency k, joined in the order in which a circle of that frequency passes them. */
  function ring(canvas, tokens, k, reach = Math.max(...tokens.map(([x, y]) => Math.hypot(x, y)))) {
    const { pen, width, height, colours } = sheet(canvas), p = tokens.length;
    const scale = (0.5 * Math.min(width, height) - 14) / reach;
    const places = tokens.map(([x, y]) => [width / 2 + scale * x, height / 2 - scale * y]);
    const stride = tokens.findIndex((_, j) => (j * k) % p === 1);
    line(pen, Array.from({ length: p + 1 }, (_, i) => places[(i * stride) % p]), colours.axis);
    places.forEach((place, j) => {
      disc(pen, place, 10, colours.right);
      write(pen, j, place[0], place[1] + 4, "black", "center");
    });
  }

  /** One bar for each of `shares` (in [0, 1]), numbered from 1; the greatest fills the height. */
  function bars(canvas, shares) {
    const { pen, width, height, colours } = sheet(canvas), gap = (width - 20) / shares.length;
    const tallest = Math.max(...shares);
    line(pen, [[10, height - 36], [width - 10, height - 36]], colours.axis);
    shares.forEach((share, i) => {
      const x = 10 + (i + 0.5) * gap, tall = (share / tallest) * (height - 56);
      pen.fillStyle = colours.right;
      pen.fillRect(x - 0.35 * gap, height - 36 - tall, 0.7 * gap, tall);
      write(pen, `${Math.round(100 * share)} %`, x, height - 40 - tall, colours.ink, "center");
      write(pen, i + 1, x, height - 20, colours.ink, "center");
    });
    write(pen, "frequency k", width / 2, height - 5, colours.ink, "center");
  }

  /**
   * Curves [{ points, colour, dash, label }] over axes { from, to, ticks: [[value, text], …] }; that of x has a `label`,
   * too. What lies outside is drawn at the frame. `at`, if given, is an x to mark.
   */
  function plot(canvas, curves, x, y, at = null) {
    const { pen, width, height, colours } = sheet(canvas), left = 46, right = width - 14;
    let top = 14, end = left;
    for (const { colour, dash, label } of curves) {
      const room = 36 + pen.measureText(label).width;
      if (end > left && end + room > width) [top, end] = [top + 16, left];
      line(pen, [[end, top - 4], [end + 22, top - 4]], colours[colour], dash);
      write(pen, label, end + 26, top, colours.ink);
      end += room;
    }
    top += 12;
    const bottom = height - 36;
    const inside = (value, axis) => Math.min(axis.to, Math.max(axis.from, value));
    const X = (value) => left + ((inside(value, x) - x.from) / (x.to - x.from)) * (right - left);
    const Y = (value) => bottom - ((inside(value, y) - y.from) / (y.to - y.from)) * (bottom - top);
    line(pen, [[left, top], [left, bottom], [right, bottom]], colours.axis);
    for (const [value, text] of y.ticks) write(pen, text, left - 4, Y(value) + 4, colours.ink, "right");
    for (const [value, text] of x.ticks) {
      const far = X(value) + pen.measureText(text).width / 2 > width;
      write(pen, text, far ? width : X(value), bottom + 15, colours.ink, far ? "right" : "center");
    }
    write(pen, x.label, (left + right) / 2, height - 5, colours.ink, "center");
    if (at !== null) line(pen, [[X(at), top], [X(at), bottom]], colours.axis, [2, 3]);
    for (const { points, colour, dash } of curves) {
      const drawn = points.filter((point) => point.every((value) => !Number.isNaN(value)));
      line(pen, drawn.map(([a, b]) => [X(a), Y(b)]), colours[colour], dash);
      if (at !== null && drawn.length) {
        const last = drawn[drawn.length - 1];
        disc(pen, [X(last[0]), Y(last[1])], 4, colours[colour]);
      }
    }
  }

  /** Ticks at `count` + 1 even places. */
  function even(from, to, count) {
    return Array.from({ length: count + 1 }, (_, i) => from + (i * (to - from)) / count)
      .map((value) => [value, `${+value.toPrecision(3)}`]);
  }

  /** Ticks at powers of ten, given by their exponents. */
  function powers(from, to, by = 1) {
    const raised = (n) => [...`${n}`].map((digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]).join("");
    const ticks = [];
    for (let n = Math.ceil(from); n <= to; n += by) ticks.push([n, n === 0 ? "1" : n === 1 ? "10" : `10${raised(n)}`]);
    return ticks;
  }

  return { sheet, redraw, describe, line, disc, write, table, ring, bars, plot, even, powers };
})();
