// SPDX-License-Identifier: Apache-2.0

// Where everything is in the picture of a Gateway: a Gateway and a width in, shapes out.
// Where there is room, addresses, listeners, routes, Services and backends are columns;
// else they are a tree.

import { printable } from './dom.js';
import { duration, plural, rate, share } from './format.js';
import { shape, stateInFull, stateOf, word } from './marks.js';

const roomForColumns = 720;
const roomForRoutes = 1000;
const mostRows = 32; // backends in a picture; more are one row together
const fewest = 3; // rows of a Service: where there is room for less, one stands for all
const widest = 22; // of lines
const rowHeight = 28;
const lineHeight = 18;
const padding = 11;

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

const boxHeight = (lines) => padding * 2 - 4 + lines.length * lineHeight;

function wide(scene, tree, width) {
  const withRoutes = width >= roomForRoutes;
  const gap = Math.min(72, width * 0.05);
  const parts = withRoutes ? [0.15, 0.15, 0.17, 0.24, 0.29] : [0.19, 0.2, 0.28, 0.33];
  const room = width - gap * (parts.length - 1);
  let x = 0;
  const columns = parts.map((part) => {
    const column = { x, width: room * part };
    x += column.width + gap;
    return column;
  });
  const [clients, listener] = columns;
  const service = columns.at(-2);
  const backend = columns.at(-1);

  let y = 1;
  const ends = []; // lines to listeners
  for (const l of tree.listeners) {
    const begin = y;
    const next = [];
    for (const s of l.services) {
      const lines = serviceLines(s);
      const height = Math.max(boxHeight(lines), s.rows.length * rowHeight);
      const middle = y + height / 2;
      scene.box(s.key, 'service', service.x, middle - boxHeight(lines) / 2, service.width, lines, s.ready === 0);
      const leaves = s.rows.map((b, i) => {
        const at = middle + (i - (s.rows.length - 1) / 2) * rowHeight;
        scene.backend(`${s.key}/${b.address}`, backend.x, at, backend.width, b);
        return { key: `${s.key}/${b.address}`, y: at, size: tree.line(b.newFlows), class: lineClass(b) };
      });
      scene.fan(service.x + service.width, middle, backend.x - 4, leaves);
      next.push({ key: s.key, y: middle, size: tree.line(s.newFlows), class: lineClass({ ...s, state: s.ready ? 'serving' : 'not-serving' }) });
      y += height + 14;
    }
    const why = refusal(l);
    if (why) {
      scene.label(`${l.key}/refused`, service.x + 4, y + rowHeight / 2, why, service.width + gap + backend.width, 'small bad');
      next.push({ key: `${l.key}/refused`, y: y + rowHeight / 2, size: tree.line(l.rejected), class: 'refused' });
      y += rowHeight + 8;
    }
    const lines = withRoutes ? listenerLines(l) : [...listenerLines(l), ...(l.route ? [{ text: l.route, class: 'small', title: l.route }] : [])];
    const own = boxHeight(lines);
    if (y - begin < own + 14) y = begin + own + 14;
    const middle = (begin + y - 14) / 2;
    scene.box(l.key, 'listener', listener.x, middle - own / 2, listener.width, lines, Boolean(l.problem));
    let from = listener;
    if (withRoutes && l.route) {
      from = columns[2];
      const route = routeLines(l);
      scene.box(`${l.key}/route`, 'route', from.x, middle - boxHeight(route) / 2, from.width, route);
      scene.fan(listener.x + listener.width, middle, from.x, [{ key: `${l.key}/route`, y: middle, size: tree.line(l.newFlows), class: lineClass(l) }]);
    }
    scene.fan(from.x + from.width, middle, service.x, next);
    ends.push({ key: l.key, y: middle, size: tree.line(l.newFlows), class: lineClass(l) });
    y += 8;
  }
  const lines = clientLines(tree);
  y = Math.max(y - 20, boxHeight(lines) + 2);
  const middle = ends.length ? (ends[0].y + ends.at(-1).y) / 2 : y / 2;
  scene.box('clients', 'clients', clients.x, Math.max(1, middle - boxHeight(lines) / 2), clients.width, lines);
  scene.fan(clients.x + clients.width, Math.max(1 + boxHeight(lines) / 2, middle), listener.x, ends);
  return y;
}

