// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

const (
	installGatewayAPI = kube.InstallGatewayAPI
	widenLinkIDs      = `for kind in bpfapplicationstates clusterbpfapplicationstates; do kubectl get crd $kind.bpfman.io -o yaml | sed '/linkId:/,/type:/s/format: int32/format: int64/' | kubectl replace -f -; done`
	// chartAnnotation is on the CRDs that Blixt's chart has installed.
	chartAnnotation   = "blixt.x-k8s.io/chart"
	bundleAnnotation  = kube.BundleAnnotation
	channelAnnotation = "gateway.networking.k8s.io/channel"
	// Blixt is tested with the kinds of these releases, and all between them.
	oldestBundle, newestBundle = "v1.6.0", "v1.7.0"
)

// crd finds one by name.
func (f *Facts) crd(name string) *apiextv1.CustomResourceDefinition { return kube.Named(f.CRDs, name) }

// missing returns why a version of a kind is not served; "": it is.
func (f *Facts) missing(name, v string) string {
	c := f.crd(name)
	if c == nil {
		return "is not there"
	}
	if !slices.ContainsFunc(c.Spec.Versions, func(s apiextv1.CustomResourceDefinitionVersion) bool { return s.Name == v && s.Served }) {
		why := "does not serve version " + v
		if served := kube.ServedVersions(c); served != "" {
			why += ", but " + served
		}
		return why
	}
	return ""
}

func gatewayAPI(f *Facts) (string, []Finding) {
	var wrong []Finding
	bundles := map[string]bool{}
	for _, kind := range []struct {
		plural, without string
		verdict         Level
	}{
		{"gatewayclasses", "nothing is served", Failed},
		{"gateways", "nothing is served", Failed},
		{"tcproutes", "TCP is not served", Failed},
		{"udproutes", "UDP is not served", Failed},
		{"listenersets", "there are no ListenerSets", Warning},
		{"referencegrants", "routes reach Services of their own namespace only", Warning},
	} {
		name := kind.plural + ".gateway.networking.k8s.io"
		object := "CustomResourceDefinition " + name
		if why := f.missing(name, "v1"); why != "" {
			wrong = append(wrong, Finding{Verdict: kind.verdict, Object: object, Seen: why + ": " + kind.without, Remedy: installGatewayAPI})
			continue
		}
		a := f.crd(name).Annotations
		bundles[a[bundleAnnotation]+" "+a[channelAnnotation]] = true
		v, err := version.ParseSemantic(a[bundleAnnotation])
		switch {
		case err != nil:
			wrong = append(wrong, warning(object, fmt.Sprintf("annotation %s is %q, so its release is unknown", bundleAnnotation, a[bundleAnnotation]), installGatewayAPI))
		case v.LessThan(version.MustParseSemantic(oldestBundle)):
			wrong = append(wrong, warning(object, fmt.Sprintf("annotation %s is %s, older than %s", bundleAnnotation, a[bundleAnnotation], oldestBundle), install(a[channelAnnotation])))
		case isNewer(v, version.MustParseSemantic(newestBundle)):
			wrong = append(wrong, warning(object, fmt.Sprintf("annotation %s is %s, newer than %s, the newest that this release of Blixt has been tested with", bundleAnnotation, a[bundleAnnotation], newestBundle),
				"Upgrade Blixt. Until then it serves version v1 of the kinds, and ignores fields that it does not know."))
		}
	}
	var names []string
	for name := range bundles {
		names = append(names, strings.TrimSpace(name))
	}
	if len(names) > 1 && len(wrong) == 0 {
		wrong = append(wrong, warning("", "the kinds of Gateway API are of different releases or channels: "+phrase.Sample(names), installGatewayAPI))
	}
	for _, object := range slices.Sorted(maps.Keys(f.Ignored)) {
		wrong = append(wrong, warning(object, "Blixt ignores "+strings.Join(f.Ignored[object], ", ")+", which its Gateway API does not have",
			"Remove what Blixt ignores, or give the object a class that knows it."))
	}
	return "Gateway API is " + phrase.Sample(names), wrong
}

// isNewer reports whether a release has a newer minor version than another.
func isNewer(v, than *version.Version) bool {
	return v.Major() > than.Major() || v.Major() == than.Major() && v.Minor() > than.Minor()
}

// install says how to get kinds of a channel: those of the standard one in place of
// experimental ones would lose fields, and versions.
func install(channel string) string {
	if channel == "experimental" {
		return strings.Replace(installGatewayAPI, "standard-install", "experimental-install", 1)
	}
	return installGatewayAPI
}

