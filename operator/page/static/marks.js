// SPDX-License-Identifier: Apache-2.0

// Marks: how good or bad something is, by shape and word, and never by colour alone.

import { attr, el, printable, svg, text } from './dom.js';
import { time } from './format.js';

// Each is drawn in a square of 16.
const shapes = {
  ok: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm3.6 5.2-4.2 4.6a.8.8 0 0 1-1.2 0L4.4 8.9l1.1-1.1 1.3 1.3 3.7-4Z',
  failed: 'M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1Zm.7 3.6L4.6 5.8 6.8 8l-2.2 2.2 1.2 1.2L8 9.2l2.2 2.2 1.2-1.2L9.2 8l2.2-2.2-1.2-1.2L8 6.8Z',
  warning: 'M8 1.2 15.4 14.4H.6ZM7.2 6v4.2h1.6V6Zm0 5.2v1.6h1.6v-1.6Z',
  unknown: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm-.9 9.9h1.7v1.7H7.1Zm0-1.2c0-2.2 1.9-2.1 1.9-3.4 0-.6-.4-1-1-1-.7 0-1.1.5-1.1 1.2H5.3C5.300 4.900 6.500 3.800 8 3.800c1.600 0 2.700 1 2.700 2.400 0 2-1.900 2.100-1.900 3.500Z',
  serving: 'M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11Z',
  draining: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 1.600v8.800a4.400 4.400 0 0 1 0-8.800Z',
  'not-serving': 'm3.800 2.600 4.200 4.200 4.200-4.200 1.200 1.200L9.200 8l4.200 4.200-1.200 1.200L8 9.200l-4.200 4.200-1.200-1.200L6.800 8 2.600 3.800Z',
};

const words = { ok: 'well', failed: 'failed', warning: 'warning', unknown: 'unknown', serving: 'serving', draining: 'draining', 'not-serving': 'not serving' };

// known returns a state that this version knows: a server may be of a later one.
const known = (state) => (Object.hasOwn(shapes, state) ? state : 'unknown');

// word says a state.
export function word(state) {
  return Object.hasOwn(words, state) ? words[state] : 'unknown';
}

// stateOf is a backend's state in a word, stateInFull with who has drained it, and when.
export function stateOf(backend) {
  return backend.drained ? 'drained' : word(backend.state);
}

export function stateInFull(backend) {
  if (!backend.drained) return word(backend.state);
  const { by, since } = backend.drained;
  return `drained${by ? ` by ${printable(by)}` : ''} since ${time(new Date(since), new Date())}`;
}

// shape returns the attributes of a path that draws a state.
export function shape(state) {
  return { d: shapes[known(state)], 'fill-rule': 'evenodd', class: 'mark-' + known(state) };
}

// mark returns an icon with its word, which is seen if words is true, and heard always.
export function mark(state, seen) {
  const node = el('span', { class: 'mark' }, svg('svg', { viewBox: '0 0 16 16', width: 16, height: 16, 'aria-hidden': 'true' }, svg('path')), el('span', { class: seen ? '' : 'sr' }));
  setMark(node, state);
  return node;
}

export function setMark(node, state, words = word(state)) {
  for (const [key, value] of Object.entries(shape(state))) attr(node.firstChild.firstChild, key, value);
  text(node.lastChild, words);
  attr(node, 'title', words);
}
