// SPDX-License-Identifier: Apache-2.0

// What the reader has chosen. It is in the fragment of the page's URL, so that a link can
// be shared, and Back goes back.

const defaults = { q: '', problems: '', sort: 'problem', page: '1', open: '' };

// read returns the selection of the URL. What it does not know, it leaves out.
export function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const s = { ...defaults };
  for (const key of Object.keys(defaults)) {
    if (given.has(key)) s[key] = given.get(key);
  }
  if (!['problem', 'name', 'busy'].includes(s.sort)) s.sort = defaults.sort;
  if (!/^[1-9][0-9]{0,5}$/.test(s.page)) s.page = defaults.page;
  if (s.problems !== '1') s.problems = '';
  return s;
}

// query returns the parameters of a selection that are not the defaults.
export function query(s) {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(defaults)) {
    if (s[key] !== value) parameters.set(key, s[key]);
  }
  return parameters.toString();
}

// write puts a selection into the URL. With replace it is no step to go back to: a search
// while it is typed.
export function write(s, replace) {
  const url = '#' + query(s);
  if (url === (location.hash || '#')) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
}
