// One slide on the screen: OpenSeadragon below, and above it one canvas for all that is drawn over the slide.

import { Heat, SCALE_NAMES, channelWords, fade, spread, usualScale } from "./heat.js";

const BAR_PX = 140;
const LEAST_TILE_PX = 7; // on screen, for the grid to be drawn
const RAMP_PX = 190;
const TISSUE = "#00964b";
const REGION_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

export class Pane {
  constructor(root, source, shared, name) {
    this.source = source;
    this.shared = shared;
    this.name = name;
    this.root = root;
    this.element = element("div", "view");
    this.element.setAttribute("role", "application");
    this.element.setAttribute("aria-label", `Slide, view ${name}; arrows move, plus and minus zoom`);
    this.title = element("div", "title");
    this.words = element("div", "words");
    this.modelSelect = select("Model", () => this.setMap(this.modelSelect.value, this.channel));
    this.channelSelect = select("Layer", () => this.setMap(this.model, this.channelSelect.value));
    const choices = element("div", "choices");
    this.ramp = element("div", "ramp");
    choices.append(this.modelSelect, this.channelSelect, this.ramp);
    this.title.append(this.words, choices);
    this.bar = element("div", "scale");
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    root.append(this.title, this.element);
    forbidInlineStyle();
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.viewer = OpenSeadragon({
      element: this.element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      animationTime: still ? 0 : 0.35,
      springStiffness: 9,
      blendTime: still ? 0 : 0.1,
      maxZoomPixelRatio: 8,
      minZoomImageRatio: 0.6,
      visibilityRatio: 0.25,
      preserveImageSizeOnResize: true,
      imageLoaderLimit: 8,
      maxImageCacheCount: 600,
      placeholderFillStyle: "#ffffff",
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { pinchRotate: false },
    });
    this.viewer.innerTracker.keyDownHandler = null;
    this.canvas = element("canvas", "over");
    // Below the small map, above the slide.
    this.viewer.canvas.append(this.canvas);
    this.element.append(this.bar, this.tip);
    this.edits = [];
    this.regions = [];
    for (const event of ["update-viewport", "resize", "open"]) this.viewer.addHandler(event, () => this.draw());
    this.viewer.addHandler("viewport-change", () => this.moved?.(this));
    this.element.addEventListener("pointermove", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => (this.tip.hidden = true));
  }

