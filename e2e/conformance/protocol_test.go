// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/conformance/utils/udp"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// protocol is the protocol of the listeners of a set of twins.
type protocol struct {
	name, other       gwv1.ProtocolType
	route, otherRoute gwv1.Kind
	// backend is a Service of the base, and a port that it has.
	backend, port string
	feature       features.FeatureName
}

var protocols = []protocol{
	{gwv1.TCPProtocolType, gwv1.UDPProtocolType, "TCPRoute", "UDPRoute", "tcp-backend", "3000", features.SupportTCPRoute},
	{gwv1.UDPProtocolType, gwv1.TCPProtocolType, "UDPRoute", "TCPRoute", "udp-backend", "8080", features.SupportUDPRoute},
}

// twins returns the twins of the suite's tests with HTTP. Where the suite's own
// function works with any protocol, only the manifest differs.
func (p protocol) twins() []suite.ConformanceTest {
	twins := []suite.ConformanceTest{
		p.twin("InfrastructureMetadata", "infrastructure.yaml", tests.GatewayInfrastructureMetadata.Test),
		p.twin("InvalidParametersRef", "parameters.yaml", tests.GatewayInvalidParametersRef.Test),
		p.twin("OptionalAddressValue", "optional-address.yaml", tests.GatewayOptionalAddressValue.Test),
		p.twin("InvalidRouteKind", "route-kind.yaml", p.invalidRouteKind),
		p.twin("UnsupportedProtocol", "unsupported-protocol.yaml", p.unsupportedProtocol),
		p.twin("ModifyListeners", "modify-listeners.yaml", p.modifyListeners),
		p.twin("ObservedGenerationBump", "observed-generation.yaml", p.observedGeneration),
		p.twin("StaticAddresses", "static-addresses.yaml", p.staticAddresses),
		p.twin("NotAllowedByListeners", "other-protocol.yaml", p.notAllowed),
		p.twin("ReferenceGrants", "reference-grants.yaml", p.referenceGrants),
	}
	if p.name != gwv1.TCPProtocolType {
		return twins
	}
	// These make namespaces, which take long to go away, and HTTP conflicts with TCP only.
	return append(twins,
		p.twin("ListenerSetAllowedNamespaceNone", "listenerset-none.yaml", tests.ListenerSetAllowedNamespaceNone.Test),
		p.twin("ListenerSetAllowedNamespaceSame", "listenerset-same.yaml", tests.ListenerSetAllowedNamespaceSame.Test),
		p.twin("ListenerSetAllowedNamespaceSelector", "listenerset-selector.yaml", tests.ListenerSetAllowedNamespaceSelector.Test),
		p.twin("ListenerSetDefaultNotAllowed", "listenerset-default.yaml", tests.ListenerSetDefaultNotAllowed.Test),
		p.twin("ListenerSetProtocolConflict", "listenerset-conflict.yaml", tests.ListenerSetProtocolConflict.Test),
	)
}

func (p protocol) twin(name, manifest string, test func(*testing.T, *suite.ConformanceTestSuite)) suite.ConformanceTest {
	return suite.ConformanceTest{
		ShortName: "Twin" + string(p.name) + name,
		Features:  []features.FeatureName{features.SupportGateway, p.feature},
		Manifests: []string{string(p.name) + "/" + manifest},
		Test:      test,
	}
}

// accepted waits until a Gateway and the route of that name are accepted, and returns
// the address of a listener.
func (p protocol) accepted(t *testing.T, s *suite.ConformanceTestSuite, gw types.NamespacedName, listener string) string {
	t.Helper()
	wait := kubernetes.GatewayAndTCPRoutesMustBeAccepted
	if p.name == gwv1.UDPProtocolType {
		wait = kubernetes.GatewayAndUDPRoutesMustBeAccepted
	}
	addr := wait(t, s.Client, s.TimeoutConfig, s.ControllerName, kubernetes.NewGatewayRef(gw), gw)
	port := map[string]string{"first": "9400", "second": "9401"}[listener]
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, port)
}

// serves sends to an address, and expects an answer of the suite's server.
func (p protocol) serves(t *testing.T, s *suite.ConformanceTestSuite, addr string) {
	t.Helper()
	if p.name == gwv1.UDPProtocolType {
		udp.ExpectEchoResponse(t, s.TimeoutConfig.MaxTimeToConsistency, addr)
		return
	}
	tcp.ExpectEchoResponse(t, s.TimeoutConfig, addr)
}

// refuses sends to an address until it is refused.
func (p protocol) refuses(t *testing.T, s *suite.ConformanceTestSuite, addr string) {
	t.Helper()
	err := lab.Eventually(s.TimeoutConfig.MaxTimeToConsistency, func() error {
		err := ask(strings.ToLower(string(p.name)), addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err == nil {
			err = errors.New("there is an answer")
		}
		return fmt.Errorf("%s %s is not refused: %w", p.name, addr, err)
	})
	if err != nil {
		t.Error(err)
	}
}

func ask(network, addr string) error {
	conn, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "TEST\n"); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
