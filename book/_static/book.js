// Draws the plotly figures of a page from the data beside them; until one is drawn, its static twin stands in.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Plotly === "undefined") return;
  for (const box of document.querySelectorAll(".plotly-figure")) {
    const data = box.nextElementSibling;
    const figure = JSON.parse(data.textContent);
    const layout = { ...figure.layout, autosize: true };
    delete layout.width;
    Plotly.newPlot(box, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: "hover" })
      .then(() => box.parentElement.classList.add("plotly-drawn"))
      .then(() => figure.frames && Plotly.addFrames(box, figure.frames));
  }
});

// What scrolls sideways by itself (long equations, code, tables) must be within reach of the keyboard.
const reachable = () => {
  for (const box of document.querySelectorAll(".bd-article mjx-container[display], .bd-article pre, .bd-article .output")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
addEventListener("load", () => {
  Promise.resolve(window.MathJax?.startup?.promise).then(reachable);
  addEventListener("resize", reachable);
});
