// SPDX-License-Identifier: Apache-2.0

// The first View of a stream has no rates. When the reader has only opened a Gateway or
// turned a page, those of the View before go on being shown until there are new ones.

// carry sets each number of next that is not known to that of before. Members of lists
// belong together if they have the same name or address.
export function carry(next, before) {
  if (Array.isArray(next)) {
    if (!Array.isArray(before)) return;
    const known = new Map(before.map((item) => [keyOf(item), item]));
    for (const item of next) {
      if (known.has(keyOf(item))) carry(item, known.get(keyOf(item)));
    }
    return;
  }
  for (const [member, value] of Object.entries(next)) {
    const was = Object.hasOwn(before, member) ? before[member] : null;
    if (value === null && typeof was === 'number') next[member] = was;
    else if (value && was && typeof value === 'object' && typeof was === 'object') carry(value, was);
  }
}

const keyOf = (item) => item?.name ?? item?.address ?? item;
