"""What a browser can tell of a page that is open in it."""

from __future__ import annotations

from page_samples import Visit

LESS_CONTRAST_THAN = """least => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  let seen = 0;
  for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, style, noscript")) continue;
    const style = getComputedStyle(element);
    const ink = light(rgba(element instanceof SVGElement ? style.fill : style.color));
    const paper = light(ground(element));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    seen += 1;
    if (contrast < least) found.push(`${contrast.toFixed(2)}: ${walker.currentNode.data.trim()}`);
  }
  return {found, seen};
}"""

OUTSIDE_THEIR_PLACE = """() => {
  const found = [];
  for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, style, noscript")) continue;
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    const text = range.getBoundingClientRect();
    const place = (element.closest("svg, th, td, dd, dt, pre, li, p, h1, h2") ?? element).getBoundingClientRect();
    if (text.width && (text.left < place.left - 1 || text.right > place.right + 1))
      found.push(walker.currentNode.data.trim());
  }
  return found;
}"""

ODD_TEXTS = """() => [...document.querySelectorAll(".chart svg")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  const found = [...svg.querySelectorAll("text")]
    .filter((text) => text.textContent.trim() && text.getAttribute("opacity") !== "0")
    .map((text) => [text.textContent, text.getBoundingClientRect()]);
  const cut = found.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(([text]) => `cut: ${text}`);
  const covered = found.flatMap(([text, a], i) => found.slice(i + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
    .map(([other]) => `${text} on ${other}`));
  return [...cut, ...covered];
})"""


def states(visit: Visit) -> list[str]:
    """What became of each figure, in order: "true" where it is drawn."""
    return [each.get_attribute("data-rendered") or "" for each in visit.tab.locator("figure[data-name]").all()]


def chart_widths(visit: Visit) -> list[tuple[float, float]]:
    """Of each chart: the width of what is drawn, and of its place."""
    both = "place => [+place.querySelector('svg').getAttribute('width'), place.clientWidth]"
    return [(drawn, place) for drawn, place in (each.evaluate(both) for each in visit.tab.locator(".chart").all())]
