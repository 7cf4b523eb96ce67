// SPDX-License-Identifier: Apache-2.0

// Where everything is in the picture of a Gateway: a Gateway and a width in, shapes out.
// Where there is room, addresses, listeners, routes, Services and backends are columns;
// else they are a tree.

import { printable } from './dom.js';
import { duration, plural, rate, share } from './format.js';
import { Scene, boxHeight, rowHeight } from './scene.js';

const roomForColumns = 720;
const roomForRoutes = 1000;
const mostRows = 32; // backends in a picture; more are one row together
const fewest = 3; // rows of a Service: where there is room for less, one stands for all
const widest = 22; // of lines
const serviceGap = 14; // between two Services
const blockGap = 22; // between two listeners

// plan returns shapes and the height that they take.
export function plan(g, width) {
  const scene = new Scene();
  const tree = read(g);
  const height = width < roomForColumns ? narrow(scene, tree, width) : wide(scene, tree, width);
  return { shapes: [...scene.lines, ...scene.shapes], height: Math.ceil(height) };
}

// read returns what is to be drawn: of many backends few.
function read(g) {
  const listeners = g.listeners ?? [];
  const total = listeners.reduce((sum, l) => sum + (l.newFlows ?? 0), 0);
  const services = listeners.flatMap((l) => l.services ?? []);
  const all = services.reduce((n, s) => n + (s.backends ?? []).length + (s.moreBackends ? 1 : 0), 0);
  const each = all <= mostRows ? mostRows : Math.max(1, Math.floor(mostRows / services.length));
  const own = g.name.slice(0, g.name.indexOf('/') + 1);
  return {
    addresses: g.addresses ?? [],
    newFlows: g.newFlows,
    line: (v) => (v > 0 && total > 0 ? Math.max(1.5, (widest * v) / total) : 1.5),
    listeners: listeners.map((l, i) => ({
      ...l,
      key: `${i}`,
      own,
      services: (l.services ?? []).map((s, j) => ({ ...s, key: `${i}/${j}`, own, rows: backends(s, each) })),
    })),
  };
}

// backends returns a Service's backends as at most so many rows. The server has put
// those that are not ready first: they stay.
function backends(s, most) {
  const all = s.backends ?? [];
  const more = s.moreBackends ?? 0;
  if (all.length + (more ? 1 : 0) <= most) {
    return more ? [...all, together(s, all, [], more)] : all;
  }
  const first = most < fewest ? [] : all.slice(0, most - 1);
  return [...first, together(s, first, all.slice(first.length), more)];
}

function together(s, shown, rest, more) {
  const sum = (of) => Math.max(0, (of(s) ?? 0) - shown.reduce((n, b) => n + (of(b) ?? 0), 0));
  const bad = rest.filter((b) => b.state !== 'serving');
  return {
    address: (bad.length ? `${rest.length + more - bad.length} of ` : '') + plural(rest.length + more, shown.length ? 'more backend' : 'backend'),
    many: true,
    state: bad.length ? 'draining' : 'serving',
    wanted: sum((x) => x.wanted),
    seen: sum((x) => x.seen),
    active: sum((x) => x.active),
    newFlows: s.newFlows === null ? null : sum((x) => x.newFlows),
  };
}

// What a listener says, line by line.
function listenerLines(l) {
  const lines = [{ text: l.name, class: 'strong', title: l.name }, { text: `${l.port}/${String(l.protocol).toLowerCase()} · ${rate(l.newFlows)}`, class: 'small' }];
  if (l.rejected > 0) lines.push({ text: `⚠ ${rate(l.rejected)} rejected`, class: 'small bad' });
  if (l.moreServices) lines.push({ text: `and ${plural(l.moreServices, 'more Service')}`, class: 'small' });
  if (l.hostListens) lines.push({ text: '⚠ a socket of the host', class: 'small warn', title: 'A socket of the host gets its new connections.' });
  if (l.problem) lines.push({ sentence: true, text: `✕ ${l.problem}`, class: 'small bad', title: l.problem });
  return lines;
}

// near returns a name without the namespace, if that is the Gateway's own.
const near = (name, own) => (own && name?.startsWith(own) ? name.slice(own.length) : name);

