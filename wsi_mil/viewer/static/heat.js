// Scores become colours: one pixel a cell of the tile grid, drawn over the slide in one go.

const FINE_PX = 4; // of tiles that lie on no common lattice
const OFF_LATTICE = 0.05; // of a step
const MOST_PX = 1 << 26;

export const SCALE_NAMES = {
  rank: "rank among the tiles of this slide",
  value: "value",
  signed: "value around zero",
};

// Kinds of numbers that speak for what they name above zero, and against it below.
const SIGNED = ["contribution", "occlusion", "integrated gradients", "gradient x input"];

export function usualScale(channel) {
  if (channel.kind === "mean rank") return "value";
  if (SIGNED.includes(channel.kind) || channel.name.startsWith("contribution")) return "signed";
  return "rank";
}

export function channelWords(name) {
  if (name.startsWith("contribution_")) return `contribution to ${name.slice(13)}`;
  return name.replaceAll("_", " ");
}

// Around zero there is little to see, and the slide is left to be seen instead.
export function fade(position) {
  return Math.min(1, 1.8 * Math.abs(2 * position - 1));
}

// Positions on the colour map, 0 to 1, NaN without a score; and what the ends and the middle of the map mean.
export function spread(values, scale, low, high) {
  const sorted = Float64Array.from(values.filter(Number.isFinite)).sort();
  const positions = new Float32Array(values.length).fill(NaN);
  if (!sorted.length) return { positions, ticks: ["", "no scores", ""], limits: [0, 1] };
  if (scale === "rank") {
    const last = sorted.length - 1;
    for (let i = 0; i < values.length; i++) {
      if (!Number.isFinite(values[i])) continue;
      const first = lowerBound(sorted, values[i]);
      const after = upperBound(sorted, values[i]);
      positions[i] = last ? (first + after - 1) / 2 / last : 0.5;
    }
    return { positions, ticks: ["lowest", "median", "highest"], limits: [0, 1] };
  }
  let limits = [percentile(sorted, low), percentile(sorted, high)];
  if (scale === "signed") {
    const sizes = Float64Array.from(sorted, Math.abs).sort();
    const most = percentile(sizes, high) || sizes[sizes.length - 1] || 1;
    limits = [-most, most];
  }
  if (!(limits[0] < limits[1])) limits = [limits[0] - 0.5, limits[1] + 0.5];
  const width = limits[1] - limits[0];
  for (let i = 0; i < values.length; i++) {
    positions[i] = Number.isFinite(values[i]) ? Math.min(1, Math.max(0, (values[i] - limits[0]) / width)) : NaN;
  }
  return { positions, ticks: [limits[0], (limits[0] + limits[1]) / 2, limits[1]].map(short), limits };
}

export function short(value) {
  if (Math.abs(value) < 1e-12) return "0";
  return String(+value.toPrecision(3)).replace("-", "\u2212");
}

export class Heat {
  constructor(map) {
    this.map = map;
    const [stepX, stepY] = map.step;
    const places = map.places;
    this.count = places.length / 2;
    let [minX, minY, maxX, maxY] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < this.count; i++) {
      minX = Math.min(minX, places[2 * i]);
      maxX = Math.max(maxX, places[2 * i]);
      minY = Math.min(minY, places[2 * i + 1]);
      maxY = Math.max(maxY, places[2 * i + 1]);
    }
    this.overlap = Math.max(1, Math.round(map.extent[0] / stepX));
    // Places are whole pixels and steps are not: on a lattice they are off by half a pixel at most.
    let off = 0;
    for (let i = 0; i < this.count; i++) {
      const x = (places[2 * i] - minX) / stepX;
      const y = (places[2 * i + 1] - minY) / stepY;
      off = Math.max(off, Math.abs(x - Math.round(x)) - 1 / stepX, Math.abs(y - Math.round(y)) - 1 / stepY);
    }
    this.px = off > OFF_LATTICE || map.extent[0] < stepX * 0.98 ? FINE_PX : 1;
    this.origin = [minX, minY];
    this.cell = [stepX / this.px, stepY / this.px];
    this.width = Math.round((maxX - minX) / this.cell[0]) + this.px * this.overlap;
    this.height = Math.round((maxY - minY) / this.cell[1]) + this.px * this.overlap;
    this.canvas = document.createElement("canvas");
    const fits = this.count > 0 && this.width * this.height <= MOST_PX;
    this.canvas.width = fits ? this.width : 1;
    this.canvas.height = fits ? this.height : 1;
  }

  // Where tiles overlap, their positions are averaged. `from` hides what lies below it on the colour map.
  paint(positions, table, { from, faded }) {
    const { width, height } = this.canvas;
    const sum = new Float32Array(width * height);
    const cover = new Uint16Array(width * height);
    const across = Math.max(1, Math.round(this.map.extent[0] / this.cell[0]));
    const down = Math.max(1, Math.round(this.map.extent[1] / this.cell[1]));
    for (let i = 0; i < this.count; i++) {
      if (Number.isNaN(positions[i])) continue;
      const left = Math.round((this.map.places[2 * i] - this.origin[0]) / this.cell[0]);
      const top = Math.round((this.map.places[2 * i + 1] - this.origin[1]) / this.cell[1]);
      for (let y = top; y < Math.min(top + down, height); y++) {
        for (let x = left; x < Math.min(left + across, width); x++) {
          sum[y * width + x] += positions[i];
          cover[y * width + x] += 1;
        }
      }
    }
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let at = 0; at < sum.length; at++) {
      if (!cover[at]) continue;
      const position = sum[at] / cover[at];
      if (position < from) continue;
      const colour = 3 * Math.round(position * 255);
      image.data[4 * at] = table[colour];
      image.data[4 * at + 1] = table[colour + 1];
      image.data[4 * at + 2] = table[colour + 2];
      image.data[4 * at + 3] = faded ? Math.round(255 * fade(position)) : 255;
    }
    context.putImageData(image, 0, 0);
  }

  // The tile under a place of level 0, or -1; of overlapping tiles the one whose middle is nearest.
  at(x, y) {
    const [width, height] = this.map.extent;
    let [best, nearest] = [-1, Infinity];
    for (let i = 0; i < this.count; i++) {
      const dx = x - this.map.places[2 * i];
      const dy = y - this.map.places[2 * i + 1];
      if (dx < 0 || dy < 0 || dx >= width || dy >= height) continue;
      const away = Math.abs(dx - width / 2) + Math.abs(dy - height / 2);
      if (away < nearest) [best, nearest] = [i, away];
    }
    return best;
  }
}

// Tiles by score, highest first.
export function ranked(values) {
  const known = [...values.keys()].filter((i) => Number.isFinite(values[i]));
  return known.sort((a, b) => values[b] - values[a]);
}

function percentile(sorted, share) {
  const at = ((sorted.length - 1) * share) / 100;
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - below);
}

function lowerBound(sorted, value) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function upperBound(sorted, value) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}
