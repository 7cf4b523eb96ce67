// SPDX-License-Identifier: Apache-2.0

// The shapes that pictures are made of: boxes with lines of text, backends, bars, and the
// lines that join them.

import { printable } from './dom.js';
import { rate, share } from './format.js';
import { shape, stateInFull, stateOf, word } from './marks.js';

export const rowHeight = 28; // of a backend
const lineHeight = 18; // of a text in a box
const padding = 11;

// boxHeight returns the height of a box with these lines.
export const boxHeight = (lines) => padding * 2 - 4 + lines.length * lineHeight;

// Scene collects shapes. Lines are below all others.
export class Scene {
  lines = [];
  shapes = [];

  add(key, tag, attributes, words, title) {
    this.shapes.push({ key, tag, attributes, text: words, title });
  }

  // label is a text in so much room, with all of it in its title if that is too little: or
  // with another title, or with one of several lines, each printable already.
  label(key, x, y, words, room, kind, { title, lines, anchor, sentence } = {}) {
    const clean = printable(words);
    const shown = fit(clean, room, kind, sentence);
    this.add(`${key} text`, 'text', { x: round(x), y: round(y), class: kind, 'text-anchor': anchor ?? null }, shown, lines ?? (title ? printable(title) : shown !== clean ? clean : null));
  }

  box(key, kind, x, y, width, lines, problem) {
    this.add(`${key} box`, 'rect', { x: round(x) + 0.5, y: round(y) + 0.5, width: round(width), height: boxHeight(lines), rx: 8, class: `box ${kind}${problem ? ' is-bad' : ''}` });
    lines.forEach((line, i) => {
      const at = y + padding + lineHeight * (i + 0.5) - 2;
      let room = width - 2 * padding;
      if (line.bar) {
        const barWidth = Math.min(90, room * 0.4);
        this.bar(`${key} bar`, x + width - padding - barWidth, at, barWidth, line.bar);
        room -= barWidth + 8;
      }
      this.label(`${key} ${i}`, x + padding, at, line.text, room, line.class, line);
    });
  }

  // bar shows the share seen, with a tick at the share wanted.
  bar(key, x, y, width, { seen, wanted }) {
    const part = (v) => Math.min(1, Math.max(0, v || 0)) * width;
    this.add(`${key} whole`, 'rect', { x: round(x), y: round(y) - 3, width: round(width), height: 6, rx: 3, class: 'bar-whole' });
    this.add(`${key} seen`, 'rect', { x: round(x), y: round(y) - 3, width: round(part(seen)), height: 6, rx: 3, class: 'bar-seen' });
    this.add(`${key} wanted`, 'rect', { x: round(x + part(wanted)) - 1, y: round(y) - 6, width: 2, height: 12, class: 'bar-wanted' });
  }

  backend(key, x, y, width, b) {
    const title = `${printable(b.address)}: ${b.many ? word(b.state) : stateInFull(b)}${b.local ? ', on this node' : ''}\nwanted ${share(b.wanted)}, seen ${share(b.seen)} of new flows\n${b.active} flows, ${rate(b.newFlows)} new`;
    this.add(`${key} mark`, 'path', { ...shape(b.state), transform: `translate(${round(x)} ${round(y) - 8})` }, undefined, title);
    const rateRoom = 50;
    const kind = b.many ? 'small' : 'mono';
    const room = width - 22 - rateRoom;
    const said = b.state === 'serving' || b.many ? '' : stateOf(b); // instead of a bar
    let side = Math.min(72, room - 12 - measure(printable(b.address).slice(0, 60), kind));
    if (side < (said ? measure(said, 'small') : 30)) side = 0; // the address first
    this.label(key, x + 22, y, b.address, room - (side ? side + 12 : 0), kind, { lines: title });
    if (side && said) this.label(`${key} state`, x + 22 + room - side, y, said, side, 'small warn');
    else if (side) this.bar(key, x + 22 + room - side, y, side - 8, b);
    this.label(`${key} rate`, x + width, y, rate(b.newFlows), rateRoom, 'small', { anchor: 'end' });
  }

  // fan draws lines from a point to several, side by side where they begin.
  fan(x, y, to, ends) {
    let at = y - ends.reduce((sum, e) => sum + e.size, 0) / 2;
    for (const end of ends) {
      const begin = at + end.size / 2;
      at += end.size;
      const bend = (to - x) / 2;
      this.#line(end.key, `M${round(x)} ${round(begin)}C${round(x + bend)} ${round(begin)} ${round(to - bend)} ${round(end.y)} ${round(to)} ${round(end.y)}`, end.size, end.class);
    }
  }

  // elbow draws a line down, and to the right.
  elbow(key, x, from, to, end, size, kind) {
    this.#line(key, `M${round(x)} ${round(from)}V${round(to - 6)}Q${round(x)} ${round(to)} ${round(x + 6)} ${round(to)}H${round(end)}`, Math.max(1.5, size), kind);
  }

  #line(key, d, size, kind) {
    this.lines.push({ key: `${key} line`, tag: 'path', attributes: { d, 'stroke-width': round(size), class: `line ${kind}` } });
  }
}

const round = (v) => Math.round(v * 10) / 10;

// Widths of texts, in the fonts that page.css gives them.
const fonts = { strong: '600 13px system-ui, sans-serif', mono: '12px ui-monospace, monospace', small: '12px system-ui, sans-serif' };
const canvas = document.createElement('canvas').getContext('2d');
const widths = new Map();

function measure(words, kind) {
  const font = fonts[kind.split(' ')[0]];
  const key = font + words;
  if (!widths.has(key)) {
    if (widths.size > 5000) widths.clear();
    canvas.font = font;
    widths.set(key, canvas.measureText(words).width);
  }
  return widths.get(key);
}

const letters = new Intl.Segmenter();

// fit returns a text that is no wider than room. A sentence loses its end, a name its
// middle, since names often differ at their ends.
function fit(words, room, kind, sentence) {
  if (words.length < 400 && measure(words, kind) <= room) return words;
  const all = [...letters.segment(words.length < 1000 ? words : words.slice(0, 500) + words.slice(-500))].map((s) => s.segment);
  let [low, high] = [1, Math.min(all.length, 200)];
  const cut = (n) => sentence ? all.slice(0, n).join('') + '…' : all.slice(0, Math.ceil(n / 2)).join('') + '…' + (n > 1 ? all.slice(-Math.floor(n / 2)).join('') : '');
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (measure(cut(middle), kind) <= room) low = middle;
    else high = middle - 1;
  }
  return cut(low);
}
