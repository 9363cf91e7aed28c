// Draws the charts of a page, one after another, and keeps them as wide as their places, on screen and on paper.
// `vegaEmbed` comes with the bundle that this is put into.

const root = document.documentElement;

// Vega only logs the errors of its dataflow; this keeps them, so that the reader learns of them.
// The bundle does not give the class of views, so a view of nothing lends its own.
const options = { actions: false, ast: true, defaultStyle: false, renderer: "svg", tooltip: { disableDefaultStyle: true } };
const empty = await vegaEmbed(document.createElement("div"), {}, { ...options, mode: "vega" });
const View = empty.view.constructor;
empty.finalize();

function viewThatKeeps(problems) {
  return class extends View {
    error(problem) {
      problems.push(problem);
      return this;
    }
  };
}

async function draw(figure) {
  const place = figure.querySelector(".chart");
  const problems = [];
  try {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    // White, so that saved charts read on any ground; the page's style makes it transparent here.
    const visible = { ...spec, background: "white" };
    const { view } = await vegaEmbed(place, visible, { ...options, viewClass: viewThatKeeps(problems) });
    if (problems.length > 0) throw problems[0];
    offerToSave(figure, view);
    figure.dataset.rendered = "true";
  } catch (error) {
    const message = document.createElement("p");
    message.className = "failure";
    message.textContent = `This chart could not be drawn: ${error instanceof Error ? error.message : error}`;
    place.replaceChildren(message);
    figure.dataset.rendered = "failed";
  }
}

function offerToSave(figure, view) {
  const save = figure.querySelector(".save");
  for (const button of save.querySelectorAll("button")) {
    const format = button.dataset.format;
    button.setAttribute("aria-label", `Save this chart as ${format.toUpperCase()}`);
    button.addEventListener("click", async () => {
      const link = document.createElement("a");
      link.href = await view.toImageURL(format, format === "png" ? 2 : 1);
      link.download = `${figure.dataset.name}.${format}`;
      link.click();
    });
  }
  save.hidden = false;
}

// Vega asks for a container's width only when the window is resized. Scroll bars, folding and paper change it too.
function followWidths(places) {
  const widths = new Map();
  const observer = new ResizeObserver((entries) => {
    const changed = entries.filter(({ target, contentRect }) => widths.get(target) !== contentRect.width);
    for (const { target, contentRect } of changed) widths.set(target, contentRect.width);
    if (changed.length > 0) dispatchEvent(new Event("resize"));
  });
  for (const place of places) observer.observe(place);
}

// Paper cannot scroll: what is folded opens, charts take the width of a sheet, tables wider than that shrink.
function preparePrinting() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
    root.dataset.printing = "true";
    dispatchEvent(new Event("resize"));
    for (const place of document.querySelectorAll(".wide")) {
      const share = place.clientWidth / place.scrollWidth;
      if (share < 1) place.firstElementChild.style.zoom = 0.99 * share;
    }
  });
  addEventListener("afterprint", () => {
    for (const place of document.querySelectorAll(".wide")) place.firstElementChild.style.zoom = "";
    for (const details of opened) details.open = false;
    delete root.dataset.printing;
    dispatchEvent(new Event("resize"));
  });
}

const figures = [...document.querySelectorAll("figure[data-name]")];
preparePrinting();
for (const figure of figures) {
  await new Promise((resolve) => setTimeout(resolve)); // lets the page paint in between
  await draw(figure);
}
followWidths(figures.map((figure) => figure.querySelector(".chart")));
root.dataset.ready = "true";
