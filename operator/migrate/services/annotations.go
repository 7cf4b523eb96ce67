// SPDX-License-Identifier: Apache-2.0

package services

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// A rule says what becomes of an annotation.
type rule struct {
	// do is nil for annotations that say nothing about what is wanted, such as those in which
	// controllers write down what they have done.
	do func(s *service, key, value string)
	// text is for the documentation.
	text string
}

// carried goes to the Gateway's Service as it is.
var carried = rule{func(s *service, key, value string) { s.annotations[key] = value }, "carried over"}

// written is what a controller has written down: the Gateway's Service gets its own.
var written = rule{nil, "written by the controller itself: nothing"}

// carriedWith is carried, and says something.
func carriedWith(effect migrate.Effect, text string) rule {
	return rule{func(s *service, key, value string) {
		s.annotations[key] = value
		s.note(s.at(key), effect, "%s %q is carried over to the Gateway's Service: %s", key, value, text)
	}, "carried over; " + string(effect) + ": " + text}
}

// held is carried, and names something that one load balancer can have at a time.
var held = heldBy(carriedWith(migrate.Changed, "one load balancer can have it at a time, so the Gateway waits until the Service lets it go. To try the Gateway before, take it out of spec.infrastructure"))

func heldBy(r rule) rule {
	return rule{func(s *service, key, value string) {
		if !s.stays {
			r.do(s, key, value)
		}
	}, r.text}
}

// said is not carried over.
func said(effect migrate.Effect, text string) rule {
	return rule{func(s *service, key, value string) { s.note(s.at(key), effect, "%s %q: %s", key, value, text) }, string(effect) + ": " + text}
}

// asks has addresses that it asks for.
var asks = rule{func(s *service, key, value string) { s.want(s.at(key), key, value) }, "spec.addresses of the Gateway"}

// unless has another rule for all values but one, about which there is nothing to say.
func unless(nothing string, otherwise rule) rule {
	return rule{func(s *service, key, value string) {
		if !strings.EqualFold(strings.TrimSpace(value), nothing) {
			otherwise.do(s, key, value)
		}
	}, otherwise.text + " (" + nothing + ": nothing)"}
}

// vendor is who reads annotations with some prefixes.
type vendor struct {
	name string
	// is reports whether an annotation is the vendor's.
	is *regexp.Regexp
	// rules are by annotation. One that ends with a star is for all that begin so.
	rules map[string]rule
	// others is for annotations that no rule is for.
	others rule
}

// unknown lists what is not known here.
var unknown = said(migrate.Lost, "it is not known here. If it is about the address, or how that is announced, add it to spec.infrastructure.annotations of the Gateway")

// trusted carries over what is not known here, as all of it concerns a cloud's load balancer.
var trusted = carriedWith(migrate.Changed, "what it does there was not looked into, so check the Gateway's Service")

// vendors are asked in this order.
var vendors = []vendor{metallb, cilium, kubeVIP, loxilb, aws, gcp, azure, kubernetes, elsewhere}

// of returns the rule for an annotation; ok is false if it is none of the vendor's.
func (v *vendor) of(key string) (found rule, ok bool) {
	if found, ok = v.rules[key]; ok {
		return found, true
	}
	best := ""
	for name := range v.rules {
		if prefix, is := strings.CutSuffix(name, "*"); is && strings.HasPrefix(key, prefix) && len(name) > len(best) {
			best = name
		}
	}
	if best != "" {
		return v.rules[best], true
	}
	return v.others, v.is.MatchString(key)
}

// readAnnotations applies the rules. Annotations of nobody known are none of our business.
func (s *service) readAnnotations() {
	for _, key := range slices.Sorted(maps.Keys(s.obj.Annotations)) {
		for i := range vendors {
			found, is := vendors[i].of(key)
			if is && found.do != nil {
				found.do(s, key, s.obj.Annotations[key])
			}
			if is {
				break
			}
		}
	}
	if s.health != nil {
		s.finishHealth()
	}
}
