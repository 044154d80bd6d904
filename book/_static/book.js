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