function routeLines(l) {
  const [kind, ...rest] = String(l.route ?? '').split('/');
  return [{ text: near(rest.join('/'), l.own), class: 'strong', title: l.route }, { text: kind, class: 'small' }];
}

// routeLine is a route where it has no box of its own.
const routeLine = (l) => (l.route ? [{ text: l.route, class: 'small', title: l.route }] : []);

function serviceLines(s) {
  const lines = [{ text: near(s.name, s.own) || 'Service not known', class: 'strong', title: s.name }, { bar: s, text: `${share(s.seen)} of ${share(s.wanted)}`, class: 'small', title: `seen ${share(s.seen)}, wanted ${share(s.wanted)} of new flows` }];
  const counts = [`${s.ready} ready`];
  if (s.draining) counts.push(`${s.draining} draining`);
  lines.push({ text: counts.join(', ') + ` · ${rate(s.newFlows)}`, class: s.ready ? 'small' : 'small bad' });
  if (s.connect) {
    const times = `mean ${duration(s.connect.mean)}, p50 ≤ ${duration(s.connect.p50)}, p99 ≤ ${duration(s.connect.p99)}`;
    lines.push({ sentence: true, text: `connect ${duration(s.connect.mean)}, p99 ≤ ${duration(s.connect.p99)}`, class: 'small', title: `Time to connect: ${times}` });
  }
  if (s.refused > 0) lines.push({ text: `⚠ ${rate(s.refused)} refused`, class: 'small bad' });
  if (s.unanswered > 0) lines.push({ text: `⚠ ${rate(s.unanswered)} unanswered`, class: 'small bad' });
  return lines;
}

// refusal says which part of a listener's connections has no backend; '': none.
function refusal(l) {
  if (l.services.length === 0) return l.route ? '✕ no Service' : '✕ no route';
  return l.rejectShare > 0 ? `✕ ${share(l.rejectShare)} refused: no backend` : '';
}

// columnsOf returns where each column begins, and how wide it is.
function columnsOf(width) {
  const parts = width >= roomForRoutes ? { clients: 0.15, listener: 0.15, route: 0.17, service: 0.24, backend: 0.29 } : { clients: 0.19, listener: 0.2, service: 0.28, backend: 0.33 };
  const gaps = Object.keys(parts).length - 1;
  const gap = Math.min(72, width * 0.05);
  const columns = {};
  let x = 0;
  for (const [name, part] of Object.entries(parts)) {
    columns[name] = { x, width: (width - gap * gaps) * part };
    x += columns[name].width + gap;
  }
  return columns;
}

function wide(scene, tree, width) {
  const columns = columnsOf(width);
  const { clients, listener } = columns;
  let y = 1;
  const ends = [];
  for (const l of tree.listeners) {
    const { middle, bottom } = inColumns(scene, tree, columns, l, y);
    ends.push({ key: l.key, y: middle, size: tree.line(l.newFlows), class: lineClass(l) });
    y = bottom + blockGap;
  }
  const lines = clientLines(tree);
  const own = boxHeight(lines);
  const height = Math.max(y - blockGap, own) + 2;
  const middle = Math.max(1 + own / 2, ends.length ? (ends[0].y + ends.at(-1).y) / 2 : height / 2);
  scene.box('clients', 'clients', clients.x, middle - own / 2, clients.width, lines);
  scene.fan(clients.x + clients.width, middle, listener.x, ends);
  return height;
}

// inColumns draws a listener, from its box to its backends, from y on down.
function inColumns(scene, tree, { listener, route, service, backend }, l, y) {
  const next = []; // lines to Services
  let bottom = y;
  for (const s of l.services) {
    const at = serviceInColumns(scene, tree, service, backend, s, bottom);
    next.push({ key: s.key, y: at.middle, size: tree.line(s.newFlows), class: serviceClass(s) });
    bottom = at.bottom + serviceGap;
  }
  const why = refusal(l);
  if (why) {
    const key = `${l.key}/refused`;
    const middle = bottom + rowHeight / 2;
    scene.label(key, service.x + 4, middle, why, backend.x + backend.width - service.x, 'small bad');
    next.push({ key, y: middle, size: tree.line(l.rejected), class: 'refused' });
    bottom += rowHeight + serviceGap;
  }
  const lines = route ? listenerLines(l) : [...listenerLines(l), ...routeLine(l)];
  const own = boxHeight(lines);
  bottom = Math.max(bottom - serviceGap, y + own);
  const middle = (y + bottom) / 2;
  scene.box(l.key, 'listener', listener.x, middle - own / 2, listener.width, lines, Boolean(l.problem));
  let from = listener;
  if (route && l.route) {
    from = route;
    const key = `${l.key}/route`;
    scene.box(key, 'route', route.x, middle - boxHeight(routeLines(l)) / 2, route.width, routeLines(l));
    scene.fan(listener.x + listener.width, middle, route.x, [{ key, y: middle, size: tree.line(l.newFlows), class: lineClass(l) }]);
  }
  scene.fan(from.x + from.width, middle, service.x, next);
  return { middle, bottom };
}

