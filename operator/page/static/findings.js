// SPDX-License-Identifier: Apache-2.0

// What is wrong, the worst first, each with what to do.

import { $, attr, el, keyed, name, printable, setName, show, text } from './dom.js';
import { plural } from './format.js';
import { mark, setMark } from './marks.js';

// counts says how many findings of each kind there are: 2 failed, 1 warning.
export function counts(view) {
  const n = { failed: 0, warning: 0, unknown: 0 };
  for (const f of view.status.findings ?? []) {
    if (Object.hasOwn(n, f.verdict)) n[f.verdict]++;
  }
  const parts = [];
  if (n.failed) parts.push(`${n.failed} failed`);
  if (n.warning) parts.push(plural(n.warning, 'warning'));
  if (n.unknown) parts.push(`${n.unknown} unknown`);
  if (view.moreFindings) parts.push(`and ${view.moreFindings} more`);
  return parts.join(', ');
}

const first = 6; // findings that are shown at once
const short = 300; // characters of one that are

let all = false; // whether all are shown, in full
let last = [];

export function init() {
  $('findings-all').addEventListener('click', () => {
    all = !all;
    list();
  });
}

export function draw(view) {
  const found = (view.status.findings ?? []).filter((f) => f.verdict !== 'ok');
  const unanswered = Object.entries(view.unanswered ?? {}).map(([node, why]) => ({
    check: 'unanswered', verdict: 'unknown', object: node, seen: `Its numbers are missing here: ${why}`, remedy: '',
  }));
  last = [...found, ...unanswered.slice(0, 5)];
  show($('findings-section'), last.length > 0);
  text($('findings-title'), view.status.verdict === 'ok' ? 'What to look at' : 'What is wrong');
  list();
  const more = (view.moreFindings ?? 0) + Math.max(0, unanswered.length - 5);
  if (show($('findings-more'), more > 0)) text($('findings-more'), `${plural(more, 'more finding')}: blixt status -o json prints all.`);
}

// list shows the first ones, each as far as it is short, or all.
function list() {
  keyed($('findings'), all ? last : last.slice(0, first), (f) => [f.verdict, f.check, f.object].join('\n'), create, update);
  $('findings').classList.toggle('in-full', all);
  const long = last.some((f) => (f.object ?? '').length + (f.seen ?? '').length + (f.remedy ?? '').length > short);
  const button = $('findings-all');
  if (show(button, last.length > first || long)) text(button, all ? 'Show less' : last.length > first ? `Show all ${last.length}` : 'Show in full');
  attr(button, 'aria-expanded', String(all));
}

function create() {
  const li = el('li', { class: 'card finding' });
  const parts = { mark: mark('failed', true), object: name(''), check: el('span', { class: 'check' }), seen: el('p', { class: 'seen', dir: 'auto' }), remedy: el('div', { class: 'remedy' }) };
  li.append(el('p', { class: 'object' }, parts.mark, parts.object, parts.check), parts.seen, parts.remedy);
  li.parts = parts;
  return li;
}

function update(li, f) {
  const { parts } = li;
  li.dataset.verdict = f.verdict;
  setMark(parts.mark, f.verdict);
  setName(parts.object, f.object ?? '');
  text(parts.check, printable(f.check));
  text(parts.seen, printable(f.seen));
  if (parts.said !== f.remedy) {
    parts.said = f.remedy;
    parts.remedy.replaceChildren(...remedy(printable(f.remedy)));
    show(parts.remedy, f.remedy);
  }
}

// A command stands at the begin of a remedy, or behind a colon, a semicolon or a question.
const commands = /(^|[:;?] )((?:sudo |kubectl |blixt |sysctl |ip |ip6?tables |nft |systemctl |ethtool |helm )[^;]*?)(?=;|[.?] [A-Z]|[.,]? or |, and |\.?$)/g;

// What has one of these words is a sentence about a command: blixt status names the frontend.
const sentence = / (?:the|a|an|of|has|have|is|are|names|shows|says|tells|prints|lists|as|with|on|to) /;

// remedy returns a text with its commands set apart, each with a button that copies it.
function remedy(words) {
  const parts = [];
  let end = 0;
  for (const match of words.matchAll(commands)) {
    if (sentence.test(match[2] + ' ')) continue;
    const begin = match.index + match[1].length;
    parts.push(words.slice(end, begin), command(match[2]));
    end = match.index + match[0].length;
  }
  parts.push(words.slice(end).replace(/^\.$/, ''));
  return parts.filter((p) => p !== '');
}

function command(line) {
  const button = el('button', { type: 'button', class: 'copy', 'aria-label': `Copy ${line}` }, 'Copy');
  button.addEventListener('click', async () => {
    let done = 'Copied';
    try {
      await navigator.clipboard.writeText(line);
    } catch { // no right, or no TLS: let the reader copy what is selected
      getSelection().selectAllChildren(code);
      done = 'Selected';
    }
    text(button, done);
    setTimeout(() => text(button, 'Copy'), 2000);
  });
  const code = el('code', {}, line);
  return el('span', { class: 'command' }, code, button);
}
