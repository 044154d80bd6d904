() => {
  // Of a page with one or many chapters: a title page, contents, and each chapter on a new page under its own running head.
  const article = document.querySelector("article.bd-article") ?? document.body;
  const book = document.querySelector(".navbar-brand, .sidebar-header-items .title, title").textContent.trim().split(" — ").pop();
  const quoted = (text) => JSON.stringify(text.replace(/[#¶]$/, "").trim());
  const make = (tag, name, text = "") => Object.assign(document.createElement(tag), { className: name, textContent: text });
  const headings = ".toctree-wrapper > section > :is(h1, h2):first-of-type"; // Sphinx puts them one level down
  const chapters = [...article.querySelectorAll(`h1, ${headings}`)];
  const number = `@bottom-center { content: counter(page); font: 9pt sans-serif; color: #555; }`;
  const rules = [
    `@page { size: A4; margin: 20mm 18mm; ${number} }`,
    `@page front { @bottom-center { content: ""; } }`,
    `.press-title { page: front; break-after: page; padding-top: 35vh; text-align: center; }`,
    `.press-title h1 { font-size: 30pt; margin: 0; } .press-title p { color: #555; font-size: 12pt; }`,
    `.press-contents { page: front; break-after: page; } .press-contents p { display: flex; justify-content: space-between; font-size: 11pt; margin: 0.4em 0; }`,
    `.bd-article ${headings} { font-size: 2.15rem; margin-top: 0; }`,
    `body { background: #fff; display: block; margin: 0; } article { max-width: none !important; padding: 0 !important; }`,
  ];
  chapters.forEach((heading, at) => {
    const page = `chapter${at}`;
    const section = heading.closest("section") ?? heading;
    section.style.page = page;
    if (at) section.style.breakBefore = "page";
    rules.push(`@page ${page} { @top-left { content: ${quoted(book)}; font: 8.5pt sans-serif; color: #555; }
      @top-right { content: ${quoted(heading.textContent)}; font: 8.5pt sans-serif; color: #555; } }`);
  });
  const title = make("div", "press-title");
  title.append(make("h1", "", book), make("p", "", `printed ${new Date().toISOString().slice(0, 10)}`));
  const contents = make("div", "press-contents");
  contents.append(make("h2", "", "Contents"));
  for (const heading of chapters) {
    const line = make("p", "");
    const link = make("a", "", heading.textContent.replace(/[#¶]$/, "").trim());
    link.href = `#${heading.closest("section")?.id ?? ""}`;
    line.append(link, make("span", "press-at"));
    contents.append(line);
  }
  const style = make("style", "", rules.join("\n"));
  document.body.replaceChildren(style, ...(chapters.length > 1 ? [title, contents] : []), article);
  for (const image of document.images) image.loading = "eager";
}
