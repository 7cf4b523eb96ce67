// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// readerToken returns a token by which somebody may be allowed to read metrics.
func readerToken(name string) string {
	claims := fmt.Sprintf(`{"aud":[%q],"sub":%q,"exp":%d}`, v1alpha1.MetricsAudience, name, time.Now().Add(24*time.Hour).Unix())
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// scraped is an agent whose metrics are read with tokens.
type scraped struct {
	*testing.T
	metrics http.Handler
}

func newScraped(t *testing.T, n *node) scraped {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, []byte("static"))
	return scraped{t, n.Metrics(file)}
}

// get returns the code that a reader gets.
func (s scraped) get(token string) int {
	r, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+token)
	s.metrics.ServeHTTP(w, r)
	return w.Code
}

// gets waits until a reader gets a code.
func (s scraped) gets(token string, want int) {
	s.Helper()
	eventually(s, func() string {
		if code := s.get(token); code != want {
			return fmt.Sprintf("got %d, want %d", code, want)
		}
		return ""
	})
}

// reviewing has an operator review tokens.
func (o *operator) reviewing(review scrape.Review) *operator {
	o.o.ReviewMetrics = review
	return o
}

// The operator reviews for its agents, which remember who may when it is away.
func TestAgentsHaveTokensOfReadersReviewed(t *testing.T) {
	prometheus, other, unknown := readerToken("prometheus"), readerToken("other"), readerToken("unknown")
	var asked atomic.Int32
	o := newOperator(t, "", nil).reviewing(func(_ context.Context, token string) (scrape.Verdict, error) {
		asked.Add(1)
		switch token {
		case prometheus:
			return scrape.Verdict{Code: http.StatusOK}, nil
		case other:
			return scrape.Verdict{Code: http.StatusForbidden, Why: "other may not"}, nil
		case unknown:
			return scrape.Verdict{}, errors.New("the API server is away")
		}
		return scrape.Verdict{Code: http.StatusUnauthorized}, nil
	})
	n := newNode(t, o, "n1", nil)
	s := newScraped(t, n)
	s.gets(prometheus, http.StatusOK)
	for range 50 {
		s.gets(prometheus, http.StatusOK)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	s.gets(other, http.StatusForbidden)
	s.gets(unknown, http.StatusServiceUnavailable)
	s.gets(readerToken("forged"), http.StatusUnauthorized)
	before := asked.Load()
	s.gets("nonsense", http.StatusUnauthorized)
	s.gets("", http.StatusUnauthorized)
	s.gets("static", http.StatusOK)
	if n := asked.Load(); n != before {
		t.Error("the operator is asked about what is no token of a reader")
	}

	o.stop()
	late := readerToken("late")
	s.gets(late, http.StatusServiceUnavailable)
	s.gets(prometheus, http.StatusOK)
	s.gets("static", http.StatusOK)
	again := newOperator(t, o.address, o.certificates.Load()).reviewing(func(context.Context, string) (scrape.Verdict, error) {
		return scrape.Verdict{Code: http.StatusOK}, nil
	})
	again.Lead(2)
	s.gets(late, http.StatusOK)
}

// An operator that reviews nothing is not asked: one of an earlier version would end the
// stream.
func TestAgentsOfAnOperatorThatReviewsNothing(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	o.serves(t, "n1", o.Publish(web(1)), web(1))
	s := newScraped(t, n)
	s.gets(readerToken("prometheus"), http.StatusUnauthorized)
	s.gets("static", http.StatusOK)
	if r, _ := o.report("n1", "blue"); !r.Connected {
		t.Error("the agent is not connected any more")
	}
}

func TestReviewsOfAnOperatorThatReviewsNothing(t *testing.T) {
	o := newOperator(t, "", nil)
	r := newRaw(t, o, "n1/agent")
	r.hello("n1", "blue", nil, nil)
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Review{Review: &wire.TokenReview{Id: 1, Token: "x"}}}) // the error is that of Recv
	var err error
	for err == nil {
		_, err = r.Recv()
	}
	if o.refusedFor(ReasonProtocol) != 1 {
		t.Errorf("the stream ended with %v", err)
	}
}

// An agent that asks without end has a few reviews at a time, and keeps nobody else waiting.
func TestAgentThatAsksWithoutEnd(t *testing.T) {
	var running atomic.Int32
	entered := make(chan struct{}, 100)
	o := newOperator(t, "", nil).reviewing(func(ctx context.Context, token string) (scrape.Verdict, error) {
		if !strings.HasPrefix(token, "hostile") {
			return scrape.Verdict{Code: http.StatusOK}, nil
		}
		running.Add(1)
		entered <- struct{}{}
		<-ctx.Done()
		return scrape.Verdict{}, ctx.Err()
	})
	r := newRaw(t, o, "n2/agent")
	r.hello("n2", "blue", nil, nil)
	for i := range 1000 {
		if err := r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Review{Review: &wire.TokenReview{Id: uint64(i), Token: fmt.Sprint("hostile", i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	for range maxTokenReviews {
		<-entered
	}
	n := newNode(t, o, "n1", nil)
	o.serves(t, "n1", o.Publish(web(1)), web(1))
	newScraped(t, n).gets(readerToken("prometheus"), http.StatusOK)
	if n := running.Load(); n != maxTokenReviews { // none of them ends
		t.Errorf("%d reviews at a time", n)
	}
}
