// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// namespaceLabels are the labels of the known namespaces, by name.
type namespaceLabels map[string]labels.Set

func newNamespaceLabels(namespaces []corev1.Namespace) namespaceLabels {
	index := make(namespaceLabels, len(namespaces))
	for i := range namespaces {
		set := labels.Set{}
		for key, value := range namespaces[i].Labels {
			set[key] = value
		}
		set[corev1.LabelMetadataName] = namespaces[i].Name // the API server sets it, files may not
		index[namespaces[i].Name] = set
	}
	return index
}

func (n namespaceLabels) of(name string) labels.Set {
	if set, ok := n[name]; ok {
		return set
	}
	return labels.Set{corev1.LabelMetadataName: name}
}
