// The equations next to what a reader sees first are typeset first, and shown before the others are.
if (window.MathJax) {
  const settings = window.MathJax.config?.startup ?? (window.MathJax.startup = {});
  settings.pageReady = async () => {
    const away = (math) => Math.abs(math.getBoundingClientRect().top);
    const near = [...document.querySelectorAll(".bd-article .math")].map((math) => [away(math), math]).sort(([a], [b]) => a - b);
    await MathJax.typesetPromise(near.slice(0, 8).map(([, math]) => math));
    await new Promise((done) => setTimeout(done)); // a hidden page has no frames to wait for
    return MathJax.startup.defaultPageReady();
  };
}

// What scrolls sideways by itself (long equations, code, tables) must be within reach of the keyboard, and say that it goes on.
const SCROLLS = ".bd-article mjx-container[display], .bd-article pre, .bd-article .output, .bd-article .pst-scrollable-table-container, .bd-article .table-scroll";
const atEnd = (box) => box.classList.toggle("at-end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 2);
const reachable = () => {
  for (const box of document.querySelectorAll(SCROLLS)) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("goes-on", wide);
    if (wide) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
    if (wide && !box.dataset.heard) {
      box.dataset.heard = "";
      box.addEventListener("scroll", () => atEnd(box), { passive: true });
    }
    atEnd(box);
  }
};
addEventListener("load", () => {
  Promise.resolve(window.MathJax?.startup?.promise).then(reachable);
  addEventListener("resize", reachable);
});

// One switch for a page's code: on, each folded cell stands where the notebook has it; off, it is in the mark of its output.
const CODE = "book-code";
const remembered = () => {
  try { return localStorage.getItem(CODE) === "on"; } catch { return false; }
};
const placed = new Map(); // folded code: the mark that it belongs to
const showCode = (on) => {
  document.documentElement.dataset.code = on ? "on" : "off";
  for (const place of document.querySelectorAll(".code-place")) {
    const code = document.getElementById(place.dataset.code);
    if (!placed.has(code)) placed.set(code, code.parentElement);
    (on ? place : placed.get(code)).append(code);
  }
  reachable();
};
document.addEventListener("DOMContentLoaded", () => {
  const bar = document.querySelector(".article-header-buttons");
  if (!bar || !document.querySelector(".code-place")) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-sm code-switch";
  button.textContent = "code";
  button.title = "Show all code of this page";
  const set = (on) => {
    button.setAttribute("aria-pressed", on);
    showCode(on);
  };
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    try { localStorage.setItem(CODE, on ? "on" : "off"); } catch { /* not remembered, then */ }
    set(on);
  });
  bar.prepend(button);
  set(remembered());
  document.addEventListener("toggle", reachable, true);
});

// The scorecard's filters, which the address remembers: ?kind=study&verdict=fails.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".scorecard-filters");
  if (!form) return;
  form.hidden = false;
  const rows = [...document.querySelectorAll("table.scorecard tbody tr")];
  const dots = [...document.querySelectorAll(".scorecard-grid a.dot")];
  const keys = [...form.elements].map((e) => e.name).filter(Boolean);
  const wanted = (e) => keys.every((key) => !form[key].value || e.dataset[key] === form[key].value);
  const apply = () => {
    for (const row of rows) row.classList.toggle("left-out", !wanted(row));
    for (const dot of dots) dot.classList.toggle("faded", !wanted(dot));
    form.querySelector("output").textContent = `${rows.filter(wanted).length} of ${rows.length} shown`;
  };
  const given = new URLSearchParams(location.search);
  for (const key of keys) form[key].value = given.get(key) ?? "";
  form.addEventListener("change", () => {
    const said = new URLSearchParams(keys.filter((key) => form[key].value).map((key) => [key, form[key].value]));
    history.replaceState(null, "", `?${said}`);
    apply();
  });
  apply();
});