func blixtKinds(f *Facts) (string, []Finding) {
	var wrong []Finding
	for _, name := range v1alpha1.CRDs {
		if why := f.missing(name, v1alpha1.GroupVersion.Version); why != "" {
			wrong = append(wrong, failed("CustomResourceDefinition "+name, why, "helm upgrade with crds.install=true, as is the default; from source: kubectl apply --server-side -f charts/blixt/files/crds"))
		}
	}
	return "the kinds of Blixt are there", wrong
}

// kindsRelease finds kinds that another release of Blixt's chart has left: upgrades of this
// one do not reach them. Kinds of bpfman count only if this release has bpfman.
func kindsRelease(f *Facts) (string, []Finding) {
	operator := f.operator()
	if operator == nil || releaseOf(operator) == "" {
		return "Blixt is no release of Helm, which upgrades kinds", nil
	}
	bpfman := kube.Named(f.Deployments, "bpfman-operator")
	hasBpfman := bpfman != nil && releaseOf(bpfman) == releaseOf(operator)
	var left, unlabelled []string
	for i := range f.CRDs {
		c := &f.CRDs[i]
		if strings.HasSuffix(c.Name, ".bpfman.io") && !hasBpfman {
			continue
		}
		if c.Annotations[chartAnnotation] != "" && releaseOf(c) != releaseOf(operator) {
			left = append(left, c.Name)
			if c.Labels[v1alpha1.ManagedByLabel] != "Helm" {
				unlabelled = append(unlabelled, c.Name)
			}
		}
	}
	if len(left) == 0 {
		return "the kinds of Blixt's chart are those of release " + releaseOf(operator), nil
	}
	a := operator.Annotations
	remedy := fmt.Sprintf("Hand them over, then helm upgrade: kubectl annotate --overwrite crd %s %s=%s %s=%s", strings.Join(left, " "), helmName, a[helmName], helmNamespace, a[helmNamespace])
	if len(unlabelled) > 0 { // of install.yaml, or of Argo CD: Helm takes over none without this label
		remedy += fmt.Sprintf(" && kubectl label --overwrite crd %s %s=Helm", strings.Join(unlabelled, " "), v1alpha1.ManagedByLabel)
	}
	return "", []Finding{warning("CustomResourceDefinition "+phrase.Sample(left), "another release of Blixt has left them: upgrades of release "+releaseOf(operator)+" do not reach them", remedy)}
}

func bpfmanKinds(f *Facts) (string, []Finding) {
	var wrong []Finding
	for _, plural := range []string{"clusterbpfapplications", "clusterbpfapplicationstates", "configs"} {
		name := plural + ".bpfman.io"
		if why := f.missing(name, "v1alpha1"); why != "" {
			wrong = append(wrong, failed("CustomResourceDefinition "+name, why+": no program can be loaded", installBpfman))
		}
	}
	return "the kinds of bpfman are there", wrong
}

// linkIDs checks that the CRDs can hold bpfman's link IDs: unsigned 32-bit numbers.
func linkIDs(f *Facts) (string, []Finding) {
	var wrong []Finding
	for _, plural := range []string{"clusterbpfapplicationstates", "bpfapplicationstates"} {
		c := f.crd(plural + ".bpfman.io")
		if c == nil {
			continue
		}
		n := 0
		for _, v := range c.Spec.Versions {
			if v.Schema != nil {
				n += narrow(v.Schema.OpenAPIV3Schema)
			}
		}
		if n > 0 {
			wrong = append(wrong, failed("CustomResourceDefinition "+c.Name,
				fmt.Sprintf("%d fields linkId have format int32: the API server rejects half of bpfman's link IDs. bpfman then loads the program once more, and each copy stays attached for ever", n),
				widenLinkIDs+". Then restart the nodes that have already loaded programs, to remove the copies."))
		}
	}
	return "every linkId has room for all of bpfman's link IDs", wrong
}

// narrow returns the number of int32 linkIds in a schema.
func narrow(s *apiextv1.JSONSchemaProps) (n int) {
	if s == nil {
		return 0
	}
	for name, p := range s.Properties {
		if name == "linkId" && p.Format == "int32" {
			n++
		}
		n += narrow(&p)
	}
	if s.Items != nil {
		n += narrow(s.Items.Schema)
	}
	return n
}