  async open(key) {
    if (this.key === key) return;
    this.key = key;
    const told = await this.source.slide(key);
    if (this.key !== key) return;
    this.takeSlide(told);
    this.edits = [];
    this.heat = null;
    await new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", resolve);
      this.viewer.addOnceHandler("open-failed", (event) => reject(new Error(event.message)));
      this.viewer.open(tileSource(this.source, told));
    });
    this.viewer.viewport.setRotation(this.shared.rotation, true);
    this.viewer.viewport.goHome(true);
  }

  takeSlide(told) {
    this.slide = told;
    this.regions = told.regions.map((one) => ({ ...one }));
    // Outlines of tissue among the truth are drawn as tissue, not as something to be found.
    this.truth = told.truth.filter((one) => one.name.toLowerCase() !== "tissue");
    const names = [...new Set(this.truth.map((one) => one.name))];
    this.paths = { tissue: pathOf(told.tissue) };
    this.truthPaths = names.map((name) => [name, pathOf(this.truth.filter((one) => one.name === name))]);
  }

  setCase(shown, model, channel) {
    this.case = shown;
    this.modelSelect.replaceChildren(...shown.maps.map((name) => new Option(name, name)));
    this.modelSelect.hidden = shown.maps.length < 2;
    const wanted = shown.maps.includes(model) ? model : shown.maps[0];
    return this.setMap(wanted, channel);
  }

  async setMap(model, channel) {
    this.model = model;
    if (!model) {
      this.heat = null;
      this.channelSelect.hidden = true;
      this.ramp.hidden = true;
      this.changed?.(this);
      return this.draw();
    }
    const key = this.key;
    if (this.heat?.key !== key || this.heat?.model !== model) {
      const map = await this.source.map(key, model);
      if (this.key !== key || this.model !== model) return undefined;
      this.heat = Object.assign(new Heat(map), { key, model });
    }
    const channels = this.heat.map.channels;
    this.channelSelect.hidden = false;
    this.channelSelect.replaceChildren(...channels.map((one) => new Option(channelWords(one.name), one.name)));
    const found = channels.find((one) => one.name === channel) ?? usualChannel(channels, this.case, model);
    this.modelSelect.value = model;
    this.channelSelect.value = found.name;
    this.channel = found.name;
    this.info = found;
    this.values = await this.source.channel(key, model, channels.indexOf(found));
    if (this.key === key) this.paint();
    this.changed?.(this);
    return undefined;
  }

  scale() {
    return this.shared.scale === "auto" ? usualScale(this.info) : this.shared.scale;
  }

  colours() {
    const signed = this.scale() === "signed";
    const { tables, map, signedMap } = this.shared;
    return tables[signed ? signedMap : map];
  }

  paint() {
    if (!this.heat || !this.values || !this.shared.tables) return;
    this.spread = spread(this.values, this.scale(), this.shared.low, this.shared.high);
    this.heat.paint(this.spread.positions, this.colours(), { from: this.shared.from, faded: this.scale() === "signed" });
    this.showRamp();
    this.draw();
  }

  showRamp() {
    this.ramp.hidden = !this.heat || !this.spread || !this.shared.show.heat;
    if (this.ramp.hidden) return;
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [RAMP_PX, 10];
    drawRamp(canvas.getContext("2d"), this, [0, 0, RAMP_PX, 10]);
    const ticks = element("div", "ticks");
    ticks.append(...this.spread.ticks.map((tick) => element("span", "", tick)));
    const look = this.info.kind === "attention" ? "; where the model looked, no explanation" : "";
    this.ramp.title = `${channelWords(this.channel)}, coloured by ${SCALE_NAMES[this.scale()]}${look}`;
    this.ramp.replaceChildren(canvas, ticks, element("div", "by", `${SCALE_NAMES[this.scale()]}${look}`));
  }

  // Level-0 pixels to pixels of the canvas: a, b, c, d, e, f as canvas transforms take them.
  transform() {
    const width = this.slide.size[0];
    const viewport = this.viewer.viewport;
    const at = (x, y) => viewport.pixelFromPoint(new OpenSeadragon.Point(x, y), true);
    const [origin, right, down] = [at(0, 0), at(1, 0), at(0, 1)];
    const ratio = window.devicePixelRatio || 1;
    const by = ratio / width;
    return [
      (right.x - origin.x) * by,
      (right.y - origin.y) * by,
      (down.x - origin.x) * by,
      (down.y - origin.y) * by,
      origin.x * ratio,
      origin.y * ratio,
    ];
  }

  // Level-0 pixels a pixel of the screen.
  resolution() {
    const viewport = this.viewer.viewport;
    return this.slide.size[0] / (viewport.getContainerSize().x * viewport.getZoom(true));
  }

  centre() {
    const middle = this.viewer.viewport.getCenter(true);
    return [middle.x * this.slide.size[0], middle.y * this.slide.size[0]];
  }

  look(x, y, resolution, immediately = true) {
    const viewport = this.viewer.viewport;
    const width = this.slide.size[0];
    viewport.zoomTo(width / (viewport.getContainerSize().x * resolution), null, immediately);
    viewport.panTo(new OpenSeadragon.Point(x / width, y / width), immediately);
  }

  place(event) {
    const box = this.element.getBoundingClientRect();
    const point = new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    const found = this.viewer.viewport.pointFromPixel(point, true);
    return [found.x * this.slide.size[0], found.y * this.slide.size[0]];
  }

  draw() {
    if (!this.slide || !this.viewer.world.getItemCount()) return;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.element.clientWidth, this.element.clientHeight];
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const transform = this.transform();
    const pixel = this.resolution() / ratio;
    const show = this.shared.show;
    if (show.heat && this.heat && this.spread) this.drawHeat(context, transform);
    context.setTransform(...transform);
    if (show.grid && this.heat) this.drawGrid(context, pixel);
    context.lineJoin = "round";
    if (show.tissue) strokeTwice(context, this.paths.tissue, TISSUE, pixel * ratio, []);
    if (show.truth) {
      for (const [name, path] of this.truthPaths) strokeTwice(context, path, truthColour(name), pixel * ratio, [6, 4]);
    }
    if (show.regions) {
      for (const region of this.regions) {
        strokeTwice(context, pathOf([region]), regionColour(region.name), pixel * ratio, []);
      }
    }
    for (const edit of this.edits) fillEdit(context, edit, pixel * ratio);
    if (this.marked >= 0 && this.heat) this.drawMarked(context, pixel * ratio);
    this.tool?.draw(context, pixel * ratio);
    this.drawBar();
  }

  drawHeat(context, transform) {
    const [x, y] = this.heat.origin;
    const [cellX, cellY] = this.heat.cell;
    const [a, b, c, d, e, f] = transform;
    context.setTransform(a * cellX, b * cellX, c * cellY, d * cellY, a * x + c * y + e, b * x + d * y + f);
    context.globalAlpha = this.shared.opacity;
    context.imageSmoothingEnabled = this.shared.smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.heat.canvas, 0, 0);
    context.globalAlpha = 1;
  }

  drawGrid(context, pixel) {
    const { places, extent } = this.heat.map;
    if (extent[0] / pixel < LEAST_TILE_PX) return;
    const [x, y] = this.centre();
    const reach = (Math.hypot(this.canvas.width, this.canvas.height) * pixel) / 2 + extent[0];
    context.beginPath();
    for (let i = 0; i < this.heat.count; i++) {
      if (Math.abs(places[2 * i] - x) > reach || Math.abs(places[2 * i + 1] - y) > reach) continue;
      context.rect(places[2 * i], places[2 * i + 1], extent[0], extent[1]);
    }
    context.lineWidth = pixel;
    context.strokeStyle = "rgba(20, 30, 50, 0.55)";
    context.stroke();
  }

  drawMarked(context, pixel) {
    const { places, extent } = this.heat.map;
    const box = [places[2 * this.marked], places[2 * this.marked + 1], extent[0], extent[1]];
    context.lineWidth = 5 * pixel;
    context.strokeStyle = "#ffffff";
    context.strokeRect(...box);
    context.lineWidth = 2.5 * pixel;
    context.strokeStyle = "#111827";
    context.strokeRect(...box);
  }

  drawBar() {
    if (!this.slide.mpp) {
      this.bar.textContent = "scale unknown";
      return;
    }
    const bar = scaleBar(this.resolution() * this.slide.mpp[0]);
    this.bar.textContent = bar.text;
    this.bar.style.width = `${bar.px}px`;
  }

  point(event) {
    if (!this.heat || !this.values || !this.shared.show.heat || this.tool) {
      this.tip.hidden = true;
      return;
    }
    const tile = this.heat.at(...this.place(event));
    this.tip.hidden = tile < 0;
    if (tile < 0) return;
    const box = this.element.getBoundingClientRect();
    this.tip.textContent = Number.isFinite(this.values[tile]) ? this.values[tile].toPrecision(4) : "no score";
    this.tip.style.left = `${event.clientX - box.left + 14}px`;
    this.tip.style.top = `${event.clientY - box.top + 12}px`;
  }
}

