// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// check returns the rule in Go.
func (v *validation) check() func(value any) (at string, ok bool) {
	if rule := rules[v.Message]; rule != nil {
		return rule
	}
	if rule := policyRules[v.Message]; rule != nil {
		return rule
	}
	if least, most, is := v.durations(); is {
		return func(value any) (string, bool) {
			d, ok := duration(value)
			return "", ok && d >= least && d <= most
		}
	}
	return nil
}

var betweenDurations = regexp.MustCompile(`^self\.matches\('(.*)'\) && duration\(self\) >= duration\('(\w+)'\) && duration\(self\) <= duration\('(\w+)'\)$`)

// durations returns the bounds of a rule for a duration.
func (v *validation) durations() (least, most time.Duration, is bool) {
	m := betweenDurations.FindStringSubmatch(v.Rule)
	if m == nil || m[1] != durationText.String() {
		return 0, 0, false
	}
	least, low := time.ParseDuration(m[2])
	most, high := time.ParseDuration(m[3])
	return least, most, low == nil && high == nil
}

// durationText is how the CRDs write durations.
var durationText = regexp.MustCompile(`^([0-9]+([.][0-9]+)?(ms|s|m|h))+$`)

func duration(value any) (time.Duration, bool) {
	s, _ := value.(string)
	d, err := time.ParseDuration(s)
	return d, err == nil && durationText.MatchString(s)
}

// said returns what a broken rule says about the value.
func (v *validation) said(value any) string {
	if say := expressions[v.Expression]; say != nil {
		return say(value)
	}
	return v.Message
}

// expressions are the CRDs' messages in CEL, in Go.
var expressions = map[string]func(value any) string{
	"'%s has bits behind the prefix: write %s'.format([self, string(cidr(self).masked())])": func(v any) string {
		prefix, _ := network(v)
		return fmt.Sprintf("%s has bits behind the prefix: write %s", v, prefix.Masked())
	},
}

