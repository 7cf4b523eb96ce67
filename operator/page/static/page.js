// SPDX-License-Identifier: Apache-2.0

// What a host or a cluster serves, and what is wrong with it: Views come by a stream, and
// each part of the page shows its part of the last one.

import './token.js'; // first: it logs in
import { carry } from './carry.js';
import { $, attr, printable, setName, show, text } from './dom.js';
import { duration, released, time, timeInFull } from './format.js';
import * as findings from './findings.js';
import * as flows from './flows.js';
import * as gateways from './gateways.js';
import * as packets from './drops.js';
import { mark, setMark } from './marks.js';
import * as nodes from './nodes.js';
import * as selection from './selection.js';
import { Stream } from './stream.js';
import * as totals from './totals.js';
import * as trace from './trace.js';

const version = 1; // of Views that this page understands
const stale = 3; // intervals without a View

let view = null; // the last one
let came = 0; // when, by performance.now
let paused = false;
let connection = 'connecting';
let retryAt = 0;
let chosen = selection.read();

const stream = new Stream({
  view(next) {
    if (next.v !== version) {
      tell('The server has been upgraded', '', 'Reload this page.');
      return stream.close();
    }
    if (next.seconds === 0 && view && age() <= stale * view.every) carry(next, view);
    view = next;
    came = performance.now();
    show($('message'), false);
    show($('trouble'), false);
    draw();
    if (paused && view.seconds > 0) stream.close(); // it was for what was chosen meanwhile
  },
  trouble(why) {
    text($('trouble'), printable(why));
    show($('trouble'), true);
  },
  refused,
  state(now, seconds) {
    connection = now;
    retryAt = performance.now() + 1000 * (seconds ?? 0);
    tick();
  },
});

const parts = [
  head,
  () => gateways.draw(view, chosen),
  () => packets.draw(view),
  () => nodes.draw(view),
  () => flows.draw(view),
];
const slice = 10; // milliseconds of a frame

// draw shows the last View: what has not changed costs a comparison. Large Views are drawn
// in several frames, so that the page goes on answering its reader.
async function draw() {
  const drawn = view;
  let begin = performance.now();
  for (const part of parts) {
    if (performance.now() - begin > slice) {
      performance.measure('draw', { start: begin });
      await frame();
      if (view !== drawn) return; // the next one is drawn already
      begin = performance.now();
    }
    part();
  }
  performance.measure('draw', { start: begin });
  performance.clearMeasures('draw');
}

const frame = () => new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });

function head() {
  show($('content'), true);
  setName($('name'), view.name);
  text($('what'), [view.kind, released(view.version)].filter(Boolean).map(printable).join(' · '));
  health();
  findings.draw(view);
  totals.draw(view);
  tick();
}

const verdicts = { ok: 'WELL', failed: 'NOT WELL' }; // as blixt status says it
const verdictMark = mark('unknown');
let told = ''; // what the live region said of health
let silent = false; // whether that says that nothing comes

// health shows whether all is well, and tells a screen reader when that changes.
function health() {
  const counts = findings.counts(view);
  const well = view.status.verdict === 'ok';
  const verdict = verdicts[view.status.verdict] ?? 'CANNOT TELL';
  attr($('verdict'), 'data-verdict', view.status.verdict);
  setMark(verdictMark, view.status.verdict);
  text($('verdict-title'), verdict);
  text($('verdict-text'), counts || 'Nothing is wrong.');
  document.title = `${well ? '✓' : '✗'} ${verdict} · ${printable(view.name).slice(0, 100)} · Blixt`;
  const now = counts ? `${verdict}: ${counts}` : verdict;
  if (now !== told) {
    told = now;
    text($('health'), now);
  }
}

// age is how many seconds ago the last View came.
const age = () => (performance.now() - came) / 1000;

// tick shows how old the View is: each second, since no View may come.
function tick() {
  const seconds = Math.floor(age());
  const old = view !== null && seconds > stale * view.every;
  const [state, words] = condition(seconds, old);
  attr($('connection'), 'data-state', state);
  text($('connection-text'), words);
  attr($('connection'), 'title', view && 'Last update ' + timeInFull(new Date(view.time)));
  attr(document.body, 'data-stale', old && !paused);
  if (old && !paused && !silent) text($('health'), `No news since ${time(new Date(view.time), new Date(view.time))}`);
  else if (silent && !old) text($('health'), `There is news again. ${told}`);
  silent = old && !paused;
  if (show($('stale'), old && !paused)) text($('stale'), `⚠ No news since ${time(new Date(view.time), new Date(view.time))}: what you see is ${duration(seconds)} old.`);
}

