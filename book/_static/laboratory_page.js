/* What every experiment of the laboratory needs of its page: controls, address, a run in slices, and a voice. */
"use strict";

globalThis.Laboratory.page = (() => {
  const { drawing } = globalThis.Laboratory;
  const SLICE = 25; // milliseconds of work a frame
  const PAUSE = 400; // milliseconds without a change after which it is told, and kept in the address
  const byId = (id) => document.getElementById(id);
  const canvases = (name) => byId(`${name}-controls`).closest(".lab").querySelectorAll("canvas");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  /** Calls `work` once the calls have ceased. */
  function calmed(work) {
    let timer;
    return (...values) => {
      clearTimeout(timer);
      timer = setTimeout(work, PAUSE, ...values);
    };
  }

  /* The address: `#toy-lr=0.1&run=flow` holds each control that is not as it was, and the experiments that were run. */
  const inputs = () => [...document.querySelectorAll(".lab input, .lab select")];
  const initial = (input) => input.defaultValue ?? [...input.options].find((o) => o.defaultSelected)?.value ?? input.options[0].value;
  const given = new URLSearchParams(location.hash.slice(1));
  const ran = new Set();

  function fromAddress() {
    for (const input of inputs()) if (given.has(input.id)) input.value = given.get(input.id);
    const first = [...given.keys()].map((key) => byId(key === "run" ? `${given.get(key)}-run` : key)).find(Boolean);
    first?.closest(".lab").scrollIntoView();
    addEventListener("hashchange", () => location.hash.includes("=") && location.reload());
  }

  const toAddress = calmed(() => {
    const state = new URLSearchParams(inputs().filter((i) => i.value !== initial(i)).map((i) => [i.id, i.value]));
    for (const name of ran) state.append("run", name);
    if (`#${state}` !== location.hash) history.replaceState(null, "", `#${state}`);
  });

  /** The values of a form's controls, shown beside them. */
  function read(form) {
    const values = {};
    for (const input of form.querySelectorAll("input, select")) {
      const raw = input.dataset.log ? 10 ** +input.value : +input.value;
      const value = Number.isNaN(raw) ? input.value : +raw.toPrecision(3);
      values[input.name] = value;
      if (input.type !== "range") continue;
      input.nextElementSibling.textContent = value;
      input.setAttribute("aria-valuetext", value);
    }
    return values;
  }

  /** Calls `change(values, name of the control)` now and whenever a control moves. */
  function listen(name, change) {
    const form = byId(`${name}-controls`);
    form.addEventListener("input", ({ target }) => {
      change(read(form), target.name);
      toAddress();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    change(read(form), null);
  }

  /** A sentence that is shown at once, and told to screen readers when it no longer changes. */
  function voice(name) {
    const shown = byId(`${name}-reading`), told = byId(`${name}-status`);
    const tell = calmed((text) => (told.textContent = text));
    return (text, finished = true) => {
      shown.textContent = text;
      if (finished) tell(text);
    };
  }

  /** An experiment whose picture follows its controls at once: `draw(values)` returns the sentence to say. */
  function immediate(name, draw) {
    const say = voice(name);
    let values;
    listen(name, (now) => {
      values = now;
      say(draw(values));
    });
    drawing.redraw(canvases(name), () => draw(values));
  }

  /**
   * An experiment that runs: `start(values)` returns { advance(), ended(values), draw(values), tell(values) }, the last
   * a sentence; what it throws is said. A change of the control "end" leaves a run as it is; any other starts it anew.
   * `limit(form)` fits the controls' ranges to one another.
   */
  function running(name, start, limit = () => {}) {
    const form = byId(`${name}-controls`), button = byId(`${name}-run`), say = voice(name);
    let values, run, request = null, failure = "";

    function guarded(work) {
      try {
        work();
      } catch (error) {
        failure = error.message;
      }
    }

    function halt() {
      cancelAnimationFrame(request);
      request = null;
    }

    function restart() {
      failure = "";
      guarded(() => (run = start(values)));
      show();
    }

    function show() {
      const over = Boolean(failure) || run.ended(values);
      if (over) halt();
      button.textContent = request === null ? "Run" : "Stop";
      button.disabled = Boolean(failure);
      run?.draw(values);
      say(failure || run.tell(values) + (over ? " Done." : ""), over || request === null);
    }

    function frame() {
      const began = performance.now();
      guarded(() => {
        do run.advance(); while (!run.ended(values) && performance.now() - began < SLICE);
      });
      request = requestAnimationFrame(frame);
      show();
    }

    function toggle() {
      if (request === null) {
        if (run.ended(values)) restart();
        ran.add(name);
        toAddress();
        request = requestAnimationFrame(frame);
      } else halt();
      show();
    }

    button.addEventListener("click", toggle);
    byId(`${name}-again`).addEventListener("click", restart);
    listen(name, (_, changed) => {
      limit(form);
      values = read(form);
      if (changed === "end") show();
      else restart();
    });
    drawing.redraw(canvases(name), () => run?.draw(values));
    if (given.getAll("run").includes(name) && !still) toggle();
  }

  return { byId, fromAddress, immediate, running };
})();
