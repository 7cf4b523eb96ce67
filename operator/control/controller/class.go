// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// goodAnnotation of a GatewayClass has the BlixtConfig that it named when it was
// last accepted. If that one is invalid or gone when an operator starts, nothing
// else says by which config the Gateways of the class are served.
const goodAnnotation = "blixt.x-k8s.io/last-good-config"

// translateBest translates. Gateways of a class whose BlixtConfig has become
// invalid, or is gone, are served by the last valid one: only the class says what
// is wrong.
func (p *publisher) translateBest(objects gateway.Objects, o gateway.Options) gateway.Translation {
	t := gateway.Translate(objects, o)
	configs := map[string]*v1alpha1.BlixtConfig{}
	for i := range objects.Configs {
		configs[objects.Configs[i].Name] = &objects.Configs[i]
	}
	replaced := false
	for _, status := range t.Classes {
		class := findClass(&objects, status.Name)
		name := configOf(class)
		if name == "" {
			continue
		}
		if isAccepted(&status) {
			p.good[name] = configs[name]
			continue
		}
		if p.good[name] == nil {
			p.good[name] = remembered(class)
		}
		if p.good[name] != nil {
			objects.Configs = slices.DeleteFunc(slices.Clone(objects.Configs), func(b v1alpha1.BlixtConfig) bool { return b.Name == name })
			objects.Configs = append(objects.Configs, *p.good[name])
			replaced = true
		}
	}
	if !replaced {
		return t
	}
	best := gateway.Translate(objects, o)
	best.Classes = t.Classes
	return best
}

func findClass(o *gateway.Objects, name string) *gwv1.GatewayClass {
	i := slices.IndexFunc(o.GatewayClasses, func(c gwv1.GatewayClass) bool { return c.Name == name })
	return &o.GatewayClasses[i]
}

func isAccepted(s *gateway.ClassStatus) bool {
	return meta.IsStatusConditionTrue(s.Status.Conditions, string(gwv1.GatewayClassConditionStatusAccepted))
}

// configOf returns the name of the BlixtConfig that a class names, or "".
func configOf(class *gwv1.GatewayClass) string {
	if class.Spec.ParametersRef == nil {
		return ""
	}
	return class.Spec.ParametersRef.Name
}

// remembered returns the BlixtConfig that a class has in its annotation, or nil if
// that is not the one that the class names.
func remembered(class *gwv1.GatewayClass) *v1alpha1.BlixtConfig {
	config := &v1alpha1.BlixtConfig{}
	if json.Unmarshal([]byte(class.Annotations[goodAnnotation]), config) != nil || config.Name != configOf(class) {
		return nil
	}
	return config
}

// essence returns what is remembered of a BlixtConfig: its spec, and the metadata
// that decide which of several BlixtConfigs is in force.
func essence(config *v1alpha1.BlixtConfig) *v1alpha1.BlixtConfig {
	return &v1alpha1.BlixtConfig{
		ObjectMeta: metav1.ObjectMeta{Name: config.Name, UID: config.UID, Generation: config.Generation, CreationTimestamp: config.CreationTimestamp},
		Spec:       config.Spec,
	}
}

// classStatuses returns the status and the metadata of each class.
func (p *publisher) classStatuses(t *translated) []wantedStatus {
	var all []wantedStatus
	for _, s := range t.Classes {
		class := findClass(&t.objects, s.Name)
		all = append(all, wantedStatus{object: class, change: classStatus(s.Status), changeMetadata: p.classMetadata(class, s)})
	}
	return all
}

// classMetadata keeps a class that has Gateways from being deleted, as Gateway API
// asks for. One that is accepted remembers its BlixtConfig.
func (p *publisher) classMetadata(class *gwv1.GatewayClass, s gateway.ClassStatus) func(client.Object) {
	good, accepted := p.good[configOf(class)], isAccepted(&s)
	return func(object client.Object) {
		switch {
		case !s.InUse:
			controllerutil.RemoveFinalizer(object, gwv1.GatewayClassFinalizerGatewaysExist)
		case object.GetDeletionTimestamp() == nil:
			controllerutil.AddFinalizer(object, gwv1.GatewayClassFinalizerGatewaysExist)
		}
		switch annotations := object.GetAnnotations(); {
		case accepted && good == nil:
			delete(annotations, goodAnnotation)
		case accepted:
			text, err := json.Marshal(essence(good))
			if err != nil { // plain data
				panic(err)
			}
			if annotations == nil {
				annotations = map[string]string{}
				object.SetAnnotations(annotations)
			}
			annotations[goodAnnotation] = string(text)
		}
	}
}
