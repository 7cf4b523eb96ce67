// SPDX-License-Identifier: Apache-2.0

package sysdump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// kind is one whose objects are collected: of Blixt's and bpfman's namespaces only, if
// ours. Secret is none of them, nor is ConfigMap.
type kind struct {
	group, version, kind string
	ours                 bool
}

var kinds = []kind{
	{"", "v1", "Node", false},
	{"", "v1", "Namespace", false},
	{"", "v1", "Service", false},
	{"discovery.k8s.io", "v1", "EndpointSlice", false},
	{"", "v1", "Pod", true},
	{"", "v1", "Event", true},
	{"apps", "v1", "Deployment", true},
	{"apps", "v1", "DaemonSet", true},
	{"coordination.k8s.io", "v1", "Lease", true},
	{"networking.k8s.io", "v1", "NetworkPolicy", false},
	{"apiextensions.k8s.io", "v1", "CustomResourceDefinition", false},
	{"admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", false},
	{"admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", false},
	{"storage.k8s.io", "v1", "CSINode", false},
	{"gateway.networking.k8s.io", "v1", "GatewayClass", false},
	{"gateway.networking.k8s.io", "v1", "Gateway", false},
	{"gateway.networking.k8s.io", "v1", "ListenerSet", false},
	{"gateway.networking.k8s.io", "v1", "TCPRoute", false},
	{"gateway.networking.k8s.io", "v1", "UDPRoute", false},
	{"gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", false},
	{"blixt.x-k8s.io", "v1alpha1", "BlixtConfig", false},
	{"blixt.x-k8s.io", "v1alpha1", "BlixtGatewayConfig", false},
	{"blixt.x-k8s.io", "v1alpha1", "BlixtPolicy", false},
	{"blixt.x-k8s.io", "v1alpha1", "NodeDataplane", false},
	{"bpfman.io", "v1alpha1", "Config", false},
	{"bpfman.io", "v1alpha1", "ClusterBpfApplication", false},
	{"bpfman.io", "v1alpha1", "ClusterBpfApplicationState", false},
}

// mostObjects is how many of a kind are collected. A cluster may have any number of
// Services.
const mostObjects = 5000

// Cluster says what is collected of a cluster.
type Cluster struct {
	Client client.Client
	// Logs reads the logs of pods.
	Logs kubernetes.Interface
	// Namespaces are those of Blixt and of bpfman.
	Namespaces []string
	// LogsSince is how old lines of logs may be, and Pods of how many pods of a DaemonSet
	// logs are read: the first ones that are not ready, then others.
	LogsSince time.Duration
	Pods      int
}

// AddCluster adds the objects of a cluster, and logs. The addresses of the cluster's own
// objects are known from then on.
func (d *Dump) AddCluster(ctx context.Context, c *Cluster) {
	lists := map[string]*unstructured.UnstructuredList{}
	errs := map[string]error{}
	for _, k := range kinds {
		lists[k.kind], errs[k.kind] = d.list(ctx, c, k)
		if k.kind != "Event" && k.kind != "CustomResourceDefinition" {
			for i := range lists[k.kind].Items {
				d.KnowAll(lists[k.kind].Items[i].Object)
			}
		}
	}
	for _, k := range kinds {
		from := "list " + k.kind
		if k.ours {
			from += " of namespaces " + strings.Join(c.Namespaces, ", ")
		}
		d.Add(ctx, "objects/"+strings.ToLower(k.kind)+".yaml", from, func(context.Context) ([]byte, error) {
			text, err := d.yaml(lists[k.kind])
			return text, errors.Join(errs[k.kind], err)
		})
	}
	d.addLogs(ctx, c, lists["Pod"])
}

