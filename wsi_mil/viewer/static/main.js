// The page: its state, what each control does, the address of a view, and the keyboard.

import { CaseList, flagsOf, isRight, scoreOf } from "./cases.js";
import { Pane, element } from "./pane.js";
import { drawPicture, save } from "./picture.js";
import { Side, tilePlace } from "./side.js";
import { InlinedSource, ServerSource, bytesOf } from "./source.js";
import { Tool } from "./tools.js";

const ADDRESS_EVERY_MS = 250;

const KEYS = [
  ["j, k", "next and previous slide"],
  ["Shift and click", "open a slide in the second view"],
  ["/", "find a slide"],
  ["l", "list of slides"],
  ["h", "heatmap"],
  ["[ ]", "less and more opacity"],
  ["1 to 9", "layer of the heatmap"],
  ["c, t, g, a", "tissue, truth, tiles, regions"],
  ["n, b", "next and previous of the highest tiles"],
  ["+ \u2212, arrows", "zoom and move"],
  ["0", "whole slide"],
  ["r", "rotate"],
  ["s", "side by side"],
  ["p", "picture with legend"],
  ["y", "copy the address of this view"],
  ["Enter, Escape, Backspace", "close, stop, take back while drawing"],
];

const FLAGS_IN_ADDRESS = { heat: "h", tissue: "c", truth: "t", grid: "g", regions: "a" };

class App {
  constructor(source) {
    this.source = source;
    this.canSave = source.canSave;
    this.panes = [];
    this.active = null;
    this.linked = true;
    this.dirty = new Set();
    this.shared = {
      opacity: 0.55,
      scale: "auto",
      map: "viridis",
      signedMap: "blue-red",
      low: 0,
      high: 99,
      from: 0,
      smooth: false,
      rotation: 0,
      show: { heat: true, tissue: false, truth: false, grid: false, regions: true },
    };
  }

  async start() {
    const [told, colours] = await Promise.all([this.source.cases(), this.source.colours()]);
    this.shared.tables = Object.fromEntries(
      Object.entries(colours.tables).map(([name, text]) => [name, new Uint8Array(bytesOf(text))]),
    );
    this.shared.names = Object.keys(colours.tables);
    this.shared.diverging = colours.diverging;
    this.told = told;
    this.list = new CaseList(told, (one, how) => this.choose(one, how));
    this.addPane();
    this.side = new Side(byId("side"), this, this.actions());
    this.wire();
    await this.restore();
    if (!this.panes[0].key) {
      const first = this.list.rows.find((one) => one.maps.length) ?? this.list.rows[0];
      if (first) await this.show(this.panes[0], first);
    }
    this.ready = true;
    document.body.dataset.ready = "yes";
    this.remember();
  }

  actions() {
    return {
      restyled: () => this.restyle(),
      jump: (pane, tile) => this.jump(pane, tile),
      jumpTo: (region) => this.jumpToRegion(region),
      draw: (kind) => this.drawWith(kind),
      remove: (number) => {
        this.active.regions.splice(number, 1);
        this.edited("regions");
      },
      undo: () => this.undo(),
      save: () => this.save().catch((error) => this.say(error.message, true)),
    };
  }

  addPane() {
    const root = element("section", "pane");
    const pane = new Pane(root, this.source, this.shared, this.panes.length ? "B" : "A");
    root.setAttribute("aria-label", `View ${pane.name}`);
    byId("panes").append(root);
    root.addEventListener("pointerdown", () => this.activate(pane), true);
    root.addEventListener("focusin", () => this.activate(pane));
    pane.moved = (one) => this.follow(one);
    pane.changed = (one) => this.changed(one);
    this.panes.push(pane);
    this.active ??= pane;
    return pane;
  }

  activate(pane) {
    if (this.active === pane) return;
    this.drawWith(null);
    this.active = pane;
    this.relate();
    this.list.select(pane.key);
    this.changed(pane);
  }

  async choose(one, { beside }) {
    if (beside && this.panes.length === 1) await this.toggleBeside(one);
    else await this.show(beside ? this.panes[1] : this.active, one);
  }

