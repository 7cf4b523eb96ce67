// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// rules are the CRDs' CEL rules in Go, by their messages. Each returns where below the
// value it is broken. They are only called with values of the right types, with defaults
// set. A test asserts that none is missing.
var rules = map[string]func(value any) (at string, ok bool){
	"field is immutable": holds, // a rule about changes, which files do not show

	"IPAddress values must be unique": uniqueAddresses("IPAddress"),
	"Hostname values must be unique":  uniqueAddresses("Hostname"),
	"Hostname value must be empty or contain only valid characters (matching ^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$)": func(v any) (string, bool) {
		value := field(v, "value")
		return ".value", field(v, "type") != "Hostname" || value == "" || hostname.MatchString(value)
	},

	"tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']": each(func(l any) bool {
		p := field(l, "protocol")
		return p != "HTTP" && p != "TCP" && p != "UDP" || !has(l, "tls")
	}),
	"tls mode must be Terminate for protocol HTTPS": each(func(l any) bool {
		mode := field(get(l, "tls"), "mode")
		return field(l, "protocol") != "HTTPS" || mode == "" || mode == "Terminate"
	}),
	"tls mode must be set for protocol TLS": each(func(l any) bool {
		return field(l, "protocol") != "TLS" || field(get(l, "tls"), "mode") != ""
	}),
	"hostname must not be specified for protocols ['TCP', 'UDP']": each(func(l any) bool {
		p := field(l, "protocol")
		return p != "TCP" && p != "UDP" || field(l, "hostname") == ""
	}),
	"Listener name must be unique within the Gateway": unique(func(l any) string { return field(l, "name") }),
	"Combination of port, protocol and hostname must be unique for each listener": unique(func(l any) string {
		return strings.Join([]string{number(get(l, "port")), field(l, "protocol"), field(l, "hostname"),
			strconv.FormatBool(has(l, "hostname"))}, " ")
	}),
	"certificateRefs or options must be specified when mode is Terminate": func(v any) (string, bool) {
		refs, _ := get(v, "certificateRefs").([]any)
		options, _ := get(v, "options").(map[string]any)
		return "", field(v, "mode") != "Terminate" || len(refs) > 0 || len(options) > 0
	},
	"Port for TLS configuration must be unique within the Gateway": unique(func(t any) string { return number(get(t, "port")) }),

	"Annotation keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters.": keys(qualified),
	"If specified, the annotation key's prefix must be a DNS subdomain not longer than 253 characters in total.":                          keys(shortPrefix),
	"Label keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters.":      keys(qualified),
	"If specified, the label key's prefix must be a DNS subdomain not longer than 253 characters in total.":                               keys(shortPrefix),

	"sectionName must be specified when parentRefs includes 2 or more references to the same parent": func(v any) (string, bool) {
		list, _ := v.([]any)
		for i, a := range list {
			for _, b := range list[:i] {
				if sameParent(a, b) && (field(a, "sectionName") == "") != (field(b, "sectionName") == "") {
					return index(i), false
				}
			}
		}
		return "", true
	},
	"sectionName must be unique when parentRefs includes 2 or more references to the same parent": func(v any) (string, bool) {
		list, _ := v.([]any)
		for i, a := range list {
			for _, b := range list[:i] {
				if sameParent(a, b) && field(a, "sectionName") == field(b, "sectionName") {
					return index(i), false
				}
			}
		}
		return "", true
	},
	"Must have port for Service reference": func(v any) (string, bool) {
		return "", field(v, "group") != "" || field(v, "kind") != "Service" || has(v, "port")
	},
}

var (
	hostname      = regexp.MustCompile(`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	qualifiedName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$`)
)

func holds(any) (string, bool) { return "", true }

func qualified(key string) bool { return qualifiedName.MatchString(key) }

func shortPrefix(key string) bool {
	prefix, _, _ := strings.Cut(key, "/")
	return len(prefix) < 253
}

// isAddress is the oneOf of Gateway addresses: a value of type IPAddress must be an IP
// address.
func isAddress(v any) bool {
	value := field(v, "value")
	if field(v, "type") != "IPAddress" || value == "" {
		return true
	}
	addr, err := netip.ParseAddr(value)
	return err == nil && addr.Zone() == ""
}

func each(ok func(item any) bool) func(any) (string, bool) {
	return func(v any) (string, bool) {
		list, _ := v.([]any)
		for i, item := range list {
			if !ok(item) {
				return index(i), false
			}
		}
		return "", true
	}
}

func unique(key func(item any) string) func(any) (string, bool) {
	return func(v any) (string, bool) {
		seen := map[string]bool{}
		return each(func(item any) bool {
			k := key(item)
			again := seen[k]
			seen[k] = true
			return !again
		})(v)
	}
}

func uniqueAddresses(kind string) func(any) (string, bool) {
	return func(v any) (string, bool) {
		seen := map[string]bool{}
		return each(func(a any) bool {
			if field(a, "type") != kind || !has(a, "value") {
				return true
			}
			again := seen[field(a, "value")]
			seen[field(a, "value")] = true
			return !again
		})(v)
	}
}

func keys(ok func(key string) bool) func(any) (string, bool) {
	return func(v any) (string, bool) {
		object, _ := v.(map[string]any)
		for key := range object {
			if !ok(key) {
				return "." + key, false
			}
		}
		return "", true
	}
}

func sameParent(a, b any) bool {
	for _, name := range []string{"group", "kind", "name", "namespace"} {
		if field(a, name) != field(b, name) {
			return false
		}
	}
	return true
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

func get(v any, name string) any {
	object, _ := v.(map[string]any)
	return object[name]
}

func has(v any, name string) bool { return get(v, name) != nil }

func field(v any, name string) string {
	s, _ := get(v, name).(string)
	return s
}

func number(v any) string { return text(v) }
