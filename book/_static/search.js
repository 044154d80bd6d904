// Under each result of the search the place where the page says it. The texts come as a script, so that this works from a file too.
document.addEventListener("DOMContentLoaded", () => {
  const words = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().split(/\W+/).filter((w) => w.length > 1);
  const AROUND = 90; // characters before and after
  const excerpt = (text) => {
    const low = text.toLowerCase();
    // words are cut as the search cuts them, so a longer or shorter form is found by its beginning
    const at = words.map((w) => low.indexOf(w.slice(0, Math.max(4, Math.ceil(0.6 * w.length))))).filter((i) => i >= 0).sort((a, b) => a - b)[0];
    if (at === undefined) return text.slice(0, 2 * AROUND);
    const [from, to] = [Math.max(0, at - AROUND), at + AROUND];
    return (from ? "… " : "") + text.slice(from, to).replace(/^\S* | \S*$/g, "") + " …";
  };
  const add = () => {
    for (const link of document.querySelectorAll("#search-results li > a")) {
      if (link.parentElement.querySelector(".excerpt")) continue;
      const page = Object.keys(window.BOOK_TEXTS ?? {}).find((name) => link.pathname.endsWith(`/${name}.html`));
      if (!page) continue;
      const shown = document.createElement("p");
      shown.className = "excerpt";
      shown.textContent = excerpt(window.BOOK_TEXTS[page]);
      link.parentElement.append(shown);
    }
  };
  const results = document.querySelector("#search-results");
  if (results) new MutationObserver(add).observe(results, { childList: true, subtree: true });
});
