/* The four experiments of the laboratory. */
"use strict";

(() => {
  const lab = globalThis.Laboratory, { drawing, page } = lab, { byId } = page;
  const MEMORIZED = 0.05; // training loss, relative to that of the output 0, with all training pairs right
  const HALF = 0.5, NEARLY_ALL = 0.95; // the clocks: held-out loss, relative likewise, and share of held-out pairs right
  const SHARE = 0.8; // of the pairs that the flows train on

  const percent = (share) => `${Math.round(100 * share)} %`;
  const latest = (history) => history[history.length - 1];
  const column = (history, x, y) => history.map((entry) => [x(entry), y(entry)]);
  const UNIT = { from: 0, to: 1.05, ticks: [[0, "0"], [0.5, "½"], [1, "1"]] };
  const slowTime = (end) => ({ from: 0, to: end, ticks: drawing.even(0, end, 4), label: "slow time τ" });

  /* Two weights, one sample. */
  function toy({ lambda, lr, w1, w2, steps }) {
    const path = lab.descend(lambda, lr, [w1, w2], steps), last = path.u.length - 1, ended = [path.u[last], path.v[last]];
    const plane = byId("toy-plane"), losses = byId("toy-losses");
    drawPlane(plane, path);
    const grows = path.train[last] > path.train[0], top = grows ? 12 : 2, low = -8;
    const curve = (values) => values.map((value, k) => [Math.log10(1 + k), Math.log10(Math.max(value, 10 ** low))]);
    drawing.plot(losses, [
      { points: curve(path.train), colour: "blue", dash: [], label: "training loss" },
      { points: curve(path.test), colour: "orange", dash: [6, 3], label: "test loss" },
    ], { from: 0, to: Math.log10(1 + steps), ticks: drawing.powers(0, Math.log10(1 + steps)), label: "1 + step" },
    { from: low, to: top, ticks: drawing.powers(low, top, 2) });
    const text = lr < 1 / (2 + lambda)
      ? `After ${steps} steps: w = (${ended.map((w) => w.toFixed(3)).join(", ")}), training loss ` +
        `${path.train[last].toExponential(1)}, test loss ${path.test[last].toExponential(1)}. The minimum of L_λ is at ` +
        `${(2 / (2 + lambda)).toFixed(3)} for both weights.`
      : `The learning rate is not below 1 / (2 + λ) = ${(1 / (2 + lambda)).toFixed(3)}: each step leads farther over ` +
        `the line than the one before, and descent diverges${last < steps ? ` (drawn up to step ${last})` : ""}.`;
    drawing.describe(plane, `Path of the two weights on their plane. ${text}`);
    drawing.describe(losses, `Training and test loss against the step. ${text}`);
    return text;
  }

  const PLANE = { from: -2.4, to: 3.4, margin: 4 };
  const LOST = 8; // a weight from which a diverging path is not drawn on

  /** Both axes have one scale: the line of zero loss falls at 45°, and a path that meets it at a right angle shows it. */
  function drawPlane(canvas, path) {
    const { pen, width, height, colours } = drawing.sheet(canvas), { from, to, margin } = PLANE;
    const scale = (Math.min(width, height) - 2 * margin) / (to - from);
    const X = (x) => margin + (x - from) * scale, Y = (y) => margin + (to - y) * scale;
    drawing.line(pen, [[X(from), Y(0)], [X(to), Y(0)]], colours.axis);
    drawing.line(pen, [[X(0), Y(from)], [X(0), Y(to)]], colours.axis);
    for (const tick of [-2, -1, 1, 2, 3]) {
      drawing.write(pen, tick, X(tick), Y(0) + 15, colours.ink, "center");
      drawing.write(pen, tick, X(0) - 6, Y(tick) + 4, colours.ink, "right");
    }
    drawing.write(pen, "w₁", X(to), Y(0) - 6, colours.ink, "right");
    drawing.write(pen, "w₂", X(0) + 6, Y(to) + 10, colours.ink);
    drawing.line(pen, [[X(2 - to), Y(to)], [X(to), Y(2 - to)]], colours.green, [6, 4]);
    drawing.write(pen, "zero loss", X(2.6), Y(-1.05), colours.green, "right");
    const points = path.u.map((u, k) => [u, path.v[k]]);
    const lost = points.findIndex((point) => Math.max(...point.map(Math.abs)) > LOST);
    const drawn = lost < 0 ? points : points.slice(0, lost); // more of it would cover the plane
    drawing.line(pen, drawn.map(([u, v]) => [X(u), Y(v)]), colours.blue, [], lost < 0 ? 1.8 : 0.8);
    drawing.disc(pen, [X(path.u[0]), Y(path.v[0])], 4, colours.ink);
    drawing.disc(pen, [X(latest(path.u)), Y(latest(path.v))], 5, colours.orange);
  }

  /* Eq. 20 for small p. */
  function isolated({ p, width, activation, seed }) {
    const canvases = ["table", "ring", "curve"].map((part) => byId(`flow-${part}`)), [table, ring, curve] = canvases;
    const random = lab.uniform(seed), task = lab.addition(p, SHARE, random), history = [];
    const flow = lab.isolatedFlow(lab.normal(p * width, p ** -0.5, random), task, width, activation);
    const record = () => {
      const { E, V } = flow.network();
      history.push({ tau: flow.tau, ...lab.measure(E, V, task, width, activation) });
    };
    record();
    return {
      advance() {
        flow.advance();
        record();
      },
      ended: ({ end }) => flow.tau >= end,
      tell() {
        const now = latest(history);
        return `Slow time ${now.tau.toFixed(2)}: ${percent(now.test.accuracy)} of the ${task.test.length} held-out pairs right, ` +
          `squared norm ${now.norm.toFixed(1)} (${history[0].norm.toFixed(1)} at the start).`;
      },
      draw({ end }) {
        const k = lab.strongest(flow.x, p, width), text = this.tell();
        drawing.table(table, task, latest(history).answers);
        drawing.ring(ring, lab.project(flow.x, lab.plane(flow.x, p, width, k), p, width), k);
        drawing.plot(curve, [
          { points: column(history, (e) => e.tau, (e) => e.test.accuracy), colour: "orange", dash: [], label: "held-out pairs right" },
          { points: column(history, (e) => e.tau, (e) => e.norm / history[0].norm), colour: "blue", dash: [6, 3], label: "squared norm / start" },
        ], slowTime(end), UNIT);
        drawing.describe(table, `Addition table modulo ${p}. ${text}`);
        drawing.describe(ring, `Tokens in the plane of their strongest frequency, ${k}, joined in the order of that circle.`);
        drawing.describe(curve, `Share of held-out pairs that are right, and squared norm, against slow time. ${text}`);
      },
    };
  }

  /** A readout that fits all training pairs needs more hidden units than pairs: the slider of the width begins there. */
  function wideEnough(form) {
    const { width, p } = form.elements;
    width.min = 16 * (Math.floor(lab.trained(+p.value, SHARE) / 16) + 1);
  }

  /* A real network, by gradient descent. */
  function training({ p, width, activation, seed, lr, decay, share }) {
    const [table, spectrum, losses, shares] = ["table", "spectrum", "losses", "shares"].map((part) => byId(`train-${part}`));
    const random = lab.uniform(seed), task = lab.addition(p, share, random), history = [];
    const trainer = lab.trainer(lab.defaultStart(p, width, random), task, width, activation, lr, decay);
    const pace = lr * decay, nothing = 1 / p; // slow time of a step; loss of the output 0
    const clocks = { memorized: null, loss: null, accuracy: null };
    let due = 0;

    function record() {
      const now = { step: trainer.step, ...lab.measure(trainer.E, trainer.V, task, width, activation) };
      if (!(now.train.loss < lab.FAR))
        throw new Error(`The learning rate is too large: the loss grows without bound (step ${now.step}).`);
      history.push(now);
      if (now.train.accuracy === 1 && now.train.loss <= MEMORIZED * nothing) clocks.memorized ??= now.step;
      if (now.test.loss <= HALF * nothing) clocks.loss ??= now.step;
      if (now.test.accuracy >= NEARLY_ALL) clocks.accuracy ??= now.step;
      due = Math.max(now.step + 10, Math.round(1.01 * now.step));
    }

    function told(step) {
      return step === null ? "not yet" : `step ${step}, τ = ${(step * pace).toFixed(2)}`;
    }

    record();
    return {
      advance() {
        trainer.advance();
        if (trainer.step >= due) record();
      },
      ended: ({ end }) => trainer.step * pace >= end,
      tell() {
        const now = latest(history);
        return `Step ${now.step}, slow time ${(now.step * pace).toFixed(2)}: ${percent(now.train.accuracy)} of the ` +
          `${task.train.length} training pairs and ${percent(now.test.accuracy)} of the ${task.test.length} held-out pairs right, ` +
          `squared norm ${now.norm.toFixed(1)}. Memorized: ${told(clocks.memorized)}. Held-out loss halved: ${told(clocks.loss)}. ` +
          `Held-out pairs right: ${told(clocks.accuracy)}.`;
      },
      draw({ end }) {
        const text = this.tell(), last = Math.log10(end / pace), now = latest(history);
        const steps = { from: 1, to: last, ticks: atBoth(1, last, pace), label: "step (slow time τ)" };
        const curve = (value) => column(history.slice(1), (e) => Math.log10(e.step), value);
        const powers = lab.spectrum(trainer.E, p, width), total = powers.reduce((sum, power) => sum + power, 0);
        const most = Math.max(...history.map((e) => e.norm));
        drawing.table(table, task, now.answers);
        drawing.bars(spectrum, powers.map((power) => power / total));
        drawing.plot(losses, [
          { points: curve((e) => Math.log10(e.train.loss / nothing)), colour: "blue", dash: [], label: "training loss" },
          { points: curve((e) => Math.log10(e.test.loss / nothing)), colour: "orange", dash: [6, 3], label: "held-out loss (output 0: 1)" },
        ], steps, { from: -4, to: 1, ticks: drawing.powers(-4, 1) });
        drawing.plot(shares, [
          { points: curve((e) => e.train.accuracy), colour: "blue", dash: [], label: "training pairs right" },
          { points: curve((e) => e.test.accuracy), colour: "orange", dash: [6, 3], label: "held-out pairs right" },
          { points: curve((e) => e.norm / most), colour: "green", dash: [2, 3], label: "squared norm / greatest" },
        ], steps, UNIT);
        drawing.describe(table, `Addition table modulo ${p}. ${text}`);
        drawing.describe(spectrum, "Share of each frequency in the embeddings: " +
          powers.map((power, i) => `${i + 1}, ${percent(power / total)}`).join("; "));
        drawing.describe(losses, `Training and held-out loss against the step, both on logarithmic scales. ${text}`);
        drawing.describe(shares, `Shares of right pairs and squared norm against the step. ${text}`);
      },
    };
  }

  /** Ticks at powers of ten of the step, with the slow time there. */
  function atBoth(from, to, pace) {
    return drawing.powers(from, to).map(([n, text]) => [n, `${text} (${+(10 ** n * pace).toPrecision(1)})`]);
  }

  /* The slow flow of the whole network beside eq. 20, from one start. */
  function comparison({ p, width, activation, seed, share }) {
    const norms = byId("slow-norm"), losses = byId("slow-loss");
    const random = lab.uniform(seed), task = lab.addition(p, share, random), E = lab.normal(p * width, p ** -0.5, random);
    const theta = Float64Array.of(...E, ...lab.readout(E, task, width, activation));
    const flows = [
      { name: "eq. 20", colour: "orange", dash: [6, 3], flow: lab.isolatedFlow(E, task, width, activation) },
      { name: "slow flow", colour: "blue", dash: [], flow: lab.slowFlow(theta, task, width, activation, 3e-4) },
    ];
    const record = ({ flow, history }) => {
      const { E, V } = flow.network();
      history.push({ tau: flow.tau, ...lab.measure(E, V, task, width, activation) });
    };
    for (const each of flows) {
      each.history = [];
      record(each);
    }
    const behind = () => (flows[0].flow.tau < flows[1].flow.tau ? flows[0] : flows[1]);
    return {
      advance() {
        const each = behind();
        each.flow.advance();
        record(each);
      },
      ended: ({ end }) => behind().flow.tau >= end,
      tell() {
        return flows.map(({ name, history }) => {
          const now = latest(history), groks = history.find((e) => e.test.loss <= HALF / p);
          return `${name}: slow time ${now.tau.toFixed(2)}, squared norm ${now.norm.toFixed(1)}, ` +
            `${percent(now.test.accuracy)} of the ${task.test.length} held-out pairs right, held-out loss ` +
            (groks ? `halved at τ = ${groks.tau.toFixed(2)}` : "not halved yet");
        }).join("; ") + ".";
      },
      draw({ end }) {
        const text = this.tell(), lowest = Math.min(...flows.flatMap(({ history }) => history.map((e) => e.norm)));
        const low = Math.log10(lowest) - 0.1, high = Math.log10(flows[0].history[0].norm) + 0.1;
        const curves = (value) => flows.map(({ name, colour, dash, history }) =>
          ({ label: name, colour, dash, points: column(history, (e) => e.tau, value) }));
        const scale = (from, to) => ({ from, to, ticks: drawing.even(from, to, 3).map(([v]) => [v, `${+(10 ** v).toPrecision(2)}`]) });
        drawing.plot(norms, curves((e) => Math.log10(e.norm)), slowTime(end), scale(low, high));
        drawing.plot(losses, curves((e) => Math.log10(e.test.loss * p)), slowTime(end), { from: -2, to: 1, ticks: drawing.powers(-2, 1) });
        drawing.describe(norms, `Squared norm against slow time. ${text}`);
        drawing.describe(losses, `Held-out loss, relative to that of the output 0, against slow time. ${text}`);
      },
    };
  }

  page.fromAddress();
  page.immediate("toy", toy);
  page.running("train", training);
  page.running("flow", isolated, wideEnough);
  page.running("slow", comparison);
  startByClick();

  /** A click on the plane puts the toy's start there. */
  function startByClick() {
    const plane = byId("toy-plane"), { w1, w2 } = byId("toy-controls").elements;
    plane.addEventListener("click", ({ offsetX, offsetY }) => {
      const { from, to, margin } = PLANE;
      const scale = (Math.min(plane.clientWidth, plane.clientHeight) - 2 * margin) / (to - from);
      w1.value = from + (offsetX - margin) / scale;
      w2.value = to - (offsetY - margin) / scale;
      w1.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }
})();