// policyRules are the rules of BlixtPolicies.
var policyRules = map[string]func(value any) (at string, ok bool){
	"the policy says nothing: set at least one of sources, limits, affinity, idleTimeout, maxAge, health, failover, ports and overload": oneOf("sources", "limits", "affinity", "idleTimeout", "maxAge", "health", "failover", "ports", "overload"),
	"mode DryRun counts what sources and limits would refuse, and ignores all else: set one of them, or mode Enforce": func(v any) (string, bool) {
		return ".mode", field(v, "mode") != "DryRun" || has(v, "sources") || has(v, "limits")
	},
	"nothing is more specific than a route: with strategy Overrides target Gateways and ListenerSets, or use Defaults": func(v any) (string, bool) {
		return ".strategy", field(v, "strategy") != "Overrides" || everyTarget(v, func(t any) bool { return !isRoute(t) })
	},
	"failover is about the backendRefs of a route: target TCPRoutes and UDPRoutes only, and put all else into another policy": func(v any) (string, bool) {
		return ".failover", !has(v, "failover") || everyTarget(v, isRoute)
	},
	"ports are about a listener: name it by sectionName in every targetRef, and put all else into another policy": func(v any) (string, bool) {
		return ".ports", !has(v, "ports") || everyTarget(v, func(t any) bool { return has(t, "sectionName") })
	},

	"sectionName must be specified in all or none of the references to the same target": pairs(func(a, b any) bool {
		return !sameParent(a, b) || has(a, "sectionName") == has(b, "sectionName")
	}),
	"the same target is named twice: remove one": pairs(func(a, b any) bool {
		return !sameParent(a, b) || field(a, "sectionName") != field(b, "sectionName")
	}),
	"want group gateway.networking.k8s.io and kind Gateway, ListenerSet, TCPRoute or UDPRoute": func(v any) (string, bool) {
		return "", field(v, "group") == "gateway.networking.k8s.io" && slices.Contains([]string{"Gateway", "ListenerSet", "TCPRoute", "UDPRoute"}, field(v, "kind"))
	},
	"sectionName is a listener of a Gateway or ListenerSet: leave it away for routes, which have one rule": func(v any) (string, bool) {
		return ".sectionName", !has(v, "sectionName") || field(v, "kind") == "Gateway" || field(v, "kind") == "ListenerSet"
	},

	"set allow or deny, or remove sources": oneOf("allow", "deny"),
	"allow and deny have more than 10000 networks together: merge networks that are side by side": func(v any) (string, bool) {
		allow, _ := get(v, "allow").([]any)
		deny, _ := get(v, "deny").([]any)
		return "", len(allow)+len(deny) <= 10000
	},
	"want a network, such as 192.0.2.0/24 or 2001:db8::/32, or one address, such as 192.0.2.1/32; IPv4 networks are not written as IPv6": func(v any) (string, bool) {
		_, ok := network(v)
		return "", ok
	},
	"the address has bits behind the prefix: write the first address of the network": func(v any) (string, bool) {
		prefix, ok := network(v)
		return "", !ok || prefix == prefix.Masked()
	},

	"set perSource or total, or remove limits":   oneOf("perSource", "total"),
	"set newPerSecond or concurrent":             oneOf("newPerSecond", "concurrent"),
	"burst is about newPerSecond: set that, too": func(v any) (string, bool) { return ".burst", !has(v, "burst") || has(v, "newPerSecond") },
	"a timeout is for type ClientAddress: set that, or remove the timeout": func(v any) (string, bool) {
		return ".timeout", !has(v, "timeout") || field(v, "type") == "ClientAddress"
	},
	"set tcp or udp, or remove idleTimeout":                 oneOf("tcp", "udp"),
	"set passive, active or panicPercent, or remove health": oneOf("passive", "active", "panicPercent"),
	"set noBackend or synChallenge, or remove overload":     oneOf("noBackend", "synChallenge"),
	"baseEjection is longer than maxEjection":               noLonger("baseEjection", "maxEjection"),
	"timeout is longer than interval":                       noLonger("timeout", "interval"),
	"type UDP needs udp with a payload, and no other type has it": func(v any) (string, bool) {
		return "", has(v, "udp") == (field(v, "type") == "UDP")
	},
	"type HTTP needs http, such as {path: /healthz}, and no other type has it": func(v any) (string, bool) {
		return "", has(v, "http") == (field(v, "type") == "HTTP")
	},
	"want a path that begins with / and has no spaces, such as /healthz": matches(`^/[!-~]*$`),
	"want a host name, such as www.example.com":                          matches(`^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$`),
	"want a status or a range, such as 204 or 200-399": func(v any) (string, bool) {
		s, _ := v.(string)
		return "", statuses.MatchString(s) && (len(s) == 3 || s[:3] <= s[4:])
	},

	"recoverPercent is below minAvailablePercent: groups would take turns without end": func(v any) (string, bool) {
		return ".recoverPercent", whole(get(v, "recoverPercent")) >= whole(get(v, "minAvailablePercent"))
	},
	"the same backend is named twice: remove one": pairs(func(a, b any) bool {
		return field(a, "name") != field(b, "name") || field(a, "namespace") != field(b, "namespace") || whole(get(a, "port")) != whole(get(b, "port"))
	}),
	"set exactly one of endPort and all": func(v any) (string, bool) { return "", has(v, "endPort") != has(v, "all") },
}

var statuses = regexp.MustCompile(`^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$`)

// network reads a CIDR as the API server's function cidr does.
func network(v any) (netip.Prefix, bool) {
	s, _ := v.(string)
	prefix, err := netip.ParsePrefix(s)
	return prefix, err == nil && !prefix.Addr().Is4In6()
}

// whole returns an integer; 0: there is none.
func whole(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case float64: // of a default
		return int64(n)
	}
	return 0
}

func oneOf(names ...string) func(any) (string, bool) {
	return func(v any) (string, bool) {
		return "", slices.ContainsFunc(names, func(name string) bool { return has(v, name) })
	}
}

func noLonger(short, long string) func(any) (string, bool) {
	return func(v any) (string, bool) {
		a, isA := duration(get(v, short))
		b, isB := duration(get(v, long))
		return "." + short, !isA || !isB || a <= b
	}
}

func matches(expression string) func(any) (string, bool) {
	compiled := regexp.MustCompile(expression)
	return func(v any) (string, bool) {
		s, _ := v.(string)
		return "", compiled.MatchString(s)
	}
}

// pairs is a rule about each two items of a list.
func pairs(ok func(a, b any) bool) func(any) (string, bool) {
	return func(v any) (string, bool) {
		list, _ := v.([]any)
		for i, a := range list {
			if slices.ContainsFunc(list[:i], func(b any) bool { return !ok(a, b) }) {
				return index(i), false
			}
		}
		return "", true
	}
}

func isRoute(target any) bool {
	return field(target, "kind") == "TCPRoute" || field(target, "kind") == "UDPRoute"
}

func everyTarget(policy any, ok func(target any) bool) bool {
	targets, _ := get(policy, "targetRefs").([]any)
	return !slices.ContainsFunc(targets, func(t any) bool { return !ok(t) })
}
