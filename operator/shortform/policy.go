// SPDX-License-Identifier: Apache-2.0

package shortform

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// policy is what options of a --listen say about its connections: fields of a BlixtPolicy, as
// they were written. "": nothing.
type policy struct {
	allow, deny                     []string
	newPerSecond, newPerSource      string
	concurrent, concurrentPerSource string
	affinity, idleTimeout, maxAge   string
	// health is tcp, http, udp or passive, asked what is asked for or sent.
	health, asked string
}

// policyOptions become a BlixtPolicy.
var policyOptions = []option[listen]{
	{"allow", "NETWORK", func(l *listen, text string) error { l.policy.allow = append(l.policy.allow, network(text)); return nil }},
	{"deny", "NETWORK", func(l *listen, text string) error { l.policy.deny = append(l.policy.deny, network(text)); return nil }},
	count("max-new", "N/s", func(p *policy) *string { return &p.newPerSecond }),
	count("max-new-per-source", "N/s", func(p *policy) *string { return &p.newPerSource }),
	count("max-connections", "N", func(p *policy) *string { return &p.concurrent }),
	count("max-connections-per-source", "N", func(p *policy) *string { return &p.concurrentPerSource }),
	word("affinity", "client|3h", func(p *policy) *string { return &p.affinity }),
	word("idle-timeout", "1h", func(p *policy) *string { return &p.idleTimeout }),
	word("max-age", "24h", func(p *policy) *string { return &p.maxAge }),
	{"health", "tcp|http:/PATH|udp:TEXT|passive", (*listen).setHealth},
}

// count is an option with a number, of things or of things per second.
func count(name, value string, field func(*policy) *string) option[listen] {
	return option[listen]{name, value, func(l *listen, text string) error {
		n := strings.TrimSuffix(text, "/s")
		if _, ok := number(n, 10_000_000); !ok || len(n) > 8 {
			return fmt.Errorf("%s %q is no whole number from 1 to 10000000", name, show(text))
		}
		*field(&l.policy) = n
		return nil
	}}
}

// word is an option that the kind judges.
func word(name, value string, field func(*policy) *string) option[listen] {
	return option[listen]{name, value, func(l *listen, text string) error {
		if text == "" {
			return fmt.Errorf("option %s has no value: write %s=%s", name, name, value)
		}
		*field(&l.policy) = text
		return nil
	}}
}

// optionOf returns the option that a field of a BlixtPolicy comes from.
func optionOf(path string) string {
	for _, o := range [][2]string{
		{"spec.sources.allow", "allow"}, {"spec.sources.deny", "deny"},
		{"spec.limits.total.newPerSecond", "max-new"}, {"spec.limits.perSource.newPerSecond", "max-new-per-source"},
		{"spec.limits.total.concurrent", "max-connections"}, {"spec.limits.perSource.concurrent", "max-connections-per-source"},
		{"spec.affinity", "affinity"}, {"spec.idleTimeout", "idle-timeout"}, {"spec.maxAge", "max-age"}, {"spec.health", "health"},
	} {
		if strings.HasPrefix(path, o[0]) {
			return o[1]
		}
	}
	return ""
}

// network returns the network of an address, and anything else as it is.
func network(text string) string {
	if addr, err := netip.ParseAddr(text); err == nil && !addr.Is4In6() && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	return text
}

func (l *listen) setHealth(text string) error {
	kind, value, more := strings.Cut(text, ":")
	switch {
	case kind == "passive" && !more, kind == "tcp" && !more, kind == "http" && value != "", kind == "udp" && value != "":
	default:
		return fmt.Errorf("health %q is unknown: write tcp, http:/healthz, udp:TEXT or passive", show(text))
	}
	l.policy.health, l.policy.asked = kind, value
	return nil
}

// says reports whether there is anything to say.
func (p *policy) says() bool {
	return len(p.allow)+len(p.deny) > 0 || p.newPerSecond+p.newPerSource+p.concurrent+p.concurrentPerSource+p.affinity+p.idleTimeout+p.maxAge+p.health != ""
}

// checkPolicies judges options by what they become: the rules are those of the kind.
func (g *group) checkPolicies(wrong *mistakes) {
	for _, l := range g.listens {
		w := writer{explained: map[string]bool{}}
		w.policy(l)
		if w.Len() == 0 {
			continue
		}
		_, errs := manifest.ParsePlace(l.String(), []byte(w.String()))
		for _, e := range errs {
			path, reason, _ := strings.Cut(e.Reason, ": ")
			wrong.add(l.Flag, "option %s: %s", optionOf(path), reason)
		}
	}
}

// policy writes the policy of a listener, if there is anything to say.
func (w *writer) policy(l listen) {
	p := &l.policy
	if !p.says() {
		return
	}
	w.object("blixt.x-k8s.io/v1alpha1", "BlixtPolicy", l.name, "A BlixtPolicy says what connections to its targets may do: who may connect, how often, and\nwhich servers are healthy. docs/policies.md has all fields.")
	w.printf("spec:\n  targetRefs:\n  - group: gateway.networking.k8s.io\n    kind: Gateway\n    name: %s\n", quoted(l.name))
	if len(p.allow)+len(p.deny) > 0 {
		w.printf("  sources:\n")
		w.networks("allow", p.allow)
		w.networks("deny", p.deny)
	}
	if p.newPerSecond+p.newPerSource+p.concurrent+p.concurrentPerSource != "" {
		w.printf("  limits:\n")
		w.limit("perSource", p.newPerSource, p.concurrentPerSource)
		w.limit("total", p.newPerSecond, p.concurrent)
	}
	if p.affinity != "" {
		w.printf("  affinity:\n    type: ClientAddress\n")
		if p.affinity != "client" {
			w.printf("    timeout: %s\n", scalar(p.affinity))
		}
	}
	if p.idleTimeout != "" {
		w.printf("  idleTimeout:\n    %s: %s\n", l.protocol, scalar(p.idleTimeout))
	}
	if p.maxAge != "" {
		w.printf("  maxAge: %s\n", scalar(p.maxAge))
	}
	switch p.health {
	case "passive":
		w.printf("  health:\n    passive: {}\n")
	case "tcp":
		w.printf("  health:\n    active:\n      type: TCP\n")
	case "http":
		w.printf("  health:\n    active:\n      type: HTTP\n      http:\n        path: %s\n", scalar(p.asked))
	case "udp":
		w.printf("  health:\n    active:\n      type: UDP\n      udp:\n        payload: %s # %s\n", base64.StdEncoding.EncodeToString([]byte(p.asked)), show(p.asked))
	}
}

func (w *writer) networks(field string, all []string) {
	if len(all) > 0 {
		w.printf("    %s:\n", field)
	}
	for _, n := range all {
		w.printf("    - %s\n", scalar(n))
	}
}

func (w *writer) limit(field, newPerSecond, concurrent string) {
	if newPerSecond+concurrent == "" {
		return
	}
	w.printf("    %s:\n", field)
	if newPerSecond != "" {
		w.printf("      newPerSecond: %s\n", newPerSecond)
	}
	if concurrent != "" {
		w.printf("      concurrent: %s\n", concurrent)
	}
}

// scalar returns any text as a string of YAML. What is of letters, digits and few signs needs
// no quotes.
func scalar(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '/' || r == '-'
	}
	letters := strings.ContainsFunc(text, func(r rune) bool { return r >= 'a' && r <= 'z' || r == '/' })
	if letters && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) && !strings.HasPrefix(text, "-") {
		return quoted(text)
	}
	asJSON, err := json.Marshal(text)
	if err != nil {
		return `""` // a string can always be written
	}
	return string(asJSON)
}
