// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// answersAll is a Fleet whose nodes answer.
type answersAll struct{ asked int }

func (f *answersAll) Ask(_ context.Context, _ observe.Query, _ []string, send func(*wire.AskReply) error) error {
	f.asked++
	return send(&wire.AskReply{Node: "n1", End: true})
}

// reviewer returns an API server that knows tokens user/audience and the rights
// "user kind" and "user kind node".
func reviewer(rights ...string) *fake.Clientset {
	kube := fake.NewClientset()
	kube.PrependReactor("create", "tokenreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
		r := a.(ktesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		user, audience, known := strings.Cut(r.Spec.Token, "/")
		if user == "down" {
			return true, nil, errors.New("no route to 10.96.0.1")
		}
		if known && (slices.Contains(r.Spec.Audiences, audience) || audience == "none") {
			r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{
				Username: user, UID: "uid", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"e": {"x"}},
			}}
			if audience != "none" {
				r.Status.Audiences = []string{audience}
			}
		}
		return true, r, nil
	})
	kube.PrependReactor("create", "subjectaccessreviews", func(a ktesting.Action) (bool, runtime.Object, error) {
		r := a.(ktesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		s, of := r.Spec, r.Spec.ResourceAttributes
		if s.User == "unknown" {
			return true, nil, errors.New("no route to 10.96.0.1")
		}
		if s.UID != "uid" || len(s.Groups) != 1 || s.Extra["e"][0] != "x" || of.Verb != "get" || of.Group != v1alpha1.GroupName || of.Resource != "nodedataplanes" {
			return true, nil, errors.New("another question")
		}
		right := strings.TrimSpace(s.User + " " + of.Subresource + " " + of.Name)
		r.Status.Allowed, r.Status.Denied = slices.Contains(rights, right), slices.Contains(rights, "never "+right)
		return true, r, nil
	})
	return kube
}

func TestWhoMayAsk(t *testing.T) {
	t.Parallel()
	kube := reviewer("ann flows", "ann status", "bob flows n1", "bob flows n2", "eve flows", "never eve flows")
	const flows, trace = `{"flows":{"filter":{}}}`, `{"trace":{"client":"192.0.2.1:1","server":"192.0.2.2:2","protocol":"tcp"}}`
	right := "/" + v1alpha1.ObserveAudience
	many := slices.Repeat([]string{"n1"}, maxNamed+1)
	for _, c := range []struct {
		name, token, query string
		nodes              []string
		want               codes.Code
	}{
		{"may", "ann" + right, flows, nil, codes.OK},
		{"may ask one", "ann" + right, flows, []string{"n1"}, codes.OK},
		{"may not trace", "ann" + right, trace, nil, codes.PermissionDenied},
		{"may ask these nodes", "bob" + right, flows, []string{"n1", "n2"}, codes.OK},
		{"may ask one of these nodes", "bob" + right, flows, []string{"n1", "n3"}, codes.PermissionDenied},
		{"may not ask all nodes", "bob" + right, flows, nil, codes.PermissionDenied},
		{"asks for too many reviews", "bob" + right, flows, many, codes.PermissionDenied},
		{"is denied", "eve" + right, flows, nil, codes.PermissionDenied},
		{"has no right", "carl" + right, flows, nil, codes.PermissionDenied},
		{"no token", "", flows, nil, codes.Unauthenticated},
		{"no such token", "ann", flows, nil, codes.Unauthenticated},
		{"an agent's token", "ann/operator.blixt.x-k8s.io", flows, nil, codes.Unauthenticated},
		{"an API server without audiences", "ann/none", flows, nil, codes.Unauthenticated},
		{"no user", right, flows, nil, codes.Unauthenticated},
		{"token cannot be reviewed", "down" + right, flows, nil, codes.Internal},
		{"right cannot be reviewed", "unknown" + right, flows, nil, codes.Internal},
		{"no question", "ann" + right, `{}`, nil, codes.InvalidArgument},
		{"two questions", "ann" + right, `{"status":{},"flows":{"filter":{}}}`, nil, codes.InvalidArgument},
		{"no JSON", "ann" + right, "\xff", nil, codes.InvalidArgument},
		{"hostile name", "ann" + right, flows, []string{strings.Repeat("\x1b", 10_000)}, codes.InvalidArgument},
		{"empty name", "ann" + right, flows, []string{""}, codes.InvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			fleet := &answersAll{}
			e := &endpoint{kube: kube, fleet: fleet, log: slog.New(slog.DiscardHandler)}
			ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+c.token))
			if c.token == "" {
				ctx = t.Context()
			}
			err := e.answer(ctx, &wire.AskRequest{Query: []byte(c.query), Nodes: c.nodes}, func(*wire.AskReply) error { return nil })
			if status.Code(err) != c.want || fleet.asked > 0 != (c.want == codes.OK) {
				t.Errorf("got %v, want %v; asked %d times", err, c.want, fleet.asked)
			}
			if text := status.Convert(err).Message(); strings.Contains(text, "10.96") || len(text) > 2000 {
				t.Errorf("the asker hears %q", text)
			}
		})
	}
	two := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer ann"+right, "authorization", "Bearer bob"+right))
	e := &endpoint{kube: kube, fleet: &answersAll{}, log: slog.New(slog.DiscardHandler)}
	if err := e.answer(two, &wire.AskRequest{Query: []byte(flows)}, nil); status.Code(err) != codes.Unauthenticated {
		t.Errorf("two tokens: %v", err)
	}
}

// Who asks again and again, as a page does, is in the log once a minute.
func TestLogOfQuestions(t *testing.T) {
	t.Parallel()
	var s said
	begin := time.Now()
	for i, want := range []slog.Level{slog.LevelInfo, slog.LevelDebug, slog.LevelDebug, slog.LevelInfo} {
		if got := s.level("ann", observe.KindFlows, begin.Add(time.Duration(i)*20*time.Second)); got != want {
			t.Errorf("question %d is logged at %v, want %v", i, got, want)
		}
	}
	for i := range 3 * maxSaid {
		if got := s.level(fmt.Sprint("user ", i), observe.KindFlows, begin); got != slog.LevelInfo {
			t.Fatalf("the first question of another user is logged at %v", got)
		}
	}
	if len(s.last) > maxSaid {
		t.Errorf("%d users are remembered", len(s.last))
	}
}
