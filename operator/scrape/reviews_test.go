// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

const audience = "metrics.example.com"

// jwt returns a token with these claims, which nobody has signed.
func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// reader returns the token of a reader that expires at a time.
func reader(name string, expires time.Time) string {
	return jwt(fmt.Sprintf(`{"aud":[%q],"sub":%q,"exp":%d}`, audience, name, expires.Unix()))
}

// reviewer is an API server of a test.
type reviewer struct {
	*Reviews
	now   time.Time
	asked int
	say   Verdict
	err   error
}

func newReviewer() *reviewer {
	r := &reviewer{now: time.Unix(1_800_000_000, 0), say: Verdict{Code: http.StatusOK}}
	r.Reviews = NewReviews(func(context.Context, string) (Verdict, error) {
		r.asked++
		return r.say, r.err
	}, audience, 1000)
	r.clock = func() time.Time { return r.now }
	return r
}

// wants fails the test unless a token gets this code, 0: none, after so many questions.
func (r *reviewer) wants(t *testing.T, token string, code, asked int) {
	t.Helper()
	v, err := r.Check(t.Context(), token)
	if err != nil && code != 0 || err == nil && v.Code != code || r.asked != asked {
		t.Fatalf("got %+v, %v after %d questions, want %d after %d", v, err, r.asked, code, asked)
	}
}

func TestVerdictIsRememberedForAWhile(t *testing.T) {
	r := newReviewer()
	token := reader("a", r.now.Add(time.Hour))
	r.wants(t, token, http.StatusOK, 1)
	r.now = r.now.Add(allowFor - 1)
	r.wants(t, token, http.StatusOK, 1)
	r.now = r.now.Add(1)
	r.say = Verdict{http.StatusForbidden, "no"} // the right was taken away
	r.wants(t, token, http.StatusForbidden, 2)
	r.now = r.now.Add(denyFor - 1)
	r.wants(t, token, http.StatusForbidden, 2)
	r.now = r.now.Add(1)
	r.say = Verdict{Code: http.StatusOK}
	r.wants(t, token, http.StatusOK, 3)
	r.now = r.now.Add(-time.Hour) // the clock was wrong
	r.wants(t, token, http.StatusOK, 4)
}

// Metrics are needed most when nobody can review tokens: who was allowed last still is,
// nobody else, and not for ever.
func TestVerdictOutlivesWhoGaveIt(t *testing.T) {
	r := newReviewer()
	long, short, refused := reader("long", r.now.Add(1000*time.Hour)), reader("short", r.now.Add(time.Hour)), reader("refused", r.now.Add(1000*time.Hour))
	r.wants(t, long, http.StatusOK, 1)
	r.wants(t, short, http.StatusOK, 2)
	r.say = Verdict{http.StatusForbidden, "no"}
	r.wants(t, refused, http.StatusForbidden, 3)
	r.err = errors.New("away")
	r.now = r.now.Add(time.Hour - time.Second)
	r.wants(t, long, http.StatusOK, 4)
	r.wants(t, short, http.StatusOK, 5)
	r.wants(t, refused, 0, 6)
	r.wants(t, reader("new", r.now.Add(time.Hour)), 0, 7)
	r.now = r.now.Add(time.Second)
	r.wants(t, long, http.StatusOK, 8)
	r.wants(t, short, 0, 9)
	r.now = r.now.Add(keepFor)
	r.wants(t, long, 0, 10)
}

// A token that is worth more than metrics is shown to nobody: whoever it was shown to could
// use it.
func TestOnlyTokensForMetricsAreReviewed(t *testing.T) {
	r := newReviewer()
	for _, token := range []string{
		"", "secret", "a.b.c", "..", jwt(`{`), jwt(`{}`), jwt(`{"aud":[]}`), jwt(`{"aud":["https://kubernetes.default.svc"]}`),
		jwt(`{"aud":["https://kubernetes.default.svc","` + audience + `"]}`), jwt(`{"aud":["` + audience + `","x"]}`),
		jwt(`{"aud":["` + audience + `"],"x":"` + string(make([]byte, maxToken)) + `"}`),
		reader("x", r.now) + "." + "x",
	} {
		r.wants(t, token, http.StatusUnauthorized, 0)
	}
}

