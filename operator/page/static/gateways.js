// SPDX-License-Identifier: Apache-2.0

// The list of Gateways: search, order, pages, and the one that is open.

import { $, attr, el, keyed, name, printable, setName, show, text } from './dom.js';
import { brief, byteRate, count, plural, rate } from './format.js';
import { mark, setMark } from './marks.js';
import { Opened } from './opened.js';
import { Sparkline } from './sparkline.js';

const typing = 300; // milliseconds after the last key until a search is sent
const mostPorts = 6; // listeners that a row names

let choose = null;
let trace = null;
let chosen = null;
let view = null;

export function init(on) {
  ({ choose, trace } = on);
  let timer = 0;
  const search = () => {
    clearTimeout(timer);
    choose({ q: $('search').value.trim(), page: '1' }, true);
  };
  $('search').addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(search, typing);
  });
  $('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    search();
  });
  $('problems').addEventListener('change', () => choose({ problems: $('problems').checked ? '1' : '', page: '1' }));
  for (const button of document.querySelectorAll('.sort')) button.addEventListener('click', () => choose({ sort: button.value, page: '1' }));
  $('page-before').addEventListener('click', () => turn(-1));
  $('page-after').addEventListener('click', () => turn(1));
}

function turn(by) {
  choose({ page: String(Math.min(Math.max(1, view.page + by), view.pages)) });
  $('gateways-title').scrollIntoView({ block: 'start' });
}

// choosing shows what is chosen before the server has answered.
export function choosing(selection) {
  chosen = selection;
  if ($('search').value.trim() !== chosen.q) $('search').value = chosen.q;
  $('problems').checked = chosen.problems === '1';
  for (const th of document.querySelectorAll('th[data-sort]')) {
    // Problems and flows: most first. Names: from a on.
    attr(th, 'aria-sort', th.dataset.sort !== chosen.sort ? null : chosen.sort === 'name' ? 'ascending' : 'descending');
  }
  if (view) list();
}

export function draw(next, selection) {
  view = next;
  chosen = selection;
  list();
}

function list() {
  const gateways = view.gateways ?? [];
  keyed($('gateways'), gateways, (g) => g.name, create, update);
  show($('gateways'), gateways.length > 0);
  if (show($('gateways-none'), gateways.length === 0)) text($('gateways-none'), none());
  text($('gateways-title'), view.matching === view.all ? plural(view.all, 'Gateway') : `${count(view.matching)} of ${plural(view.all, 'Gateway')}`);
  if (show($('pages'), view.pages > 1)) {
    text($('page-text'), `Page ${count(view.page)} of ${count(view.pages)}`);
    unavailable($('page-before'), view.page <= 1);
    unavailable($('page-after'), view.page >= view.pages);
  }
}

// unavailable keeps the focus of a button, which disabled would not.
function unavailable(button, is) {
  attr(button, 'aria-disabled', is ? 'true' : null);
}

function none() {
  if (view.all > 0) return chosen.problems === '1' && chosen.q === '' ? 'No Gateway has a problem.' : 'No Gateway matches. Search for a part of a name, an address or a port.';
  return view.kind === 'host' ? 'Nothing is served yet: put a Gateway and a route into the directory, or see blixt init.' : 'There is no Gateway of a class of Blixt yet.';
}

let ids = 0; // names are no ids: anybody may have chosen them

function create(g) {
  const id = `gateway-${++ids}`;
  const parts = {
    state: mark('ok'),
    open: el('button', { type: 'button', class: 'open', 'aria-expanded': 'false' }, el('span', { class: 'chevron', 'aria-hidden': 'true' }), name('')),
    class: el('bdi', { class: 'name quiet class' }),
    addresses: el('span', { class: 'addresses quiet' }),
    problem: el('p', { class: 'problem', dir: 'auto' }),
    ports: el('ul', { class: 'ports' }),
    flows: el('span'), fresh: el('span'), in: el('span'), out: el('span'),
    line: new Sparkline(),
  };
  parts.open.addEventListener('click', () => choose({ open: chosen.open === g.name ? '' : g.name }));
  const body = el('tbody', { class: 'gateway' }, el('tr', { class: 'row' },
    el('td', { class: 'state', 'data-label': 'State' }, parts.state),
    el('th', { scope: 'row' }, el('span', { class: 'title' }, parts.open, parts.class), parts.addresses, parts.problem),
    el('td', { class: 'wide' }, parts.ports),
    el('td', { class: 'num', 'data-label': 'Flows' }, parts.flows),
    el('td', { class: 'num', 'data-label': 'New' }, el('span', { class: 'trend' }, parts.line.node, parts.fresh)),
    el('td', { class: 'num wide', 'data-label': 'In' }, parts.in),
    el('td', { class: 'num wide', 'data-label': 'Out' }, parts.out)));
  Object.assign(body, { parts, panel: id, opened: null });
  return body;
}

function update(body, g) {
  const { parts } = body;
  setMark(parts.state, stateOf(g));
  setName(parts.open.lastChild, g.name);
  setName(parts.class, g.class ?? '');
  const addresses = g.addresses ?? [];
  text(parts.addresses, addresses.slice(0, 4).map(printable).join('  ') + (addresses.length > 4 ? `  and ${addresses.length - 4} more` : ''));
  if (show(parts.problem, g.problem)) text(parts.problem, printable(g.problem));
  ports(parts.ports, g);
  text(parts.flows, brief(g.active));
  text(parts.fresh, rate(g.newFlows));
  text(parts.in, byteRate(g.bytesIn));
  text(parts.out, byteRate(g.bytesOut));
  parts.line.add(g.newFlows, view);

  const is = chosen.open === g.name;
  body.classList.toggle('is-open', is);
  attr(parts.open, 'aria-expanded', String(is));
  if (is && !body.opened) {
    body.opened = new Opened(trace);
    body.detail = el('tr', { class: 'detail', id: body.panel }, el('td', { colspan: 7 }, body.opened.node));
    body.append(body.detail);
    attr(parts.open, 'aria-controls', body.panel);
  } else if (!is && body.opened) {
    body.opened.close();
    body.opened = null;
    body.detail.remove();
    attr(parts.open, 'aria-controls', null);
  }
  body.opened?.draw(g);
}

// stateOf is how bad a Gateway is: not well if a listener is not.
function stateOf(g) {
  const well = !g.verdict || g.verdict === 'ok';
  return well ? ((g.listeners ?? []).some((l) => l.problem) ? 'warning' : 'ok') : g.verdict;
}

function ports(list, g) {
  const all = g.listeners ?? [];
  const more = all.length - mostPorts + (g.moreListeners ?? 0);
  const shown = all.slice(0, mostPorts);
  if (more > 0) shown.push({ name: '\u0000more', more });
  keyed(list, shown, (l) => `${l.name} ${l.port}`, () => el('li'), (li, l) => {
    text(li, l.more ? `+${l.more}` : `${l.problem ? '⚠ ' : ''}${l.port}/${printable(l.protocol).toLowerCase()}`);
    li.classList.toggle('bad', Boolean(l.problem));
    attr(li, 'title', l.more ? `${l.more} more listeners` : printable(l.name) + (l.problem ? `: ${printable(l.problem)}` : ''));
  });
}
