// SPDX-License-Identifier: Apache-2.0

// Flows that have ended last.

import { $, attr, el, name, printable, setName, show, text } from './dom.js';
import { bytes, duration, endpoint, plural, time, timeInFull } from './format.js';
import { rows } from './table.js';

// What the reasons mean: those of enum end_reason, as blixt flows names them.
const ends = {
  fin: 'closed', reset: 'reset', idle: 'idle for too long', unanswered: 'backend did not answer', refused: 'backend refused', backend_gone: 'backend removed',
  source_gone: 'address of this node gone', moved: 'moved to another backend', replaced: 'client began anew', protected: 'IPsec policy', evicted: 'table was full',
};
const bad = new Set(['unanswered', 'refused', 'backend_gone', 'source_gone', 'evicted', 'protected']);

const long = 40; // rows: see page.css

let trace = null;
let shown = []; // records
let now = new Date();
let held = false;
let note = '';

export function init(on) {
  trace = on.trace;
  $('flows-filter').addEventListener('input', list);
  $('flows-hold').addEventListener('click', () => {
    held = !held;
    attr($('flows-hold'), 'aria-pressed', String(held));
  });
}

export function draw(view) {
  if (held) return;
  shown = view.flows ?? [];
  now = new Date(view.time);
  note = view.flowsNote ?? '';
  list();
}

const columns = [
  {
    label: 'Ended',
    make: () => el('time'),
    set(node, r) {
      if (node.said === r.time) return;
      node.said = r.time;
      const at = new Date(r.time);
      text(node, time(at, now));
      attr(node, 'datetime', r.time);
      attr(node, 'title', timeInFull(at));
    },
  },
  { label: 'Client', class: 'address', isName: true, say: (r) => endpoint(r.client) },
  two('Frontend', (r) => endpoint(r.server), (r) => r.gateway),
  two('Backend', (r) => endpoint(r.backend), (r) => r.service),
  { label: 'Lasted', class: 'num', say: (r) => duration(r.duration ?? null) },
  { label: 'In', class: 'num', say: (r) => bytes(r.in?.bytes) },
  { label: 'Out', class: 'num', say: (r) => bytes(r.out?.bytes) },
  {
    label: 'Why it ended',
    make: () => el('span'),
    set(node, r) {
      const why = Object.hasOwn(ends, r.reason ?? '') ? ends[r.reason] : printable(r.reason ?? r.event);
      text(node, (bad.has(r.reason) ? '⚠ ' : '') + why + (r.endedBy && (r.reason === 'fin' || r.reason === 'reset') ? ` by ${printable(r.endedBy)}` : ''));
      attr(node, 'class', bad.has(r.reason) ? 'warn' : null);
    },
  },
  {
    label: '',
    class: 'actions',
    make: () => {
      const button = el('button', { type: 'button', class: 'small' }, 'Trace');
      button.addEventListener('click', () => trace(button.to));
      return button;
    },
    set(button, r) {
      button.to = { client: endpoint(r.client), server: endpoint(r.server), protocol: r.protocol };
      attr(button, 'aria-label', `Trace ${endpoint(r.client)} to ${endpoint(r.server)}`);
      show(button, r.protocol === 'tcp' || r.protocol === 'udp');
    },
  },
];

// two is a column of an address, and of a name below it.
function two(label, address, of) {
  return {
    label,
    class: 'address',
    make: () => el('span', { class: 'two' }, name(''), name('', { class: 'name quiet' })),
    set(node, r) {
      setName(node.children[0], address(r));
      setName(node.children[1], of(r) ?? '');
    },
  };
}

const words = new WeakMap(); // of a record: what the filter looks at

function matches(r, wanted) {
  if (wanted === '') return true;
  if (!words.has(r)) {
    words.set(r, [r.node, r.reason, r.endedBy, r.protocol, endpoint(r.client), endpoint(r.server), endpoint(r.backend), r.gateway, r.listener, r.route, r.service].join(' ').toLowerCase());
  }
  return words.get(r).includes(wanted);
}

function list() {
  const wanted = $('flows-filter').value.trim().toLowerCase();
  const some = shown.filter((r) => matches(r, wanted));
  attr($('flows').closest('section'), 'data-long', some.length > long);
  rows($('flows'), columns, some, (r) => [r.node, r.seq || `${r.time} ${endpoint(r.client)}`].join(' '));
  show($('flows-table'), some.length > 0);
  const none = shown.length === 0 ? note || 'No flow has ended yet.' : some.length === 0 ? `None of the last ${plural(shown.length, 'flow')} matches.` : note;
  if (show($('flows-none'), none !== '')) text($('flows-none'), printable(none));
}
