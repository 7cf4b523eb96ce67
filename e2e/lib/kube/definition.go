// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// Scheme has the kinds that a Server knows.
var Scheme = kube.NewScheme(gatewayv1beta1.Install)

// definitions returns the kinds that the modules in go.mod define.
func definitions(o Options) ([]*unstructured.Unstructured, error) {
	folders := map[string]string{
		"sigs.k8s.io/gateway-api":           "config/crd/standard",
		"github.com/bpfman/bpfman-operator": "config/crd/bases",
		"github.com/kubernetes-sigs/blixt":  "charts/blixt/files/crds",
	}
	var all []*unstructured.Unstructured
	for module, folder := range folders {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			return nil, fmt.Errorf("find module %s: %w", module, err)
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), folder, "*_*.yaml"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("find kinds of %s in %s: none (%w)", module, folder, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			objects, err := Decode(data)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", file, err)
			}
			all = append(all, objects...)
		}
	}
	if o.WideLinkIDs {
		for _, object := range all {
			widen(object.Object)
		}
	}
	return all, nil
}

// widen gives each linkId of a schema 64 bits.
func widen(schema any) {
	switch v := schema.(type) {
	case []any:
		for _, item := range v {
			widen(item)
		}
	case map[string]any:
		for name, item := range v {
			if id, ok := item.(map[string]any); ok && name == "linkId" && id["format"] == "int32" {
				id["format"] = "int64"
			}
			widen(item)
		}
	}
}

// define creates kinds, and waits until the server knows them: a client that asks too
// early would retry only after a second.
func (s *Server) define(ctx context.Context, objects []*unstructured.Unstructured) error {
	if err := s.apply(ctx, objects); err != nil {
		return err
	}
	for _, object := range objects {
		if object.GetKind() != "CustomResourceDefinition" {
			continue
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &crd); err != nil {
			return err
		}
		for _, version := range crd.Spec.Versions {
			if !version.Served {
				continue
			}
			path := fmt.Sprintf("/apis/%s/%s/%s", crd.Spec.Group, version.Name, crd.Spec.Names.Plural)
			if err := s.ready(ctx, path); err != nil {
				return err
			}
		}
	}
	return nil
}
