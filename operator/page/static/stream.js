// SPDX-License-Identifier: Apache-2.0

// One stream of server-sent events a page: a browser has six connections to a server, over
// all tabs. So it is closed while nobody looks. It is read by fetch, since an EventSource
// does not tell why a server refuses.

const firstDelay = 1000; // milliseconds
const longestDelay = 30000;
const silence = 45000; // a server that lives says something every 15 seconds

// Stream reads events and calls on.view, on.trouble (a text), on.refused (a status and a
// text), on.state (connecting, live, waiting, with the seconds until it tries again, closed).
export class Stream {
  #on;
  #query = '';
  #reader = null; // an AbortController
  #timer = 0; // until the next attempt
  #alarm = 0; // until the server counts as gone
  #delay = firstDelay;

  constructor(on) {
    this.#on = on;
  }

  // open begins anew, with another query.
  open(query) {
    this.#stop();
    this.#query = query;
    this.#delay = firstDelay;
    this.#connect();
  }

  close() {
    this.#stop();
    this.#on.state('closed');
  }

  #stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#alarm);
    this.#reader?.abort();
    this.#reader = null;
  }

  async #connect() {
    const reader = new AbortController();
    this.#reader = reader;
    this.#on.state('connecting');
    let refused = false;
    try {
      const url = 'events' + (this.#query ? '?' + this.#query : '');
      this.#listen(reader);
      const answer = await fetch(url, { signal: reader.signal, cache: 'no-store', headers: { Accept: 'text/event-stream' } });
      if (!answer.ok) {
        refused = true;
        const why = (await answer.text()).trim().slice(0, 500);
        if (this.#reader === reader) this.#on.refused(answer.status, why);
      } else {
        await this.#read(answer.body, reader);
      }
    } catch (problem) {
      if (problem.name !== 'AbortError' && !(problem instanceof TypeError)) console.error(problem);
    }
    if (this.#reader === reader) this.#retry(refused);
  }

  // listen ends a stream that is dead without an error: the computer has slept, say.
  #listen(reader) {
    clearTimeout(this.#alarm);
    this.#alarm = setTimeout(() => reader.abort(), silence);
  }

  // read takes event after event, until the stream ends or another one is wanted.
  async #read(body, reader) {
    const chunks = body.pipeThrough(new TextDecoderStream()).getReader();
    let begun = []; // pieces of an event that is not complete
    for (;;) {
      const { done, value } = await chunks.read();
      if (done || this.#reader !== reader) return;
      this.#listen(reader);
      begun.push(value);
      if (!value.includes('\n')) continue; // a View comes in many pieces: join them once
      const events = begun.join('').split('\n\n');
      begun = [events.pop()];
      for (const event of events) {
        if (this.#reader === reader) this.#event(event);
      }
    }
  }

  #event(lines) {
    let kind = 'message';
    const data = [];
    for (const line of lines.split('\n')) {
      if (line.startsWith('event:')) kind = line.slice(6).trim();
      else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
    }
    if (data.length === 0) return; // a comment keeps the connection open
    if (kind === 'view') {
      this.#delay = firstDelay;
      this.#on.state('live');
      this.#on.view(JSON.parse(data.join('\n')));
    } else if (kind === 'trouble') {
      this.#on.trouble(plain(data.join('\n')));
    }
  }

  #retry(refused) {
    clearTimeout(this.#alarm);
    const delay = refused ? Math.max(this.#delay, 5000) : this.#delay;
    this.#delay = Math.min(2 * this.#delay, longestDelay);
    this.#on.state('waiting', delay / 1000);
    // Not all readers at the same time, after a restart of the server.
    this.#timer = setTimeout(() => this.#connect(), delay * (0.75 + Math.random() / 2));
  }
}

// plain returns a text that may be a string of JSON.
function plain(data) {
  try {
    const value = JSON.parse(data);
    return typeof value === 'string' ? value : data;
  } catch {
    return data;
  }
}