// Who sends made-up tokens without end takes no memory, and the place of nobody who is
// allowed.
func TestMadeUpTokensPushNobodyOut(t *testing.T) {
	r := newReviewer()
	r.limit.SetBurst(1 << 20)
	good := reader("good", r.now.Add(time.Hour))
	r.wants(t, good, http.StatusOK, 1)
	r.say = Verdict{http.StatusUnauthorized, "unknown"}
	for i := range 4 * maxVerdicts {
		r.now = r.now.Add(time.Millisecond)
		r.wants(t, reader(fmt.Sprint(i), r.now), http.StatusUnauthorized, 2+i)
	}
	if n := len(r.verdicts); n != maxVerdicts {
		t.Errorf("%d verdicts are remembered", n)
	}
	r.wants(t, good, http.StatusOK, 1+4*maxVerdicts)
	r.limit.SetBurst(0) // more than may be asked for
	r.limit.SetLimit(0)
	r.wants(t, reader("other", r.now), 0, 1+4*maxVerdicts)
	r.now = r.now.Add(allowFor)
	r.wants(t, good, http.StatusOK, 1+4*maxVerdicts)
}

// No more than so many reviews run at a time: others are told to try again.
func TestReviewsAtATimeAreLimited(t *testing.T) {
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	r := NewReviews(func(context.Context, string) (Verdict, error) {
		entered <- struct{}{}
		<-leave
		return Verdict{Code: http.StatusOK}, nil
	}, audience, 2)
	var all sync.WaitGroup
	most := cap(r.running)
	for i := range most {
		all.Go(func() {
			if v, err := r.Check(t.Context(), reader(fmt.Sprint(i), time.Now())); err != nil || v.Code != http.StatusOK {
				t.Errorf("%v, %v", v, err)
			}
		})
	}
	for range most {
		<-entered
	}
	if _, err := r.Check(t.Context(), reader("one more", time.Now())); !errors.Is(err, errBusy) {
		t.Errorf("one more: %v", err)
	}
	close(leave)
	all.Wait()
}

// Both tokens open the page, each without the other.
func TestRequireWithReviews(t *testing.T) {
	for name, c := range map[string]struct {
		err    error // of the static token
		shown  string
		say    Verdict
		failed error
		code   int
	}{
		"the static token":                     {nil, "secret", Verdict{http.StatusForbidden, "no"}, nil, http.StatusOK},
		"a reviewed one":                       {nil, "jwt", Verdict{Code: http.StatusOK}, nil, http.StatusOK},
		"a reviewed one, and no Secret":        {errors.New("none"), "jwt", Verdict{Code: http.StatusOK}, nil, http.StatusOK},
		"one that nobody knows":                {nil, "jwt", Verdict{http.StatusUnauthorized, "unknown"}, nil, http.StatusUnauthorized},
		"one whose owner may not":              {nil, "jwt", Verdict{http.StatusForbidden, "no"}, nil, http.StatusForbidden},
		"none can be reviewed now":             {nil, "jwt", Verdict{}, errors.New("away"), http.StatusServiceUnavailable},
		"none is reviewed here":                {nil, "jwt", Verdict{}, ErrNoReviews, http.StatusUnauthorized},
		"none is reviewed here, and no Secret": {errors.New("none"), "jwt", Verdict{}, ErrNoReviews, http.StatusServiceUnavailable},
		"nonsense":                             {nil, "nonsense", Verdict{Code: http.StatusOK}, nil, http.StatusUnauthorized},
		"nothing":                              {nil, "", Verdict{Code: http.StatusOK}, nil, http.StatusUnauthorized},
	} {
		r := newReviewer()
		r.say, r.err = c.say, c.failed
		h := Require(func() (string, error) { return "secret", c.err }, r.Reviews, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		request, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
		if c.shown == "jwt" {
			c.shown = reader("a", r.now.Add(time.Hour))
		}
		if c.shown != "" {
			request.Header.Set("Authorization", "Bearer "+c.shown)
		}
		if h.ServeHTTP(w, request); w.Code != c.code {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.code)
		}
	}
}
