// A training curve as SVG: bits per byte of the text learned from (line) and of text held out (dots), against steps.

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [340, 200, 38, 26, 10];
const POINTS = 300;

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Means of neighbours, so that at most POINTS are left. */
function thin(points) {
  const size = Math.ceil(points.length / POINTS);
  const made = [];
  for (let n = 0; n < points.length; n += size) {
    const some = points.slice(n, n + size);
    made.push([some.at(-1)[0], some.reduce((sum, [, y]) => sum + y, 0) / some.length]);
  }
  return made;
}

/** The mean of each point and those around it, a twentieth of all. */
function smooth(points) {
  const reach = Math.floor(points.length / 40);
  return points.map(([step], n) => {
    const some = points.slice(Math.max(0, n - reach), n + reach + 1);
    return [step, some.reduce((sum, [, y]) => sum + y, 0) / some.length];
  });
}

function short(steps) {
  return steps >= 10000 ? `${Math.round(steps / 1000)}k` : steps.toLocaleString();
}

/** A figure of rows {step, bits_per_byte, val_bits_per_byte}. */
export function curve(name, rows) {
  const of = (key) => rows.filter((row) => Number.isFinite(row[key])).map((row) => [row.step, row[key]]);
  const raw = thin(of("bits_per_byte"));
  const line = smooth(raw);
  const dots = of("val_bits_per_byte").slice(-POINTS);
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const all = [...raw, ...dots];
  figure.append(caption);
  if (!all.length) {
    caption.textContent = `${name} has not logged a step yet.`;
    return figure;
  }
  const told = dots.length > 1 ? dots : line;
  const last = told.at(-1);
  const said = `Bits per byte of ${name}: from ${told[0][1].toFixed(2)} to ${last[1].toFixed(2)} at step ${last[0].toLocaleString()}`;
  caption.textContent = `${said}. Lower is better; dots: text it has not learned from.`;
  figure.append(drawing(said, [raw, line], dots, all));
  return figure;
}

function drawing(said, lines, dots, all) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said });
  const most = Math.max(...all.map(([step]) => step), 1);
  const values = all.map(([, y]) => y).sort((a, b) => a - b);
  const low = values[0];
  const high = Math.max(values[Math.floor(values.length * 0.98)], low + 0.05); // the first steps would squeeze the rest
  const x = (step) => (LEFT + ((WIDTH - LEFT - 8) * step) / most).toFixed(1);
  const y = (bits) => (TOP + ((HEIGHT - TOP - BOTTOM) * (high - Math.min(bits, high))) / (high - low)).toFixed(1);
  for (let n = 0; n <= 4; n += 1) {
    const bits = low + ((high - low) * n) / 4;
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - 8, y1: y(bits), y2: y(bits) }));
    svg.append(element("text", { x: LEFT - 5, y: Number(y(bits)) + 4, "text-anchor": "end" }, bits.toFixed(2)));
  }
  for (const share of [0, 0.5, 1]) {
    const anchor = ["start", "middle", "end"][share * 2];
    svg.append(element("text", { x: x(most * share), y: HEIGHT - 6, "text-anchor": anchor }, short(Math.round(most * share))));
  }
  for (const [n, line] of lines.entries()) {
    const d = line.map(([step, bits], k) => `${k ? "L" : "M"}${x(step)} ${y(bits)}`).join("") || "M0 0";
    svg.append(element("path", { class: ["faint", "mean"][n], d }));
  }
  for (const [step, bits] of dots) svg.append(element("circle", { cx: x(step), cy: y(bits), r: 3 }));
  return svg;
}
