// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// TestGolden_ShowsEveryReason finds conditions and reasons of Gateway API that
// no golden file shows. It takes them from the comments and constants of
// Gateway API: a new version with more of them fails here.
func TestGolden_ShowsEveryReason(t *testing.T) {
	shown := shownReasons(t)
	for _, text := range slices.Sorted(maps.Keys(shown)) {
		if strings.Contains(text, "=") {
			t.Logf("%s: %s", text, strings.Join(shown[text][:min(3, len(shown[text]))], ", "))
		}
	}
	wanted := documentedReasons(t)
	if len(wanted) < 80 {
		t.Fatalf("only %d reasons found in Gateway API: has its way of writing them changed?", len(wanted))
	}
	for text := range wanted {
		_, isUnused := unused[text]
		switch isShown := shown[text] != nil; {
		case isShown && isUnused:
			t.Errorf("%s is shown by %v, but listed as unused", text, shown[text])
		case !isShown && !isUnused:
			t.Errorf("%s is shown by no golden file: write one, or say in unused why Blixt has no use for it", text)
		}
	}
	for text := range unused {
		if !wanted[text] {
			t.Errorf("%s is listed as unused, but Gateway API has it no more", text)
		}
	}
}

// shownReasons returns the golden files that show each condition.
func shownReasons(t *testing.T) map[string][]string {
	t.Helper()
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string][]string{}
	for _, in := range inputs {
		c := readCase(t, in)
		translation := c.translate()
		eachCondition(&translation, func(kind string, c metav1.Condition) {
			name := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
			for _, text := range []string{kind + " " + c.Type, kind + " " + c.Type + "=" + string(c.Status) + " " + c.Reason, kind + " reason " + c.Reason} {
				if !slices.Contains(shown[text], name) {
					shown[text] = append(shown[text], name)
				}
			}
		})
	}
	return shown
}

// eachCondition calls f with Gateway API's names of kinds of conditions.
func eachCondition(t *gateway.Translation, f func(kind string, c metav1.Condition)) {
	all := func(kind string, conditions []metav1.Condition) {
		for _, c := range conditions {
			f(kind, c)
		}
	}
	for _, c := range t.Classes {
		all("GatewayClass", c.Status.Conditions)
	}
	for _, g := range t.Gateways {
		all("Gateway", g.Status.Conditions)
		for _, l := range g.Status.Listeners {
			all("Listener", l.Conditions)
		}
	}
	for _, s := range t.ListenerSets {
		all("ListenerSet", s.Status.Conditions)
		for _, l := range s.Status.Listeners {
			all("ListenerEntry", l.Conditions)
		}
	}
	for _, r := range t.Routes {
		for _, p := range r.Status.Parents {
			all("Route", p.Conditions)
		}
	}
}

var (
	documentedStatus = regexp.MustCompile(`(?i)reasons for this condition to be (true|false|unknown)`)
	documentedReason = regexp.MustCompile(`^\s*\* "(\w+)"`)
	constantType     = regexp.MustCompile(`^(GatewayClass|Gateway|Listener|ListenerSet|ListenerEntry|Route)Condition(Type|Reason)$`)
)

// documentedReasons returns what the comments of condition types name, such as
// "Gateway Programmed" and "Gateway Programmed=True Programmed", and the
// reasons that they do not name, such as "Gateway reason Scheduled".
func documentedReasons(t *testing.T) map[string]bool {
	t.Helper()
	wanted := map[string]bool{}
	named, reasons := map[string]bool{}, map[string]bool{}
	for _, spec := range conditionConstants(t) {
		of := constantType.FindStringSubmatch(spec.Type.(*ast.Ident).Name)
		kind, value := of[1], strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)
		if of[2] == "Reason" {
			reasons[kind+" reason "+value] = true
			continue
		}
		condition := kind + " " + value
		wanted[condition] = true
		status := ""
		for line := range strings.Lines(spec.Doc.Text()) {
			if m := documentedStatus.FindStringSubmatch(line); m != nil {
				status = strings.ToUpper(m[1][:1]) + m[1][1:]
			}
			if m := documentedReason.FindStringSubmatch(line); m != nil && status != "" {
				wanted[condition+"="+status+" "+m[1]] = true
				named[kind+" reason "+m[1]] = true
			}
		}
	}
	for reason := range reasons {
		if !named[reason] {
			wanted[reason] = true
		}
	}
	return wanted
}