  async show(pane, one, { model, channel } = {}) {
    if (this.dirty.has(pane) && !window.confirm("What was drawn is not saved. Leave this slide?")) return;
    this.dirty.delete(pane);
    if (pane === this.active) this.drawWith(null);
    if (pane === this.active) this.list.select(one.key);
    this.say("");
    pane.marked = -1;
    // The other view stays where it is while this one changes its slide.
    this.following = true;
    try {
      await pane.open(one.key);
      await pane.setCase(one, model ?? pane.model ?? this.list.model, channel ?? pane.channel);
    } catch (error) {
      this.say(`${one.slide}: ${error.message}`, true);
      pane.case = one;
      this.changed(pane);
    } finally {
      this.following = false;
    }
    this.relate();
    this.remember();
  }

  changed(pane) {
    this.showTitle(pane);
    Object.assign(pane.root.dataset, { slide: pane.slide?.slide ?? "", channel: pane.channel ?? "" });
    for (const other of this.panes) other.root.classList.toggle("active", other === this.active && this.panes.length > 1);
    if (pane !== this.active) return;
    this.side.refresh();
    this.side.showTiles(pane);
    this.side.showClasses(pane);
    this.side.showRegions(pane, this.dirty.has(pane));
    this.remember();
  }

  showTitle(pane) {
    const one = pane.case;
    if (!one) return;
    const said = one.predictions[pane.model] ?? one.predictions[this.list.model];
    const parts = [element("strong", "", one.slide)];
    if (one.label) parts.push(element("span", "chip", `label ${one.label}`));
    if (said?.predicted) {
      const score = scoreOf(said);
      const right = isRight(one, pane.model ?? this.list.model);
      const name = score && score.name !== said.predicted ? `, ${score.name}` : "";
      const words = score ? `${name} ${score.value.toPrecision(3)}${score.calibrated ? " (calibrated)" : ""}` : "";
      const chip = element("span", `chip ${right === false ? "wrong" : right ? "right" : ""}`);
      chip.textContent = `predicted ${said.predicted}${words}`;
      parts.push(chip);
    }
    for (const flag of flagsOf(one, pane.model ?? this.list.model)) parts.push(element("span", "flag", flag));
    if (said?.note) parts.push(element("span", "note", said.note));
    pane.words.replaceChildren(...parts);
  }

  restyle() {
    for (const pane of this.panes) {
      pane.paint();
      pane.showRamp();
      pane.draw();
    }
    this.side.refresh();
    this.remember();
  }

  // Linked views keep how they lay to each other, on the glass, when they were linked or last changed their slide.
  follow(leader) {
    this.remember();
    if (this.following || !this.linked || this.panes.length < 2 || leader !== this.active) return;
    const other = this.panes.find((one) => one !== leader);
    if (![leader, other].every((one) => one.slide && one.viewer.world.getItemCount())) return;
    if (this.offset?.of !== leader) this.relate();
    const [leading, led] = [leader, other].map((pane) => pane.slide.mpp?.[0] ?? 1);
    const [x, y] = leader.centre();
    const { zoom } = this.offset;
    this.following = true;
    other.look(
      (x * leading * zoom + this.offset.x) / led,
      (y * leading * zoom + this.offset.y) / led,
      (leader.resolution() * leading * zoom) / led,
    );
    this.following = false;
  }

  // How the other view lies to the active one, now.
  relate() {
    this.offset = null;
    const leader = this.active;
    const other = this.panes.find((one) => one !== leader);
    if (![leader, other].every((one) => one?.slide && one.viewer.world.getItemCount())) return;
    const [leading, led] = [leader, other].map((pane) => pane.slide.mpp?.[0] ?? 1);
    const [[x, y], [otherX, otherY]] = [leader.centre(), other.centre()];
    const zoom = (other.resolution() * led) / (leader.resolution() * leading);
    this.offset = { of: leader, zoom, x: otherX * led - x * leading * zoom, y: otherY * led - y * leading * zoom };
  }

  // Both views at one scale, from where each of them is.
  sameScale() {
    const other = this.panes.find((one) => one !== this.active);
    if (!other?.slide || !this.active.slide) return;
    const [leading, led] = [this.active, other].map((pane) => pane.slide.mpp?.[0] ?? 1);
    other.look(...other.centre(), (this.active.resolution() * leading) / led);
    this.relate();
  }

