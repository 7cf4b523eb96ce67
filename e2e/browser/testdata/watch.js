// SPDX-License-Identifier: Apache-2.0
// Runs before any script of a page, and records what a test asks for at the end.
window.watched = {violations: [], ran: [], draws: []};
// What hostile names call, if they can.
window.hacked = (by) => watched.ran.push(String(by));
window.alert = window.prompt = window.confirm = (by) => watched.ran.push(String(by));
addEventListener('securitypolicyviolation', (e) => {
  watched.violations.push(`${e.violatedDirective} ${e.blockedURI} ${e.sample} at ${e.sourceFile}:${e.lineNumber}`);
});
// The page measures what it does for a View: it may do that in several parts.
new PerformanceObserver((list) => {
  for (const entry of list.getEntriesByName('draw')) watched.draws.push(entry.duration);
}).observe({type: 'measure'});
// seen returns the elements that match and can be seen.
watched.seen = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0);
// control returns what has a name and can be clicked, typed into or chosen.
watched.control = (name) => watched.seen('a[href], button, input, select, summary, textarea').find((e) => watched.name(e) === name);
watched.name = (e) => (e.getAttribute('aria-label') || (e.labels?.[0] ?? e).textContent).trim();
// at returns the middle of a control, and has it be seen.
watched.at = (name) => {
  const e = watched.control(name);
  if (!e) throw new Error(`nothing is called ${name}: there are ${watched.seen('a[href], button, input, select, summary, textarea').map(watched.name)}`);
  e.scrollIntoView({block: 'center', behavior: 'instant'});
  const r = e.getBoundingClientRect();
  return [r.x + r.width / 2, r.y + r.height / 2];
};