// list returns the objects of a kind. With an error it returns those that it has.
func (d *Dump) list(ctx context.Context, c *Cluster, k kind) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Limit)
	defer cancel()
	namespaces := []string{""}
	if k.ours {
		namespaces = c.Namespaces
	}
	all := &unstructured.UnstructuredList{}
	for _, namespace := range namespaces {
		more := ""
		for {
			page := &unstructured.UnstructuredList{}
			page.SetGroupVersionKind(schema.GroupVersionKind{Group: k.group, Version: k.version, Kind: k.kind + "List"})
			err := c.Client.List(ctx, page, client.InNamespace(namespace), client.Limit(500), client.Continue(more))
			if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
				return all, Absent("the cluster does not have the kind")
			}
			if err != nil {
				return all, err
			}
			all.Items = append(all.Items, page.Items...)
			if more = page.GetContinue(); more == "" {
				break
			}
			if len(all.Items) >= mostObjects {
				return all, fmt.Errorf("there are more than %d", mostObjects)
			}
		}
	}
	return all, nil
}

func (d *Dump) yaml(list *unstructured.UnstructuredList) ([]byte, error) {
	var out bytes.Buffer
	for i := range list.Items {
		o := list.Items[i].Object
		d.Object(o)
		if list.Items[i].GetKind() == "CustomResourceDefinition" { // its schema is long, and that of a release
			if versions, found, _ := unstructured.NestedSlice(o, "spec", "versions"); found {
				for _, v := range versions {
					if version, is := v.(map[string]any); is {
						delete(version, "schema")
					}
				}
				if err := unstructured.SetNestedSlice(o, versions, "spec", "versions"); err != nil {
					return nil, err
				}
			}
		}
		text, err := yaml.Marshal(o)
		if err != nil {
			return out.Bytes(), err
		}
		fmt.Fprintf(&out, "---\n%s", text)
	}
	return out.Bytes(), nil
}

// addLogs adds the logs of all containers, those that have ended among them.
func (d *Dump) addLogs(ctx context.Context, c *Cluster, pods *unstructured.UnstructuredList) {
	read := map[string]int{} // by owner
	for _, ready := range []bool{false, true} {
		for i := range pods.Items {
			p := &pods.Items[i]
			owner := ""
			if owners := p.GetOwnerReferences(); len(owners) > 0 {
				owner = owners[0].Name
			}
			if isReady(p) != ready || read[owner] >= c.Pods {
				continue
			}
			read[owner]++
			for _, name := range containers(p) {
				for _, previous := range []bool{false, true} {
					d.addLog(ctx, c, p.GetNamespace(), p.GetName(), name, previous)
				}
			}
		}
	}
}

func isReady(p *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(p.Object, "status", "conditions")
	for _, c := range conditions {
		if m, is := c.(map[string]any); is && m["type"] == string(corev1.PodReady) {
			return m["status"] == string(corev1.ConditionTrue)
		}
	}
	return false
}

func containers(p *unstructured.Unstructured) (names []string) {
	for _, field := range []string{"initContainers", "containers"} {
		all, _, _ := unstructured.NestedSlice(p.Object, "spec", field)
		for _, c := range all {
			if m, is := c.(map[string]any); is {
				if name, is := m["name"].(string); is {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

func (d *Dump) addLog(ctx context.Context, c *Cluster, namespace, pod, container string, previous bool) {
	file := fmt.Sprintf("logs/%s/%s/%s.log", namespace, pod, container)
	if previous {
		file = strings.TrimSuffix(file, ".log") + ".previous.log"
	}
	from := fmt.Sprintf("logs of container %s of Pod %s/%s, the last %s", container, namespace, pod, c.LogsSince)
	d.Add(ctx, file, from, func(ctx context.Context) ([]byte, error) {
		since := int64(c.LogsSince.Seconds())
		stream, err := c.Logs.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{
			Container: container, Previous: previous, SinceSeconds: &since, Timestamps: true, LimitBytes: new(int64(4 * largest)),
		}).Stream(ctx)
		if previous && (apierrors.IsBadRequest(err) || apierrors.IsNotFound(err)) {
			return nil, Absent("the container has not ended before")
		}
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		return io.ReadAll(io.LimitReader(stream, 4*largest))
	})
}
