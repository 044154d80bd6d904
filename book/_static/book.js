// Draws the plotly figures of a page from the data beside them; until one is drawn, its static twin stands in.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Plotly === "undefined") return;
  for (const box of document.querySelectorAll(".plotly-figure")) {
    const data = box.nextElementSibling;
    const figure = JSON.parse(data.textContent);
    const layout = { ...figure.layout, autosize: true };
    delete layout.width;
    Plotly.newPlot(box, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: "hover" })
      .then(() => figure.frames && Plotly.addFrames(box, figure.frames))
      .then(() => box.parentElement.classList.add("plotly-drawn"));
  }
});
