// SPDX-License-Identifier: Apache-2.0

// Nodes with their versions, those that are not well first.

import { $, attr, el, name, printable, setName, show, text } from './dom.js';
import { brief, plural, released } from './format.js';
import { mark, setMark } from './marks.js';
import { rows } from './table.js';

const long = 40; // rows: see page.css

const columns = [
  {
    label: 'Node',
    make: () => el('span', { class: 'node' }, mark('ok'), name(''), el('span', { class: 'why', dir: 'auto' })),
    set(node, n) {
      setMark(node.children[0], n.verdict);
      setName(node.children[1], n.name || 'this host');
      text(node.children[2], printable(n.reason));
    },
  },
  {
    label: 'Version', // of Linux the number, with all of it in the title
    make: () => el('span', {}, el('bdi', { class: 'name' }), el('bdi', { class: 'kernel quiet' })),
    set(node, n) {
      setName(node.children[0], released(n.version) || 'not known');
      text(node.children[1], n.kernel ? `Linux ${printable(n.kernel.split(/[-+]/)[0])}` : '');
      attr(node.children[1], 'title', printable(n.kernel));
    },
  },
  { label: 'Frontends', class: 'num', say: (n) => brief(n.frontends) },
  { label: 'Backends', class: 'num', say: (n) => brief(n.backends) },
  { label: 'Flows', class: 'num', say: (n) => brief(n.flows) },
];

export function draw(view) {
  const nodes = view.nodes ?? [];
  text($('nodes-title'), view.kind === 'host' ? 'Host' : 'Nodes');
  attr($('nodes').closest('section'), 'data-long', nodes.length > long);
  rows($('nodes'), columns, nodes, (n) => n.name);
  const more = view.nodesAll - nodes.length;
  if (show($('nodes-more'), more > 0)) text($('nodes-more'), `and ${plural(more, 'more node')}`);
  const versions = Object.entries(view.versions ?? {}).sort((a, b) => b[1] - a[1]);
  const mixed = versions.map(([version, n]) => `${n} × ${printable(version || 'not known').slice(0, 40)}`);
  show($('versions'), versions.length > 1);
  text($('versions'), `Versions differ: ${mixed.slice(0, 4).join(', ')}${mixed.length > 4 ? ', …' : ''}. Is an upgrade in progress?`);
}
