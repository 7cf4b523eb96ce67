// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// errorList collects errors: one object's must not keep the others from being
// written.
type errorList []error

func (l *errorList) add(err error) {
	if err != nil {
		*l = append(*l, err)
	}
}

func (l errorList) err() error { return errors.Join(l...) }

// reconcile runs one pass.
func (c *Controller) reconcile(ctx context.Context, r request) (reconcile.Result, error) {
	if c.started.IsZero() {
		c.started = c.Clock()
		if c.Leads != nil {
			c.Leads()
		}
	}
	var failed errorList
	switch {
	case r.part == everything || c.world == nil:
		failed.add(c.everything(ctx))
	case r.part == endpoints:
		failed.add(c.changeEndpoints(ctx, r.service))
	default:
		failed.add(c.conclude(ctx))
	}
	err := failed.err()
	if ctx.Err() == nil {
		c.fault(err)
	}
	return reconcile.Result{}, err
}

// everything reads all objects, and makes the cluster what they ask for.
func (c *Controller) everything(ctx context.Context) (err error) {
	if c.kinds, err = c.readKinds(ctx); err != nil {
		return err
	}
	if err := c.watch(ctx, c.kinds); err != nil {
		return err
	}
	if c.world, err = c.readWorld(ctx); err != nil {
		return err
	}
	c.translate()
	if c.endpoints, err = c.readAllEndpoints(ctx); err != nil {
		return err
	}
	var failed errorList
	failed.add(c.applyServices(ctx))
	c.publishTranslation()
	failed.add(c.mirrorEndpoints(ctx))
	failed.add(c.markClasses(ctx))
	failed.add(c.conclude(ctx))
	return failed.err()
}

// translate runs Translate.
func (c *Controller) translate() {
	c.translation = c.translateBest(gateway.Options{Cluster: c.cluster(c.world)})
	for _, g := range c.translation.Gateways {
		c.addresses[g.NamespacedName] = g.Status.Addresses
	}
	maps.DeleteFunc(c.addresses, func(key types.NamespacedName, _ []gwv1.GatewayStatusAddress) bool {
		return c.world.gateways[key] == nil
	})
	if missing := strings.Join(c.kinds.missing, " "); missing != "" {
		for i := range c.translation.Classes {
			if a := meta.FindStatusCondition(c.translation.Classes[i].Status.Conditions, string(gwv1.GatewayClassConditionStatusAccepted)); a.Status == metav1.ConditionTrue {
				a.Message += " But " + missing
			}
		}
	}
	for _, n := range c.translation.Notes {
		c.logOnce(n.Object, n.Message)
	}
	c.logOnce("cluster", strings.Join(c.kinds.missing, " "))
}

// fault logs an error, once while it lasts.
func (c *Controller) fault(err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	c.logOnce("pass", message)
}

// logOnce logs what is wrong with a subject when it changes.
func (c *Controller) logOnce(subject, message string) {
	if c.said[subject] == message {
		return
	}
	c.said[subject] = message
	if message != "" {
		c.Log.Warn(message, "subject", subject)
	}
}

// readAllEndpoints reads those of the Services that frontends name.
func (c *Controller) readAllEndpoints(ctx context.Context) (gateway.Endpoints, error) {
	all := gateway.Endpoints{}
	for i := range c.translation.Frontends {
		for _, ref := range c.translation.Frontends[i].Refs {
			if _, known := all[ref.Service]; known {
				continue
			}
			found, err := c.readEndpoints(ctx, ref.Service)
			if err != nil {
				return nil, err
			}
			all[ref.Service] = found
		}
	}
	return all, nil
}

// changeEndpoints publishes those of one Service anew.
func (c *Controller) changeEndpoints(ctx context.Context, service types.NamespacedName) error {
	if _, serves := c.endpoints[service]; !serves {
		return nil
	}
	found, err := c.readEndpoints(ctx, service)
	if err != nil {
		return err
	}
	c.endpoints = maps.Clone(c.endpoints) // what is published stays as it is
	c.endpoints[service] = found
	c.publish()
	return c.mirrorEndpoints(ctx)
}
