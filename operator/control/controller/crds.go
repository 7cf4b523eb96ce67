// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// custom is a kind that the cluster may lack.
type custom struct {
	object client.Object
	crd    string
	// without says what does not work without it, from how to get it.
	without, from string
}

const (
	fromGatewayAPI = "install Gateway API 1.6 or newer, standard channel: " + kube.InstallGatewayAPI
	fromBpfman     = "install bpfman-operator v0.6.0 or newer"
	fromChart      = "install the CRDs of Blixt's chart"
)

var customs = []custom{
	{&gwv1.GatewayClass{}, "gatewayclasses.gateway.networking.k8s.io", "nothing is served", fromGatewayAPI},
	{&gwv1.Gateway{}, "gateways.gateway.networking.k8s.io", "nothing is served", fromGatewayAPI},
	{&gwv1.ListenerSet{}, "listenersets.gateway.networking.k8s.io", "there are no ListenerSets", fromGatewayAPI},
	{&gwv1.TCPRoute{}, "tcproutes.gateway.networking.k8s.io", "TCP is not served", fromGatewayAPI},
	{&gwv1.UDPRoute{}, "udproutes.gateway.networking.k8s.io", "UDP is not served", fromGatewayAPI},
	{&gwv1.ReferenceGrant{}, "referencegrants.gateway.networking.k8s.io", "routes reach Services of their own namespace only", fromGatewayAPI},
	{&bpfmanv1.ClusterBpfApplication{}, "clusterbpfapplications.bpfman.io", "no data plane is loaded", fromBpfman},
	{&bpfmanv1.ClusterBpfApplicationState{}, "clusterbpfapplicationstates.bpfman.io", "no data plane is loaded", fromBpfman},
	{&v1alpha1.BlixtConfig{}, "blixtconfigs.blixt.x-k8s.io", "every class has the defaults", fromChart},
	{&v1alpha1.BlixtGatewayConfig{}, "blixtgatewayconfigs.blixt.x-k8s.io", "every Gateway has the defaults", fromChart},
	{&v1alpha1.BlixtPolicy{}, "blixtpolicies.blixt.x-k8s.io", "no BlixtPolicy holds", fromChart},
	{&v1alpha1.NodeDataplane{}, "nodedataplanes.blixt.x-k8s.io", "no NodeDataplane tells what nodes serve", fromChart},
}

// kinds are the custom kinds that the cluster has, in the version that we read.
type kinds struct {
	present map[schema.GroupVersionKind]bool
	// missing tells people which kinds are missing, by how to get them.
	missing map[string][]string
	// unserved are the kinds of which there is a CRD, and maybe objects, that cannot be
	// read.
	unserved []schema.GroupVersionKind
	// narrowLinkIDs: the CRD has link ids as int32. They are unsigned, so the API
	// server rejects half of those that bpfman reports.
	narrowLinkIDs bool
}

// narrowAnnotation marks a CRD in the cache, which drops the schema.
const narrowAnnotation = "blixt.x-k8s.io/int32-link-ids"

// markNarrowLinkIDs marks a CRD of bpfman's whose schema has int32 link ids.
func markNarrowLinkIDs(crd *apiextv1.CustomResourceDefinition) {
	if crd.Spec.Group != bpfmanv1.SchemeGroupVersion.Group {
		return
	}
	for _, v := range crd.Spec.Versions {
		if v.Schema != nil && narrow(v.Schema.OpenAPIV3Schema) {
			metav1.SetMetaDataAnnotation(&crd.ObjectMeta, narrowAnnotation, "true")
		}
	}
}

// narrow reports whether a schema has an int32 linkId.
func narrow(s *apiextv1.JSONSchemaProps) bool {
	if s == nil {
		return false
	}
	for name, p := range s.Properties {
		if name == "linkId" && p.Format == "int32" || narrow(&p) {
			return true
		}
	}
	return s.Items != nil && narrow(s.Items.Schema)
}

// readKinds reads the CRDs.
func (a *api) readKinds(ctx context.Context) (kinds, error) {
	k := kinds{present: map[schema.GroupVersionKind]bool{}, missing: map[string][]string{}}
	for _, kind := range customs {
		gvk, err := apiutil.GVKForObject(kind.object, kube.Scheme)
		if err != nil {
			return k, fmt.Errorf("find kind of %T: %w", kind.object, err)
		}
		crd := &apiextv1.CustomResourceDefinition{}
		err = a.client.Get(ctx, client.ObjectKey{Name: kind.crd}, crd)
		if client.IgnoreNotFound(err) != nil {
			return k, fmt.Errorf("get CRD %s: %w", kind.crd, err)
		}
		k.narrowLinkIDs = k.narrowLinkIDs || crd.Annotations[narrowAnnotation] != ""
		if k.present[gvk] = err == nil && serves(crd, gvk.Version); !k.present[gvk] {
			if err == nil {
				k.unserved = append(k.unserved, gvk)
			}
			text := fmt.Sprintf("%s %s is missing, so %s", gvk.Kind, gvk.Version, kind.without)
			if served := kube.ServedVersions(crd); served != "" {
				text += fmt.Sprintf(" (the cluster has %s)", served)
			}
			k.missing[kind.from] = append(k.missing[kind.from], text)
		}
	}
	return k, nil
}

// lacks returns a sentence about the kinds that are missing and come from there, or "".
func (k kinds) lacks(from string) string {
	if len(k.missing[from]) == 0 {
		return ""
	}
	return strings.Join(k.missing[from], "; ") + ": " + from + "."
}

// lacksAny returns a sentence for each place that missing kinds come from.
func (k kinds) lacksAny() string {
	var sentences []string
	for _, from := range []string{fromGatewayAPI, fromBpfman, fromChart} {
		if text := k.lacks(from); text != "" {
			sentences = append(sentences, text)
		}
	}
	return strings.Join(sentences, " ")
}

// lost returns an error if objects that were read before exist still, but cannot be
// read: while a CRD is exchanged, for one. They are not gone, so nothing must follow
// from their absence.
func (k kinds) lost(before kinds) error {
	for _, gvk := range k.unserved {
		if before.present[gvk] {
			return fmt.Errorf("the CRD of kind %s does not serve version %s any more: what was read before goes on", gvk.Kind, gvk.Version)
		}
	}
	return nil
}

// serves reports whether objects of a version can be read.
func serves(crd *apiextv1.CustomResourceDefinition, version string) bool {
	established := slices.ContainsFunc(crd.Status.Conditions, func(c apiextv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextv1.Established && c.Status == apiextv1.ConditionTrue
	})
	return established && slices.ContainsFunc(crd.Spec.Versions, func(v apiextv1.CustomResourceDefinitionVersion) bool {
		return v.Name == version && v.Served
	})
}

// has reports whether objects of a kind, or lists of them, can be read.
func (k kinds) has(object runtime.Object) bool {
	gvk, err := apiutil.GVKForObject(object, kube.Scheme)
	if err != nil {
		return false
	}
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	present, known := k.present[gvk]
	return present || !known // Kubernetes itself has the others
}