  async toggleBeside(one) {
    const beside = this.panes.length === 1;
    byId("beside").setAttribute("aria-pressed", String(beside));
    byId("link").hidden = !beside;
    byId("panes").classList.toggle("two", beside);
    if (beside) {
      const first = this.panes[0];
      const viewport = first.viewer.viewport;
      const whole = viewport?.getZoom(true) <= viewport?.getHomeZoom() * 1.01;
      const pane = this.addPane();
      const shown = one ?? first.case;
      // Of the same slide another model, or else another layer, is worth a second view.
      const models = shown.maps.filter((name) => name !== first.model);
      await this.show(pane, shown, one ? {} : { model: models[0] ?? first.model, channel: otherChannel(first, models.length) });
      pane.viewer.viewport.setRotation(this.shared.rotation, true);
      // The first view has become narrower, which it learns with the next frames.
      await new Promise((resolve) => setTimeout(resolve, 120));
      if (!one) {
        if (whole) first.viewer.viewport.goHome(true);
        pane.look(...first.centre(), first.resolution());
      }
    } else {
      const pane = this.panes.pop();
      this.drawWith(null);
      pane.viewer.destroy();
      pane.root.remove();
      this.activate(this.panes[0]);
    }
    this.relate();
    this.changed(this.active);
  }

  jump(pane, tile) {
    const [x, y, width, height] = tilePlace(pane.heat.map, tile);
    pane.marked = tile;
    const size = Math.min(pane.element.clientWidth, pane.element.clientHeight);
    pane.look(x + width / 2, y + height / 2, (4 * Math.max(width, height)) / size, false);
    pane.draw();
  }

  jumpToRegion(region) {
    const xs = region.rings[0].map((point) => point[0]);
    const ys = region.rings[0].map((point) => point[1]);
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const pane = this.active;
    const size = Math.min(pane.element.clientWidth, pane.element.clientHeight);
    pane.look((left + right) / 2, (top + bottom) / 2, (1.6 * Math.max(right - left, bottom - top)) / size, false);
  }

  drawWith(kind) {
    this.tool?.stop();
    this.tool = null;
    this.side?.showTool(kind?.name);
    if (!kind || !this.active.slide) return;
    const pane = this.active;
    this.tool = new Tool(pane, kind, (ring) => {
      if (kind.name === "keep" || kind.name === "exclude") {
        pane.edits.push({ keep: kind.name === "keep", rings: [ring] });
        this.shared.show.tissue = true;
        this.edited("tissue");
      } else {
        pane.regions.push({ name: this.side.className.value.trim() || "Region", rings: [ring] });
        this.shared.show.regions = true;
        this.edited("regions");
      }
    });
    pane.element.focus();
  }

  edited(what) {
    this.dirty.add(this.active);
    this.lastEdited = what;
    this.side.refresh();
    this.side.showRegions(this.active, true);
    this.active.draw();
  }

  undo() {
    const pane = this.active;
    if (pane.edits.length && this.lastEdited === "tissue") pane.edits.pop();
    else pane.regions = pane.slide.regions.map((one) => ({ ...one }));
    if (!pane.edits.length && sameRegions(pane)) this.dirty.delete(pane);
    this.side.showRegions(pane, this.dirty.has(pane));
    pane.draw();
  }

  async save() {
    const pane = this.active;
    const edits = pane.edits;
    if (!sameRegions(pane)) pane.takeSlide(await this.source.save(pane.key, "regions", pane.regions));
    if (edits.length) {
      pane.takeSlide(await this.source.save(pane.key, "tissue", edits));
      pane.edits = [];
    }
    this.dirty.delete(pane);
    this.drawWith(null);
    this.side.showRegions(pane, false);
    pane.draw();
    this.say(edits.length ? "Saved. Run `wsi-mil run` again: what follows from the tissue is made anew." : "Saved.");
  }

  say(text, isFault = false) {
    const status = byId("status");
    status.textContent = text;
    status.className = isFault ? "fault" : "";
    clearTimeout(this.saying);
    if (text && !isFault) this.saying = setTimeout(() => (status.textContent = ""), 6000);
  }

