// SPDX-License-Identifier: Apache-2.0

import { attr, svg } from './dom.js';

const shortest = 60; // seconds that are shown, at first
const longest = 300;
const fewest = 3; // points
const width = 120;
const height = 30;

// Sparkline is a small line of what something was in the last minutes. It is kept in this
// page alone.
export class Sparkline {
  #points = []; // [seconds, value or null]
  #area = svg('path', { class: 'spark-area' });
  #line = svg('path', { class: 'spark-line', 'vector-effect': 'non-scaling-stroke' });
  node = svg('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', class: 'sparkline', 'aria-hidden': 'true' }, this.#area, this.#line);

  // add adds the value of a View, and draws. A View may be drawn twice.
  add(value, view) {
    const now = Date.parse(view.time) / 1000;
    const last = this.#points.at(-1);
    if (Number.isNaN(now) || last?.[0] === now) return;
    if (last && last[0] > now) this.#points = []; // the server's clock was set back
    this.#points.push([now, value ?? null]);
    while (this.#points[0][0] < now - longest) this.#points.shift();
    this.#draw(now);
  }

  #draw(now) {
    const top = Math.max(...this.#points.map(([, v]) => v ?? 0)) || 1;
    const span = Math.max(shortest, now - this.#points[0][0]);
    if (this.#points.length < fewest) return; // no line yet
    let line = '';
    let area = '';
    let begin = null; // of a part without gaps
    let x = 0;
    for (const [at, value] of [...this.#points, [now, null]]) {
      if (value === null) {
        if (begin !== null) area += `V${height}H${begin}Z`;
        begin = null;
        continue;
      }
      x = (width * (1 - (now - at) / span)).toFixed(1);
      const y = (height - 1.5 - (value / top) * (height - 4)).toFixed(1);
      line += `${begin === null ? 'M' : 'L'}${x} ${y}`;
      area += begin === null ? `M${x} ${height}V${y}` : `L${x} ${y}`;
      begin ??= x;
    }
    attr(this.#line, 'd', line);
    attr(this.#area, 'd', area);
  }
}
