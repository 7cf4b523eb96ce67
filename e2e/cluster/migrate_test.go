// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/services"
)

// testMigrated goes over from Services to which MetalLB gives addresses, as
// docs/migrate/services.md says: what blixt migrate writes is applied while clients use the
// Services, whose type becomes ClusterIP last.
func testMigrated(t *testing.T) {
	applyUntilEnd(t, "migrated.yaml", "", "")
	was := map[string][]string{"kept": held(t, "kept"), "moved": held(t, "moved")}
	for _, vip := range slices.Concat(was["kept"], was["moved"]) { // MetalLB announces it, and kube-proxy serves it
		awaitClients(t, vip)
	}
	old := startLoad(t, slices.Concat(was["kept"], was["moved"]))
	defer old.end()

	text, err := c.Kubectl(t.Context(), "get", "services", "--all-namespaces", "--output=yaml")
	if err != nil {
		t.Fatal(err)
	}
	plan := services.Read([]migrate.File{{Name: "services.yaml", Text: []byte(text)}})
	objects, notes := plan.Objects(migrate.Options{})
	if migrate.Loses(notes) {
		t.Errorf("something is lost: %v", notes)
	}
	yaml, err := migrate.YAML(objects, notes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, o := range objects {
			if err := c.Client.Delete(context.Background(), o.Value); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		}
	})
	var vips []string
	old.during(t, func() {
		if err := c.ApplyYAML(t.Context(), []byte(yaml)); err != nil {
			t.Fatal(err)
		}
		vips = awaitProgrammed(t, "moved")
		checkNewClients(t, vips, "tcp", "udp")
		awaitCondition(t, gatewayCondition(t, "kept", "Programmed"), "False AddressNotUsable")
	})
	for _, vip := range vips {
		if slices.Contains(was["moved"], vip) {
			t.Errorf("Gateway moved has %s, which its Service has", vip)
		}
	}

	moved := startLoad(t, vips)
	defer moved.end()
	moved.during(t, func() {
		at := time.Now()
		for name := range was {
			kubectl(t, "patch", "service", name, `--patch={"spec":{"type":"ClusterIP","loadBalancerSourceRanges":null}}`)
		}
		awaitClients(t, was["kept"][0])
		t.Logf("%.1f s after its Service let the address go, clients reach the Gateway there", time.Since(at).Seconds())
		if got := awaitProgrammed(t, "kept"); !slices.Equal(got, was["kept"]) {
			t.Errorf("Gateway kept has %v, want what its Service had, %v", got, was["kept"])
		}
		checkNewClients(t, was["kept"], "tcp", "udp")
	})
}

// awaitClients waits until clients reach an address.
func awaitClients(t *testing.T, vip string) {
	t.Helper()
	for _, port := range []string{"80", "8081"} {
		kube.Wait(t, patience, "whether new clients reach "+vip, true, func() (bool, error) {
			conn, err := outside().Dial("tcp", "", net.JoinHostPort(vip, port), 300*time.Millisecond)
			if err != nil {
				return false, nil
			}
			return true, conn.Close()
		})
	}
}

// held waits until a Service has an address of each family, and returns them.
func held(t *testing.T, name string) (all []string) {
	t.Helper()
	kube.Wait(t, patience, "how many addresses Service "+name+" has", 2, func() (int, error) {
		s := &corev1.Service{}
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, s)
		all = nil
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			all = append(all, ingress.IP)
		}
		return len(all), err
	})
	return all
}