export function scaleBar(micrometresPerPixel) {
  const most = BAR_PX * micrometresPerPixel;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((step) => step * power).find((one) => one <= most * (1 + 1e-9));
  const text = length >= 1000 ? `${+(length / 1000).toPrecision(3)} mm` : `${+length.toPrecision(3)} \u00b5m`;
  return { text, px: length / micrometresPerPixel };
}

// The colours as they look over glass.
export function drawRamp(context, pane, [left, top, width, height]) {
  const [colours, faded] = [pane.colours(), pane.scale() === "signed"];
  for (let x = 0; x < width; x++) {
    const position = x / Math.max(1, width - 1);
    const at = 3 * Math.round(255 * position);
    context.fillStyle = "#ffffff";
    context.fillRect(left + x, top, 1.5, height);
    context.globalAlpha = faded ? fade(position) : 1;
    context.fillStyle = `rgb(${colours[at]}, ${colours[at + 1]}, ${colours[at + 2]})`;
    context.fillRect(left + x, top, 1.5, height);
    context.globalAlpha = 1;
  }
}

export function truthColour(name) {
  return /lesion|tumou?r|truth|metasta|cancer/i.test(name) || !name ? "#d4006a" : regionColour(name);
}

export function regionColour(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  return REGION_COLOURS[sum % REGION_COLOURS.length];
}

