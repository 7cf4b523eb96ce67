// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// nodes are the nodes of the cluster, by name.
type nodes map[string]*corev1.Node

func (r *remover) readNodes(ctx context.Context) (nodes, error) {
	var list corev1.NodeList
	if err := kube.List(ctx, r.client, &list); err != nil {
		return nil, err
	}
	all := nodes{}
	for i := range list.Items {
		all[list.Items[i].Name] = &list.Items[i]
	}
	return all, nil
}

// down returns why nothing can be done on a node; "": the node works.
func (n nodes) down(name string) string {
	node := n[name]
	if node == nil {
		return "is not in the cluster any more"
	}
	if !kube.Ready(node) {
		return "is not ready"
	}
	return ""
}

// removeNodes deletes the NodeDataplanes: nobody writes them any more.
func (r *remover) removeNodes(ctx context.Context) error {
	return r.removeUntilGone(ctx, "", "", &v1alpha1.NodeDataplaneList{})
}
