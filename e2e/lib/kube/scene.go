// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// WebGateway is a Gateway with an address of a pool, and a route to a Service of one
// endpoint.
const WebGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: blixt}
spec:
  controllerName: gateway.networking.k8s.io/blixt
  parametersRef: {group: blixt.x-k8s.io, kind: BlixtConfig, name: blixt}
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtConfig
metadata: {name: blixt}
spec:
  addresses: {source: Pool, pool: [198.51.100.0/29]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: blixt
  listeners: [{name: http, protocol: TCP, port: 80}]
  allowedListeners: {namespaces: {from: Same}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.1.0.5], nodeName: n1, conditions: {ready: true}}]
`

// Clear deletes all objects of these kinds, whatever their finalizers, except those
// that Kubernetes itself creates. No controller runs that would.
func (s *Server) Clear(t testing.TB, lists ...client.ObjectList) {
	t.Helper()
	ctx := context.Background() // the test may have ended
	for _, list := range lists {
		err := s.Client.List(ctx, list)
		if err == nil {
			err = meta.EachListItem(list, func(item runtime.Object) error { return s.remove(ctx, item.(client.Object)) })
		}
		if err != nil {
			t.Errorf("delete all of %T: %v", list, err)
		}
	}
}

func (s *Server) remove(ctx context.Context, o client.Object) error {
	if IsSystem(o) {
		return nil
	}
	if len(o.GetFinalizers()) > 0 {
		none := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
		if err := s.Client.Patch(ctx, o, none); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return client.IgnoreNotFound(s.Client.Delete(ctx, o, client.GracePeriodSeconds(0)))
}

// IsSystem reports whether Kubernetes itself creates an object.
func IsSystem(o client.Object) bool {
	return strings.HasPrefix(o.GetNamespace(), "kube-") || o.GetName() == "kubernetes" || strings.HasPrefix(o.GetName(), "kube-root-ca")
}

// renderChart returns the objects of a chart, as Helm renders it with the values that
// it is tested with, and more flags.
func renderChart(ctx context.Context, chart, namespace string, flags ...string) ([]*unstructured.Unstructured, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	args := []string{"template", "blixt", chart, "--namespace=" + namespace, "--kube-version=1.37.0", "--values=" + filepath.Join(chart, "ci/values.yaml")}
	cmd := exec.CommandContext(ctx, filepath.Join(cache, "blixt", "helm-v3.22.0"), append(args, flags...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("render chart (make helm builds Helm): %w", err)
	}
	return Decode(out)
}

// GrantOperator grants the ServiceAccount blixt-operator what the chart does with these
// flags of Helm, and waits until the API server has taken notice.
func (s *Server) GrantOperator(ctx context.Context, chart, namespace string, flags ...string) error {
	objects, err := renderChart(ctx, chart, namespace, flags...)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if object.GetNamespace() == "bpfman" { // there is none
			continue
		}
		switch object.GetKind() {
		case "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding":
			config := client.ApplyConfigurationFromUnstructured(object)
			if err := s.Client.Apply(ctx, config, client.FieldOwner("helm"), client.ForceOwnership); err != nil {
				return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
			}
		}
	}
	config, err := s.AsServiceAccount(ctx, namespace, "blixt-operator")
	if err != nil {
		return err
	}
	c, err := client.New(config, client.Options{Scheme: Scheme})
	if err != nil {
		return err
	}
	for range 100 {
		if err = errors.Join(c.List(ctx, &gwv1.GatewayList{}), c.List(ctx, &corev1.PodList{}, client.InNamespace(namespace))); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}
