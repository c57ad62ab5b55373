// What the live pages draw with: SVG as large as the room for it, so that letters keep their size.
function kdlabCharts() {
  "use strict";
  const INK = "#1f2937",
    MUTED = "#5b6472",
    HAIR = "#e9ecf0",
    PALE = "#c3cbd4";
  const BLUE = "#0072B2",
    GREEN = "#00805C",
    ORANGE = "#A86A00",
    GREY = "#6f7986"; // kdlab/show/colours.py
  const VERMILLION = "#C84E00";

  function node(tag, attributes = {}, ...children) {
    const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    found.append(...children);
    return found;
  }

  // An empty drawing in `place`, as wide as it; `alt` is what it shows, in words.
  function sheet(place, height, alt, least = 240) {
    const width = Math.max(least, Math.floor(place.clientWidth));
    const found = node("svg", {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": alt,
    });
    place.replaceChildren(found);
    return { svg: found, width, height };
  }

  const line = (x1, y1, x2, y2, stroke, width = 1, more = {}) =>
    node("line", { x1, y1, x2, y2, stroke, "stroke-width": width, ...more });
  const text = (x, y, words, fill = MUTED, more = {}) =>
    node("text", { x, y, fill, "font-size": 13, ...more }, words);
  const path = (points) =>
    `M${points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L")}`;
  const signed = (value, digits = 1) =>
    `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;
  const plain = (value) => signed(Math.round(10 * value) / 10).replace("+", "");

  // The same heights, in order, at least so many pixels from each other.
  function apart(heights, least = 17) {
    const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b]),
      found = [];
    let before = -Infinity;
    for (const i of order) before = found[i] = Math.max(heights[i], before + least);
    return found;
  }

  // Bars, one a class, in a frame {x, y, width, height}; `outlined`: the label's class.
  function bars(shares, { x, y, width, height }, colours, outlined, names) {
    const step = width / shares.length,
      found = [line(x, y + height, x + width, y + height, MUTED)];
    [...shares].forEach((share, c) => {
      const tall = Math.max(share * height, 0.5),
        left = x + (c + 0.12) * step,
        wide = 0.76 * step;
      found.push(
        node("rect", {
          x: left,
          y: y + height - tall,
          width: wide,
          height: tall,
          fill: colours(c),
        }),
      );
      if (c === outlined)
        found.push(
          node("rect", {
            x: left,
            y,
            width: wide,
            height,
            fill: "none",
            stroke: INK,
            "stroke-dasharray": "4 2",
          }),
        );
      found.push(
        text(x + (c + 0.5) * step, y + height + 13, names[c], MUTED, {
          "text-anchor": "middle",
          "font-size": 11,
        }),
      );
    });
    return found;
  }

  // An image of the digits at (x, y), `size` pixels wide: ink is dark.
  function image(pixels, row, x, y, size) {
    const cell = size / 8,
      found = node("g", { "shape-rendering": "crispEdges" });
    found.append(node("rect", { x, y, width: size, height: size, fill: "#fff", stroke: PALE }));
    for (let p = 0; p < 64; p++) {
      const value = pixels[row * 64 + p];
      if (!value) continue;
      const grey = Math.round(255 * (1 - value / 16));
      found.append(
        node("rect", {
          x: x + (p % 8) * cell,
          y: y + Math.floor(p / 8) * cell,
          width: cell,
          height: cell,
          fill: `rgb(${grey},${grey},${grey})`,
        }),
      );
    }
    return found;
  }

  return {
    INK,
    MUTED,
    HAIR,
    PALE,
    BLUE,
    GREEN,
    ORANGE,
    GREY,
    VERMILLION,
    node,
    sheet,
    line,
    text,
    path,
    signed,
    plain,
    apart,
    bars,
    image,
  };
}
