// The panel beside the slide: how the heatmap looks, what lies over the slide, the tiles to look at, and drawing.

import { ranked, short } from "./heat.js";
import { element, regionColour, truthColour } from "./pane.js";

const TILES_SHOWN = 6;
const THUMB_PX = 112;

export class Side {
  constructor(root, state, actions) {
    this.state = state;
    this.actions = actions;
    this.inputs = {};
    root.append(this.heatSection(), this.overlaySection(), this.tileSection(), this.drawSection());
  }

  heatSection() {
    const shared = this.state.shared;
    const section = panel("Heatmap");
    const top = element("div", "row");
    top.append(this.check("heat", "Show", "h"), this.checkOf("smooth", "Smooth"));
    section.append(
      top,
      this.slider("opacity", "Opacity", 0, 1, 0.05, (value) => `${Math.round(100 * value)} %`),
      this.choice("scale", "Scale", [["auto", "auto"], ["rank", "rank"], ["value", "value"], ["signed", "signed"]]),
      this.choice("map", "Colours", shared.names.filter((name) => !shared.diverging.includes(name)).map(twice)),
      this.choice("signedMap", "Colours, signed", shared.diverging.map(twice)),
      this.slider("low", "Clip below", 0, 49, 0.5, percent),
      this.slider("high", "Clip above", 51, 100, 0.5, percent),
      this.slider("from", "Hide below", 0, 1, 0.01, (value) => (value ? `${Math.round(100 * value)} %` : "none")),
    );
    return section;
  }

  overlaySection() {
    const section = panel("Over the slide");
    const grid = element("div", "grid");
    grid.append(
      this.check("tissue", "Tissue", "c"),
      this.check("truth", "Truth", "t"),
      this.check("grid", "Tiles", "g"),
      this.check("regions", "Regions", "a"),
    );
    this.classes = element("div", "classes");
    section.append(grid, this.classes);
    return section;
  }

  tileSection() {
    const section = panel("Tiles");
    this.tiles = element("div", "tiles");
    section.append(this.tiles);
    return section;
  }

  drawSection() {
    const section = panel("Draw");
    section.hidden = !this.state.canSave;
    section.id = "draw";
    const kinds = element("div", "tools");
    this.toolButtons = [
      this.tool("region", "Region", "polygon", "#0072b2"),
      this.tool("rectangle", "Rectangle", "rectangle", "#0072b2"),
      this.tool("keep", "Keep tissue", "polygon", "#00964b"),
      this.tool("exclude", "Exclude tissue", "polygon", "#d55e00"),
    ];
    kinds.append(...this.toolButtons);
    this.className = element("input");
    this.className.value = "Lesion";
    this.className.maxLength = 64;
    this.className.id = "class-name";
    this.className.setAttribute("list", "class-names");
    this.classNames = element("datalist");
    this.classNames.id = "class-names";
    const label = element("label", "field", "Class ");
    label.append(this.className, this.classNames);
    this.regionList = element("ul", "regions");
    const row = element("div", "row end");
    this.undo = button("Undo", () => this.actions.undo());
    this.save = button("Save", () => this.actions.save());
    this.save.id = "save";
    this.save.className = "primary";
    row.append(this.undo, this.save);
    const hint = element("p", "hint", "Click corners or draw a line; double-click or Enter closes, Escape stops.");
    section.append(kinds, label, hint, this.regionList, row);
    return section;
  }

  tool(name, text, shape, colour) {
    const made = button(text, () => this.actions.draw(made.getAttribute("aria-pressed") === "true" ? null : { name, shape, colour }));
    made.dataset.tool = name;
    made.setAttribute("aria-pressed", "false");
    return made;
  }

  showTool(name) {
    for (const one of this.toolButtons) one.setAttribute("aria-pressed", String(one.dataset.tool === name));
  }

  showRegions(pane, dirty) {
    const names = [...new Set(pane.regions.map((one) => one.name))];
    this.classNames.replaceChildren(...names.map((name) => new Option(name, name)));
    const rows = pane.regions.map((region, number) => {
      const row = element("li");
      const dot = element("i", "dot");
      dot.style.background = regionColour(region.name);
      const jump = button(region.name || "no class", () => this.actions.jumpTo(region));
      jump.className = "plain";
      const remove = button("\u2715", () => this.actions.remove(number));
      remove.className = "icon";
      remove.setAttribute("aria-label", `Remove region ${number + 1}, ${region.name}`);
      row.append(dot, jump, remove);
      return row;
    });
    const edits = pane.edits.length;
    if (edits) rows.push(element("li", "pending", `${edits} change${edits > 1 ? "s" : ""} of the tissue, not saved`));
    this.regionList.replaceChildren(...rows);
    this.save.disabled = !dirty;
    this.undo.disabled = !dirty;
  }

