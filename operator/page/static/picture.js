// SPDX-License-Identifier: Apache-2.0

// The picture of a Gateway: addresses, listeners, routes, Services, backends, joined by
// lines as wide as what goes through them.

import { attr, el, keyed, printable, svg, text } from './dom.js';
import { plural } from './format.js';
import { plan } from './layout.js';
import { mark, stateOf } from './marks.js';

const legend = () => [
  el('span', {}, el('span', { class: 'key key-line', 'aria-hidden': 'true' }), 'new flows by second: wider is more'),
  el('span', {}, el('span', { class: 'key key-bar', 'aria-hidden': 'true' }), 'share seen, with a tick at the share wanted'),
  mark('serving', true), mark('draining', true), mark('not-serving', true),
];

let ids = 0;

// Picture draws into a figure, as wide as that is.
export class Picture {
  #id = `picture-${++ids}`;
  #title = svg('title', { id: `${this.#id}-title` });
  #desc = svg('desc', { id: `${this.#id}-desc` });
  #scene = svg('g');
  #svg = svg('svg', { role: 'img', class: 'picture', 'aria-labelledby': `${this.#id}-title`, 'aria-describedby': `${this.#id}-desc` }, this.#title, this.#desc, this.#scene);
  #last = null;
  #drawn = null; // a Gateway, at a width
  #width = 0;
  // Reading a width while the page is drawn would have it laid out at once.
  #watch = new ResizeObserver((seen) => this.#fit(Math.floor(seen.at(-1).contentRect.width)));
  node = el('figure', {}, this.#svg, el('figcaption', { class: 'legend' }, ...legend()));

  constructor() {
    this.#watch.observe(this.node);
  }

  draw(g) {
    this.#last = g;
    text(this.#title, `Gateway ${printable(g.name)}`);
    text(this.#desc, summary(g));
    this.#fit(this.#width);
  }

  close() {
    this.#watch.disconnect();
  }

  #fit(width) {
    if (!this.#last || width === 0) return;
    if (width === this.#width && this.#drawn === this.#last) return;
    [this.#width, this.#drawn] = [width, this.#last];
    const { shapes, height } = plan(this.#last, width);
    attr(this.#svg, 'viewBox', `0 0 ${width} ${height}`);
    attr(this.#svg, 'width', width);
    attr(this.#svg, 'height', height);
    keyed(this.#scene, shapes, (s) => s.key, create, update);
  }
}

// A shape has a key, a tag, attributes, and perhaps a text and a title.
function create(s) {
  const node = svg(s.tag);
  if (s.text !== undefined) node.append(' ');
  node.full = null;
  return node;
}

function update(node, s) {
  for (const [key, value] of Object.entries(s.attributes)) attr(node, key, value);
  if (s.text !== undefined) text(node, s.text);
  if (!s.title) {
    node.full?.remove();
    node.full = null;
    return;
  }
  if (!node.full) node.append((node.full = svg('title')));
  text(node.full, s.title);
}

// summary says what a picture shows, for those who do not see it.
function summary(g) {
  const listeners = g.listeners ?? [];
  const states = {};
  let n = 0;
  for (const s of listeners.flatMap((l) => l.services ?? [])) {
    n++;
    for (const b of s.backends ?? []) states[stateOf(b)] = (states[stateOf(b)] ?? 0) + 1;
  }
  const seen = Object.entries(states).map(([state, many]) => `${many} ${state}`).join(', ');
  return `${plural(listeners.length, 'listener')}, ${plural(n, 'Service')}, backends: ${seen || 'none'}. ${g.problem ? printable(g.problem) : ''}`;
}
