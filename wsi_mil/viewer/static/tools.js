// Drawing on a slide: polygons by clicks or by a stroke, rectangles; tissue kept or left out, and regions of a class.

const LEAST_STEP_PX = 4; // of the screen, between the corners of a stroke

export class Tool {
  constructor(pane, kind, done) {
    this.pane = pane;
    this.kind = kind;
    this.done = done;
    this.corners = [];
    this.handlers = {
      "canvas-press": (event) => (this.pressed = this.at(event)),
      "canvas-drag": (event) => this.drag(event),
      "canvas-drag-end": (event) => this.dragEnd(event),
      "canvas-click": (event) => this.click(event),
      "canvas-double-click": (event) => {
        event.preventDefaultAction = true;
        this.finish();
      },
    };
    for (const [name, handler] of Object.entries(this.handlers)) pane.viewer.addHandler(name, handler);
    pane.tool = this;
    pane.element.classList.add("drawing");
  }

  stop() {
    for (const [name, handler] of Object.entries(this.handlers)) this.pane.viewer.removeHandler(name, handler);
    this.pane.tool = null;
    this.pane.element.classList.remove("drawing");
    this.pane.draw();
  }

  at(event) {
    const point = this.pane.viewer.viewport.pointFromPixel(event.position, true);
    const width = this.pane.slide.size[0];
    return [point.x * width, point.y * width];
  }

  drag(event) {
    event.preventDefaultAction = true;
    if (!this.stroke) {
      this.stroke = true;
      if (this.pressed && !this.corners.length) this.corners.push(this.pressed);
    }
    const here = this.at(event);
    if (this.kind.shape === "rectangle") {
      const [x, y] = this.pressed;
      this.corners = [[x, y], [here[0], y], here, [x, here[1]]];
    } else {
      const last = this.corners[this.corners.length - 1];
      const least = LEAST_STEP_PX * this.pane.resolution();
      if (!last || Math.hypot(here[0] - last[0], here[1] - last[1]) >= least) this.corners.push(here);
    }
    this.pane.draw();
  }

  dragEnd(event) {
    event.preventDefaultAction = true;
    if (this.stroke) this.finish();
  }

  click(event) {
    event.preventDefaultAction = true;
    if (!event.quick || this.stroke || this.kind.shape === "rectangle") return;
    this.corners.push(this.at(event));
    this.pane.draw();
  }

  back() {
    this.corners.pop();
    this.pane.draw();
  }

  finish() {
    const ring = this.corners;
    this.corners = [];
    this.stroke = false;
    if (ring.length >= 3 && area(ring) > 0) this.done(ring.map(([x, y]) => [round(x), round(y)]));
    this.pane.draw();
  }

  draw(context, pixel) {
    if (!this.corners.length) return;
    context.beginPath();
    this.corners.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (this.kind.shape === "rectangle") context.closePath();
    context.lineWidth = 4 * pixel;
    context.strokeStyle = "rgba(255, 255, 255, 0.9)";
    context.stroke();
    context.lineWidth = 2 * pixel;
    context.strokeStyle = this.kind.colour;
    context.stroke();
    context.fillStyle = this.kind.colour;
    if (this.stroke) return;
    for (const [x, y] of this.corners) context.fillRect(x - 3 * pixel, y - 3 * pixel, 6 * pixel, 6 * pixel);
  }
}

function area(ring) {
  let sum = 0;
  ring.forEach(([x, y], at) => {
    const [nextX, nextY] = ring[(at + 1) % ring.length];
    sum += x * nextY - nextX * y;
  });
  return Math.abs(sum) / 2;
}

function round(value) {
  return Math.round(value * 100) / 100;
}
