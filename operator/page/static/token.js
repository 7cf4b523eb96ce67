// SPDX-License-Identifier: Apache-2.0

// A token in the fragment of the URL, as blixt page prints it, logs in before anything is
// read. A fragment is not sent to a server, and this one does not stay in the history.

const token = new URLSearchParams(location.hash.slice(1)).get('token');
if (token) {
  history.replaceState(null, '', location.pathname + location.search);
  try {
    await fetch('login', { method: 'POST', body: new URLSearchParams({ token }), credentials: 'same-origin' });
  } catch {
    // The page itself finds out that the server does not answer, or asks for a token.
  }
}
