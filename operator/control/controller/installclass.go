// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// installedClass applies the GatewayClass of the installation. Helm cannot: its kind may
// be part of the same release.
type installedClass struct {
	class  *gwv1.GatewayClass
	client client.Client
	// direct reads without a cache, which would wait for a kind that is missing.
	direct client.Reader
	log    *slog.Logger
}

// newClass returns the GatewayClass of a name, with the parameters of a BlixtConfig; nil:
// it has none.
func newClass(name string, parameters *unstructured.Unstructured) *gwv1.GatewayClass {
	class := &gwv1.GatewayClass{
		TypeMeta: metav1.TypeMeta{APIVersion: gwv1.GroupVersion.String(), Kind: "GatewayClass"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			v1alpha1.ManagedByLabel: v1alpha1.Manager, "app.kubernetes.io/name": "blixt",
		}},
		Spec: gwv1.GatewayClassSpec{ControllerName: gateway.ControllerName},
	}
	if parameters != nil {
		class.Spec.ParametersRef = &gwv1.ParametersReference{Group: gwv1.Group(v1alpha1.GroupVersion.Group), Kind: "BlixtConfig", Name: parameters.GetName()}
	}
	return class
}

// run applies the class when this replica leads, until the API server accepts it.
func (i *installedClass) run(ctx context.Context, elected <-chan struct{}) {
	select {
	case <-elected:
	case <-ctx.Done():
		return
	}
	for last := ""; ; {
		err := i.apply(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != last {
			last = text
			i.log.Error("apply class", "object", "GatewayClass "+i.class.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(configPause):
		}
	}
}

// apply makes the class, or changes the one that it has made before. Returns an error if
// there is another one.
func (i *installedClass) apply(ctx context.Context) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(i.class)
	if err != nil {
		return err
	}
	delete(fields, "status")
	wanted := &unstructured.Unstructured{Object: fields}
	stored := &gwv1.GatewayClass{}
	err = i.direct.Get(ctx, client.ObjectKeyFromObject(i.class), stored)
	switch {
	case apierrors.IsNotFound(err):
		// With a right for this name alone, an object can only be applied. One that somebody makes
		// just now has another field manager, which is a conflict.
		return i.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(wanted), client.FieldOwner(fieldManager))
	case err != nil:
		return err
	case !v1alpha1.Managed(stored):
		return fmt.Errorf("it exists, and was not made by this operator (it has no label %s=%s), so it stays as it is: delete it, or install with gatewayClass.create=false", v1alpha1.ManagedByLabel, v1alpha1.Manager)
	}
	wanted.SetUID(stored.UID) // not over one that replaces it just now
	return i.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(wanted), client.FieldOwner(fieldManager), client.ForceOwnership)
}
