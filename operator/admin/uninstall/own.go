// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"fmt"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/bpfmanconfig"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// removeServices deletes the Services through which Gateways get addresses, and the
// EndpointSlices that mirror their backends.
func (r *remover) removeServices(ctx context.Context) error {
	return r.removeUntilGone(ctx, "",
		"The cluster's load balancer releases the address, and then removes the finalizer. Is its controller running?",
		&discoveryv1.EndpointSliceList{}, &corev1.ServiceList{})
}

// removeOwn deletes the operator's own objects: certificates, seed, token for
// metrics, keys of nodes, incumbents and Lease.
func (r *remover) removeOwn(ctx context.Context) error {
	secret, seed, metrics, keys, lease := &corev1.Secret{}, &corev1.Secret{}, &corev1.Secret{}, &corev1.Secret{}, &coordinationv1.Lease{}
	ca, incumbents := &corev1.ConfigMap{}, &corev1.ConfigMap{}
	secret.Name, seed.Name, metrics.Name, keys.Name, lease.Name = v1alpha1.TLSSecret, v1alpha1.SeedSecret, v1alpha1.MetricsSecret, v1alpha1.AnnounceSecret, v1alpha1.Operator
	ca.Name, incumbents.Name = v1alpha1.CAConfigMap, v1alpha1.IncumbentsConfigMap
	for _, object := range []client.Object{secret, seed, metrics, keys, ca, incumbents, lease} {
		object.SetNamespace(r.Namespace)
		err := r.client.Get(ctx, client.ObjectKeyFromObject(object), object)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case apierrors.IsForbidden(err) && object == secret:
			// With cert-manager the operator creates no Secret, and may not read any.
			r.say("left %s, which this account may not read", kube.NameOf(object))
			continue
		case err != nil:
			return fmt.Errorf("get %s: %w", kube.NameOf(object), err)
		}
		if object != lease && !v1alpha1.Managed(object) {
			r.say("left %s: the operator has not created it", kube.NameOf(object))
			continue
		}
		if err := r.remove(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

// removeClass deletes the GatewayClasses that the operator has made: not those of people,
// and none that it had by another name.
func (r *remover) removeClass(ctx context.Context) error {
	var list gwv1.GatewayClassList
	if err := kube.List(ctx, r.client, &list, ours); err != nil {
		return err
	}
	for i := range list.Items {
		err := r.remove(ctx, &list.Items[i])
		if apierrors.IsForbidden(err) {
			r.say("left %s, which this account may not delete", kube.NameOf(&list.Items[i]))
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeConfig deletes the Config of Blixt's bpfman. In the chart's hook, which has no right
// to, another one does.
func (r *remover) removeConfig(ctx context.Context) error {
	if !r.WithBpfman || r.DryRun {
		return nil
	}
	err := r.client.Get(ctx, client.ObjectKey{Name: bpfmanconfig.Name}, &bpfmanv1.Config{})
	if apierrors.IsForbidden(err) {
		r.say("left Config %s, which this account may not read", bpfmanconfig.Name)
		return nil
	}
	return bpfmanconfig.Remove(ctx, r.client, bpfmanconfig.Options{Timeout: r.Timeout, Patience: bpfmanconfig.Patience, Pause: r.Pause, Out: r.Out})
}

// removeKinds deletes the CRDs of Blixt, and with them all objects of these kinds.
func (r *remover) removeKinds(ctx context.Context) error {
	if r.KeepCRDs {
		return nil
	}
	return r.until(ctx, func(ctx context.Context) ([]blocker, error) {
		var blockers []blocker
		for _, name := range v1alpha1.CRDs {
			crd := &apiextv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}
			err := r.client.Get(ctx, client.ObjectKeyFromObject(crd), crd)
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("get %s: %w", kube.NameOf(crd), err)
			}
			if err := r.remove(ctx, crd); err != nil {
				return nil, err
			}
			blockers = append(blockers, blocker{Object: kube.NameOf(crd), Why: held(crd), Remedy: "One of its objects has a finalizer: kubectl get " + name + " -A"})
		}
		return blockers, nil
	})
}