function clientLines(tree) {
  const most = 4;
  const lines = [{ text: 'Clients', class: 'strong' }, ...tree.addresses.slice(0, most).map((a) => ({ text: a, class: 'mono', title: a }))];
  if (tree.addresses.length > most) lines.push({ text: `and ${tree.addresses.length - most} more`, class: 'small', title: tree.addresses.map(printable).join('\n') });
  if (tree.addresses.length === 0) lines.push({ text: '✕ no address', class: 'small bad' });
  lines.push({ text: rate(tree.newFlows), class: 'small' });
  return lines;
}

function narrow(scene, tree, width) {
  const step = 22;
  let y = 1;
  const put = (key, kind, depth, lines, problem) => {
    scene.box(key, kind, depth * step, y, width - depth * step - 1, lines, problem);
    const height = boxHeight(lines);
    y += height + 10;
    return { bottom: y - 10, middle: y - 10 - height / 2 };
  };
  const clients = put('clients', 'clients', 0, clientLines(tree));
  for (const l of tree.listeners) {
    const lines = [...listenerLines(l), ...(l.route ? [{ text: l.route, class: 'small', title: l.route }] : [])];
    const own = put(l.key, 'listener', 1, lines, Boolean(l.problem));
    scene.elbow(l.key, step / 2, clients.bottom, own.middle, step, tree.line(l.newFlows) / 2, lineClass(l));
    for (const s of l.services) {
      const at = put(s.key, 'service', 2, serviceLines(s), s.ready === 0);
      scene.elbow(s.key, 1.5 * step, own.bottom, at.middle, 2 * step, tree.line(s.newFlows) / 2, lineClass({ ...s, state: s.ready ? 'serving' : 'not-serving' }));
      for (const b of s.rows) {
        const key = `${s.key}/${b.address}`;
        scene.backend(key, 3 * step + 4, y + rowHeight / 2 - 6, width - 3 * step - 5, b);
        scene.elbow(key, 2.5 * step, at.bottom, y + rowHeight / 2 - 6, 3 * step, tree.line(b.newFlows) / 2, lineClass(b));
        y += rowHeight;
      }
      if (s.rows.length) y += 4;
    }
    const why = refusal(l);
    if (why) {
      scene.label(`${l.key}/refused`, 2 * step + 4, y + rowHeight / 2 - 6, why, width - 2 * step - 4, 'small bad');
      scene.elbow(`${l.key}/refused`, 1.5 * step, own.bottom, y + rowHeight / 2 - 6, 2 * step, 1, 'refused');
      y += rowHeight;
    }
    y += 6;
  }
  return y;
}

function lineClass(x) {
  if (x.many) return x.newFlows > 0 || x.active > 0 ? 'live' : 'idle';
  if (x.state === 'draining') return 'draining';
  if (x.state === 'not-serving') return 'refused';
  return x.newFlows > 0 || x.active > 0 ? 'live' : 'idle';
}

// Scene collects shapes. Lines are below all others.
class Scene {
  lines = [];
  shapes = [];

  add(key, tag, attributes, words, title) {
    this.shapes.push({ key, tag, attributes, text: words, title });
  }

  // label is a text in so much room, with all of it in its title if that is too little.
  label(key, x, y, words, room, kind, { title, anchor, sentence } = {}) {
    const clean = printable(words);
    const shown = fit(clean, room, kind, sentence);
    this.add(`${key} text`, 'text', { x: round(x), y: round(y), class: kind, 'text-anchor': anchor ?? null }, shown, title ? printable(title) : shown !== clean ? clean : null);
  }

  box(key, kind, x, y, width, lines, problem) {
    this.add(`${key} box`, 'rect', { x: round(x) + 0.5, y: round(y) + 0.5, width: round(width), height: boxHeight(lines), rx: 8, class: `box ${kind}${problem ? ' is-bad' : ''}` });
    lines.forEach((line, i) => {
      const at = y + padding + lineHeight * (i + 0.5) - 2;
      let room = width - 2 * padding;
      if (line.bar) {
        const barWidth = Math.min(90, room * 0.4);
        this.bar(`${key} bar`, x + width - padding - barWidth, at, barWidth, line.bar);
        room -= barWidth + 8;
      }
      this.label(`${key} ${i}`, x + padding, at, line.text, room, line.class, line);
    });
  }

