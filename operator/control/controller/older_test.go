// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	okube "github.com/kubernetes-sigs/blixt/operator/kube"
)

// olderRelease is one that the policy which comes with newer ones lets through.
const olderRelease = "v1.2.0-rc2"

// older makes the CRD of a plural what Gateway API 1.2 has, or nil: it has none.
var older = map[string]func(*apiextv1.CustomResourceDefinition){
	"listenersets": nil,
	"udproutes":    nil, // standard channel
	"tcproutes":    func(c *apiextv1.CustomResourceDefinition) { onlyVersion(c, "v1alpha2") },
	// Its v1 became the one that is served in a later release.
	"referencegrants": func(c *apiextv1.CustomResourceDefinition) { onlyVersion(c, "v1beta1") },
	"gatewayclasses": func(c *apiextv1.CustomResourceDefinition) {
		withoutStatus(c, "supportedFeatures")
	},
	"gateways": func(c *apiextv1.CustomResourceDefinition) { withoutStatus(c, "attachedListenerSets") },
}

// onlyVersion leaves one version, with the schema of the first.
func onlyVersion(c *apiextv1.CustomResourceDefinition, name string) {
	c.Spec.Versions = c.Spec.Versions[:1]
	c.Spec.Versions[0].Name, c.Spec.Versions[0].Served, c.Spec.Versions[0].Storage = name, true, true
}

// withoutStatus takes a field out of the status, which the API server drops then.
func withoutStatus(c *apiextv1.CustomResourceDefinition, field string) {
	for _, v := range c.Spec.Versions {
		delete(v.Schema.OpenAPIV3Schema.Properties["status"].Properties, field)
	}
}

// define makes CRDs what they should be, as kubectl apply does, or else by deleting them
// with their objects. A nil one is deleted.
func define(t *testing.T, crds map[string]*apiextv1.CustomResourceDefinition) {
	t.Helper()
	ctx := context.Background()
	for name, crd := range crds {
		kube.Wait(t, 10*time.Second, name+" is as it should be", true, func() (bool, error) {
			now := named[apiextv1.CustomResourceDefinition]("", name)
			err := server.Client.Get(ctx, client.ObjectKeyFromObject(now), now)
			switch {
			case client.IgnoreNotFound(err) != nil:
				return false, err
			case err != nil && crd == nil:
				return true, nil
			case err != nil:
				fresh := named[apiextv1.CustomResourceDefinition]("", name)
				fresh.Spec, fresh.Annotations = crd.Spec, crd.Annotations
				err = server.Client.Create(ctx, fresh)
				return err == nil, err
			case now.DeletionTimestamp != nil: // until its objects are gone
				return false, nil
			case crd == nil:
				return false, server.Client.Delete(ctx, now)
			}
			now.Spec, now.Annotations = crd.Spec, crd.Annotations
			err = server.Client.Update(ctx, now)
			if apierrors.IsInvalid(err) { // it would lack a version of which there may be objects
				return false, server.Client.Delete(ctx, now)
			}
			return err == nil, err
		})
	}
}

// withoutRoute returns the objects without TCPRoutes.
func withoutRoute(text string) string {
	documents := slices.DeleteFunc(strings.Split(text, "---\n"), func(d string) bool { return strings.Contains(d, "kind: TCPRoute") })
	return strings.Join(documents, "---\n")
}

// TestOlderGatewayAPI runs in a cluster whose provider has installed Gateway API 1.2:
// TCPRoute has no v1 there, and statuses have fewer fields. The operator is ready,
// says what is missing and how to get it, and writes no status again and again. When
// the kinds are there, it serves, without a restart.
func TestOlderGatewayAPI(t *testing.T) {
	o := start(t)
	o.stop()
	crds, olderCRDs := map[string]*apiextv1.CustomResourceDefinition{}, map[string]*apiextv1.CustomResourceDefinition{}
	for plural, change := range older {
		name := plural + ".gateway.networking.k8s.io"
		crd := named[apiextv1.CustomResourceDefinition]("", name)
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
		crds[name], olderCRDs[name] = crd, nil
		if change != nil {
			olderCRDs[name] = crd.DeepCopy()
			change(olderCRDs[name])
			olderCRDs[name].Annotations[okube.BundleAnnotation] = olderRelease
		}
	}
	restore := func() { define(t, crds) }
	defer restore()
	define(t, olderCRDs)

	o.run()
	o.apply(withoutRoute(kube.WebGateway))
	class := named[gwv1.GatewayClass]("", "blixt")
	for _, says := range []string{
		"TCPRoute v1 is missing, so TCP is not served (the cluster has v1alpha2 of Gateway API " + olderRelease + ")",
		"UDPRoute v1 is missing, so UDP is not served;",
		"install Gateway API 1.6 or newer, standard channel: kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.7.",
	} {
		o.condition(class, "Accepted", "True Accepted", says)
	}
	o.condition(named[gwv1.Gateway]("default", "web"), "Accepted", "True Accepted", "")
	// What the API server does not store is not written again and again.
	before := writes(t)
	time.Sleep(2 * time.Second)
	for key, n := range writes(t) {
		if n-before[key] > 10 {
			t.Fatalf("%s: %d writes in two seconds", key, n-before[key])
		}
	}
	o.listen(81)
	o.eventually("the Gateway's status is of its new generation", func() error {
		gw := named[gwv1.Gateway]("default", "web")
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw); err != nil {
			return err
		}
		if i := slices.IndexFunc(gw.Status.Conditions, func(c metav1.Condition) bool { return c.ObservedGeneration != gw.Generation }); i >= 0 {
			return fmt.Errorf("condition %+v", gw.Status.Conditions[i])
		}
		return nil
	})

	restore()
	o.apply(kube.WebGateway) // its objects went with their kinds
	o.load(firstCode, "n1", "n2")
	o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "True Programmed", "All nodes")
	o.eventually("the class says nothing any more", func() error {
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(class), class); err != nil {
			return err
		}
		if m := class.Status.Conditions[0].Message; strings.Contains(m, "missing") {
			return errors.New(m)
		}
		return nil
	})
}
