// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// ChartBpfman returns what Blixt's chart, in a folder, installs of bpfman: for a cluster
// without Blixt, whose image would apply the Config, so the Config is among it.
func ChartBpfman(ctx context.Context, chart string) ([]*unstructured.Unstructured, error) {
	objects, err := renderChart(ctx, chart, "blixt-system", "--no-hooks", "--set=gatewayAPI.install=false,crds.install=false")
	if err != nil {
		return nil, err
	}
	var all []*unstructured.Unstructured
	for _, o := range objects {
		name := o.GetName()
		switch {
		case o.GetNamespace() == "bpfman" && name == "blixt-bpfman":
			text, _, err := unstructured.NestedString(o.Object, "data", "config.yaml")
			if err != nil {
				return nil, err
			}
			config, err := Decode([]byte(text))
			if err != nil {
				return nil, fmt.Errorf("read Config: %w", err)
			}
			all = append(all, config...)
		case o.GetKind() == "Deployment" && name == "bpfman-operator":
			unstructured.RemoveNestedField(o.Object, "spec", "template", "spec", "initContainers")
			unstructured.RemoveNestedField(o.Object, "spec", "template", "spec", "volumes")
			all = append(all, o)
		case o.GetNamespace() == "bpfman" || o.GetNamespace() == "" && (strings.HasPrefix(name, "bpfman") || strings.HasSuffix(name, ".bpfman.io")):
			all = append(all, o)
		}
	}
	return all, nil
}
