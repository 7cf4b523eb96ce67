// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rights are what somebody may see.
type Rights struct {
	// User is who it is, for the log.
	User string
	// Status is needed for anything at all. Flows has their clients.
	Status, Flows, Trace bool
}

// Access says what the owner of a token may see.
type Access interface {
	// Check is called for each request that has a token. It returns an error that wraps
	// ErrUnknownToken if nobody has such a token, and another one if that cannot be told
	// now.
	Check(ctx context.Context, token string) (Rights, error)
}

// ErrUnknownToken is returned for a token that nobody has.
var ErrUnknownToken = errors.New("the token is not right")

// shortestToken is in bytes. A shorter one can be guessed.
const shortestToken = 16

// Token returns an Access that gives all rights to whoever has one token, which may change.
// It returns an error if there is none now, or if it can be guessed.
func Token(read func() (string, error)) (Access, error) {
	t := token(func() (string, error) {
		text, err := read()
		if text = strings.TrimSpace(text); err == nil && len(text) < shortestToken {
			err = fmt.Errorf("the token has %d characters: want %d at least, as openssl rand -hex 16 makes them", len(text), shortestToken)
		}
		return text, err
	})
	_, err := t()
	return t, err
}

type token func() (string, error)

// Check implements Access.
func (t token) Check(_ context.Context, got string) (Rights, error) {
	want, err := t()
	if err != nil {
		return Rights{}, err
	}
	// Hashes, so that the time does not tell the length either.
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return Rights{}, ErrUnknownToken
	}
	return Rights{User: "token", Status: true, Flows: true, Trace: true}, nil
}

// longestToken is in bytes: those of ServiceAccounts have about 1000.
const longestToken = 6 << 10

// checkTimeout is how long Access may take.
const checkTimeout = 10 * time.Second

// rights returns what a request may see. A browser has a cookie, curl a token.
func (h *Handler) rights(r *http.Request) (Rights, *problem) {
	if h.Access == nil {
		return Rights{Status: true, Flows: true, Trace: true}, nil
	}
	if token, is := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); is {
		return h.guess(r, token)
	}
	token, is := h.sessions.token(r)
	if !is {
		return Rights{}, problemf(http.StatusUnauthorized, "log in with a token")
	}
	return h.check(r, token)
}

// guess returns the rights of a token that somebody shows. Who has shown too many wrong
// ones has to wait, with the right one, too: otherwise the answer would tell which one
// that is.
func (h *Handler) guess(r *http.Request, token string) (Rights, *problem) {
	client := clientOf(r)
	if !h.guesses.take(client, time.Now()) {
		return Rights{}, problemf(http.StatusTooManyRequests, "too many wrong tokens have come from your address: try again in a minute")
	}
	rights, p := h.check(r, token)
	if p != nil && p.code == http.StatusUnauthorized {
		h.Log.Warn("somebody has asked for the page with a wrong token", "client", client)
	} else {
		h.guesses.giveBack(client)
	}
	return rights, p
}

// check returns the rights of a token.
func (h *Handler) check(r *http.Request, token string) (Rights, *problem) {
	if token == "" || len(token) > longestToken {
		return Rights{}, problemf(http.StatusUnauthorized, "want a token of at most %d bytes", longestToken)
	}
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	rights, err := h.Access.Check(ctx, token)
	switch {
	case errors.Is(err, ErrUnknownToken):
		return rights, problemf(http.StatusUnauthorized, "%v", err)
	case err != nil:
		h.Log.Warn("tokens for the page cannot be checked", "error", err)
		return rights, problemf(http.StatusServiceUnavailable, "the token cannot be checked now: the log of the server says why")
	case !rights.Status:
		return rights, problemf(http.StatusForbidden, "%s may not see this page", rights.User)
	}
	return rights, nil
}

// Limits of sessions. They are in memory: after a restart people log in again.
const (
	sessionLasts = 12 * time.Hour
	mostSessions = 1000
)

// sessions are the cookies that stand for tokens. A cookie is on a disk and in a browser's
// memory for longer than anybody knows: it is not worth as much as a token.
type sessions struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]session
}

type session struct {
	token   string
	expires time.Time
}

// cookieName returns the name of the cookie. Cookies of one host are the same for all of
// its ports, where there may be other pages, as of another cluster: each has its own.
// With __Host- no other host can have set it (RFC 6265bis).
func cookieName(r *http.Request) string {
	name := "blixt"
	if _, port, is := strings.Cut(r.Host[strings.LastIndex(r.Host, "]")+1:], ":"); is {
		name += "-" + port
	}
	if isTLS(r) {
		name = "__Host-" + name
	}
	return name
}

// isTLS reports whether the browser sees https. A proxy may say so, and anybody else, who
// gets a cookie that is stricter.
func isTLS(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// token returns the token that the cookie of a request stands for.
func (s *sessions) token(r *http.Request) (string, bool) {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return "", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, is := s.all[sha256.Sum256([]byte(c.Value))]
	return found.token, is && time.Now().Before(found.expires)
}

// begin returns the cookie of a new session. The oldest session gives way to it if there are too many.
func (s *sessions) begin(r *http.Request, token string) *http.Cookie {
	id := rand.Text() // 128 bits at least
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[[sha256.Size]byte]session{}
	}
	now := time.Now()
	maps.DeleteFunc(s.all, func(_ [sha256.Size]byte, old session) bool { return !now.Before(old.expires) })
	if len(s.all) >= mostSessions {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(s.all)), func(a, b [sha256.Size]byte) int { return s.all[a].expires.Compare(s.all[b].expires) })
		delete(s.all, oldest)
	}
	s.all[sha256.Sum256([]byte(id))] = session{token, now.Add(sessionLasts)}
	return cookie(r, id, int(sessionLasts.Seconds()))
}

// end ends the session of a request, and returns the cookie that removes its cookie.
func (s *sessions) end(r *http.Request) *http.Cookie {
	if c, err := r.Cookie(cookieName(r)); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, sha256.Sum256([]byte(c.Value)))
	}
	return cookie(r, "", -1)
}

func cookie(r *http.Request, id string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: cookieName(r), Value: id, Path: "/", MaxAge: maxAge, Secure: isTLS(r), HttpOnly: true, SameSite: http.SameSiteStrictMode}
}

// serveLogin gives a browser a session for a token, always a new one: nobody else can know
// it.
func (h *Handler) serveLogin(w http.ResponseWriter, r *http.Request) *problem {
	if h.Access == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	r.Body = http.MaxBytesReader(w, r.Body, 3*longestToken) // with %XX
	if err := r.ParseForm(); err != nil {
		return problemf(http.StatusBadRequest, "read the form: %v", err)
	}
	token := strings.TrimSpace(r.PostForm.Get("token"))
	rights, p := h.guess(r, token)
	if p != nil {
		return p
	}
	h.sessions.end(r) // of this browser before
	http.SetCookie(w, h.sessions.begin(r, token))
	h.Log.Info("somebody has logged in to the page", "user", rights.User, "client", clientOf(r))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveLogout ends a session. Streams of it go on until their rights are checked again.
func (h *Handler) serveLogout(w http.ResponseWriter, r *http.Request) *problem {
	http.SetCookie(w, h.sessions.end(r))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
