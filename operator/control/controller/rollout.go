// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// rolloutLoop is the second loop: it has the nodes run the programs and agents
// that they should, and says how far they are with serving each Gateway. It is
// woken by the publisher, by what bpfman, the kubelet and the agents report, and
// by time.
type rolloutLoop struct {
	*api
	*Options
	images   *images
	statuses *statusWriter
	queue    workqueue.TypedRateLimitingInterface[struct{}]
	// latest is from the publisher; nil: it has not had a complete pass yet.
	latest atomic.Pointer[translated]
	// hostListens are the ports at which nodes were seen to listen, sorted. changed
	// has a value after they have changed.
	hostListens atomic.Pointer[[]gateway.Port]
	changed     chan struct{}

	endpoints *endpointStore

	// Of the passes alone: the applications that have settings in Fleet, and since when
	// addresses are not preserved for all backends of a Gateway.
	known        map[string]bool
	notPreserved map[types.NamespacedName]time.Time
}

// decision is what a pass has decided.
type decision struct {
	spec    v1alpha1.Dataplane
	release rollout.Release
	desired rollout.Desired
	nodes   []rollout.NodeStatus
}

func newRolloutLoop(a *api, o *Options, s *statusWriter, e *endpointStore) *rolloutLoop {
	r := &rolloutLoop{api: a, Options: o, statuses: s, endpoints: e, queue: newQueue[struct{}]("blixt-rollout"), changed: make(chan struct{}, 1)}
	r.hostListens.Store(new([]gateway.Port))
	r.images = newImages(o.Verify, o.Clock, o.measures, r.wake)
	return r
}

// wake queues a pass.
func (r *rolloutLoop) wake() { r.queue.AddAfter(struct{}{}, batchDelay) }

// run runs passes until the context ends.
func (r *rolloutLoop) run(ctx context.Context) error {
	go func() {
		tick := time.NewTicker(recheckEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-r.Fleet.Changed():
			}
			r.wake()
		}
	}()
	work(ctx, r.queue, 1, func(ctx context.Context, _ struct{}) error {
		t := r.latest.Load()
		if t == nil {
			return nil // the publisher wakes it
		}
		defer r.Liveness.begin("rollout", time.Now())()
		ctx, cancel := context.WithTimeout(ctx, passLimit)
		defer cancel()
		watch := r.measures.Start()
		err := r.pass(ctx, t)
		watch.Lap("rollout")
		if !errors.Is(ctx.Err(), context.Canceled) {
			r.measures.Count(err)
			r.once.result("rollout", err)
		}
		return err
	})
	return nil
}

// pass decides, and makes the cluster what was decided.
func (r *rolloutLoop) pass(ctx context.Context, t *translated) error {
	d := decision{release: r.Release}
	d.release.Owners = owners(t.objects.GatewayClasses)
	d.spec = rollout.Default(t.DataplaneSpec(), d.release, t.nodes)
	known, err := r.observe(ctx, t, d.spec.Bytecode)
	if err != nil {
		return err
	}
	now := r.Clock()
	if len(d.release.Owners) > 0 {
		d.desired = rollout.Plan(now, d.spec, known)
		d.nodes = rollout.Judge(now, d.spec, d.desired, known)
	} else { // nobody is left to serve
		for i := range known.Applications {
			d.desired.Delete = append(d.desired.Delete, known.Applications[i].Name)
		}
	}
	var failed errorList
	failed.add(r.reportProgress(ctx, t, d, known.Reports)) // does not wait for the writes below
	apply, remove := rollout.Objects(d.spec, d.release, d.desired)
	failed.add(r.applyAll(ctx, t.kinds, apply, remove))
	r.sendSettings(d.spec, d.desired)
	r.logProblems(d.desired.Problems)
	failed.add(r.writeNodes(ctx, t, d.nodes, known.Dataplanes))
	for _, n := range d.nodes {
		failed.add(r.restartAgents(ctx, n))
		d.desired.Events = append(d.desired.Events, n.Events...)
	}
	r.emit(ctx, d.desired.Events)
	return failed.err()
}

