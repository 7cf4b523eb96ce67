// SPDX-License-Identifier: Apache-2.0

package ingressnginx

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
)

// stream are the settings of ingress-nginx's ConfigMap that concern TCP and UDP.
type stream struct {
	idle time.Duration // 0: it is not said
	// guarded is true if a snippet may keep clients out.
	guarded bool
}

// readSettings reads the ConfigMap of the controller.
func (r *reader) readSettings(c *controller) {
	if c.config.Name == "" { // its flags were not read
		for _, name := range []string{"ingress-nginx-controller", "nginx-configuration"} {
			if key := (types.NamespacedName{Namespace: c.namespace, Name: name}); r.maps[key] != nil {
				c.config = key
				break
			}
		}
	}
	o := r.maps[c.config]
	if o == nil {
		return
	}
	r.used[o] = true
	if data, is := o.Child("data"); is {
		r.readStream(c, o, data)
	}
}

// readStream reads settings, of the ConfigMap or of Helm values.
func (r *reader) readStream(c *controller, o *objects.Object, data manifest.Document) {
	for _, f := range data.Fields() {
		value := fmt.Sprint(f.Value)
		note := func(effect migrate.Effect, text string) {
			r.plan.Note(migrate.Place{File: o.File, Line: f.Line}, effect, "%s %q: %s", f.Key, value, text)
		}
		switch f.Key {
		case "proxy-stream-timeout":
			idle, is := duration(value)
			if !is {
				note(migrate.Lost, "it is no time of nginx, such as 600s. Flows last as long as Blixt's defaults say")
				continue
			}
			c.stream.idle = idle
		case "proxy-stream-next-upstream", "proxy-stream-next-upstream-timeout", "proxy-stream-next-upstream-tries":
			note(migrate.Changed, "Blixt does not connect for the client, so it tries no second backend: the client does. health.passive of a BlixtPolicy takes out backends that do not answer")
		case "proxy-stream-responses":
			note(migrate.Unneeded, "a UDP flow ends when it is idle, however many answers there were")
		case "stream-snippet":
			if guards.MatchString(value) {
				c.stream.guarded = true
				note(migrate.Lost, "it may keep clients out, and so no port is served: write sources or limits of a BlixtPolicy for what it says, and remove it")
				continue
			}
			note(migrate.Lost, "it is configuration of nginx: what it does is not carried over")
		case "bind-address", "bind-address-ipv4", "bind-address-ipv6":
			note(migrate.Changed, "the Gateway is served at its own addresses")
		}
	}
}

// guards are directives of a snippet by which nginx keeps clients out.
var guards = regexp.MustCompile(`(^|[\s;{}])(deny|allow|limit_conn|js_access|include)\s`)

// policy returns what holds for the entry.
func (e *entry) policy() v1alpha1.BlixtPolicySpec {
	var p v1alpha1.BlixtPolicySpec
	if e.settings.Sources != nil {
		p.Sources = e.settings.Sources.DeepCopy()
	}
	if e.stream.idle > 0 {
		idle := &metav1.Duration{Duration: e.stream.idle}
		p.IdleTimeout = &v1alpha1.PolicyIdleTimeout{TCP: idle}
		if e.protocol == "UDP" {
			p.IdleTimeout = &v1alpha1.PolicyIdleTimeout{UDP: idle}
		}
	}
	return p
}

var (
	times = regexp.MustCompile(`^([0-9]{1,9}(ms|s|m|h|d|w|M|y)\s*)+$|^[0-9]{1,9}$`)
	one   = regexp.MustCompile(`([0-9]+)(ms|s|m|h|d|w|M|y|$)`)
)

// duration reads a time of nginx, such as 10m or 1h30m.
func duration(text string) (time.Duration, bool) {
	if text = strings.TrimSpace(text); len(text) > 40 || !times.MatchString(text) {
		return 0, false
	}
	const day = 24 * time.Hour
	units := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "": time.Second, "m": time.Minute, "h": time.Hour, "d": day, "w": 7 * day, "M": 30 * day, "y": 365 * day}
	var sum time.Duration
	for _, m := range one.FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseInt(m[1], 10, 64)
		unit := units[m[2]]
		if err != nil || n > int64(365*day/unit)*10 {
			return 0, false
		}
		sum += time.Duration(n) * unit
	}
	return sum, sum > 0
}
