// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/json"
)

// readIgnored finds fields of Blixt's Gateways and of ListenerSets that the types which Blixt
// reads them into do not have. Those of the standard channel have none: that of a newer
// Gateway API is found by its release.
func (f *Facts) readIgnored(ctx context.Context, c client.Reader) {
	f.Ignored = map[string][]string{}
	for name, kind := range map[string]string{"gateways": "Gateway", "listenersets": "ListenerSet"} {
		crd := f.crd(name + ".gateway.networking.k8s.io")
		if crd == nil || crd.Annotations[channelAnnotation] == "standard" {
			continue
		}
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion(gwv1.GroupVersion.String())
		list.SetKind(kind + "List")
		if c.List(ctx, list) != nil {
			continue // why is in Unread, as typed objects cannot be read either
		}
		for _, o := range list.Items {
			class, _, _ := unstructured.NestedString(o.Object, "spec", "gatewayClassName")
			if class != "" && !slices.ContainsFunc(f.Classes, func(c gwv1.GatewayClass) bool { return isOurs(c) && c.Name == class }) {
				continue
			}
			if fields := unknownFields(&o, kind); len(fields) > 0 {
				f.Ignored[kind+" "+o.GetNamespace()+"/"+o.GetName()] = fields
			}
		}
	}
}

// unknownFields returns the paths of an object's fields that its Go type does not have.
func unknownFields(o *unstructured.Unstructured, kind string) (fields []string) {
	typed := map[string]any{"Gateway": &gwv1.Gateway{}, "ListenerSet": &gwv1.ListenerSet{}}[kind]
	text, err := o.MarshalJSON()
	if err != nil {
		return nil
	}
	unknown, err := json.UnmarshalStrict(text, typed)
	if err != nil {
		return nil
	}
	for _, err := range unknown { // unknown field "spec.addresses[0].routability"
		if field := strings.Trim(strings.TrimPrefix(err.Error(), "unknown field "), `"`); strings.HasPrefix(field, "spec.") {
			fields = append(fields, field)
		}
	}
	return fields
}