  // The address of the view, without names: opaque keys alone.
  remember() {
    if (!this.ready) return;
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => history.replaceState(null, "", `#${this.address()}`), ADDRESS_EVERY_MS);
  }

  address() {
    const { shared, panes } = this;
    const told = new URLSearchParams();
    panes.forEach((pane, number) => {
      if (!pane.key) return;
      const mark = number ? "b" : "a";
      told.set(mark, pane.key);
      if (pane.model) told.set(`${mark}m`, pane.model);
      if (pane.channel) told.set(`${mark}c`, pane.channel);
      if (!pane.slide || !pane.viewer.world.getItemCount()) return;
      const [x, y] = pane.centre();
      told.set(`${mark}v`, [x.toFixed(1), y.toFixed(1), pane.resolution().toPrecision(5)].join(","));
    });
    for (const name of ["opacity", "scale", "map", "signedMap", "low", "high", "from", "rotation"]) told.set(name, shared[name]);
    told.set("show", Object.entries(FLAGS_IN_ADDRESS).map(([name, letter]) => (shared.show[name] ? letter : "")).join(""));
    if (shared.smooth) told.set("smooth", "1");
    if (!this.linked) told.set("apart", "1");
    return told.toString();
  }

  async restore() {
    const told = new URLSearchParams(location.hash.slice(1));
    const { shared } = this;
    for (const name of ["opacity", "low", "high", "from", "rotation"]) {
      const value = Number(told.get(name) ?? NaN);
      if (Number.isFinite(value)) shared[name] = value;
    }
    for (const name of ["map", "signedMap"]) if (shared.tables[told.get(name)]) shared[name] = told.get(name);
    if (["auto", "rank", "value", "signed"].includes(told.get("scale"))) shared.scale = told.get("scale");
    shared.smooth = told.has("smooth");
    this.setLinked(!told.has("apart"));
    if (told.has("show")) {
      for (const [name, letter] of Object.entries(FLAGS_IN_ADDRESS)) shared.show[name] = told.get("show").includes(letter);
    }
    this.ready = false;
    for (const mark of ["a", "b"]) {
      const one = this.told.cases.find((other) => other.key === told.get(mark));
      if (!one) continue;
      const how = { model: told.get(`${mark}m`), channel: told.get(`${mark}c`) };
      if (mark === "b" && this.panes.length === 1) await this.toggleBeside(one);
      const pane = this.panes[mark === "a" ? 0 : 1];
      await this.show(pane, one, how);
      const view = (told.get(`${mark}v`) ?? "").split(",").map(Number);
      if (view.length === 3 && view.every(Number.isFinite) && view[2] > 0 && pane.slide) pane.look(...view);
    }
    if (!told.has("b") && this.panes.length === 2 && told.has("a")) await this.toggleBeside();
    for (const pane of this.panes) pane.viewer.viewport?.setRotation(shared.rotation, true);
    this.ready = true;
    this.changed(this.active);
  }

  setLinked(linked) {
    this.linked = linked;
    this.relate();
    byId("link").setAttribute("aria-pressed", String(linked));
  }

  rotate() {
    this.shared.rotation = (this.shared.rotation + 90) % 360;
    for (const pane of this.panes) pane.viewer.viewport.setRotation(this.shared.rotation);
    this.remember();
  }

  toggleList(shown = byId("list").hidden) {
    byId("list").hidden = !shown;
    byId("show-list").hidden = shown;
    byId("list-toggle").setAttribute("aria-expanded", String(shown));
    (shown ? byId("find") : byId("show-list")).focus({ preventScroll: true });
  }

  async copyAddress() {
    history.replaceState(null, "", `#${this.address()}`);
    try {
      await navigator.clipboard.writeText(location.href);
      this.say("The address of this view was copied.");
    } catch {
      this.say("The address of this view stands in the address bar.");
    }
  }

  picture() {
    const panes = this.panes.filter((pane) => pane.slide);
    if (panes.length) save(drawPicture(panes, this.shared), panes.map((pane) => pane.slide.slide).join("_"));
  }

  wire() {
    const pressed = {
      fit: () => this.active.viewer.viewport.goHome(),
      rotate: () => this.rotate(),
      beside: () => this.toggleBeside(),
      link: () => {
        this.setLinked(!this.linked);
        if (this.linked) this.sameScale();
      },
      copy: () => this.copyAddress(),
      shot: () => this.picture(),
      "help-open": () => this.help(),
      "list-toggle": () => this.toggleList(false),
      "show-list": () => this.toggleList(true),
    };
    for (const [id, action] of Object.entries(pressed)) byId(id).addEventListener("click", action);
    byId("model").addEventListener("input", () => {
      if (this.active.case?.maps.includes(this.list.model)) this.active.setMap(this.list.model, this.active.channel);
    });
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("hashchange", () => this.restore());
    window.addEventListener("beforeunload", (event) => {
      if (this.dirty.size) event.preventDefault();
    });
    const rows = KEYS.map(([key, text]) => {
      const row = element("div", "key");
      row.append(element("kbd", "", key), element("span", "", text));
      return row;
    });
    const close = element("button", "primary", "Close");
    close.addEventListener("click", () => byId("help").close());
    byId("help").append(element("h2", "", "Keyboard"), ...rows, close);
  }

  help() {
    byId("help").showModal();
  }

  key(event) {
    const typing = event.target.closest?.("input:not([type=range]):not([type=checkbox]), select, textarea, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (this.tool && this.keyOfTool(event)) return;
    const toggles = { h: "heat", c: "tissue", t: "truth", g: "grid", a: "regions" };
    const { shared } = this;
    const viewport = this.active.viewer.viewport;
    const actions = {
      j: () => this.list.step(1),
      k: () => this.list.step(-1),
      l: () => this.toggleList(),
      "/": () => {
        this.toggleList(true);
        byId("find").select();
      },
      "[": () => this.setOpacity(shared.opacity - 0.1),
      "]": () => this.setOpacity(shared.opacity + 0.1),
      n: () => this.nextTile(1),
      b: () => this.nextTile(-1),
      0: () => viewport.goHome(),
      "+": () => viewport.zoomBy(1.5),
      "=": () => viewport.zoomBy(1.5),
      "-": () => viewport.zoomBy(1 / 1.5),
      ArrowLeft: () => this.pan(-1, 0),
      ArrowRight: () => this.pan(1, 0),
      ArrowUp: () => this.pan(0, -1),
      ArrowDown: () => this.pan(0, 1),
      r: () => this.rotate(),
      s: () => this.toggleBeside(),
      p: () => this.picture(),
      y: () => this.copyAddress(),
      "?": () => this.help(),
    };
    const arrow = event.key.startsWith("Arrow");
    if (arrow && event.target.closest?.("input, [role=listbox]")) return;
    if (toggles[event.key]) {
      shared.show[toggles[event.key]] = !shared.show[toggles[event.key]];
      this.restyle();
    } else if (/^[1-9]$/.test(event.key)) {
      const options = this.active.channelSelect.options;
      const wanted = options[Number(event.key) - 1];
      if (wanted) this.active.setMap(this.active.model, wanted.value);
    } else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }

  keyOfTool(event) {
    const actions = {
      Enter: () => this.tool.finish(),
      Escape: () => this.drawWith(null),
      Backspace: () => this.tool.back(),
    };
    if (!actions[event.key]) return false;
    event.preventDefault();
    actions[event.key]();
    return true;
  }

  setOpacity(value) {
    this.shared.opacity = Math.round(Math.min(1, Math.max(0, value)) * 100) / 100;
    this.restyle();
  }

  pan(x, y) {
    const viewport = this.active.viewer.viewport;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(80 * x, 80 * y)));
  }

  nextTile(by) {
    const pane = this.active;
    if (!pane.values) return;
    const order = [...pane.values.keys()].filter((i) => Number.isFinite(pane.values[i]));
    order.sort((a, b) => pane.values[b] - pane.values[a]);
    const at = order.indexOf(pane.marked);
    const next = order[Math.min(order.length - 1, Math.max(0, at + by))];
    if (next !== undefined) this.jump(pane, next);
  }
}

function otherChannel(pane, hasOtherModel) {
  if (hasOtherModel || !pane.heat) return pane.channel;
  return (pane.heat.map.channels.find((one) => one.kind === "attention") ?? pane.info).name;
}

function sameRegions(pane) {
  return JSON.stringify(pane.regions) === JSON.stringify(pane.slide.regions);
}

function byId(id) {
  return document.getElementById(id);
}

window.viewer = new App(window.WSI_MIL ? new InlinedSource(window.WSI_MIL) : new ServerSource());
window.viewer.start().catch((error) => window.viewer.say(error.message, true));
