// SPDX-License-Identifier: Apache-2.0

// Totals of all that is served, with what they were in the last minutes.

import { $, el, keyed, text } from './dom.js';
import { brief, byteRate, plural, rate } from './format.js';
import { Sparkline } from './sparkline.js';

const figures = [
  { label: 'New flows', of: (t) => t.newFlows, words: rate },
  { label: 'Flows', of: (t) => t.active, words: brief },
  { label: 'From clients', of: (t) => t.bytesIn, words: byteRate },
  { label: 'To clients', of: (t) => t.bytesOut, words: byteRate },
  { label: 'Rejected, dropped', of: (t, drops) => lost(drops, t), words: rate, bad: true },
];

// lost is how many packets were rejected or dropped: at frontends, and elsewhere.
function lost(drops, totals) {
  const known = (drops ?? []).map((d) => d.perSecond).filter((v) => v !== null);
  return known.length ? known.reduce((sum, v) => sum + v, 0) : totals.rejected;
}

export function draw(view) {
  keyed($('totals'), [...figures, { label: 'Gateways' }], (f) => f.label, create, (node, f) => update(node, f, view));
}

function create(f) {
  const value = el('dd', {});
  const node = el('div', { class: 'card total' }, el('dt', {}, f.label), value);
  node.value = value;
  if (f.of) {
    node.line = new Sparkline();
    node.append(el('dd', { class: 'spark', 'aria-hidden': 'true' }, node.line.node));
  } else {
    node.lines = ['frontend', 'backend'].map(() => el('dd', { class: 'part' }));
    node.append(...node.lines);
  }
  return node;
}

function update(node, f, view) {
  const { totals } = view;
  if (!f.of) {
    text(node.value, brief(totals.gateways));
    text(node.lines[0], plural(totals.frontends, 'frontend'));
    text(node.lines[1], plural(totals.backends, 'backend'));
    return;
  }
  const now = f.of(totals, view.drops);
  text(node.value, f.words(now));
  node.classList.toggle('bad', Boolean(f.bad && now > 0));
  node.line.add(now, view);
}
