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
    'is it its me my of on or our s so t than that the their them then there this to up want was we what when where which who why will with would you your').split(' '));
  const wordsOf = (text) => text.normalize('NFKC').toLowerCase().match(/[\p{L}\p{N}]+(?:_[\p{L}\p{N}]+)*/gu) ?? [];
  // stem makes one of upgrade, upgrades and upgrading. It is a beginning of them all.
  const stem = (word) => {
    if (word.length < 4 || /[\d_]/.test(word)) return word;
    const s = word.replace(/(?<=..)(?:ing|ed|ies|es|s|e|y)$/, '').replace(/(?<=..)([bdgmnpt])\1$/, '$1');
    return s.length < 3 ? word : s;
  };

  // The index: for each part of a page, its words with their weight. A word of a title says
  // more than one of a heading, and that more than one of the text.

  let parts, words;
  const read = () => {
    parts = [];
    words = new Map(); // word → Map of part → weight
    const add = (text, part, weight) => {
      for (const word of wordsOf(text)) {
        for (const w of word.includes('_') ? [word, ...word.split('_')] : [word]) {
          if (!words.has(w)) words.set(w, new Map());
          const at = words.get(w);
          at.set(part, (at.get(part) ?? 0) + weight);
        }
      }
    };
    for (const page of window.blixtDocs ?? []) {
      page.parts.forEach((p, i) => {
        const part = {page, first: i === 0, ...p};
        parts.push(part);
        add(page.title, part, i === 0 ? 6 : 2);
        add(page.section, part, 1);
        if (i > 0) add(p.heading, part, 5);
        add(p.text, part, 1);
        part.length = wordsOf(p.text).length;
      });
    }
  };

  // search returns the parts that have most of the words of a question, best first.
  const search = (question) => {
    if (!parts) read();
    const all = wordsOf(question);
    const telling = all.filter((w) => !common.has(w));
    const wanted = [...new Set(telling.length > 0 ? telling : all)];
    const scores = new Map();
    for (const word of wanted) {
      const beginning = stem(word), found = new Map();
      for (const [w, at] of words) {
        if (word.length > 1 ? !w.startsWith(beginning) : w !== word) continue;
        const near = w === word ? 1 : stem(w) === beginning ? 0.9 : 0.4;
        for (const [part, weight] of at) found.set(part, (found.get(part) ?? 0) + weight * near);
      }
      const rare = Math.log(1 + parts.length / (1 + found.size));
      for (const [part, weight] of found) {
        const s = scores.get(part) ?? {sum: 0, words: 0};
        s.sum += rare * weight / (weight + 1 + part.length / 200);
        s.words++;
        scores.set(part, s);
      }
    }
    const ranked = [...scores].map(([part, s]) => [part, s.sum * (s.words / wanted.length) ** 2]).sort((a, b) => b[1] - a[1]);
    const seen = new Map();
    return ranked.map(([part]) => part).filter((part) => {
      seen.set(part.page, (seen.get(part.page) ?? 0) + 1);
      return seen.get(part.page) <= 2;
    }).slice(0, 10);
  };

  // What is shown

  // marked returns text in which the words of a question are marked.
  const marked = (text, question) => {
    const stems = wordsOf(question).filter((w) => !common.has(w)).map(stem);
    return text.split(/([\p{L}\p{N}]+)/u).map((s) => stems.some((b) => s.toLowerCase().startsWith(b)) ? el('mark', {textContent: s}) : s);
  };
  // excerpt returns the text around the place that has most of the words of a question.
  const excerpt = (text, question) => {
    const stems = wordsOf(question).filter((w) => !common.has(w)).map(stem);
    const hits = [];
    for (const m of text.matchAll(/[\p{L}\p{N}_]+/gu)) {
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
    list.replaceChildren(...found.map((part, i) => {
      const name = el('strong', {}, ...marked(part.page.title, question));
      if (!part.first && part.heading) name.append(el('span', {}, ' › ', ...marked(part.heading, question)));
      const a = el('a', {id: `result-${i}`, tabIndex: -1}, name, el('small', {}, ...marked(excerpt(part.text, question), question)));
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
  input.addEventListener('focus', () => { if (input.value.trim()) show(); });
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
