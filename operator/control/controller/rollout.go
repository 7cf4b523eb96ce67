// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// runDataplane applies bpfman's objects and the agents, tells agents who
// drains, and returns how each node does.
func (c *Controller) runDataplane(ctx context.Context) ([]rollout.NodeStatus, error) {
	release := c.Release
	var asked *v1alpha1.Dataplane
	if config := c.translation.Dataplane; config != nil {
		asked = config.Spec.Dataplane
	}
	release.Owners = c.owners()
	spec := rollout.Default(asked, release, c.world.nodes)
	known, err := c.readDataplane(ctx, spec.Bytecode)
	if err != nil {
		return nil, err
	}
	now := c.Clock()
	var failed errorList
	var desired rollout.Desired
	if len(release.Owners) > 0 {
		desired = rollout.Plan(now, spec, known)
	} else { // nobody is left to serve
		for i := range known.Applications {
			desired.Delete = append(desired.Delete, known.Applications[i].Name)
		}
	}
	apply, remove := rollout.Objects(spec, release, desired)
	failed.add(c.applyAll(ctx, apply, remove))
	c.sendSettings(desired)
	said := map[string]string{} // an object may have one on each node
	for _, p := range desired.Problems {
		said[p.Object] = strings.TrimSpace(said[p.Object] + " " + p.Message)
	}
	for object, message := range said {
		c.logOnce(object, message)
	}
	var verdicts []rollout.NodeStatus
	if len(release.Owners) > 0 {
		verdicts = rollout.Judge(now, spec, desired, known)
	}
	failed.add(c.writeNodes(ctx, verdicts, known.Dataplanes))
	for _, v := range verdicts {
		for _, name := range v.Restart {
			pod := &corev1.Pod{}
			if err := c.client.Get(ctx, types.NamespacedName{Namespace: release.Namespace, Name: name}, pod); err == nil {
				c.Log.Info("restarting agent: its maps are those of a program that is gone", "pod", name, "node", v.Node)
				failed.add(c.remove(ctx, pod))
			}
		}
		desired.Events = append(desired.Events, v.Events...)
	}
	c.emit(ctx, desired.Events)
	c.problems = desired.Problems
	return verdicts, failed.err()
}

// owners are the classes that the data plane is for, whether or not each is
// accepted: a typo in its parameters must not end what is served. They cannot
// go while they have Gateways.
func (c *Controller) owners() []metav1.OwnerReference {
	var all []metav1.OwnerReference
	for i := range c.world.objects.GatewayClasses {
		o := &c.world.objects.GatewayClasses[i]
		if o.Spec.ControllerName == gateway.ControllerName && (o.DeletionTimestamp == nil || len(o.Finalizers) > 0) {
			all = append(all, metav1.OwnerReference{
				APIVersion: gwv1.GroupVersion.String(), Kind: "GatewayClass", Name: o.Name, UID: o.UID,
			})
		}
	}
	slices.SortFunc(all, func(a, b metav1.OwnerReference) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// readDataplane reads what is known of the data plane.
func (c *Controller) readDataplane(ctx context.Context, b *v1alpha1.Bytecode) (rollout.Cluster, error) {
	known := rollout.Cluster{Nodes: c.world.nodes, Started: c.started, Issued: c.published.issued, NarrowLinkIDs: c.kinds.narrowLinkIDs}
	var err error
	if known.Applications, known.States, err = c.readBpfman(ctx); err != nil {
		return known, err
	}
	var pods corev1.PodList
	if err := c.list(ctx, &pods, client.InNamespace(c.Release.Namespace), managed); err != nil {
		return known, err
	}
	known.Pods = pods.Items
	var nodes v1alpha1.NodeDataplaneList
	if err := c.list(ctx, &nodes); err != nil {
		return known, err
	}
	known.Dataplanes = nodes.Items
	known.Reports = c.Fleet.Reports()
	signer, refused := c.checkBytecode(ctx, b)
	known.Refused = refused
	if signer != "" {
		known.Signers = map[string]string{b.Image: signer}
	}
	return known, nil
}

// applyAll applies and removes bpfman's objects and DaemonSets.
func (c *Controller) applyAll(ctx context.Context, apply, remove []client.Object) error {
	var failed errorList
	for _, o := range apply {
		if !c.kinds.has(o) {
			continue
		}
		stored := o.DeepCopyObject().(client.Object)
		err := c.client.Get(ctx, client.ObjectKeyFromObject(o), stored)
		switch {
		case client.IgnoreNotFound(err) != nil:
			failed.add(err)
			continue
		case err != nil:
			stored = nil
		}
		_, err = c.apply(ctx, o, stored)
		failed.add(err)
	}
	for _, o := range remove {
		stored := o.DeepCopyObject().(client.Object)
		if err := c.client.Get(ctx, client.ObjectKeyFromObject(o), stored); err == nil {
			failed.add(c.remove(ctx, stored))
		} else {
			failed.add(client.IgnoreNotFound(err))
		}
	}
	return failed.err()
}

// sendSettings tells the agents of each application its ports and where it drains.
func (c *Controller) sendSettings(r rollout.Desired) {
	now := map[string]bool{}
	for _, a := range r.Applications {
		c.Fleet.SetSettings(a.Name, fleet.Settings{SNAT: a.SNAT, Drain: a.Drain})
		now[a.Name] = true
	}
	for name := range c.settled {
		if !now[name] {
			c.Fleet.Forget(name)
		}
	}
	c.settled = now
}

// writeNodes writes the NodeDataplanes.
func (c *Controller) writeNodes(ctx context.Context, verdicts []rollout.NodeStatus, stored []v1alpha1.NodeDataplane) error {
	if !c.kinds.has(&v1alpha1.NodeDataplane{}) {
		return nil
	}
	var failed errorList
	left := map[string]*v1alpha1.NodeDataplane{}
	for i := range stored {
		left[stored[i].Name] = &stored[i]
	}
	for _, v := range verdicts {
		object := left[v.Node]
		delete(left, v.Node)
		if object == nil {
			object = c.newNode(v.Node)
			writes.WithLabelValues("NodeDataplane", "create").Inc()
			if err := c.client.Create(ctx, object); err != nil {
				failed.add(fmt.Errorf("create NodeDataplane %s: %w", v.Node, err))
				continue
			}
			c.ownWrites.wrote(object)
		}
		failed.add(c.patchStatus(ctx, object, func(o client.Object) { o.(*v1alpha1.NodeDataplane).Status = v.Status }))
	}
	for _, object := range left {
		failed.add(c.remove(ctx, object))
	}
	return failed.err()
}

// newNode is owned by its Node, and goes with it.
func (c *Controller) newNode(name string) *v1alpha1.NodeDataplane {
	object := &v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}}}
	for i := range c.world.nodes {
		if n := &c.world.nodes[i]; n.Name == name {
			object.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
		}
	}
	return object
}
