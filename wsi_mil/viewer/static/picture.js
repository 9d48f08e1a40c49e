// A picture of what is seen, with what it is, its scale and its legend, to be saved or pasted.

import { channelWords, SCALE_NAMES } from "./heat.js";
import { drawRamp, scaleBar } from "./pane.js";

const FOOT = 74;

export function drawPicture(panes, shared) {
  const ratio = window.devicePixelRatio || 1;
  const widths = panes.map((pane) => pane.element.clientWidth);
  const height = Math.max(...panes.map((pane) => pane.element.clientHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round((widths.reduce((a, b) => a + b) + 8 * (panes.length - 1)) * ratio);
  canvas.height = Math.round((height + FOOT) * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  let left = 0;
  panes.forEach((pane, number) => {
    const width = widths[number];
    context.drawImage(pane.viewer.drawer.canvas, left, 0, width, pane.element.clientHeight);
    context.drawImage(pane.canvas, left, 0, width, pane.element.clientHeight);
    drawBar(context, pane, left + 18, height - 22);
    drawFoot(context, pane, shared, left + 18, height, width - 36);
    left += width + 8;
  });
  return canvas;
}

export function save(canvas, name) {
  canvas.toBlob((blob) => download(blob, `${name}.png`), "image/png");
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function drawBar(context, pane, x, y) {
  if (!pane.slide.mpp) return;
  const bar = scaleBar(pane.resolution() * pane.slide.mpp[0]);
  context.fillStyle = "rgba(255, 255, 255, 0.88)";
  context.fillRect(x - 8, y - 22, bar.px + 16, 34);
  context.fillStyle = "#1d2433";
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "left";
  context.fillText(bar.text, x, y - 6);
  context.fillRect(x, y, bar.px, 4);
}

function drawFoot(context, pane, shared, left, top, room) {
  context.fillStyle = "#1d2433";
  context.textAlign = "left";
  context.font = "600 14px system-ui, sans-serif";
  context.fillText(pane.slide.slide, left, top + 26, room / 2);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = "#5b6472";
  context.fillText("Research use only", left, top + 46, room / 2);
  if (!pane.heat || !shared.show.heat) return;
  const width = Math.min(240, room / 2 - 10);
  const start = left + room - width;
  context.fillStyle = "#1d2433";
  context.fillText(`${channelWords(pane.channel)} (${pane.model})`, start, top + 18, width);
  drawRamp(context, pane, [start, top + 24, width, 10]);
  context.fillStyle = "#5b6472";
  pane.spread.ticks.forEach((tick, at) => {
    context.textAlign = ["left", "center", "right"][at];
    context.fillText(tick, start + (width * at) / 2, top + 48);
  });
  context.textAlign = "left";
  context.fillText(`coloured by ${SCALE_NAMES[pane.scale()]}`, start, top + 64, width);
}
