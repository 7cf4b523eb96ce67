// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applydiscoveryv1 "k8s.io/client-go/applyconfigurations/discovery/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/observe/transport"
)

// Inside is what a page of the operator is made from.
type Inside struct {
	// Objects are those in the cache, of the kinds that the operator watches. Direct reads
	// others from the API server.
	Objects, Direct client.Reader
	Kube            kubernetes.Interface
	// Fleet asks the agents, if this replica leads.
	Fleet transport.Fleet
	// TLS has the certificate that agents are shown.
	TLS *tls.Config
	// Elsewhere says which replica leads; "": this one.
	Elsewhere func(context.Context) string
}

// leaderFor is how long it is remembered who leads: whoever asks need not have a right.
const leaderFor = 2 * time.Second

// leader knows which replica leads.
type leader struct {
	kube      kubernetes.Interface
	namespace string
	elected   <-chan struct{}

	mu    sync.Mutex
	where string
	until time.Time
}

// elsewhere is Inside.Elsewhere.
func (l *leader) elsewhere(ctx context.Context) string {
	select {
	case <-l.elected:
		return ""
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.until) {
		l.where, l.until = l.ask(ctx), now.Add(leaderFor)
	}
	return l.where
}

func (l *leader) ask(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, leaderFor)
	defer cancel()
	lease, err := l.kube.CoordinationV1().Leases(l.namespace).Get(ctx, v1alpha1.Operator, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "this replica does not lead, and who does is not known: try again"
	}
	pod, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return fmt.Sprintf("this replica does not lead: the page is at pod %s, or by Service %s", pod, v1alpha1.PageService)
}

const (
	pageEvery   = time.Minute
	pageTimeout = 10 * time.Second
)

// keepPageEndpoints has the Service of the page lead to this replica, as soon as it leads:
// only the leader knows what nodes serve.
func keepPageEndpoints(ctx context.Context, elected <-chan struct{}, kube kubernetes.Interface, o *ManagerOptions) {
	if o.Pod == "" {
		return // it runs outside of the cluster
	}
	log := newOnceLog(o.Log, time.Now)
	select {
	case <-elected:
	case <-ctx.Done():
		return
	}
	defer removePageEndpoints(kube, o)
	for {
		attempt, cancel := context.WithTimeout(ctx, pageTimeout)
		err := writePageEndpoints(attempt, kube, o.Release.Namespace, o.Pod)
		cancel()
		if ctx.Err() == nil {
			log.result("endpoints of Service "+v1alpha1.PageService, err)
		}
		pause := pageEvery
		if err != nil {
			pause = firstEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// writePageEndpoints writes an EndpointSlice for each address family of a pod. They are the
// Service's, and go with it. Without the Service there is nothing to write.
func writePageEndpoints(ctx context.Context, kube kubernetes.Interface, namespace, pod string) error {
	service, err := kube.CoreV1().Services(namespace).Get(ctx, v1alpha1.PageService, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get Service %s: %w", v1alpha1.PageService, err)
	}
	self, err := kube.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get Pod %s: %w", pod, err)
	}
	if len(self.Status.PodIPs) == 0 {
		return fmt.Errorf("pod %s has no address yet", pod)
	}
	for _, ip := range self.Status.PodIPs {
		slice, err := pageEndpoints(service, self, ip.IP)
		if err != nil {
			return err
		}
		if _, err := kube.DiscoveryV1().EndpointSlices(namespace).Apply(ctx, slice, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return fmt.Errorf("write EndpointSlice %s: %w", *slice.Name, err)
		}
	}
	return nil
}

// removePageEndpoints has the Service lead nowhere until there is another leader: browsers
// are refused at once then, and try again. They would wait for a pod that is gone. What the
// next leader has written stays.
func removePageEndpoints(kube kubernetes.Interface, o *ManagerOptions) {
	ctx, cancel := context.WithTimeout(context.Background(), leaderFor)
	defer cancel()
	stored := kube.DiscoveryV1().EndpointSlices(o.Release.Namespace)
	self, err := kube.CoreV1().Pods(o.Release.Namespace).Get(ctx, o.Pod, metav1.GetOptions{})
	if err != nil {
		return // whoever leads next writes them
	}
	for _, suffix := range []string{suffixIPv4, suffixIPv6} {
		written, err := stored.Get(ctx, v1alpha1.PageService+suffix, metav1.GetOptions{})
		if err != nil || !leadsToPod(written, self) {
			continue
		}
		patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"endpoints":[]}`, written.ResourceVersion) // a conflict is the next leader
		_, err = stored.Patch(ctx, written.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fieldManager})
		if err != nil && !apierrors.IsConflict(err) {
			o.Log.Warn("the Service of the page leads to this replica, which ends", "error", err)
		}
	}
}

// leadsToPod reports whether an EndpointSlice has an address of a pod.
func leadsToPod(s *discoveryv1.EndpointSlice, pod *corev1.Pod) bool {
	return len(s.Endpoints) == 1 && slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return slices.Contains(s.Endpoints[0].Addresses, ip.IP) })
}

// The ends of the names of EndpointSlices.
const (
	suffixIPv4 = "-ipv4"
	suffixIPv6 = "-ipv6"
)

// pageEndpoints returns the EndpointSlice with an address of the leader's pod.
func pageEndpoints(service *corev1.Service, pod *corev1.Pod, ip string) (*applydiscoveryv1.EndpointSliceApplyConfiguration, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, fmt.Errorf("address of pod %s: %w", pod.Name, err)
	}
	family, suffix := discoveryv1.AddressTypeIPv6, suffixIPv6
	if addr.Is4() {
		family, suffix = discoveryv1.AddressTypeIPv4, suffixIPv4
	}
	endpoint := applydiscoveryv1.Endpoint().WithAddresses(ip).WithConditions(applydiscoveryv1.EndpointConditions().WithReady(true))
	if pod.Spec.NodeName != "" {
		endpoint.WithNodeName(pod.Spec.NodeName)
	}
	return applydiscoveryv1.EndpointSlice(service.Name+suffix, service.Namespace).
		WithLabels(map[string]string{discoveryv1.LabelServiceName: service.Name, discoveryv1.LabelManagedBy: "page." + v1alpha1.GroupName}).
		WithOwnerReferences(applymetav1.OwnerReference().WithAPIVersion("v1").WithKind("Service").WithName(service.Name).WithUID(service.UID)).
		WithAddressType(family).WithEndpoints(endpoint).
		WithPorts(applydiscoveryv1.EndpointPort().WithName("page").WithPort(v1alpha1.PagePort).WithProtocol(corev1.ProtocolTCP)), nil
}
