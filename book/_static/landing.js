/* The landing page's figure: eq. 20 run in the reader's browser, then shown on slow time.

   `<div id="landing-live">` holds a still picture. It stays where motion is not wanted, until "Play" is pressed. The run
   takes a second or so, a slice a frame, and is always the same one: its seed is fixed. Seeds 0 to 5 were tried: all six
   networks end with every held-out sum right, from slow time 2.2 to 3.0 on; that of seed 1 is there first but for one. */
"use strict";

(() => {
  const P = 13, WIDTH = 96, ACTIVATION = "quadratic", SEED = 1, SHARE = 0.8;
  const END = 3; // slow time
  const LASTS = 15; // seconds
  const SLICE = 12; // milliseconds of work a frame
  const lab = globalThis.Laboratory, { drawing } = lab;
  const box = document.getElementById("landing-live");
  if (box) start();

  function start() {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (still) return offer();
    const seen = new IntersectionObserver(([entry]) => {
      if (!entry.isIntersecting) return;
      seen.disconnect();
      simulate(play);
    });
    seen.observe(box);
  }

  /** A button under the still picture, for those who asked for no motion. */
  function offer() {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Play" });
    const player = Object.assign(document.createElement("div"), { className: "player" });
    box.classList.add("landing-live");
    player.append(button);
    box.append(player);
    button.addEventListener("click", () => {
      button.disabled = true;
      simulate((run) => {
        play(run);
        box.querySelector("button").focus();
      });
    });
  }

  /** Follow eq. 20 to END, and then call `done` with the records. */
  function simulate(done) {
    const random = lab.uniform(SEED), task = lab.addition(P, SHARE, random);
    const flow = lab.isolatedFlow(lab.normal(P * WIDTH, P ** -0.5, random), task, WIDTH, ACTIVATION);
    const records = [];
    const record = () => {
      const { E, V } = flow.network(), known = lab.measure(E, V, task, WIDTH, ACTIVATION);
      records.push({ tau: flow.tau, E, norm: known.norm, accuracy: known.test.accuracy, answers: known.answers });
    };
    const frame = () => {
      const began = performance.now();
      while (flow.tau < END && performance.now() - began < SLICE) {
        flow.advance();
        record();
      }
      if (flow.tau < END) requestAnimationFrame(frame);
      else done({ task, ...onTheRing(records) });
    };
    record();
    requestAnimationFrame(frame);
  }

  /** All records in one plane: that of the frequency that is the strongest at the end, as it lies there. */
  function onTheRing(records) {
    const { E } = records[records.length - 1], k = lab.strongest(E, P, WIDTH), plane = lab.plane(E, P, WIDTH, k);
    for (const record of records) record.tokens = lab.project(record.E, plane, P, WIDTH);
    return { k, records };
  }

  function play({ task, k, records }) {
    const { table, ring, curve, button, slider, shown } = build();
    let tau = 0, request = null, before, playing = true, visible = false;
    const first = records[0];

    function draw() {
      const at = Math.max(0, records.findLastIndex((record) => record.tau <= tau)), now = records[at];
      const next = records[Math.min(at + 1, records.length - 1)];
      const share = next === now ? 0 : (tau - now.tau) / (next.tau - now.tau);
      const between = (x, y) => x + share * (y - x);
      const tokens = now.tokens.map(([x, y], j) => [between(x, next.tokens[j][0]), between(y, next.tokens[j][1])]);
      drawing.table(table, task, now.answers);
      drawing.ring(ring, tokens, k);
      const past = records.slice(0, at + 1);
      drawing.plot(curve, [
        { points: past.map((r) => [r.tau, r.accuracy]), colour: "blue", dash: [], label: "held-out sums right" },
        { points: past.map((r) => [r.tau, r.norm / first.norm]), colour: "orange", dash: [6, 3], label: "squared norm / start" },
      ], { from: 0, to: END, ticks: drawing.even(0, END, 3), label: "slow time τ" },
      { from: 0, to: 1.05, ticks: [[0, "0"], [0.5, "½"], [1, "1"]] }, tau);
      slider.value = shown.value = tau.toFixed(2);
      const text = `${Math.round(100 * now.accuracy)} % of the held-out sums right`;
      slider.setAttribute("aria-valuetext", `${tau.toFixed(2)}: ${text}`);
      drawing.describe(table, `Addition table modulo ${P} at slow time ${tau.toFixed(1)}: ${text}.`);
      drawing.describe(ring, `The ${P} tokens in the plane of frequency ${k}: a cloud at first, a ring at the end.`);
      drawing.describe(curve, `Against slow time: ${text}, squared norm ${(now.norm / first.norm).toFixed(2)} of its start.`);
    }

    function frame(time) {
      tau = Math.min(END, tau + ((time - (before ?? time)) / 1000) * (END / LASTS));
      before = time;
      draw();
      playing = tau < END;
      request = null;
      update();
    }

    /** Frames are asked for while it is to play and can be seen. */
    function update() {
      button.textContent = playing ? "Pause" : tau < END ? "Play" : "Replay";
      if (playing && visible) return void (request ??= requestAnimationFrame(frame));
      cancelAnimationFrame(request);
      request = before = null;
    }

    button.addEventListener("click", () => {
      playing = !playing;
      if (tau === END) tau = 0;
      update();
    });
    slider.addEventListener("input", () => {
      tau = +slider.value;
      playing = false;
      update();
      draw();
    });
    new IntersectionObserver(([entry]) => {
      visible = entry.isIntersecting;
      update();
    }).observe(box);
    drawing.redraw([table, ring, curve], draw);
  }

  /** The player in place of the still picture. */
  function build() {
    box.classList.add("landing-live");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Grokking, computed in your browser");
    box.innerHTML = `
      <div class="panels"><canvas class="square" role="img"></canvas><canvas class="square" role="img"></canvas>
        <canvas class="curves wide" role="img"></canvas></div>
      <div class="player"><button type="button"></button>
        <label>slow time <input type="range" min="0" max="${END}" step="0.01"><output></output></label></div>
      <p>Computed just now in your browser: a network that fits its training sums (grey) from the start, and only lets its
        weights shrink. Held-out sums turn from orange (wrong) to blue (right) while the ${P} numbers move onto a ring.</p>`;
    const [table, ring, curve] = box.querySelectorAll("canvas");
    const [button, slider, shown] = ["button", "input", "output"].map((name) => box.querySelector(name));
    return { table, ring, curve, button, slider, shown };
  }
})();