// owners returns the classes that the data plane is for, whether or not each is
// accepted: a typo in its parameters must not end what is served. A class that is
// being deleted counts while it has Gateways.
func owners(classes []gwv1.GatewayClass) []metav1.OwnerReference {
	var all []metav1.OwnerReference
	for i := range classes {
		o := &classes[i]
		if o.Spec.ControllerName == gateway.ControllerName && (o.DeletionTimestamp == nil || len(o.Finalizers) > 0) {
			all = append(all, metav1.OwnerReference{
				APIVersion: gwv1.GroupVersion.String(), Kind: "GatewayClass", Name: o.Name, UID: o.UID,
			})
		}
	}
	slices.SortFunc(all, func(a, b metav1.OwnerReference) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// observe reads what is known of the data plane.
func (r *rolloutLoop) observe(ctx context.Context, t *translated, b *v1alpha1.Bytecode) (rollout.Cluster, error) {
	known := rollout.Cluster{Nodes: t.nodes, Started: t.started, Issued: t.published.issued, NarrowLinkIDs: t.kinds.narrowLinkIDs}
	var (
		applications bpfmanv1.ClusterBpfApplicationList
		states       bpfmanv1.ClusterBpfApplicationStateList
		pods         corev1.PodList
		nodes        v1alpha1.NodeDataplaneList
	)
	for _, err := range []error{
		r.list(ctx, t.kinds, &applications, managed),
		r.list(ctx, t.kinds, &states),
		r.list(ctx, t.kinds, &pods, client.InNamespace(r.Release.Namespace), managed),
		r.list(ctx, t.kinds, &nodes),
	} {
		if err != nil {
			return known, err
		}
	}
	known.Applications, known.States, known.Pods, known.Dataplanes = applications.Items, states.Items, pods.Items, nodes.Items
	r.Fleet.SetBoots(boots(nodes.Items))
	known.Reports = r.Fleet.Reports()
	signer, refused := r.checkBytecode(ctx, b)
	known.Refused = refused
	if signer != "" {
		known.Signers = map[string]string{b.Image: signer}
	}
	return known, nil
}

// readBoots tells the fleet what the NodeDataplanes know of the boots of nodes, before
// this replica leads.
func (r *rolloutLoop) readBoots(ctx context.Context) error {
	var nodes v1alpha1.NodeDataplaneList
	if err := kube.List(ctx, r.client, &nodes); err != nil {
		return err
	}
	r.Fleet.SetBoots(boots(nodes.Items))
	return nil
}

// boots returns the boots of nodes that are stored.
func boots(nodes []v1alpha1.NodeDataplane) map[string]lb.Boot {
	all := map[string]lb.Boot{}
	for i := range nodes {
		if b := nodes[i].Status.Boot; b != nil && b.Number > 0 && b.Number <= math.MaxUint16 {
			all[nodes[i].Name] = lb.Boot{ID: b.ID, Number: uint16(b.Number)}
		}
	}
	return all
}

// reportProgress hands the statuses that follow the progress of the nodes to the
// status writer.
func (r *rolloutLoop) reportProgress(ctx context.Context, t *translated, d decision, reports []lb.Report) error {
	published := map[types.NamespacedName]rollout.PublishedGateway{}
	for _, g := range t.Gateways {
		p := rollout.PublishedGateway{Since: t.published.since[g.NamespacedName], Service: g.Service, ServiceProblem: t.problems[g.NamespacedName]}
		if i := slices.IndexFunc(t.published.issued, func(i rollout.Issued) bool { return i.Version == p.Since }); i >= 0 {
			p.SinceTime = t.published.issued[i].At
		}
		if s := t.serviceOf(g.NamespacedName); s != nil {
			p.HealthCheckNodePort = s.Spec.HealthCheckNodePort
		}
		published[g.NamespacedName] = p
	}
	f := rollout.Fleet{
		Now: r.Clock(), Delay: r.Grace,
		Nodes: d.nodes, Problems: d.desired.Problems, Reports: reports, Epoch: t.published.version.Epoch,
		Starting: r.Clock().Before(t.started.Add(r.Grace)), Unavailable: t.kinds.lacks(fromBpfman), ProxyMode: t.proxyMode,
		ThroughStack: d.spec.RemoteBackends.Path == v1alpha1.RemotePathStack,
	}
	var list gwv1.GatewayList
	if err := r.list(ctx, t.kinds, &list); err != nil {
		return err
	}
	// What was Programmed is read anew: it has changed since the translation.
	stored := map[types.NamespacedName][]metav1.Condition{}
	for i := range list.Items {
		stored[client.ObjectKeyFromObject(&list.Items[i])] = list.Items[i].Status.Conditions
	}
	progress, hostListens := rollout.Progress(f, published), rollout.HostListens(f)
	r.setHostListens(hostListens)
	r.statuses.set([]string{"Gateway", "ListenerSet"}, t.gatewayStatuses(progress, r.findNotPreserved(t, f, progress), hostListens, stored))
	return r.reportPolicies(ctx, t, f, progress)
}

// findNotPreserved returns for how many backends of each Gateway addresses are not
// preserved. That is news only once it lasts: a node that is upgraded, or a probe that is
// lost, is none.
func (r *rolloutLoop) findNotPreserved(t *translated, f rollout.Fleet, progress map[types.NamespacedName]gateway.Progress) map[types.NamespacedName]gateway.NotPreserved {
	preservation, known := rollout.FindPreservation(f)
	if !known {
		return nil
	}
	all := t.FindNotPreserved(preservation, r.endpoints.all())
	since := map[types.NamespacedName]time.Time{}
	for name, n := range all {
		if n.Backends == 0 {
			continue
		}
		since[name] = f.Now
		if before, lasts := r.notPreserved[name]; lasts {
			since[name] = before
		}
		n.Recent, n.Hold = f.Now.Sub(since[name]) < f.Delay, progress[name].Hold
		all[name] = n
	}
	r.notPreserved = since
	return all
}

// setHostListens has the publisher take the ports at which nodes listen themselves
// from the Services of Gateways, once they are others: or kube-proxy would take them
// from the nodes.
func (r *rolloutLoop) setHostListens(nodes map[lb.Key][]string) {
	var ports []gateway.Port
	for key := range nodes {
		ports = append(ports, gateway.Port{Protocol: key.Protocol, Port: key.Port})
	}
	slices.SortFunc(ports, func(a, b gateway.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	ports = slices.Compact(ports)
	if slices.Equal(ports, *r.hostListens.Load()) {
		return
	}
	r.hostListens.Store(&ports)
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// applyAll applies and removes bpfman's objects and DaemonSets.
func (r *rolloutLoop) applyAll(ctx context.Context, k kinds, apply, remove []client.Object) error {
	var failed errorList
	for _, o := range apply {
		if !k.has(o) {
			continue
		}
		stored := o.DeepCopyObject().(client.Object)
		err := r.client.Get(ctx, client.ObjectKeyFromObject(o), stored)
		switch {
		case client.IgnoreNotFound(err) != nil:
			failed.add(err)
			continue
		case err != nil:
			stored = nil
		}
		rollout.KeepMaps(o, stored)
		_, err = r.apply(ctx, o, stored)
		failed.add(err)
	}
	for _, o := range remove {
		stored := o.DeepCopyObject().(client.Object)
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(o), stored); err == nil {
			failed.add(r.remove(ctx, stored))
		} else {
			failed.add(client.IgnoreNotFound(err))
		}
	}
	return failed.err()
}

// sendSettings gives the agents of each application its ports, the path to backends
// on other nodes, and the nodes on which it drains.
func (r *rolloutLoop) sendSettings(spec v1alpha1.Dataplane, desired rollout.Desired) {
	now := map[string]bool{}
	cluster := lb.PortRange{First: uint16(spec.SNATPorts.First), Last: uint16(spec.SNATPorts.Last)}
	for _, a := range desired.Applications { // the ports may have been others when it was made
		cluster = cluster.Hull(a.SNAT)
	}
	for i, a := range desired.Applications { // the first is the current one, which is behind the others
		r.Fleet.SetSettings(a.Name, fleet.Settings{
			SNAT: a.SNAT, ClusterSNAT: cluster, Drain: a.Drain, Upgrading: i == 0 && len(desired.Applications) > 1,
			ThroughStack: spec.RemoteBackends.Path == v1alpha1.RemotePathStack, MasqueradeMark: uint32(*spec.RemoteBackends.MasqueradeMark),
		})
		now[a.Name] = true
	}
	for name := range r.known {
		if !now[name] {
			r.Fleet.Forget(name)
		}
	}
	r.known = now
}

// logProblems logs what is wrong with each object.
func (r *rolloutLoop) logProblems(problems []rollout.Problem) {
	messages := map[string]string{} // an object may have a problem on each node
	for _, p := range problems {
		messages[p.Object] = strings.TrimSpace(messages[p.Object] + " " + p.Message)
	}
	r.once.set("rollout", messages)
}

// restartAgents deletes the agents of a node that have the maps of a program that
// is gone.
func (r *rolloutLoop) restartAgents(ctx context.Context, n rollout.NodeStatus) error {
	var failed errorList
	for _, name := range n.Restart {
		pod := &corev1.Pod{}
		if err := r.client.Get(ctx, types.NamespacedName{Namespace: r.Release.Namespace, Name: name}, pod); err == nil {
			r.log.Info("restarting agent: its maps are those of a program that is gone", "pod", name, "node", n.Node)
			failed.add(r.remove(ctx, pod))
		}
	}
	return failed.err()
}

// writeNodes writes the NodeDataplanes. They are written before the next pass,
// because they are its memory.
func (r *rolloutLoop) writeNodes(ctx context.Context, t *translated, nodes []rollout.NodeStatus, stored []v1alpha1.NodeDataplane) error {
	if !t.kinds.has(&v1alpha1.NodeDataplane{}) {
		return nil
	}
	left := map[string]*v1alpha1.NodeDataplane{}
	for i := range stored {
		left[stored[i].Name] = &stored[i]
	}
	errs := make([]error, len(nodes))
	var group errgroup.Group
	group.SetLimit(statusWorkers)
	for i, n := range nodes {
		object := left[n.Node]
		delete(left, n.Node)
		group.Go(func() error {
			errs[i] = r.writeNode(ctx, t, n, object)
			return nil
		})
	}
	_ = group.Wait()
	failed := errorList(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
	for _, object := range left {
		failed.add(r.remove(ctx, object))
	}
	return failed.err()
}

// writeNode writes one. Stored is nil if there is none yet.
func (r *rolloutLoop) writeNode(ctx context.Context, t *translated, n rollout.NodeStatus, stored *v1alpha1.NodeDataplane) error {
	if stored == nil {
		stored = newNodeDataplane(n.Node, t.nodes)
		writes.WithLabelValues("NodeDataplane", "create").Inc()
		if err := r.client.Create(ctx, stored); err != nil {
			return fmt.Errorf("create NodeDataplane %s: %w", n.Node, err)
		}
	}
	_, err := r.patchStatus(ctx, stored, func(o client.Object, _ metav1.Time) {
		status := n.Status
		status.Conditions = slices.Clone(status.Conditions)
		for i := range status.Conditions {
			status.Conditions[i].Message = phrase.Clip(status.Conditions[i].Message, maxMessage)
		}
		o.(*v1alpha1.NodeDataplane).Status = status
	})
	if apierrors.IsConflict(err) {
		return nil // the event of the other write wakes the next pass
	}
	return err
}

// newNodeDataplane returns one that is owned by its Node, and goes with it.
func newNodeDataplane(name string, nodes []corev1.Node) *v1alpha1.NodeDataplane {
	object := &v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}}}
	for i := range nodes {
		if n := &nodes[i]; n.Name == name {
			object.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
		}
	}
	return object
}