  // bar shows the share seen, with a tick at the share wanted.
  bar(key, x, y, width, { seen, wanted }) {
    const part = (v) => Math.min(1, Math.max(0, v || 0)) * width;
    this.add(`${key} whole`, 'rect', { x: round(x), y: round(y) - 3, width: round(width), height: 6, rx: 3, class: 'bar-whole' });
    this.add(`${key} seen`, 'rect', { x: round(x), y: round(y) - 3, width: round(part(seen)), height: 6, rx: 3, class: 'bar-seen' });
    this.add(`${key} wanted`, 'rect', { x: round(x + part(wanted)) - 1, y: round(y) - 6, width: 2, height: 12, class: 'bar-wanted' });
  }

  backend(key, x, y, width, b) {
    const title = `${printable(b.address)}: ${b.many ? word(b.state) : stateInFull(b)}${b.local ? ', on this node' : ''}\nwanted ${share(b.wanted)}, seen ${share(b.seen)} of new flows\n${b.active} flows, ${rate(b.newFlows)} new`;
    this.add(`${key} mark`, 'path', { ...shape(b.state), transform: `translate(${round(x)} ${round(y) - 8})` }, undefined, title);
    const rateRoom = 50;
    const kind = b.many ? 'small' : 'mono';
    const room = width - 22 - rateRoom;
    const said = b.state === 'serving' || b.many ? '' : stateOf(b); // instead of a bar
    let side = Math.min(72, room - 12 - measure(printable(b.address).slice(0, 60), kind));
    if (side < (said ? measure(said, 'small') : 30)) side = 0; // the address first
    this.label(key, x + 22, y, b.address, room - (side ? side + 12 : 0), kind, { title });
    if (side && said) this.label(`${key} state`, x + 22 + room - side, y, said, side, 'small warn');
    else if (side) this.bar(key, x + 22 + room - side, y, side - 8, b);
    this.label(`${key} rate`, x + width, y, rate(b.newFlows), rateRoom, 'small', { anchor: 'end' });
  }

  // fan draws lines from a point to several, side by side where they begin.
  fan(x, y, to, ends) {
    let at = y - ends.reduce((sum, e) => sum + e.size, 0) / 2;
    for (const end of ends) {
      const begin = at + end.size / 2;
      at += end.size;
      const bend = (to - x) / 2;
      this.#line(end.key, `M${round(x)} ${round(begin)}C${round(x + bend)} ${round(begin)} ${round(to - bend)} ${round(end.y)} ${round(to)} ${round(end.y)}`, end.size, end.class);
    }
  }

  // elbow draws a line down, and to the right.
  elbow(key, x, from, to, end, size, kind) {
    this.#line(key, `M${round(x)} ${round(from)}V${round(to - 6)}Q${round(x)} ${round(to)} ${round(x + 6)} ${round(to)}H${round(end)}`, Math.max(1.5, size), kind);
  }

  #line(key, d, size, kind) {
    this.lines.push({ key: `${key} line`, tag: 'path', attributes: { d, 'stroke-width': round(size), class: `line ${kind}` } });
  }
}

const round = (v) => Math.round(v * 10) / 10;

// Widths of texts, in the fonts that page.css gives them.
const fonts = { strong: '600 13px system-ui, sans-serif', mono: '12px ui-monospace, monospace', small: '12px system-ui, sans-serif' };
const canvas = document.createElement('canvas').getContext('2d');
const widths = new Map();

function measure(words, kind) {
  const font = fonts[kind.split(' ')[0]];
  const key = font + words;
  if (!widths.has(key)) {
    if (widths.size > 5000) widths.clear();
    canvas.font = font;
    widths.set(key, canvas.measureText(words).width);
  }
  return widths.get(key);
}

const letters = new Intl.Segmenter();

// fit returns a text that is no wider than room. A sentence loses its end, a name its
// middle, since names often differ at their ends.
function fit(words, room, kind, sentence) {
  if (words.length < 400 && measure(words, kind) <= room) return words;
  const all = [...letters.segment(words.length < 1000 ? words : words.slice(0, 500) + words.slice(-500))].map((s) => s.segment);
  let [low, high] = [1, Math.min(all.length, 200)];
  const cut = (n) => sentence ? all.slice(0, n).join('') + '…' : all.slice(0, Math.ceil(n / 2)).join('') + '…' + (n > 1 ? all.slice(-Math.floor(n / 2)).join('') : '');
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (measure(cut(middle), kind) <= room) low = middle;
    else high = middle - 1;
  }
  return cut(low);
}
