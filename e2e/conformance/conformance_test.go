// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/yaml"
)

const (
	needsHTTP  = "its Gateway needs an HTTP listener to be accepted"
	needsHTTPS = "it is about the certificates of an HTTPS listener"
	saysHTTP   = "it wants HTTPRoute among a listener's supportedKinds"
)

// skipped are the tests of the profiles that Blixt cannot pass, or that would
// pass without having tested anything, and why. Each but those of certificates
// has a twin.
var skipped = map[string]string{
	"GatewayInfrastructureMetadata":             needsHTTP,
	"GatewayInvalidRouteKind":                   saysHTTP,
	"GatewayInvalidTLSConfiguration":            needsHTTPS,
	"GatewayListenerUnsupportedProtocol":        needsHTTP,
	"GatewayModifyListeners":                    needsHTTP,
	"GatewayObservedGenerationBump":             needsHTTP,
	"GatewayOptionalAddressValue":               needsHTTP,
	"GatewaySecretInvalidReferenceGrant":        needsHTTPS,
	"GatewaySecretMissingReferenceGrant":        needsHTTPS,
	"GatewaySecretReferenceGrantAllInNamespace": needsHTTPS,
	"GatewaySecretReferenceGrantSpecific":       needsHTTPS,
	"GatewayStaticAddresses":                    needsHTTP,
	"TCPRouteInvalidNonTCPListener":             needsHTTP,
	"UDPRouteNotAllowedByListeners":             "it asserts nothing where TLSRoute is not supported",
}

// TestConformance runs the suite, and after it the twins, which the suite's report must
// not count.
func TestConformance(t *testing.T) {
	opts := conformance.DefaultOptions(t)
	opts.GatewayClassName = "blixt"
	opts.ConformanceProfiles = []suite.ConformanceProfileName{suite.GatewayTCPConformanceProfileName, suite.GatewayUDPConformanceProfileName}
	opts.Implementation.Organization, opts.Implementation.Project = "kubernetes-sigs", "blixt"
	opts.Implementation.URL = "https://github.com/kubernetes-sigs/blixt"
	opts.Implementation.Contact = []string{opts.Implementation.URL + "/issues"}
	opts.SkipTests = slices.Sorted(maps.Keys(skipped))
	opts.CleanupBaseResources = false // the twins need them
	opts.UsableNetworkAddresses, opts.UnusableNetworkAddresses = address(usable), address(unusable)
	opts.ManifestFS = append(opts.ManifestFS, manifests(t))
	opts.BaseManifests = base
	results := results{flows: newFlows(t)}
	opts.Hook = results.add
	s, err := suite.NewConformanceTestSuite(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Setup(t, tests.ConformanceTests)
	t.Run("Suite", func(t *testing.T) {
		if err := s.Run(t, tests.ConformanceTests); err != nil {
			t.Error(err)
		}
	})
	report, err := s.Report()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range protocols {
		t.Run(string(p.name)+"Twins", func(t *testing.T) {
			if err := s.Run(t, p.twins()); err != nil {
				t.Error(err)
			}
		})
	}
	if opts.ReportOutputPath != "" {
		write(t, opts.ReportOutputPath, report, &results)
	}
}

func address(value string) []gwv1.GatewaySpecAddress {
	kind := gwv1.IPAddressType
	return []gwv1.GatewaySpecAddress{{Type: &kind, Value: value}}
}

// results are the lines of a table: the outcome of each test, and how many flows began
// meanwhile.
type results struct {
	mu    sync.Mutex
	lines []string
	flows uint64 // at the end of the last test
}

// add adds a test that has ended. It leaves out the suite's tests of features that no
// profile requires and the GatewayClass does not claim.
func (r *results) add(t *testing.T, test suite.ConformanceTest, s *suite.ConformanceTestSuite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	flows := newFlows(t)
	began := flows - r.flows
	r.flows = flows
	if least := leastFlows[test.ShortName]; began < least && !t.Skipped() {
		t.Errorf("Blixt counted %d new flows, want at least %d", began, least)
	}
	outcome := "passed"
	switch {
	case !s.SupportedFeatures.HasAll(test.Features...):
		return
	case t.Failed():
		outcome = "**failed**"
	case t.Skipped():
		outcome = "skipped: " + skipped[test.ShortName]
	}
	r.lines = append(r.lines, fmt.Sprintf("| %s | %s | %d |", test.ShortName, outcome, began))
}

// write writes the suite's report, and beside it a table of all tests.
func write(t *testing.T, path string, report *confv1.ConformanceReport, r *results) {
	t.Helper()
	slices.SortFunc(report.ProfileReports, func(a, b confv1.ProfileReport) int { return strings.Compare(a.Name, b.Name) })
	text, err := yaml.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(r.lines)
	table := "| Test | Result | Flows |\n|-|-|-|\n" + strings.Join(r.lines, "\n") + "\n"
	for file, content := range map[string]string{path: string(text), filepath.Join(filepath.Dir(path), "tests.md"): table} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
