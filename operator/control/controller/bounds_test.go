// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// The API server refuses an object with a condition of more than 32,768 characters,
// with more than eight conditions or 32 parents.
func TestStatusesAreBounded(t *testing.T) {
	ours := []metav1.Condition{{Type: "Accepted", Message: strings.Repeat("ä", 100_000)}, {Type: "Programmed"}}
	var foreign []metav1.Condition
	for i := range 8 {
		foreign = append(foreign, metav1.Condition{Type: fmt.Sprint("example.com/", i), Message: strings.Repeat("x", 10_000)})
	}
	merged := merge(metav1.Time{}, foreign, ours)
	if len(merged) != 8 || len(merged[0].Message) != 10_000 {
		t.Errorf("%d conditions were written, want eight, those of others as they are", len(merged))
	}
	i := slices.IndexFunc(merged, func(c metav1.Condition) bool { return c.Type == "Accepted" })
	if i < 0 || !slices.ContainsFunc(merged, func(c metav1.Condition) bool { return c.Type == "Programmed" }) {
		t.Fatalf("our conditions are missing: %+v", merged)
	}
	if m := merged[i].Message; len(m) > maxMessage || !utf8.ValidString(m) || !strings.HasSuffix(m, "bytes left out)") {
		t.Errorf("the message of %d bytes ends with %q", len(m), m[len(m)-40:])
	}

	route := &gwv1.TCPRoute{}
	for i := range 31 {
		route.Status.Parents = append(route.Status.Parents, gwv1.RouteParentStatus{ControllerName: "example.com/other", ParentRef: gwv1.ParentReference{Name: gwv1.ObjectName(fmt.Sprint(i))}})
	}
	change := routeStatus([]gwv1.RouteParentStatus{{ControllerName: gateway.ControllerName}, {ControllerName: gateway.ControllerName, ParentRef: gwv1.ParentReference{Name: "b"}}})
	if change(route, metav1.Time{}); len(route.Status.Parents) != 32 {
		t.Errorf("%d parents were written, want 32", len(route.Status.Parents))
	}
}

// clock is one that tests set.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func TestRetriesAreBounded(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	r := newRetries[string](c.now)
	if p := r.pause("a", "x"); p > 0 {
		t.Errorf("the first try waits %v", p)
	}
	tries, start := 0, c.Time
	for c.Sub(start) < time.Hour { // an event every 10 ms
		if r.pause("a", "x") <= 0 {
			tries++
			r.failed("a", "x")
		}
		c.Time = c.Add(10 * time.Millisecond)
	}
	if tries > 25 {
		t.Errorf("it was tried %d times within an hour", tries)
	}
	if p := r.pause("a", "y"); p > changedPause {
		t.Errorf("other content waits %v", p)
	}
	if p := r.pause("b", "x"); p > 0 {
		t.Errorf("another object waits %v", p)
	}
	r.forget("a")
	if p := r.pause("a", "x"); p > 0 {
		t.Errorf("what was written waits %v", p)
	}
}

func TestRefusals(t *testing.T) {
	services := schema.GroupResource{Resource: "services"}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{apierrors.NewForbidden(services, "blixt-web", errors.New("exceeded quota: tenant, requested: services=1")), true},
		{apierrors.NewForbidden(services, "blixt-web", errors.New("unable to create new content in namespace x because it is being terminated")), true},
		{apierrors.NewForbidden(services, "blixt-web", errors.New(`User "system:serviceaccount:blixt-system:blixt-operator" cannot patch resource "services"`)), false},
		{apierrors.NewForbidden(services, "", errors.New(`User "x" cannot list resource "services" in API group "" at the cluster scope`)), false},
		{apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "blixt-web", nil), true},
		{apierrors.NewInternalError(errors.New("no")), false},
		{apierrors.NewTooManyRequests("later", 1), false},
		{errors.New("connection refused"), false},
	} {
		if got := isRefusal(fmt.Errorf("apply: %w", c.err)); got != c.want {
			t.Errorf("%v: isRefusal is %v", c.err, got)
		}
	}
}

func TestLogIsBounded(t *testing.T) {
	c, text := &clock{time.Unix(1e9, 0)}, &bytes.Buffer{}
	l := newOnceLog(slog.New(slog.NewTextHandler(text, nil)), c.now)
	lines := func() int {
		n := strings.Count(text.String(), "\n")
		text.Reset()
		return n
	}
	wrong := map[string]string{"Gateway a/b": "no class", "Gateway a/c": ""}
	for range 100 {
		l.set("x", wrong)
		l.set("y", nil) // another finder
	}
	if n := lines(); n != 1 {
		t.Errorf("one problem took %d lines", n)
	}
	// It comes and goes all the time, and is logged again, but not each time.
	for range 600 {
		c.Time = c.Add(time.Second)
		l.set("x", nil)
		l.set("x", wrong)
	}
	if n := lines(); n < 9 || n > 11 {
		t.Errorf("a problem that comes and goes took %d lines in ten minutes", n)
	}
	// What changes within the pause is logged when that is over.
	c.Time = c.Add(time.Hour)
	for i := range 5 {
		l.set("x", map[string]string{"Gateway a/b": fmt.Sprint("message ", i)})
	}
	c.Time = c.Add(logPause)
	l.set("x", map[string]string{"Gateway a/b": "message 4"})
	if got := text.String(); lines() != 2 || !strings.Contains(got, "message 4") {
		t.Errorf("of a message that changes was logged %q", got)
	}
	// Many at once.
	c.Time = c.Add(time.Hour)
	many := map[string]string{}
	for i := range 10_000 {
		many[fmt.Sprint("Gateway a/", i)] = strings.Repeat("wrong", 1000)
	}
	for range 10 {
		l.set("x", many)
	}
	size := text.Len()
	if n := lines(); n > logLines+1 || size > 200_000 {
		t.Errorf("10,000 problems took %d lines of %d bytes", n, size)
	}
	// Nothing is remembered of objects that are gone.
	l.set("x", nil)
	c.Time = c.Add(2 * logPause)
	l.set("x", nil)
	l.set("y", nil)
	if n := len(l.subjects); n > 0 {
		t.Errorf("%d subjects are remembered", n)
	}
}

func TestEventsAreBounded(t *testing.T) {
	now, l, n := time.Unix(1e9, 0), &eventLimit{}, 0
	for end := now.Add(time.Hour); now.Before(end); now = now.Add(time.Second) {
		if l.allows("a", now) {
			n++
		}
		l.allows(types.UID(now.String()), now)
	}
	if n < 30 || n > 40 {
		t.Errorf("an object had %d events within an hour, want about 37", n)
	}
	if len(l.full) > 1000 {
		t.Errorf("%d objects are remembered", len(l.full))
	}
	if !l.allows("b", now) {
		t.Error("another object had none")
	}
}

func TestStuckPassIsNoticed(t *testing.T) {
	now := time.Now()
	l := &Liveness{}
	end := l.begin("publisher", now)
	if err := l.check(now.Add(passLimit)); err != nil {
		t.Error(err)
	}
	if l.check(now.Add(3*passLimit)) == nil {
		t.Error("a pass that does not end was not noticed")
	}
	if end(); l.check(now.Add(time.Hour)) != nil {
		t.Error("a pass that has ended is counted")
	}
}
