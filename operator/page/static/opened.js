// SPDX-License-Identifier: Apache-2.0

// The Gateway that is open: where clients reach it, its picture, and the same as tables.

import { attr, el, keyed, name, printable, setName, show, text } from './dom.js';
import { brief, duration, plural, rate, share } from './format.js';
import { mark, setMark, stateInFull } from './marks.js';
import { Picture } from './picture.js';
import { head, rows } from './table.js';

const services = [
  { label: 'Listener', isName: true, say: (s) => s.listener.name },
  { label: 'Port', isName: true, say: (s) => `${s.listener.port}/${s.listener.protocol}` },
  { label: 'Route', isName: true, say: (s) => s.listener.route || 'none' },
  { label: 'Service', isName: true, say: (s) => (s.none ? 'none' : s.name || 'not known') },
  { label: 'Wanted', class: 'num', say: (s) => share(s.wanted) },
  { label: 'Seen', class: 'num', say: (s) => share(s.seen) },
  { label: 'Flows', class: 'num', say: (s) => brief(s.active) },
  { label: 'New', class: 'num', say: (s) => rate(s.newFlows) },
  { label: 'Ready', class: 'num', say: (s) => brief(s.ready) },
  { label: 'Draining', class: 'num', say: (s) => brief(s.draining) },
  { label: 'Connect: mean', class: 'num', say: (s) => duration(s.connect?.mean) },
  { label: 'p50', class: 'num', say: (s) => atMost(s.connect?.p50) },
  { label: 'p99', class: 'num', say: (s) => atMost(s.connect?.p99) },
  { label: 'Refused', class: 'num', say: (s) => rate(s.refused) },
  { label: 'Unanswered', class: 'num', say: (s) => rate(s.unanswered) },
];

const backends = [
  { label: 'Service', isName: true, say: (b) => b.service.name || 'not known' },
  { label: 'Backend', class: 'address', isName: true, say: (b) => b.address },
  {
    label: 'State',
    make: () => mark('serving', true),
    set: (node, b) => setMark(node, b.state, stateInFull(b)),
  },
  { label: 'Where', say: (b) => (b.local ? 'this node' : 'elsewhere') },
  { label: 'Weight', class: 'num', say: (b) => brief(b.weight) },
  { label: 'Wanted', class: 'num', say: (b) => share(b.wanted) },
  { label: 'Seen', class: 'num', say: (b) => share(b.seen) },
  { label: 'Flows', class: 'num', say: (b) => brief(b.active) },
  { label: 'New', class: 'num', say: (b) => rate(b.newFlows) },
];

// Latencies at a rank are known up to a power of two.
export const atMost = (s) => (s ? `≤ ${duration(s)}` : duration(s ?? null));

// Opened is the panel below the row of a Gateway.
export class Opened {
  #addresses = el('ul', { class: 'frontends' });
  #problems = el('ul', { class: 'problems' });
  #picture = new Picture();
  #more = el('p', { class: 'hint' });
  #services = el('tbody');
  #backends = el('tbody');
  #tables = el('details', { class: 'tables' }, el('summary', {}, 'The same as tables'),
    el('table', {}, el('caption', {}, 'Listeners, routes and Services'), head(services), this.#services),
    el('table', {}, el('caption', {}, 'Backends'), head(backends), this.#backends));
  #trace;
  #last = null;
  node = el('div', { class: 'opened' }, this.#problems, this.#addresses, this.#picture.node, this.#more, this.#tables);

  constructor(trace) {
    this.#trace = trace;
    this.#tables.firstChild.addEventListener('click', () => this.#list(true)); // before they are seen
    this.#tables.addEventListener('toggle', () => this.#list());
  }

  draw(g) {
    this.#last = g;
    const listeners = g.listeners ?? [];
    const frontends = listeners.flatMap((l) => (l.addresses ?? []).map((address) => ({ address, listener: l.name })));
    keyed(this.#addresses, frontends, (f) => f.address, () => this.#frontend(), (li, f) => {
      attr(li.lastChild, 'aria-label', `Trace ${printable(f.address)}`);
      setName(li.firstChild, f.address);
      li.to = f.address;
    });
    const problems = listeners.filter((l) => l.problem && l.problem !== g.problem);
    show(this.#problems, problems.length);
    keyed(this.#problems, problems, (l) => l.name, () => el('li', { class: 'problem' }, name(''), ': ', el('span', { dir: 'auto' })), (li, l) => {
      setName(li.firstChild, l.name);
      text(li.lastChild, printable(l.problem));
    });
    this.#picture.draw(g);
    const left = hidden(g);
    if (show(this.#more, left !== '')) text(this.#more, left);
    this.#list();
  }

  close() {
    this.#picture.close();
  }

  #frontend() {
    const li = el('li', {}, name('', { class: 'name address' }));
    const button = el('button', { type: 'button', class: 'small' }, 'Trace');
    button.addEventListener('click', () => {
      const [server, protocol] = li.to.split('/');
      this.#trace({ server, protocol: protocol?.toLowerCase() });
    });
    li.append(button);
    return li;
  }

  // Tables cost nothing while they are closed.
  #list(opening) {
    if (!(this.#tables.open || opening) || !this.#last) return;
    const all = (this.#last.listeners ?? []).flatMap((listener) => {
      const some = (listener.services ?? []).map((s) => ({ ...s, listener }));
      return some.length ? some : [{ listener, none: true, wanted: null, seen: null, active: null, ready: null, draining: null }];
    });
    rows(this.#services, services, all, (s) => `${s.listener.name} ${s.listener.port} ${s.name}`);
    const each = all.flatMap((service) => (service.backends ?? []).map((b) => ({ ...b, service })));
    rows(this.#backends, backends, each, (b) => `${b.service.listener.name} ${b.service.listener.port} ${b.service.name} ${b.address}`);
  }
}

// hidden says what the server has left out.
function hidden(g) {
  const more = (g.listeners ?? []).flatMap((l) => l.services ?? []).reduce((n, s) => n + (s.moreBackends ?? 0), 0);
  const parts = [];
  if (g.moreListeners) parts.push(plural(g.moreListeners, 'more listener'));
  if (more) parts.push(plural(more, 'more backend'));
  return parts.length ? `Not shown: ${parts.join(' and ')}. blixt status -o json has all.` : '';
}
