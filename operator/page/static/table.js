// SPDX-License-Identifier: Apache-2.0

import { el, keyed, name, setName, text } from './dom.js';

// A column has a label, and either say, which returns the text of a cell, or make and
// set, which make a cell's content and change it. isName: the text is from an object.

// head returns the heading of a table.
export function head(columns) {
  return el('thead', {}, el('tr', {}, ...columns.map((c) => el('th', { scope: 'col', class: c.class }, c.label))));
}

// rows shows items as rows of a tbody. Where there is no room for columns, each cell has its
// label beside it.
export function rows(body, columns, items, keyOf) {
  keyed(body, items, keyOf, () => row(columns), (tr, item) => columns.forEach((c, i) => set(tr.contents[i], c, item)));
}

function row(columns) {
  const contents = columns.map((c) => (c.make ? c.make() : c.isName ? name('') : el('span')));
  const tr = el('tr', {}, ...columns.map((c, i) => el(i === 0 ? 'th' : 'td', { scope: i === 0 ? 'row' : null, class: c.class, 'data-label': c.label }, contents[i])));
  tr.contents = contents;
  return tr;
}

function set(node, column, item) {
  if (column.set) column.set(node, item);
  else if (column.isName) setName(node, column.say(item));
  else text(node, column.say(item));
}
