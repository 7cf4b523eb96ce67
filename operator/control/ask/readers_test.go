// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// door is an API server: it knows tokens NAME.x.y of users who are in it, with their rights.
type door struct {
	*fake.Clientset
	may             map[string]string // kinds, by user
	down            bool
	reviews, rights int
}

func newDoor() *door {
	d := &door{Clientset: fake.NewClientset(), may: map[string]string{"ann": "status flows drops trace", "bob": "status"}}
	d.PrependReactor("create", "tokenreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
		d.reviews++
		if d.down {
			return true, nil, errors.New("no route to 10.96.0.1")
		}
		r := a.(ktesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		user, _, _ := strings.Cut(r.Spec.Token, ".")
		if _, known := d.may[user]; known {
			r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: r.Spec.Audiences, User: authenticationv1.UserInfo{Username: user}}
		}
		return true, r, nil
	})
	d.PrependReactor("create", "subjectaccessreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
		d.rights++
		r := a.(ktesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		of := r.Spec.ResourceAttributes
		r.Status.Allowed = of.Resource == "nodedataplanes" && of.Group == v1alpha1.GroupName && of.Verb == "get" && strings.Contains(d.may[r.Spec.User], of.Subresource)
		return true, r, nil
	})
	return d
}

func newTestReaders(d *door) (*Readers, *time.Time) {
	r, now := NewReaders(d, slog.New(slog.DiscardHandler)), time.Now()
	r.clock = func() time.Time { return now }
	return r, &now
}

func TestReadersHaveTheRightsOfAskers(t *testing.T) {
	t.Parallel()
	d := newDoor()
	r, _ := newTestReaders(d)
	for range 3 {
		bob, err := r.Check(t.Context(), "bob.x.y")
		if err != nil || bob.User != "bob" || !bob.May[observe.KindStatus] || bob.May[observe.KindFlows] || bob.May[observe.KindTrace] {
			t.Errorf("bob: %+v, %v", bob, err)
		}
		ann, err := r.Check(t.Context(), "ann.x.y")
		if err != nil || !ann.May[observe.KindStatus] || !ann.May[observe.KindFlows] || !ann.May[observe.KindDrops] || !ann.May[observe.KindTrace] {
			t.Errorf("ann: %+v, %v", ann, err)
		}
	}
	if d.reviews != 2 || d.rights != 8 {
		t.Errorf("the API server was asked %d times whose a token is, and %d times for rights", d.reviews, d.rights)
	}
	for _, token := range []string{"", "eve", "eve.x.y", "ann.x", strings.Repeat("a.", 2) + strings.Repeat("x", maxToken)} {
		if reader, err := r.Check(t.Context(), token); !errors.Is(err, ErrUnknown) || reader.User != "" {
			t.Errorf("%.20q: %+v, %v", token, reader, err)
		}
	}
	if d.reviews != 3 {
		t.Errorf("what is no token was reviewed: %d", d.reviews)
	}
}

// What is withdrawn, a right or the token, ends within a minute. An API server that does
// not answer is no right.
func TestRightsThatAreWithdrawn(t *testing.T) {
	t.Parallel()
	d := newDoor()
	r, now := newTestReaders(d)
	check := func(after time.Duration, want string) {
		t.Helper()
		*now = now.Add(after)
		reader, err := r.Check(t.Context(), "ann.x.y")
		if got := fmt.Sprint(reader.May[observe.KindFlows], " ", err); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check(0, "true <nil>")
	d.may["ann"] = "status"
	check(59*time.Second, "true <nil>")
	check(2*time.Second, "false <nil>")
	d.down = true
	check(30*time.Second, "false <nil>")
	check(31*time.Second, "false "+errNotReviewed.Error())
	d.down = false
	delete(d.may, "ann")
	check(0, "false "+ErrUnknown.Error())
	d.may["ann"] = "flows" // again
	check(9*time.Second, "false "+ErrUnknown.Error())
	check(2*time.Second, "true <nil>")
	check(-time.Hour, "true <nil>") // a clock that is set is a reason to ask
	if d.reviews != 6 {
		t.Errorf("%d reviews", d.reviews)
	}
}

// Whoever guesses tokens takes neither memory nor the API server's time, and those whose
// tokens are known go on.
func TestGuessedTokens(t *testing.T) {
	t.Parallel()
	d := newDoor()
	r, now := newTestReaders(d)
	if _, err := r.Check(t.Context(), "ann.x.y"); err != nil {
		t.Fatal(err)
	}
	busy := 0
	for i := range 5000 {
		_, err := r.Check(t.Context(), fmt.Sprintf("guess.%d.y", i))
		switch {
		case errors.Is(err, ErrBusy):
			busy++
		case !errors.Is(err, ErrUnknown):
			t.Fatal(err)
		}
	}
	if busy < 4000 || d.reviews > 1000 || len(r.known) > maxReaders {
		t.Errorf("%d were told to wait, %d reviews, %d remembered", busy, d.reviews, len(r.known))
	}
	before := d.reviews
	if _, err := r.Check(t.Context(), "ann.x.y"); err != nil || d.reviews != before {
		t.Errorf("who was known: %v, %d reviews", err, d.reviews-before)
	}
	*now = now.Add(2 * time.Minute)
	if _, err := r.Check(t.Context(), "ann.x.y"); err != nil {
		t.Errorf("who was known, later: %v", err)
	}
}