  // What the colours of the polygons stand for.
  showClasses(pane) {
    const names = pane.slide ? pane.truthPaths.map(([name]) => name) : [];
    this.inputs["show-truth"].input.disabled = !names.length;
    this.classes.replaceChildren(
      ...names.map((name) => {
        const told = element("span", "", name || "truth");
        const dot = element("i", "dot");
        dot.style.background = truthColour(name);
        told.prepend(dot);
        return told;
      }),
    );
    this.classes.hidden = !this.state.shared.show.truth;
  }

  showTiles(pane) {
    if (!pane?.heat || !pane.values) {
      this.tiles.replaceChildren(element("p", "hint", "No map of this slide."));
      return;
    }
    const order = ranked(pane.values);
    const highest = order.slice(0, TILES_SHOWN);
    const lowest = order.slice(-TILES_SHOWN).reverse().filter((tile) => !highest.includes(tile));
    this.tiles.replaceChildren(...this.strip("Highest", pane, highest), ...this.strip("Lowest", pane, lowest));
  }

  strip(name, pane, tiles) {
    const strip = element("div", "strip");
    for (const tile of tiles) {
      const made = button("", () => this.actions.jump(pane, tile));
      made.className = "tile";
      made.title = `score ${short(pane.values[tile])}`;
      made.setAttribute("aria-label", `Go to a tile with score ${short(pane.values[tile])}`);
      const place = tilePlace(pane.heat.map, tile);
      const source = pane.source.crop(pane.key, [...place, THUMB_PX]);
      if (source) {
        const picture = element("img");
        picture.src = source;
        picture.alt = "";
        picture.loading = "lazy";
        made.append(picture);
      }
      made.append(element("span", "", short(pane.values[tile])));
      strip.append(made);
    }
    return tiles.length ? [element("h3", "", name), strip] : [];
  }

  check(name, text, key) {
    return this.box(text, key, () => this.state.shared.show[name], (on) => (this.state.shared.show[name] = on), `show-${name}`);
  }

  checkOf(name, text) {
    return this.box(text, "", () => this.state.shared[name], (on) => (this.state.shared[name] = on), name);
  }

  box(text, key, get, set, id) {
    const label = element("label", "check");
    const input = element("input");
    input.type = "checkbox";
    input.id = id;
    input.addEventListener("change", () => {
      set(input.checked);
      this.actions.restyled();
    });
    label.append(input, document.createTextNode(` ${text}`));
    if (key) {
      label.append(element("kbd", "", key));
      input.setAttribute("aria-keyshortcuts", key);
    }
    this.inputs[id] = Object.assign(() => (input.checked = get()), { input });
    return label;
  }

  slider(name, text, low, high, step, words) {
    const label = element("label", "slider");
    const told = element("output");
    const input = element("input");
    Object.assign(input, { type: "range", min: low, max: high, step, id: name });
    input.addEventListener("input", () => {
      this.state.shared[name] = Number(input.value);
      told.textContent = words(Number(input.value));
      this.actions.restyled();
    });
    label.append(element("span", "", text), input, told);
    this.inputs[name] = () => {
      const scale = this.state.active?.info && this.state.active.scale();
      // Ranks have no outliers to be cut off, and a scale around zero is cut at both ends alike.
      input.disabled = (scale === "rank" && name !== "opacity" && name !== "from") || (scale === "signed" && name === "low");
      input.value = this.state.shared[name];
      told.textContent = words(this.state.shared[name]);
    };
    return label;
  }

  choice(name, text, options) {
    const label = element("label", "field");
    const input = element("select");
    input.id = name;
    input.append(...options.map(([value, shown]) => new Option(shown, value)));
    input.addEventListener("change", () => {
      this.state.shared[name] = input.value;
      this.actions.restyled();
    });
    label.append(element("span", "", text), input);
    this.inputs[name] = () => (input.value = this.state.shared[name]);
    return label;
  }

  refresh() {
    this.classes.hidden = !this.state.shared.show.truth;
    for (const show of Object.values(this.inputs)) show();
  }
}

// Left, top, width and height of a tile in whole level-0 pixels.
export function tilePlace(map, tile) {
  return [map.places[2 * tile], map.places[2 * tile + 1], Math.round(map.extent[0]), Math.round(map.extent[1])];
}

export function button(text, pressed) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", pressed);
  return made;
}

function panel(title) {
  const section = element("section");
  section.append(element("h2", "", title));
  return section;
}

function percent(value) {
  return `${value} %`;
}

function twice(name) {
  return [name, name];
}
