// SPDX-License-Identifier: Apache-2.0

// Numbers as people read them. null and undefined are what is not known: –

export const UNKNOWN = '–';
const whole = new Intl.NumberFormat('en');

// count returns a whole number: 18,231.
export function count(n) {
  return n === null || n === undefined ? UNKNOWN : whole.format(n);
}

// plural returns a count with its noun: 1 backend, 2,000 backends.
export function plural(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
}

// short returns a number in three digits, with a unit of thousands: 1.2k, 88M.
export function short(n) {
  if (n === null || n === undefined) return UNKNOWN;
  let unit = '';
  for (const next of ['k', 'M', 'G', 'T', 'P']) {
    if (n < 999.5) break;
    n /= 1000;
    unit = next;
  }
  if (n === 0) return '0';
  if (n < 0.01 && unit === '') return '<0.01';
  if (n < 9.95) return trim(n.toFixed(n < 1 ? 2 : 1)) + unit;
  return n.toFixed(0) + unit;
}

const trim = (digits) => (digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits);

// brief returns a whole number, shortened from 100,000 on.
export function brief(n) {
  return n >= 100000 ? short(n) : count(n);
}

// rate returns a rate by second: 12/s.
export function rate(n) {
  return n === null || n === undefined ? UNKNOWN : short(n) + '/s';
}

// bytes returns how many bytes: 4.1 MB.
export function bytes(n) {
  return n === null || n === undefined ? UNKNOWN : short(n).replace(/([kMGTP]?)$/, ' $1B');
}

// byteRate returns bytes by second: 4.1 MB/s.
export function byteRate(n) {
  return n === null || n === undefined ? UNKNOWN : bytes(n) + '/s';
}

// share returns a part of one: 9.8 %.
export function share(n) {
  if (n === null || n === undefined) return UNKNOWN;
  const percent = n * 100;
  if (percent > 0 && percent < 0.1) return '<0.1 %';
  return trim(percent.toFixed(percent < 10 ? 1 : 0)) + ' %';
}

// duration returns seconds in one or two units: 0.7 ms, 12 s, 3 m 5 s, 2 d 4 h.
export function duration(s) {
  if (s === null || s === undefined) return UNKNOWN;
  if (s === 0) return '0 s';
  if (s < 0.000001) return '<1 µs';
  if (s < 0.0009995) return short(s * 1e6) + ' µs';
  if (s < 0.9995) return short(s * 1e3) + ' ms';
  if (s < 59.95) return short(s) + ' s';
  s = Math.round(s);
  for (const [unit, size, lesser, part] of [['d', 86400, 'h', 3600], ['h', 3600, 'm', 60], ['m', 60, 's', 1]]) {
    if (s < size) continue;
    const rest = Math.floor((s % size) / part);
    return `${Math.floor(s / size)} ${unit}` + (rest ? ` ${rest} ${lesser}` : '');
  }
  return UNKNOWN;
}

const clock = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const day = new Intl.DateTimeFormat([], { month: 'short', day: 'numeric' });
const zone = new Intl.DateTimeFormat([], { dateStyle: 'medium', timeStyle: 'long' });

// time returns a time of day where the reader is, with the day if that is not the day of now.
export function time(date, now) {
  if (Number.isNaN(date.getTime())) return UNKNOWN;
  const at = clock.format(date);
  return day.format(date) === day.format(now) ? at : `${day.format(date)}, ${at}`;
}

// timeInFull returns a time where the reader is, and in UTC.
export function timeInFull(date) {
  return Number.isNaN(date.getTime()) ? UNKNOWN : `${zone.format(date)}\n${date.toISOString()} (UTC)`;
}

// endpoint returns address:port, as it is typed.
export function endpoint(e) {
  if (!e?.address) return UNKNOWN;
  if (!e.port) return e.address;
  return e.address.includes(':') ? `[${e.address}]:${e.port}` : `${e.address}:${e.port}`;
}

// released returns a version; '': it is no release, but what somebody has built.
export function released(version) {
  return version === '(devel)' ? '' : version;
}
