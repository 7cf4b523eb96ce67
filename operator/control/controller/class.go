// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

func findClass(o *gateway.Objects, name string) *gwv1.GatewayClass {
	i := slices.IndexFunc(o.GatewayClasses, func(c gwv1.GatewayClass) bool { return c.Name == name })
	return &o.GatewayClasses[i]
}

func isAccepted(s *gateway.ClassStatus) bool {
	return meta.IsStatusConditionTrue(s.Status.Conditions, string(gwv1.GatewayClassConditionStatusAccepted))
}

// classStatuses returns the status and the metadata of each class.
func (t *translated) classStatuses() []wantedStatus {
	var all []wantedStatus
	for _, s := range t.Classes {
		class := findClass(&t.objects, s.Name)
		all = append(all, wantedStatus{object: class, change: classStatus(s.Status), changeMetadata: t.classMetadata(s)})
	}
	return all
}

// maxLastGood is how long the annotation of a class may be. All annotations of an
// object may have 256 KiB.
const maxLastGood = 128 << 10

// classMetadata keeps a class that has Gateways from being deleted, as Gateway API
// asks for. One that is accepted remembers its BlixtConfig.
func (t *translated) classMetadata(s gateway.ClassStatus) func(client.Object) {
	good := ""
	if isAccepted(&s) {
		good = gateway.EncodeConfig(t.LastGood.Classes[s.Name])
	}
	return func(object client.Object) {
		switch {
		case !s.InUse:
			controllerutil.RemoveFinalizer(object, gwv1.GatewayClassFinalizerGatewaysExist)
		case object.GetDeletionTimestamp() == nil:
			controllerutil.AddFinalizer(object, gwv1.GatewayClassFinalizerGatewaysExist)
		}
		if good != "" && len(good) <= maxLastGood {
			setAnnotation(object, v1alpha1.LastGoodConfigAnnotation, good)
		}
	}
}

func setAnnotation(object client.Object, key, value string) {
	annotations := maps.Clone(object.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	object.SetAnnotations(annotations)
}
