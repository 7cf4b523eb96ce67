// SPDX-License-Identifier: Apache-2.0
// Search, and buttons that copy. All else of the site works without a script. Nothing becomes
// HTML here but what is built of elements and text.
'use strict';
(() => {
  const root = new URL('.', document.currentScript.src);
  const input = document.querySelector('.search input');
  const list = document.querySelector('#results');
  const status = document.querySelector('.search [role=status]');

  const el = (name, props, ...children) => {
    const e = Object.assign(document.createElement(name), props);
    e.append(...children);
    return e;
  };

  // Words

  // Words of questions that tell nothing of what they are about.
  const common = new Set(('a am an and any are as at be been but by can cannot could did do does for from had has have how i if in into ' +
    'is it its me my of on or our s so t than that the their them then there this to up want was we what when where which who why will with would you your ' +
    'about always anything between get gets give happen happened happens like many mean means much need needed needs please should some something still tell use used uses using work works').split(' '));
  const wordsOf = (text) => text.normalize('NFKC').toLowerCase().match(/[\p{L}\p{N}]+(?:[_-][\p{L}\p{N}]+)*/gu) ?? [];
  // Names such as drop_no_route and --http-address are one word, and to a lesser degree many.
  const partsOf = (word) => word.split(/[_-]/);
  // stem makes one of upgrade, upgrades and upgrading. It is a beginning of them all.
  const stem = (word) => {
    if (word.length < 4 || /[\d_-]/.test(word)) return word;
    const s = word.replace(/(?<=..)(?:ing|ed|ies|es|s|e|y)$/, '').replace(/(?<=..)([bdgmnpt])\1$/, '$1');
    return s.length < 3 ? word : s;
  };

  // What others call what is called otherwise here.
  const synonyms = new Map([['ip', 'address'], ['ips', 'address'], ['ddos', 'attack'], ['dos', 'attack'], ['lb', 'balancer']]);
  // wanted returns the words of a question that tell what it is about.
  const wanted = (question) => {
    const all = wordsOf(question), telling = all.filter((w) => !common.has(w)).map((w) => synonyms.get(w) ?? w);
    return [...new Set(telling.length > 0 ? telling : all)];
  };
  // Who asks for a word rather wants to use something than to move to it, to look it up, or to
  // develop it.
  const sections = new Map([['Reference', 0.9], ['Examples', 0.9], ['Move to Blixt', 0.9], ['Project', 0.7]]);

  // The index: for each word, the parts of pages that have it, with its weight in their names
  // and in their text. The first part of a page goes by the page's title.

  let parts, words;
  const read = () => {
    if (parts) return;
    parts = [];
    words = new Map(); // word → Map of part → {name, text}
    const add = (text, part, where, weight) => {
      for (const word of wordsOf(text)) {
        for (const w of new Set([word, ...partsOf(word)])) {
          if (!words.has(w)) words.set(w, new Map());
          const at = words.get(w);
          if (!at.has(part)) at.set(part, {name: 0, text: 0});
          at.get(part)[where] += w === word ? weight : weight / 2;
        }
      }
    };
    for (const page of window.blixtDocs ?? []) {
      page.parts.forEach((p, i) => {
        const part = {page, first: i === 0, length: wordsOf(p.text).length, ...p};
        parts.push(part);
        add(page.title, part, 'name', part.first ? 6 : 1);
        add(page.section, part, 'name', 0.5);
        if (!part.first) add(p.heading, part, 'name', 4);
        add(p.text, part, 'text', 1);
      });
    }
  };

  // search returns the parts that have most of the words of a question, best first. A word
  // tells the more the fewer parts have it; ten times tells little more than five times.
  const search = (question) => {
    read();
    const typing = wordsOf(question).at(-1); // which may be the beginning of a word
    const whole = wanted(question), asked = [...new Set(whole.flatMap(partsOf))], scores = new Map();
    for (const word of new Set([...asked, ...whole])) { // a name that is there as a whole counts in addition
      const beginning = stem(word), found = new Map();
      for (const [w, at] of words) {
        if (word.length > 1 ? !w.startsWith(beginning) : w !== word) continue;
        const near = w === word ? 1 : stem(w) === beginning ? 0.9 : word === typing ? 0.4 : 0.1;
        for (const [part, {name, text}] of at) {
          const f = found.get(part) ?? {name: 0, text: 0};
          found.set(part, {name: f.name + name * near, text: f.text + text * near});
        }
      }
      const rare = Math.log(1 + parts.length / (1 + found.size));
      for (const [part, {name, text}] of found) {
        const s = scores.get(part) ?? {sum: 0, words: 0};
        s.sum += rare * (2 * name / (name + 2) + text / (text + 1 + part.length / 200));
        if (asked.includes(word)) s.words++;
        scores.set(part, s);
      }
    }
    const stems = (all) => all.flatMap(partsOf).map(stem).sort().join(' ');
    const isAsked = (name) => stems(wanted(name)) === stems(asked);
    const score = (part, {sum, words}) => sum * (words / asked.length) ** 2 * (sections.get(part.page.section) ?? 1) *
      (isAsked(part.first ? part.page.title : part.heading) ? 1.5 : 1);
    const ranked = [...scores].map(([part, s]) => [part, score(part, s)]).sort((a, b) => b[1] - a[1]).map(([part]) => part);
    const of = new Map(); // page → how many parts of it
    return ranked.filter(({page}) => of.set(page, (of.get(page) ?? 0) + 1).get(page) <= 2).slice(0, 10);
  };

  // What is shown

  // marked returns text in which words that begin in some way are marked.
  const marked = (text, stems) => text.split(/([\p{L}\p{N}]+)/u).map((s) => stems.some((b) => s.toLowerCase().startsWith(b)) ? el('mark', {textContent: s}) : s);
  // excerpt returns the text around the place that has most of them.
  const excerpt = (text, stems) => {
    const hits = [];
    for (const m of text.matchAll(/[\p{L}\p{N}]+/gu)) {
      const which = stems.findIndex((b) => m[0].toLowerCase().startsWith(b));
      if (which >= 0) hits.push([m.index, which]);
    }
    let best = 0, most = 0;
    hits.forEach(([at], i) => {
      const near = new Set();
      for (let j = i; j < hits.length && hits[j][0] < at + 140; j++) near.add(hits[j][1]);
      if (near.size > most) [best, most] = [at, near.size];
    });
    best = text.lastIndexOf(' ', Math.max(0, best - 20)) + 1;
    return (best > 0 ? '… ' : '') + text.slice(best, best + 220);
  };

  const show = () => {
    const question = input.value.trim();
    const found = question ? search(question) : [];
    const stems = wanted(question).flatMap(partsOf).map(stem);
    list.replaceChildren(...found.map((part, i) => {
      const name = el('strong', {}, ...marked(part.page.title, stems));
      if (!part.first && part.heading) name.append(el('span', {}, ' › ', ...marked(part.heading, stems)));
      const a = el('a', {id: `result-${i}`, tabIndex: -1}, name, el('small', {}, ...marked(excerpt(part.text, stems), stems)));
      a.href = new URL(part.page.page + (part.first ? '' : '#' + part.id), root).href;
      a.setAttribute('role', 'option');
      a.addEventListener('click', close);
      return a;
    }));
    if (question && found.length === 0) list.append(el('p', {}, 'Nothing has these words.'));
    list.hidden = !question;
    input.setAttribute('aria-expanded', String(!list.hidden));
    status.textContent = question ? `${found.length} results` : '';
    choose(found.length > 0 ? 0 : -1);
  };
  const close = () => {
    list.hidden = true;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  };

  let chosen = -1;
  const choose = (i) => {
    chosen = i;
    input.removeAttribute('aria-activedescendant');
    [...list.querySelectorAll('a')].forEach((a, j) => {
      a.setAttribute('aria-selected', String(i === j));
      if (i !== j) return;
      input.setAttribute('aria-activedescendant', a.id);
      a.scrollIntoView({block: 'nearest'});
    });
  };

  input.addEventListener('input', show);
  input.addEventListener('focus', () => {
    if (input.value.trim()) show();
    else if (!parts) setTimeout(read); // before the first letter is there
  });
  input.addEventListener('keydown', (e) => {
    const all = list.querySelectorAll('a');
    if (e.isComposing) return;
    if ((e.key === 'ArrowDown' || e.key === 'ArrowUp') && all.length > 0) {
      if (list.hidden) show();
      else choose((chosen + (e.key === 'ArrowDown' ? 1 : all.length - 1)) % all.length);
    } else if (e.key === 'Enter' && !list.hidden && all[chosen]) {
      all[chosen].click();
    } else if (e.key === 'Escape') {
      if (list.hidden) input.blur();
      close();
    } else return;
    e.preventDefault();
  });
  document.addEventListener('keydown', (e) => {
    if (e.key !== '/' || e.ctrlKey || e.metaKey || e.altKey || e.target.closest('input, textarea, select, [contenteditable]')) return;
    e.preventDefault();
    input.focus();
    input.select();
  });
  document.addEventListener('click', (e) => { if (!e.target.closest('.search')) close(); });
  document.querySelector('.search').addEventListener('focusout', (e) => { if (!e.relatedTarget?.closest('.search')) close(); });

  // Copying: of a console, what follows a prompt is what was typed.

  const typed = (code) => {
    const text = code.textContent.replace(/\n$/, '');
    if (code.dataset.lang !== 'console') return text;
    return text.split('\n').filter((l) => /^[$#] /.test(l)).map((l) => l.slice(2)).join('\n');
  };
  for (const block of document.querySelectorAll('.code:not([data-type=""], [data-type=text])')) {
    const code = block.querySelector('code');
    if (!code || !navigator.clipboard) continue;
    const button = el('button', {className: 'copy', type: 'button', textContent: 'Copy'});
    button.addEventListener('click', async () => {
      const done = await navigator.clipboard.writeText(typed(code)).then(() => 'Copied', () => 'Not allowed');
      button.textContent = done;
      setTimeout(() => { button.textContent = 'Copy' }, 1500);
    });
    block.append(button);
  }

  // What is on the page: the part that is being read is marked.

  const links = new Map([...document.querySelectorAll('.toc a')].map((a) => [decodeURIComponent(a.hash.slice(1)), a]));
  const heads = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const follow = () => {
    const now = heads.findLast((h) => h.getBoundingClientRect().top < 120) ?? heads[0];
    for (const a of links.values()) a.removeAttribute('aria-current');
    if (now) links.get(now.id).setAttribute('aria-current', 'true');
  };
  if (heads.length > 0) {
    let waiting = false;
    addEventListener('scroll', () => {
      if (!waiting) requestAnimationFrame(() => { waiting = false; follow() });
      waiting = true;
    }, {passive: true});
    follow();
  }
  // The menu may be longer than the window.
  const here = document.querySelector('#menu [aria-current]');
  if (here) here.closest('nav').scrollTop = here.offsetTop - innerHeight / 3;
})();
