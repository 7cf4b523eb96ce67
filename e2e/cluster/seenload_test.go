// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"encoding/json"
	"net"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/keyring"
)

// testSeenUnderLoad ends each part of Blixt and of bpfman, and replaces the key by which
// nodes tell each other of clients, under load: no connection breaks, and servers go on
// seeing who new clients are.
func testSeenUnderLoad(t *testing.T, vips []string) {
	routeAddresses(t, vips, c.Nodes[0])
	l := startLoadAt(t, vips, "8081", "80")
	t.Cleanup(l.end)
	for _, event := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"key rotated", rotateKey},
		{"agents killed", func(t *testing.T) {
			ended := killAll(t, "/blixt agent ")
			awaitPods(t, system)
			awaitRestarted(t, "/blixt agent ", ended)
		}},
		{"operators deleted", func(t *testing.T) {
			kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=operator")
			awaitPods(t, system)
			awaitProgrammed(t, "server")
		}},
		{"bpfman's daemons killed", func(t *testing.T) {
			ended := killAll(t, "/usr/local/sbin/bpfman-rpc ")
			awaitRestarted(t, "/usr/local/sbin/bpfman-rpc ", ended)
			awaitPods(t, "bpfman")
			awaitLinks(t, uplinks()...)
		}},
	} {
		t.Run(event.name, func(t *testing.T) {
			l.during(t, func() { event.do(t) })
			checkSeen(t, vips)
		})
	}
}

// rotateKey asks for another key, and waits until nodes sign by it.
func rotateKey(t *testing.T) {
	t.Helper()
	before, err := signingKey(t)
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "--namespace="+system, "annotate", "--overwrite", "secret", v1alpha1.AnnounceSecret, v1alpha1.RotateAnnotation+"=after-"+strconv.Itoa(before))
	kube.Wait(t, patience, "whether nodes sign by another key", true, func() (bool, error) {
		now, err := signingKey(t)
		return now != before, err
	})
}

// signingKey returns the id of the key by which nodes sign.
func signingKey(t *testing.T) (int, error) {
	var secret corev1.Secret
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: system, Name: v1alpha1.AnnounceSecret}, &secret); err != nil {
		return 0, err
	}
	var ring struct{ Sign int }
	err := json.Unmarshal(secret.Data[keyring.SecretKey], &ring)
	return ring.Sign, err
}

// checkSeen has servers on every node tell which client they see.
func checkSeen(t *testing.T, vips []string) {
	t.Helper()
	for _, vip := range vips {
		for _, network := range []string{"tcp", "udp"} {
			addr := net.JoinHostPort(vip, "80")
			const n = 20
			got, err := asker{dial: usual}.ask(t, network, addr, n)
			if err != nil {
				t.Errorf("%s to %s: %v", network, addr, err)
			}
			checkSaw(t, got, usual.ip(vip), n)
		}
	}
}
