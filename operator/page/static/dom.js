// SPDX-License-Identifier: Apache-2.0

// The few ways in which this page changes its document. Texts come from objects that
// anybody may have written: they become text nodes and nothing else, and a node is touched
// only if it changes, so that focus, selection and scroll position stay.

// $ returns an element of index.html. Ids are this page's own, never names of objects.
export const $ = (id) => document.getElementById(id);

const SVG = 'http://www.w3.org/2000/svg';

// el returns an element. attributes.class and the like are set as attributes, on* as
// listeners; children are nodes and texts.
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// svg is el for SVG.
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === 'function') node.addEventListener(name.slice(2), value);
    else attr(node, name, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

// name returns an element for a name of an object: it is set apart from the text around
// it, whichever direction it is written in, and all of it is in its title.
export function name(value, attributes) {
  const node = el('bdi', { class: 'name', ...attributes });
  setName(node, value);
  return node;
}

export function setName(node, value) {
  const clean = printable(value);
  text(node, clean);
  attr(node, 'title', clean.length > 24 ? clean : null);
}

// text sets the text of an element that has no other children.
export function text(node, value) {
  value = String(value);
  const first = node.firstChild;
  if (first === null) {
    if (value !== '') node.append(value);
  } else if (first.data !== value) {
    first.data = value;
  }
}

// attr sets an attribute; null and false: takes it away.
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  value = value === true ? '' : String(value);
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// show hides an element or not, and returns whether it is shown.
export function show(node, is) {
  if (node.hidden === Boolean(is)) node.hidden = !is;
  return Boolean(is);
}

const rows = new WeakMap(); // of a parent: its children by key

// keyed makes the children of parent those of items, by key. A child is made once, by
// create, and changed by update each time. One that stays is moved only if it must be.
export function keyed(parent, items, keyOf, create, update) {
  const had = rows.get(parent) ?? new Map();
  const has = new Map();
  for (const item of items) {
    let key = keyOf(item);
    while (has.has(key)) key += '\u0000'; // the same twice: both are shown
    has.set(key, [had.get(key) ?? create(item), item]);
  }
  for (const [key, child] of had) {
    if (!has.has(key)) child.remove();
  }
  const children = new Map();
  const kept = new Set(had.values());
  let at = parent.firstChild;
  while (at && !kept.has(at)) at = at.nextSibling; // a caption, a heading
  for (const [key, [child, item]] of has) {
    if (child === at) at = at.nextSibling;
    else move(parent, child, at);
    update(child, item);
    children.set(key, child);
  }
  rows.set(parent, children);
}

// move puts child before at. moveBefore keeps focus, where a browser has it.
function move(parent, child, at) {
  if (child.isConnected && parent.moveBefore) parent.moveBefore(child, at);
  else parent.insertBefore(child, at);
}

// What may not be seen, or changes the direction of what is around it: control characters,
// formats such as bidi overrides and zero-width spaces, separators of lines, halves of
// surrogates, characters for private use. The joiner within an emoji is seen.
const unseen = /(?!(?<=\p{Extended_Pictographic}\ufe0f?)\u200d(?=\p{Extended_Pictographic}))[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}\u115f\u1160\u3164\uffa0\u2800]/gu;
const longest = 2000; // of any text: a longer one is no text for people

// printable returns a text with an escape sequence for each character that would not be
// seen, as the commands print it.
export function printable(value) {
  let clean = String(value ?? '');
  if (/^[\x20-\x7e]*$/.test(clean) && clean.length <= longest) return clean;
  if (clean.length > longest) clean = clean.slice(0, longest) + '…';
  // More than three marks above one letter would cover the lines around.
  return clean
    .replace(unseen, (c) => '\\u' + c.codePointAt(0).toString(16).padStart(4, '0'))
    .replace(/(\p{M}{3})\p{M}+/gu, '$1…');
}
