// SPDX-License-Identifier: Apache-2.0

// Packets that were rejected or dropped, by reason, each with its cure.

import { $, el, keyed, printable, show, text } from './dom.js';
import { brief, rate } from './format.js';

export function draw(view) {
  const drops = (view.drops ?? []).filter((d) => d.packets > 0);
  show($('drops-none'), drops.length === 0);
  keyed($('drops'), drops, (d) => d.name, create, update);
}

function create() {
  const parts = { name: el('span', { class: 'reason' }), rate: el('span', { class: 'num' }), packets: el('span', { class: 'num quiet' }), what: el('span', { class: 'short' }), cause: el('dd'), cure: el('dd') };
  const li = el('li', {}, el('details', {},
    el('summary', {}, parts.name, parts.rate, parts.packets, parts.what),
    el('dl', {}, el('dt', {}, 'Cause'), parts.cause, el('dt', {}, 'Cure'), parts.cure)));
  li.parts = parts;
  return li;
}

function update(li, d) {
  const { parts } = li;
  text(parts.name, printable(d.name));
  text(parts.rate, rate(d.perSecond));
  text(parts.packets, `${brief(d.packets)} so far`);
  li.classList.toggle('now', d.perSecond > 0);
  text(parts.what, sentence(printable(d.what)));
  text(parts.cause, printable(d.cause));
  text(parts.cure, printable(d.cure));
}

const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? '' : '.');
