// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// A link may have the token in its fragment, which no server and no history keeps. One that
// somebody else sends does not end the session of who is logged in.
func TestTokenInLink(t *testing.T) {
	v := serve(t, shop(), func(o *page.Options) {
		o.Access = rights{User: "ada", Status: true, Flows: true, Trace: true}
	})
	w := newTab(t)
	w.allow("401 (Unauthorized)")
	w.open(v.URL + "#token=" + token)
	w.awaitText("shop/web")
	if url := eval[string](w, `location.href`); url != v.URL {
		t.Errorf("the URL is %s, want %s", url, v.URL)
	}
	for _, url := range w.asked() {
		if strings.Contains(url, token) {
			t.Errorf("the token is in %s", url)
		}
	}
	w.open("about:blank")
	w.open(v.URL + "#token=somebody-else-has-sent-this")
	await(w, "a second login", `true`, func(bool) bool { return v.count("/login") == 2 })
	await(w, "an answer to it", text, func(seen string) bool {
		return strings.Contains(seen, "shop/web") || strings.Contains(seen, "not right")
	})
	w.open("about:blank")
	w.open(v.URL)
	w.awaitText("shop/web")
}

// What somebody types stays while Views come.
func TestTypingIsKept(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("Search Gateways by name, address or port")
	for _, letter := range "shop/web" {
		w.key(string(letter))
		from := eval[int](w, `watched.draws.length`)
		await(w, "another View", `watched.draws.length`, func(n int) bool { return n > from })
	}
	if seen := eval[string](w, `document.activeElement.value`); seen != "shop/web" {
		t.Errorf("what was typed is %q, want shop/web", seen)
	}
	w.awaitText("1 of 2 Gateways")
}

// A Gateway may go while somebody looks at it: the page goes on.
func TestOpenGatewayGoes(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	before := s.overview.Gateways
	s.change(func() { s.overview.Gateways = slices.Clone(before)[1:] })
	w.awaitText("1 Gateway")
	await(w, "no picture", `document.querySelector('svg.picture') === null`, func(is bool) bool { return is })
	s.change(func() { s.overview.Gateways = before })
	w.awaitText("2 Gateways", "10.0.0.1:8080") // it comes back as it was
}

// Flows that somebody reads can be held, while all else moves.
func TestHold(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("203.0.113.7:40004")
	w.click("Hold")
	s.change(func() { s.flows = append(s.flows, s.flow(5)); s.overview.Name = "moved" })
	w.awaitText("moved")
	from := eval[int](w, `watched.draws.length`)
	await(w, "two more Views", `watched.draws.length`, func(n int) bool { return n > from+2 })
	if seen := eval[string](w, `document.querySelector('#flows').innerText`); strings.Contains(seen, "40005") {
		t.Error("a flow has come into the list that is held")
	}
	eval[bool](w, `document.querySelector('#flows-hold').click() ?? true`)
	w.awaitText("203.0.113.7:40005")
}

// When no node of a large cluster answers, the page says so in a few lines.
func TestNoNodeAnswers(t *testing.T) {
	s := shop()
	why := map[string]string{}
	for i := range 200 {
		why[fmt.Sprintf("node-%03d", i)] = "no agent is connected"
	}
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	height := eval[int](w, `document.documentElement.scrollHeight`)
	s.change(func() { s.failing = &observe.NodesError{Reasons: why} })
	w.awaitText("no agent is connected", "200")
	if now := eval[int](w, `document.documentElement.scrollHeight`); now > height+600 {
		t.Errorf("the page has become %d pixels high, and was %d: what is said about nodes hides the rest", now, height)
	}
}