function condition(seconds, old) {
  if (paused) return ['paused', view ? `Paused at ${time(new Date(view.time), new Date(view.time))}` : 'Paused'];
  const update = view ? ` · last update ${duration(seconds)} ago` : '';
  switch (connection) {
    case 'live':
      return old ? ['stale', `No news${update}`] : ['live', `Live · ${seconds < 2 ? 'updated now' : `updated ${seconds} s ago`}`];
    case 'waiting':
      return ['lost', `Not connected${update} · trying again in ${Math.max(0, Math.ceil((retryAt - performance.now()) / 1000))} s`];
    case 'connecting':
      return view && !old ? ['live', 'Live · updated now'] : ['connecting', `Connecting…${update}`];
  }
  return ['closed', `Not connected${update}`];
}

// refused says why the server gives no View, and what to do.
function refused(status, why) {
  const [title, remedy] = refusals[status] ?? ['The server does not answer as it should', `It says: ${status}. The page tries again by itself.`];
  tell(title, why, remedy);
  show($('login'), status === 401);
  if (status === 401) {
    show($('content'), false);
    stream.close(); // until there is a token
    $('token').focus();
  }
  if (status === 403 || status === 421) show($('content'), false);
}

// tell puts a message above all else.
function tell(title, why, remedy) {
  text($('message-title'), title);
  text($('message-text'), printable(why));
  text($('message-remedy'), remedy);
  show($('login'), false);
  show($('message'), true);
}

const refusals = {
  400: ['The address of this page is not understood', 'Open it without what comes after #.'],
  401: ['Log in', 'The server wants a token, and keeps it in a cookie of this browser until that ends.'],
  403: ['You may not see this', 'Ask whoever runs the cluster for the right that is named above. The page tries again by itself.'],
  421: ['This page is not served under this name', 'Open it under localhost or its address, or tell the server the name.'],
  503: ['There are too many readers, or the server is starting', 'The page tries again by itself.'],
};

// choose changes the selection, and asks for a View of that at once.
function choose(change, replace) {
  const next = { ...chosen, ...change };
  if (selection.query(next) === selection.query(chosen)) return;
  chosen = next;
  selection.write(chosen, replace);
  reopen();
}

function reopen() {
  gateways.choosing(chosen);
  if (!document.hidden) stream.open(selection.query(chosen)); // if paused, until rates are known
}

function pause(is) {
  paused = is;
  text($('pause-text'), paused ? 'Resume' : 'Pause');
  document.body.dataset.paused = paused;
  if (paused) stream.close();
  else reopen();
  tick();
}

async function login(event) {
  event.preventDefault();
  text($('login-problem'), '');
  try {
    const answer = await fetch('login', { method: 'POST', body: new URLSearchParams({ token: $('token').value.trim() }), credentials: 'same-origin' });
    $('token').value = '';
    if (answer.ok) {
      show($('message'), false);
      stream.open(selection.query(chosen));
      return;
    }
    text($('login-problem'), printable((await answer.text()).trim().slice(0, 500)) || `The server answers ${answer.status}.`);
  } catch {
    text($('login-problem'), 'The server does not answer. Try again.');
  }
  $('token').focus();
}

findings.init();
$('verdict-icon').append(verdictMark);
gateways.init({ choose, trace: trace.open });
flows.init({ trace: trace.open });
trace.init();
$('pause').addEventListener('click', () => pause(!paused));
$('login').addEventListener('submit', login);
$('skip').addEventListener('click', (event) => {
  event.preventDefault(); // the fragment is the selection's
  $('main').focus();
});
addEventListener('popstate', () => {
  chosen = selection.read();
  reopen();
});
document.addEventListener('visibilitychange', () => {
  if (document.hidden) stream.close();
  else if (!paused) stream.open(selection.query(chosen));
});
setInterval(tick, 1000);
reopen();
