// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// hostNames returns the names of --http-host as Host headers have them.
func hostNames(all []string) (map[string]bool, error) {
	names := map[string]bool{}
	for _, name := range all {
		canonical := strings.TrimSuffix(strings.ToLower(name), ".")
		if len(validation.IsDNS1123Subdomain(canonical)) > 0 {
			return nil, fmt.Errorf("host %q: want a name such as blixt.example.com, without scheme, port and wildcard; addresses and localhost need none", name)
		}
		names[canonical] = true
	}
	return names, nil
}

// checkHost refuses a request for another host. A page of somebody else can have its name
// lead to this machine (DNS rebinding), and a browser then takes this page for a part of
// that one: whatever it answered, that page could read. The name tells. An address needs no
// name server, so nobody else can be meant by it.
func (h *Handler) checkHost(r *http.Request) *problem {
	name, ok := hostOf(r.Host)
	if ok {
		if _, err := netip.ParseAddr(name); err == nil || h.hosts[name] || name == "localhost" || strings.HasSuffix(name, ".localhost") {
			return nil
		}
	}
	return problemf(http.StatusMisdirectedRequest, "this page is not for host %q: open it by an address or as localhost, or name the host with --http-host", phrase.Clip(phrase.Printable(r.Host), 100))
}

// hostOf returns the name or the address of a Host header, in lower case and without the
// port. It returns false for what is neither.
func hostOf(header string) (name string, ok bool) {
	var port string
	var hasPort bool
	if rest, is := strings.CutPrefix(header, "["); is {
		name, port, is = strings.Cut(rest, "]")
		if a, err := netip.ParseAddr(name); !is || err != nil || !a.Is6() {
			return "", false
		}
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			return "", false
		}
	} else if name, port, hasPort = strings.Cut(header, ":"); strings.Contains(port, ":") {
		return "", false // IPv6 needs brackets
	}
	if hasPort {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", false
		}
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	return name, name != ""
}