function serviceInColumns(scene, tree, service, backend, s, y) {
  const lines = serviceLines(s);
  const height = Math.max(boxHeight(lines), s.rows.length * rowHeight);
  const middle = y + height / 2;
  scene.box(s.key, 'service', service.x, middle - boxHeight(lines) / 2, service.width, lines, s.ready === 0);
  const leaves = s.rows.map((b, i) => {
    const key = `${s.key}/${b.address}`;
    const at = middle + (i - (s.rows.length - 1) / 2) * rowHeight;
    scene.backend(key, backend.x, at, backend.width, b);
    return { key, y: at, size: tree.line(b.newFlows), class: lineClass(b) };
  });
  scene.fan(service.x + service.width, middle, backend.x - 4, leaves);
  return { middle, bottom: y + height };
}

function clientLines(tree) {
  const most = 4;
  const lines = [{ text: 'Clients', class: 'strong' }, ...tree.addresses.slice(0, most).map((a) => ({ text: a, class: 'mono', title: a }))];
  if (tree.addresses.length > most) lines.push({ text: `and ${tree.addresses.length - most} more`, class: 'small', lines: tree.addresses.map(printable).join('\n') });
  if (tree.addresses.length === 0) lines.push({ text: '✕ no address', class: 'small bad' });
  lines.push({ text: rate(tree.newFlows), class: 'small' });
  return lines;
}

function narrow(scene, tree, width) {
  const step = 22; // to the right, by level
  let y = 1;
  const put = (key, kind, level, lines, problem) => {
    const top = y;
    scene.box(key, kind, level * step, top, width - level * step - 1, lines, problem);
    const bottom = top + boxHeight(lines);
    y = bottom + 10;
    return { bottom, middle: (top + bottom) / 2 };
  };
  const join = (key, level, from, to, flows, kind) => scene.elbow(key, (level - 0.5) * step, from.bottom, to, level * step, tree.line(flows) / 2, kind);

  const clients = put('clients', 'clients', 0, clientLines(tree));
  for (const l of tree.listeners) {
    const own = put(l.key, 'listener', 1, [...listenerLines(l), ...routeLine(l)], Boolean(l.problem));
    join(l.key, 1, clients, own.middle, l.newFlows, lineClass(l));
    for (const s of l.services) {
      const at = put(s.key, 'service', 2, serviceLines(s), s.ready === 0);
      join(s.key, 2, own, at.middle, s.newFlows, serviceClass(s));
      for (const b of s.rows) {
        const key = `${s.key}/${b.address}`;
        const middle = y + rowHeight / 2 - 6;
        scene.backend(key, 3 * step + 4, middle, width - 3 * step - 5, b);
        join(key, 3, at, middle, b.newFlows, lineClass(b));
        y += rowHeight;
      }
    }
    const why = refusal(l);
    if (why) {
      const key = `${l.key}/refused`;
      const middle = y + rowHeight / 2 - 6;
      scene.label(key, 2 * step + 4, middle, why, width - 2 * step - 4, 'small bad');
      join(key, 2, own, middle, 0, 'refused');
      y += rowHeight;
    }
    y += 8;
  }
  return y;
}

// How a line looks.
function lineClass(x) {
  if (!x.many && x.state === 'draining') return 'draining';
  if (!x.many && x.state === 'not-serving') return 'refused';
  return x.newFlows > 0 || x.active > 0 ? 'live' : 'idle';
}

const serviceClass = (s) => (s.ready ? lineClass(s) : 'refused');
