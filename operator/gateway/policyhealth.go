// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// readHealth reads spec.health: three units.
func (r *policyReader) readHealth() {
	h := r.spec.Health
	if h == nil {
		return
	}
	if h.Passive != nil {
		r.has[unitPassive] = true
		r.readPassive(h.Passive)
	}
	if h.Active != nil {
		r.has[unitActive] = true
		r.readActive(h.Active)
	}
	r.has[unitPanic] = h.PanicPercent != nil
	r.panic = number(r, "health.panicPercent", h.PanicPercent, 0, 0, 100)
}

func (r *policyReader) readPassive(p *v1alpha1.PassiveHealth) {
	const field = "health.passive"
	r.oneOf(field+".mode", string(p.Mode), "", string(v1alpha1.Enabled), string(v1alpha1.Disabled))
	out := lb.PassiveHealth{
		Consecutive:    number(r, field+".consecutive", p.Consecutive, 5, 1, 1000),
		AnswerWithin:   r.duration(field+".answerWithin", p.AnswerWithin, time.Second, 10*time.Millisecond, time.Minute),
		FailurePercent: number(r, field+".failurePercent", p.FailurePercent, 50, 0, 100),
		MinFlows:       number(r, field+".minFlows", p.MinFlows, 20, 1, maxRate),
		Window:         r.duration(field+".window", p.Window, 10*time.Second, time.Second, time.Hour),
		BaseEjection:   r.duration(field+".baseEjection", p.BaseEjection, 30*time.Second, time.Second, time.Hour),
		MaxEjection:    r.duration(field+".maxEjection", p.MaxEjection, 300*time.Second, time.Second, 24*time.Hour),
		MaxEjected:     number(r, field+".maxEjectedPercent", p.MaxEjectedPercent, 50, 0, 100),
	}
	if out.BaseEjection > out.MaxEjection {
		r.wrong("%s.baseEjection %s is longer than maxEjection %s.", field, out.BaseEjection, out.MaxEjection)
	}
	if p.Mode != v1alpha1.Disabled {
		r.passive = &out
	}
}

// maxPayload is how many bytes a check may send or expect.
const maxPayload = 512

func (r *policyReader) readActive(a *v1alpha1.ActiveHealth) {
	const field = "health.active"
	r.oneOf(field+".type", string(a.Type), string(v1alpha1.CheckNone), string(v1alpha1.CheckTCP), string(v1alpha1.CheckUDP), string(v1alpha1.CheckHTTP))
	if (a.Type == v1alpha1.CheckUDP) != (a.UDP != nil) {
		r.wrong("%s: type UDP and the block udp belong together.", field)
	}
	if a.Type != v1alpha1.CheckHTTP && a.HTTP != nil {
		r.wrong("%s.http needs type HTTP.", field)
	}
	out := lb.ActiveHealth{
		Type:     string(a.Type),
		Port:     uint16(number(r, field+".port", a.Port, 0, 0, 65535)),
		Interval: r.duration(field+".interval", a.Interval, 5*time.Second, time.Second, time.Hour),
		Timeout:  r.duration(field+".timeout", a.Timeout, 2*time.Second, 10*time.Millisecond, time.Minute),
		Rise:     number(r, field+".rise", a.Rise, 2, 1, 100),
		Fall:     number(r, field+".fall", a.Fall, 3, 1, 100),
	}
	if out.Timeout > out.Interval {
		r.wrong("%s.timeout %s is longer than interval %s.", field, out.Timeout, out.Interval)
	}
	if u := a.UDP; u != nil {
		out.Payload, out.Expect = u.Payload, u.Expect
		if len(u.Payload) == 0 || len(u.Payload) > maxPayload || len(u.Expect) > maxPayload {
			r.wrong("%s.udp: payload has 1 to %d bytes, and expect has at most as many.", field, maxPayload)
		}
	}
	if a.Type == v1alpha1.CheckHTTP {
		r.readHTTP(a.HTTP, &out)
	}
	if a.Type != v1alpha1.CheckNone && a.Type != "" {
		r.active = &out
	}
}

func (r *policyReader) readHTTP(h *v1alpha1.HTTPCheck, out *lb.ActiveHealth) {
	const field = "health.active.http"
	if h == nil {
		h = &v1alpha1.HTTPCheck{}
	}
	out.Path, out.Host = h.Path, h.Host
	if out.Path == "" {
		out.Path = "/"
	}
	if !strings.HasPrefix(out.Path, "/") {
		r.wrong("%s.path %q does not begin with /.", field, out.Path)
	}
	if strings.ContainsFunc(out.Path+out.Host, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		r.wrong("%s: path and host have neither spaces nor control characters.", field)
	}
	statuses := h.Statuses
	if len(statuses) == 0 {
		statuses = []string{"200-399"}
	}
	for i, text := range statuses {
		s, ok := statusRange(text)
		if !ok {
			r.wrong("%s.statuses[%d] %q is neither a status nor a range of statuses, such as 200-399.", field, i, text)
		}
		out.Statuses = append(out.Statuses, s)
	}
}