// conditionConstants returns the declarations of Gateway API's condition types
// and reasons.
func conditionConstants(t *testing.T) []*ast.ValueSpec {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api/apis/v1").Output()
	if err != nil {
		t.Fatalf("find Gateway API: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*_types.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("find Gateway API's types: %v, %d files", err, len(files))
	}
	var constants []*ast.ValueSpec
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				if name, ok := spec.Type.(*ast.Ident); ok && constantType.MatchString(name.Name) {
					constants = append(constants, spec)
				}
			}
			return true
		})
	}
	return constants
}

// unused are the conditions and reasons that Blixt never gives, by why.
var unused = byReason(map[string][]string{
	"Translate always has all objects before it, so that nothing is left pending": {
		"GatewayClass Accepted=Unknown Pending", "Gateway Accepted=Unknown Pending", "Listener Accepted=Unknown Pending",
		"ListenerSet Accepted=Unknown Pending", "ListenerEntry Accepted=Unknown Pending", "Route Accepted=Unknown Pending",
	},
	"Blixt knows nothing of TLS: listeners that do are UnsupportedProtocol": {
		"Gateway InsecureFrontendValidationMode", "Gateway InsecureFrontendValidationMode=True ConfigurationChanged",
		"Gateway ResolvedRefs", "Gateway ResolvedRefs=True ResolvedRefs", "Gateway ResolvedRefs=False RefNotPermitted",
		"Gateway ResolvedRefs=False InvalidClientCertificateRef", "Gateway ResolvedRefs=False ListenersNotResolved",
		"Listener Accepted=False NoValidCACertificate", "Listener ResolvedRefs=False InvalidCACertificateKind",
		"Listener ResolvedRefs=False InvalidCACertificateRef", "Listener ResolvedRefs=False InvalidCertificateRef",
		"Listener ResolvedRefs=False RefNotPermitted", "Listener OverlappingTLSConfig",
		"Listener OverlappingTLSConfig=True OverlappingCertificates", "Listener OverlappingTLSConfig=True OverlappingHostnames",
		"ListenerEntry ResolvedRefs=False InvalidCertificateRef", "ListenerEntry ResolvedRefs=False RefNotPermitted",
	},
	"TCP and UDP have no hostnames": {
		"Listener Conflicted=True HostnameConflict", "ListenerEntry Conflicted=True HostnameConflict",
		"Route Accepted=False NoMatchingListenerHostname",
	},
	"TCPRoutes and UDPRoutes have no filters, and one rule only, which is valid or not": {
		"Route reason IncompatibleFilters", "Route PartiallyInvalid", "Route PartiallyInvalid=True UnsupportedValue",
	},
	"it is experimental: Blixt reads only what all versions of the CRDs have, and so works with each": {
		"GatewayClass SupportedVersion", "GatewayClass SupportedVersion=True SupportedVersion",
		"GatewayClass SupportedVersion=False UnsupportedVersion", "GatewayClass Accepted=False UnsupportedVersion",
	},
	"parameters are the only part of a class that could be unsupported, and have a reason of their own": {
		"GatewayClass Accepted=False Unsupported",
	},
	"Blixt sets no limit: a table of the data plane that is full is told by Programmed": {
		"ListenerEntry Accepted=False TooManyListeners",
	},
	"each listener of a set is told what is invalid about it, and the set ListenersNotValid": {
		"ListenerSet Accepted=False Invalid", "ListenerSet Programmed=False Invalid", "ListenerSet Programmed=False PortUnavailable",
	},
	"Gateway API has it for the future or for the past": {
		"Gateway Ready", "Gateway Scheduled", "Gateway Accepted=False NotReconciled", "Listener Ready", "Listener Detached", "ListenerEntry Ready",
		"GatewayClass reason Waiting", "Gateway reason Scheduled", "Gateway reason Ready",
		"Gateway reason ListenersNotReady", "Listener reason Attached", "Listener reason Ready", "ListenerEntry reason Ready",
	},
})

func byReason(groups map[string][]string) map[string]string {
	all := map[string]string{}
	for why, group := range groups {
		for _, text := range group {
			all[text] = why
		}
	}
	return all
}
