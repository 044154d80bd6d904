/* Draws the laboratory and answers its controls; the mathematics is in laboratory.js. */
"use strict";

(() => {
  const BLUE = "#0072B2", ORANGE = "#D55E00", SKY = "#56B4E9", GREY = "#E8E8E8", INK = "#333333", GREEN = "#009E73";
  const lab = window.Laboratory;
  const byId = (id) => document.getElementById(id);

  /** A canvas's drawing context in CSS pixels, cleared to white (dark mode turns its lightness over, as for figures). */
  function sheet(canvas) {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.fillStyle = "white";
    pen.fillRect(0, 0, width, height);
    pen.font = "12px sans-serif";
    return { pen, width, height };
  }

  function line(pen, points, color, dash = []) {
    pen.beginPath();
    pen.setLineDash(dash);
    points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.strokeStyle = color;
    pen.lineWidth = 1.8;
    pen.stroke();
    pen.setLineDash([]);
  }

  function dot(pen, [x, y], radius, color) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fillStyle = color;
    pen.fill();
  }

  function write(pen, text, x, y, color = INK, align = "left") {
    pen.fillStyle = color;
    pen.textAlign = align;
    pen.fillText(text, x, y);
  }

  /** Curves [{points, color, dash, label}] in a frame with both axes named; `ends` = [left, right, low, high]. */
  function plot(canvas, curves, ends, xLabel, yTicks) {
    const { pen, width, height } = sheet(canvas), [left, right, low, high] = ends;
    const X = (x) => 46 + ((x - left) / (right - left)) * (width - 56);
    const Y = (y) => height - 34 - ((y - low) / (high - low)) * (height - 62);
    line(pen, [[46, 26], [46, height - 34], [width - 10, height - 34]], "#999999");
    for (const [value, text] of yTicks) write(pen, text, 42, Y(value) + 4, INK, "right");
    for (const share of [0, 0.5, 1]) {
      const x = left + share * (right - left);
      write(pen, +x.toPrecision(3) + "", X(x), height - 20, INK, share === 1 ? "right" : share ? "center" : "left");
    }
    write(pen, xLabel, (46 + width) / 2, height - 5, INK, "center");
    let at = 46;
    for (const { points, color, dash, label } of curves) {
      line(pen, points.map(([x, y]) => [X(x), Y(Math.min(high, Math.max(low, y)))]), color, dash);
      line(pen, [[at, 12], [at + 22, 12]], color, dash);
      write(pen, label, at + 26, 16, INK);
      at += 40 + pen.measureText(label).width;
    }
    return { pen, X, Y };
  }

  /** Calls `change` with the values of a form's controls, now and whenever one moves. */
  function listen(form, change) {
    const read = () => {
      const values = {};
      for (const input of form.querySelectorAll("input, select")) {
        const shown = form.querySelector(`output[for=${input.id}]`);
        const raw = input.dataset.log ? 10 ** +input.value : +input.value;
        values[input.name] = input.tagName === "SELECT" && isNaN(raw) ? input.value : +raw.toPrecision(3);
        if (shown) shown.textContent = values[input.name];
        if (input.type === "range") input.setAttribute("aria-valuetext", values[input.name]);
      }
      change(values);
    };
    form.addEventListener("input", read);
    form.addEventListener("submit", (event) => event.preventDefault());
    read();
  }

  function describe(canvas, text) {
    canvas.setAttribute("aria-label", text);
  }

  /* The toy: two weights, one sample. */
  function toy() {
    const plane = byId("toy-plane"), losses = byId("toy-losses"), status = byId("toy-status");
    const draw = ({ lambda, lr, w1, w2, steps }) => {
      const path = lab.descend(lambda, lr, [w1, w2], steps), last = steps;
      const { pen, width, height } = sheet(plane);
      const X = (x) => 30 + ((x + 2.2) / 5.4) * (width - 40), Y = (y) => height - 26 - ((y + 2.2) / 5.4) * (height - 36);
      line(pen, [[X(-2.2), Y(0)], [X(3.2), Y(0)]], "#BBBBBB");
      line(pen, [[X(0), Y(-2.2)], [X(0), Y(3.2)]], "#BBBBBB");
      for (const tick of [-2, -1, 1, 2, 3]) {
        write(pen, tick, X(tick), Y(0) + 14, INK, "center");
        write(pen, tick, X(0) - 6, Y(tick) + 4, INK, "right");
      }
      write(pen, "w₁", X(3.2), Y(0) - 6, INK, "right");
      write(pen, "w₂", X(0) + 6, Y(3.2) + 10);
      line(pen, [[X(-1.2), Y(3.2)], [X(3.2), Y(-1.2)]], GREEN, [6, 4]);
      write(pen, "zero loss", X(2.5), Y(-0.75), GREEN, "right");
      pen.save();
      pen.beginPath();
      pen.rect(0, 0, width, height);
      pen.clip();
      line(pen, path.u.map((u, k) => [X(u), Y(path.v[k])]), BLUE);
      pen.restore();
      dot(pen, [X(w1), Y(w2)], 4, INK);
      dot(pen, [X(path.u[last]), Y(path.v[last])], 5, ORANGE);
      const log = (value) => Math.log10(Math.max(value, 1e-8));
      const curve = (values) => values.map((value, k) => [Math.log10(1 + k), log(value)]).filter((q) => isFinite(q[1]));
      plot(losses, [
        { points: curve(path.train), color: BLUE, dash: [], label: "training loss" },
        { points: curve(path.test), color: ORANGE, dash: [6, 3], label: "test loss" },
      ], [0, Math.log10(1 + steps), -8, 2], "log₁₀(1 + step)", [[2, "100"], [0, "1"], [-4, "10⁻⁴"], [-8, "10⁻⁸"]]);
      const bound = 1 / (2 + lambda), stable = lr < bound;
      const text = stable && isFinite(path.u[last])
        ? `After ${steps} steps: w = (${path.u[last].toFixed(3)}, ${path.v[last].toFixed(3)}), training loss ` +
          `${path.train[last].toExponential(1)}, test loss ${path.test[last].toExponential(1)}. The minimum of L_λ is at ` +
          `${(2 / (2 + lambda)).toFixed(3)} for both weights.`
        : `The learning rate is above ${bound.toFixed(3)}, where gradient descent on this loss stops being stable: it diverges.`;
      status.textContent = text;
      describe(plane, `Path of the two weights on their plane. ${text}`);
      describe(losses, `Training and test loss against the step. ${text}`);
    };
    listen(byId("toy-controls"), draw);
  }

  /* Eq. 20 for small p, step by step. */
  function grokking() {
    const canvases = { table: byId("flow-table"), ring: byId("flow-ring"), curve: byId("flow-curve") };
    const status = byId("flow-status"), run = byId("flow-run");
    let task, history, flow, settings, request = null, failure = "";

    function restart(values) {
      settings = values;
      stop();
      const { p, width, seed } = values, random = lab.uniform(seed);
      const parts = lab.split(p, 0.8, random);
      task = { ...parts, p, width };
      failure = "";
      if (width <= parts.train.length) failure = `Width ${width} is too small: it must exceed the ${parts.train.length} training pairs.`;
      else guarded(() => {
        flow = lab.flow(lab.normal(p * width, p ** -0.5, random), parts.train, p, width, values.activation);
        history = [];
        record();
      });
      run.disabled = Boolean(failure);
      show();
    }

    function guarded(work) {
      try {
        work();
      } catch (error) {
        failure = error.message;
        stop();
      }
    }

    function record() {
      const { p, width } = task, now = lab.measure(flow.E, task.train, p, width, settings.activation);
      const right = task.test.filter(([a, b]) => now.answers[a * p + b] === (a + b) % p).length;
      history.push({ tau: flow.tau, accuracy: right / task.test.length, norm: now.normE + now.normW, answers: now.answers });
    }

    function frame() {
      const began = performance.now();
      guarded(() => {
        do flow.advance(); while (performance.now() - began < 30);
        record();
      });
      show();
      if (failure || flow.tau >= settings.end) stop();
      else request = requestAnimationFrame(frame);
    }

    function stop() {
      if (request !== null) cancelAnimationFrame(request);
      request = null;
      run.textContent = "Run";
    }

    function show() {
      if (failure) {
        status.textContent = failure;
        Object.values(canvases).forEach((canvas) => { sheet(canvas); describe(canvas, failure); });
        return;
      }
      const now = history[history.length - 1], first = history[0], ended = flow.tau >= settings.end;
      const text = `Slow time ${now.tau.toFixed(2)}: ${Math.round(100 * now.accuracy)} % of the ${task.test.length} test pairs ` +
        `right, squared norm ${now.norm.toFixed(1)} (${first.norm.toFixed(1)} at the start).`;
      status.textContent = text + (ended ? " Done." : "");
      drawTable(now);
      drawRing();
      const norms = history.map((entry) => [entry.tau, entry.norm / first.norm]);
      const [low, high] = [0, 1.05];
      plot(canvases.curve, [
        { points: history.map((entry) => [entry.tau, entry.accuracy]), color: ORANGE, dash: [], label: "test pairs right" },
        { points: norms, color: BLUE, dash: [6, 3], label: "squared norm / start" },
      ], [0, settings.end, low, high], "slow time τ", [[0, "0"], [0.5, "½"], [1, "1"]]);
      describe(canvases.table, `Addition table modulo ${task.p}. ${text}`);
      describe(canvases.curve, `Share of test pairs that are right, and squared norm, against slow time. ${text}`);
    }

    function drawTable({ answers }) {
      const { pen, width, height } = sheet(canvases.table), { p } = task, side = Math.min(width, height) / p;
      const trained = new Set(task.train.map(([a, b]) => a * p + b));
      pen.font = `${Math.floor(side * 0.55)}px sans-serif`;
      for (let a = 0; a < p; a++)
        for (let b = 0; b < p; b++) {
          const known = trained.has(Math.min(a, b) * p + Math.max(a, b)), right = answers[a * p + b] === (a + b) % p;
          pen.fillStyle = known ? GREY : right ? SKY : ORANGE;
          pen.fillRect(b * side, a * side, side - 1, side - 1);
          write(pen, answers[a * p + b], (b + 0.5) * side, (a + 0.7) * side, known ? "#767676" : "black", "center");
        }
    }

    function drawRing() {
      const { pen, width, height } = sheet(canvases.ring), { k, tokens } = lab.circle(flow.E, task.p, task.width);
      const reach = Math.max(...tokens.map(([x, y]) => Math.hypot(x, y))), scale = (0.42 * Math.min(width, height)) / reach;
      const places = tokens.map(([x, y]) => [width / 2 + scale * x, height / 2 - scale * y]);
      line(pen, [...places, places[0]], "#BBBBBB");
      places.forEach((place, j) => {
        dot(pen, place, 9, SKY);
        write(pen, j, place[0], place[1] + 4, "black", "center");
      });
      write(pen, `frequency ${k}`, 6, 16);
      describe(canvases.ring, `Tokens in the plane of their strongest frequency, ${k}, joined in the order 0, 1, 2, …`);
    }

    run.addEventListener("click", () => {
      if (request !== null) return stop();
      if (flow.tau >= settings.end) restart(settings);
      run.textContent = "Stop";
      request = requestAnimationFrame(frame);
    });
    byId("flow-again").addEventListener("click", () => restart(settings));
    listen(byId("flow-controls"), restart);
    window.addEventListener("resize", show);
  }

  document.addEventListener("DOMContentLoaded", () => {
    toy();
    grokking();
  });
})();
