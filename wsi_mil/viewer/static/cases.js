// The list of slides: found, sorted, filtered, and walked through by keyboard.

import { short } from "./heat.js";
import { element } from "./pane.js";

const SHOWN_AT_ONCE = 400;

export class CaseList {
  constructor(told, chosen) {
    this.told = told;
    this.chosen = chosen;
    this.parts = Object.fromEntries(
      ["cases", "find", "sort", "filter", "model", "count"].map((name) => [name, document.getElementById(name)]),
    );
    this.model = told.models[0] ?? "";
    this.parts.model.append(...told.models.map((name) => new Option(name, name)));
    document.getElementById("model-choice").hidden = told.models.length < 2;
    this.fillFilter();
    this.limit = SHOWN_AT_ONCE;
    for (const name of ["find", "sort", "filter"]) {
      this.parts[name].addEventListener("input", () => {
        this.limit = SHOWN_AT_ONCE;
        this.render();
      });
    }
    this.parts.model.addEventListener("input", () => {
      this.model = this.parts.model.value;
      this.render();
    });
    this.parts.cases.addEventListener("keydown", (event) => this.walk(event));
    this.render();
  }

  fillFilter() {
    const labels = [...new Set(this.told.cases.map((one) => one.label))].filter(Boolean).sort();
    const options = [
      ["", "all"],
      ["wrong", "errors"],
      ["flagged", "flagged"],
      ["map", "with a map"],
      ...labels.map((label) => [`label:${label}`, `label ${label}`]),
    ];
    this.parts.filter.append(...options.map(([value, text]) => new Option(text, value)));
  }

  visible() {
    const wanted = this.parts.find.value.trim().toLowerCase();
    const filter = this.parts.filter.value;
    const kept = this.told.cases.filter((one) => {
      if (wanted && !`${one.slide} ${one.label}`.toLowerCase().includes(wanted)) return false;
      if (filter === "wrong") return isRight(one, this.model) === false;
      if (filter === "flagged") return flagsOf(one, this.model).length > 0;
      if (filter === "map") return one.maps.length > 0;
      return !filter.startsWith("label:") || one.label === filter.slice(6);
    });
    const order = ORDERS[this.parts.sort.value];
    const key = (one) => order(one, this.model);
    return kept.sort((a, b) => compare(key(a), key(b)) || compare(a.slide, b.slide));
  }

  render() {
    this.rows = this.visible();
    const { cases, count } = this.parts;
    const all = this.told.cases.length;
    count.textContent = this.rows.length === all ? all : `${this.rows.length} of ${all}`;
    cases.replaceChildren(...this.rows.slice(0, this.limit).map((one) => this.row(one)));
    if (this.rows.length > this.limit) {
      const more = element("li", "more", `${this.rows.length - this.limit} more`);
      more.addEventListener("click", () => {
        this.limit += SHOWN_AT_ONCE;
        this.render();
      });
      cases.append(more);
    }
    if (!this.rows.length) cases.append(element("li", "none", "No slide is like this."));
    this.mark();
  }

  row(one) {
    const row = element("li", "case");
    row.id = `case-${one.key}`;
    row.setAttribute("role", "option");
    const said = one.predictions[this.model];
    const right = isRight(one, this.model);
    const name = element("span", "name", one.slide);
    name.title = one.slide;
    row.append(name);
    if (said?.predicted) {
      const mark = element("span", `mark ${right === false ? "wrong" : right ? "right" : ""}`);
      mark.textContent = right === false ? "\u2715" : right ? "\u2713" : "";
      mark.setAttribute("aria-label", right === false ? "differs from the label" : right ? "agrees with the label" : "");
      row.append(mark);
    }
    const line = element("span", "line");
    if (one.label) line.append(element("span", "label", one.label));
    if (said?.predicted) line.append(element("span", "arrow", "\u2192"), element("span", "said", said.predicted));
    const score = scoreOf(said);
    if (score) {
      const number = element("span", "score", score.share ? score.value.toFixed(2) : short(score.value));
      number.title = score.share ? `${score.calibrated ? "calibrated " : ""}probability of ${score.name}` : score.name;
      line.append(number);
    }
    if (score?.share) {
      const bar = element("span", "meter");
      const fill = element("i");
      fill.style.width = `${100 * score.value}%`;
      bar.append(fill);
      row.append(line, bar);
    } else row.append(line);
    const flags = flagsOf(one, this.model);
    if (flags.length) {
      const told = element("span", "flags");
      told.append(...flags.map((flag) => element("span", "flag", flag)));
      row.append(told);
    }
    row.addEventListener("click", (event) => this.chosen(one, { beside: event.shiftKey }));
    return row;
  }

  select(key) {
    this.key = key;
    this.mark();
    document.getElementById(`case-${key}`)?.scrollIntoView({ block: "nearest" });
  }

  mark() {
    for (const row of this.parts.cases.querySelectorAll(".case")) {
      row.setAttribute("aria-selected", row.id === `case-${this.key}`);
    }
    this.parts.cases.setAttribute("aria-activedescendant", this.key ? `case-${this.key}` : "");
  }

  step(by) {
    const at = this.rows.findIndex((one) => one.key === this.key);
    const next = this.rows[Math.min(this.rows.length - 1, Math.max(0, at + by))];
    if (next) this.chosen(next, { beside: false });
  }

  walk(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    this.step(by);
  }
}

// The probability that is shown: of the last of two classes, else of the predicted one; calibrated where it is known.
export function scoreOf(said) {
  if (!said) return null;
  const names = Object.keys(said.probabilities);
  if (!names.includes(said.predicted)) {
    // No class was called: a number, a risk or several labels. The last answer stands for it.
    const last = names[names.length - 1];
    return last === undefined ? null : { name: last, value: said.probabilities[last], calibrated: false, share: false };
  }
  const name = names.length === 2 ? names[1] : said.predicted;
  const calibrated = said.calibrated[name] !== undefined;
  const value = calibrated ? said.calibrated[name] : said.probabilities[name];
  return value === undefined ? null : { name, value, calibrated, share: true };
}

export function isRight(one, model) {
  const said = one.predictions[model];
  const names = Object.keys(said?.probabilities ?? {});
  return names.includes(said?.predicted) && names.includes(one.label) ? said.predicted === one.label : null;
}

export function flagsOf(one, model) {
  return [...(one.predictions[model]?.flags ?? []), ...one.flags];
}

function certainty(said) {
  const values = Object.values(said?.probabilities ?? {});
  return values.length ? Math.max(...values) : 2;
}

const ORDERS = {
  slide: () => 0,
  score: (one, model) => -(scoreOf(one.predictions[model])?.value ?? -1),
  unsure: (one, model) => certainty(one.predictions[model]),
  wrong: (one, model) => one.predictions[model]?.probabilities[one.label] ?? 2,
  disagreement: (one, model) => -(one.predictions[model]?.disagreement ?? -1),
  label: (one) => one.label,
};

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
  return a - b;
}