export function element(tag, name = "", text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text) made.textContent = text;
  return made;
}

// The contribution to what was predicted, where there is one; else the first layer that is no raw score.
function usualChannel(channels, shown, model) {
  const answers = Object.keys(shown?.predictions[model]?.probabilities ?? {});
  const predicted = answers.length === 2 ? answers[1] : shown?.predictions[model]?.predicted;
  return (
    channels.find((one) => one.name === `contribution_${predicted}`) ??
    channels.find((one) => one.kind !== "raw score") ??
    channels[0]
  );
}

function tileSource(source, told) {
  const { levels, size, key } = told;
  const made = new OpenSeadragon.TileSource({
    width: size[0],
    height: size[1],
    tileSize: levels[levels.length - 1].tile[0],
    tileOverlap: 0,
    minLevel: 0,
    maxLevel: levels.length - 1,
  });
  made.getLevelScale = (level) => 1 / (levels[level]?.downsample ?? 1);
  made.getTileWidth = (level) => levels[level].tile[0];
  made.getTileHeight = (level) => levels[level].tile[1];
  made.getNumTiles = (level) => new OpenSeadragon.Point(...levels[level].grid);
  made.getTileUrl = (level, column, row) => source.tile(key, level, column, row);
  made.getTileHashKey = (level, column, row) => `${key}/${level}/${column}_${row}`;
  return made;
}

function pathOf(polygons) {
  const path = new Path2D();
  for (const { rings } of polygons) {
    for (const ring of rings) {
      ring.forEach(([x, y], at) => (at ? path.lineTo(x, y) : path.moveTo(x, y)));
      path.closePath();
    }
  }
  return path;
}

// A white line below the coloured one, to be seen on dark tissue and on glass.
function strokeTwice(context, path, colour, pixel, dashes) {
  context.setLineDash([]);
  context.lineWidth = 3.5 * pixel;
  context.strokeStyle = "rgba(255, 255, 255, 0.8)";
  context.stroke(path);
  context.setLineDash(dashes.map((one) => one * pixel));
  context.lineWidth = 1.8 * pixel;
  context.strokeStyle = colour;
  context.stroke(path);
  context.setLineDash([]);
}

function fillEdit(context, edit, pixel) {
  const path = pathOf([edit]);
  context.fillStyle = edit.keep ? "rgba(0, 150, 75, 0.25)" : "rgba(213, 94, 0, 0.3)";
  context.fill(path);
  strokeTwice(context, path, edit.keep ? TISSUE : "#d55e00", pixel, []);
}

// OpenSeadragon adds a style to the page, which its policy forbids, unless one of this name is there.
function forbidInlineStyle() {
  if (document.querySelector("style[data-openseadragon-mobile-css]")) return;
  const style = element("style");
  style.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(style);
}

function select(label, changed) {
  const made = element("select");
  made.setAttribute("aria-label", label);
  made.title = label;
  made.addEventListener("change", changed);
  return made;
}
