// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// goodAnnotation of a GatewayClass has the BlixtConfig that it named when it was
// accepted last: an operator that starts while that one is wrong, or gone, has
// nothing else to know by what the class's Gateways are served.
const goodAnnotation = "blixt.x-k8s.io/last-good-config"

// translateBest has Gateways of a class whose BlixtConfig has become invalid, or
// is gone, go on with what it was last: the class alone says what is wrong.
func (c *Controller) translateBest(o gateway.Options) gateway.Translation {
	t := gateway.Translate(c.world.objects, o)
	configs := map[string]*v1alpha1.BlixtConfig{}
	for i := range c.world.objects.Configs {
		configs[c.world.objects.Configs[i].Name] = &c.world.objects.Configs[i]
	}
	objects, replaced := c.world.objects, false
	for _, status := range t.Classes {
		class := c.world.class(status.Name)
		name := configOf(class)
		if name == "" {
			continue
		}
		if meta.IsStatusConditionTrue(status.Status.Conditions, string(gwv1.GatewayClassConditionStatusAccepted)) {
			c.good[name] = configs[name]
			continue
		}
		if c.good[name] == nil {
			c.good[name] = remembered(class)
		}
		if c.good[name] != nil {
			objects.Configs = slices.DeleteFunc(slices.Clone(objects.Configs), func(b v1alpha1.BlixtConfig) bool { return b.Name == name })
			objects.Configs = append(objects.Configs, *c.good[name])
			replaced = true
		}
	}
	if !replaced {
		return t
	}
	classes := t.Classes
	t = gateway.Translate(objects, o)
	t.Classes = classes
	return t
}

// class returns one that the world has.
func (w *world) class(name string) *gwv1.GatewayClass {
	i := slices.IndexFunc(w.objects.GatewayClasses, func(o gwv1.GatewayClass) bool { return o.Name == name })
	return &w.objects.GatewayClasses[i]
}

// configOf returns the name of the BlixtConfig that a class names, or "".
func configOf(class *gwv1.GatewayClass) string {
	if class.Spec.ParametersRef == nil {
		return ""
	}
	return class.Spec.ParametersRef.Name
}

// remembered returns what the annotation of a class has of the BlixtConfig that
// it names, or nil.
func remembered(class *gwv1.GatewayClass) *v1alpha1.BlixtConfig {
	config := &v1alpha1.BlixtConfig{}
	if json.Unmarshal([]byte(class.Annotations[goodAnnotation]), config) != nil || config.Name != configOf(class) {
		return nil
	}
	return config
}

// essence is what is remembered of a BlixtConfig: what it says, and what of its
// metadata decides which of several is in force.
func essence(config *v1alpha1.BlixtConfig) *v1alpha1.BlixtConfig {
	return &v1alpha1.BlixtConfig{
		ObjectMeta: metav1.ObjectMeta{Name: config.Name, UID: config.UID, Generation: config.Generation, CreationTimestamp: config.CreationTimestamp},
		Spec:       config.Spec,
	}
}

// markClasses keeps classes that have Gateways from being deleted, as Gateway API
// asks for, and has each remember its BlixtConfig.
func (c *Controller) markClasses(ctx context.Context) error {
	var failed errorList
	for _, status := range c.translation.Classes {
		stored := c.world.class(status.Name)
		object := stored.DeepCopy()
		switch {
		case !status.InUse:
			controllerutil.RemoveFinalizer(object, gwv1.GatewayClassFinalizerGatewaysExist)
		case stored.DeletionTimestamp == nil:
			controllerutil.AddFinalizer(object, gwv1.GatewayClassFinalizerGatewaysExist)
		}
		failed.add(c.remember(object, status))
		if equality.Semantic.DeepEqual(stored, object) {
			continue
		}
		writes.WithLabelValues("GatewayClass", "patch").Inc()
		err := c.client.Patch(ctx, object, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil {
			failed.add(fmt.Errorf("write finalizer and last good config of GatewayClass %s: %w", status.Name, err))
			continue
		}
		c.ownWrites.wrote(object)
		*stored = *object // the status is written next
	}
	return failed.err()
}

// remember sets the annotation of a class that is accepted.
func (c *Controller) remember(class *gwv1.GatewayClass, status gateway.ClassStatus) error {
	if !meta.IsStatusConditionTrue(status.Status.Conditions, string(gwv1.GatewayClassConditionStatusAccepted)) {
		return nil
	}
	config := c.good[configOf(class)]
	if config == nil {
		delete(class.Annotations, goodAnnotation)
		return nil
	}
	text, err := json.Marshal(essence(config))
	if err != nil {
		return fmt.Errorf("remember BlixtConfig %s: %w", config.Name, err)
	}
	metav1.SetMetaDataAnnotation(&class.ObjectMeta, goodAnnotation, string(text))
	return nil
}
