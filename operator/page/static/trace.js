// SPDX-License-Identifier: Apache-2.0

// blixt trace as a form: where would a connection go?

import { $, el, name, printable } from './dom.js';
import { endpoint, plural } from './format.js';
import { mark } from './marks.js';

const few = 3; // answers that are shown in full

const ways = {
  local: 'to a backend of this node, through its stack; the backend sees the client',
  remote: 'to another host, past the stack, with a source of this host',
  stack: 'through this host’s stack, whose NAT translates the source',
  reenter: 'turned around at the interface by which it was leaving, to a backend of this node',
  forwarded: 'to another host, where it was leaving, with a source of this host',
  host: 'from a socket of this host, with a source of this host',
};

export function init() {
  $('trace-open').addEventListener('click', () => open({}));
  $('trace-close').addEventListener('click', () => $('trace').close());
  $('trace').addEventListener('click', (event) => {
    if (event.target === $('trace')) $('trace').close(); // beside it
  });
  $('trace-form').addEventListener('submit', ask);
}

// open shows the form with what is known: client, server, protocol.
export function open(known) {
  for (const key of ['client', 'server', 'protocol']) {
    if (known[key]) $('trace-' + key).value = known[key];
  }
  $('trace-answer').replaceChildren();
  if (!$('trace').open) $('trace').showModal();
  ($('trace-client').value ? $('trace-form').querySelector('[type=submit]') : $('trace-client')).focus();
}

async function ask(event) {
  event.preventDefault();
  const button = $('trace-form').querySelector('[type=submit]');
  const query = new URLSearchParams();
  for (const key of ['client', 'server', 'protocol']) query.set(key, $('trace-' + key).value.trim());
  button.disabled = true;
  let parts;
  try {
    const got = await fetch('trace?' + query, { cache: 'no-store' });
    parts = got.ok ? answers(await got.json()) : [failure((await got.text()).trim().slice(0, 500) || `The server answers ${got.status}.`)];
  } catch {
    parts = [failure('The server does not answer. Try again.')];
  }
  button.disabled = false;
  $('trace-answer').replaceChildren(...parts);
  $('trace-answer').focus();
}

function failure(why) {
  return el('p', { class: 'problem' }, printable(why));
}

function answers(got) {
  const all = got.answers ?? [];
  const parts = all.map((a) => answer(a, all.length <= few));
  if (got.more) parts.push(failure(`${plural(got.more, 'more answer')} left out.`));
  for (const [node, why] of Object.entries(got.unanswered ?? {})) parts.push(el('p', { class: 'problem' }, node ? name(node) : 'A node', ' has not answered: ' + printable(why)));
  return parts.length ? parts : [failure('No node has answered.')];
}

const verdicts = { forwarded: 'ok', passed: 'unknown' };

function answer({ node, answer: r }, open) {
  const list = el('ol', { class: 'steps' });
  for (const [label, ...content] of steps(r)) list.append(el('li', {}, el('span', { class: 'label' }, label), el('span', { dir: 'auto' }, ...content.map((c) => (typeof c === 'string' ? printable(c) : c)))));
  const heading = el('summary', {}, mark(Object.hasOwn(verdicts, r.verdict) ? verdicts[r.verdict] : 'failed'));
  if (node) heading.append(el('span', {}, name(node), ':'));
  heading.append(`${printable(r.verdict)}, ${printable(r.why)}${r.backend ? ` (${printable(r.backend.address)})` : ''}`);
  return el('details', { class: 'answer', open }, heading, list, ...(r.notes ?? []).map((n) => el('p', { class: 'hint', dir: 'auto' }, printable(n))));
}

// steps returns label and words of each step that the packet takes.
function steps(r) {
  const all = [['Packet', `${r.protocol} ${r.client} → ${r.server}` + (r.hook ? `, seen at ${r.hook}${r.interface ? ' of ' + r.interface : ''}` : '')]];
  all.push(['Address', !r.address ? 'not served' : r.address.exclusive ? 'served by Blixt alone' : 'shared with the host']);
  const f = r.frontend;
  if (f) all.push(['Frontend', ...named([['Gateway ', f.gateway], ['listener ', f.listener], ['', f.route]], `index ${f.index}`)]);
  else if (r.address) all.push(['Frontend', 'none has this port']);
  if (r.flow) all.push(['Flow', `${r.flow.state}, in ${r.flow.table}, client silent for ${Math.round(r.flow.idle)} s` + (r.ended ? `; over: ${r.ended}` : '')]);
  else if (f) all.push(['Flow', 'none: this client is new']);
  if (r.ring?.size) all.push(['Ring', `slot ${r.ring.slot} of ${r.ring.size}`]);
  const b = r.backend;
  if (b) all.push(['Backend', b.address, ...named([[', Service ', b.service]]), b.local ? ', on this node' : '', b.draining ? ', not serving any more' : '']);
  if (r.way) all.push(['Way', Object.hasOwn(ways, r.way) ? ways[r.way] : r.way]);
  if (r.snat) all.push(['Source', `becomes ${r.snat.address ? endpoint(r.snat) : 'an address of the host'}` + (r.announced ? '; the backend’s node is told the client, and undoes it' : '')]);
  if (r.nextHop) all.push(['Next hop', `${r.nextHop.via ? r.nextHop.via + ' ' : ''}by ${r.nextHop.interface}${r.nextHop.mtu ? `, MTU ${r.nextHop.mtu}` : ''}${r.nextHop.silent ? ', hardware address not known yet' : ''}`]);
  all.push(['Counted as', r.counter]);
  return all;
}

// named returns words and names, of those names that are known.
function named(pairs, first) {
  const parts = first ? [first] : [];
  for (const [words, value] of pairs) {
    if (!value) continue;
    parts.push((parts.length && first ? ', ' : '') + words, name(value));
  }
  return parts;
}
