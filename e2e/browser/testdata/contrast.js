// SPDX-License-Identifier: Apache-2.0
// An expression: all text that can be seen, where it is, and in which colour. hide(true) makes text
// transparent, so that a picture shows what is behind it.
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`* { color: transparent !important; -webkit-text-fill-color: transparent !important; text-decoration-color: transparent !important;
    caret-color: transparent !important; text-shadow: none !important; transition: none !important; animation: none !important }
    ::placeholder { color: transparent !important } svg text { fill: transparent !important }`);
  watched.hide = (is) => { document.adoptedStyleSheets = is ? [sheet] : []; return true };
  // A list shows two lines of a text of three, and a box what it is scrolled to.
  const cutOff = (e, r) => {
    const x = r.x + r.width / 2, y = r.y + r.height / 2;
    for (let a = e; a !== document.body && a !== null; a = a.parentElement) {
      const box = a.getBoundingClientRect();
      if (getComputedStyle(a).overflow !== 'visible' && (x < box.left || x > box.right || y < box.top || y > box.bottom)) return true;
    }
    return false;
  };
  watched.texts = (within) => {
    const root = document.querySelector(within);
    const all = [];
    const add = (node, rects, style, colour, words) => {
      let opacity = 1;
      for (let e = node; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
      const size = parseFloat(style.fontSize);
      for (const r of rects) {
        if (r.width < 2 || r.height < 2 || cutOff(node, r)) continue;
        all.push({
          text: words.trim().slice(0, 60), where: node.tagName + '#' + node.id + '.' + (node.getAttribute('class') ?? ''),
          x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, colour: rgba(colour), opacity,
          large: size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700,
        });
      }
    };
    const range = document.createRange();
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode, e = node.parentElement;
      if (!node.data.trim() || !e.checkVisibility({visibilityProperty: true, opacityProperty: true}) || e.closest('title, desc, noscript, option')) continue;
      const style = getComputedStyle(e);
      if (style.clipPath !== 'none' || e.closest('.sr')) continue; // for screen readers
      if (e.closest(':disabled, [aria-disabled=true]')) continue; // what cannot be used needs no contrast
      range.selectNodeContents(node);
      add(e, range.getClientRects(), style, e instanceof SVGElement ? style.fill : style.color, node.data);
    }
    for (const e of watched.seen('input, select').filter((e) => root.contains(e))) {
      if (e.type === 'checkbox') continue;
      const style = getComputedStyle(e.placeholder && !e.value ? e : e, e.placeholder && !e.value ? '::placeholder' : null);
      add(e, [e.getBoundingClientRect()], style, style.color, e.value || e.placeholder || '');
    }
    return all;
  };
  return true;
})()
