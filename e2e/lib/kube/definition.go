// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// Scheme has the kinds that a Server knows.
var Scheme = kube.NewScheme(gatewayv1beta1.Install)

// GatewayAPI is a release of Gateway API and a channel.
type GatewayAPI string

const (
	// Standard is the release that the chart installs.
	Standard GatewayAPI = ""
	// Older is the release that Go modules have.
	Older GatewayAPI = "older"
	// Experimental is that of Standard, in the experimental channel.
	Experimental GatewayAPI = "experimental"
)

// Files returns the files of its kinds.
func (g GatewayAPI) Files() ([]string, error) {
	if g == Older {
		return files("sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_*s.yaml", "gateway.networking.k8s.io_vap_safeupgrades.yaml")
	}
	const copied = "charts/blixt/kinds/gateway-api/"
	all, err := files("github.com/kubernetes-sigs/blixt", copied+"standard/*_*s.yaml", "gateway.networking.k8s.io_vap_safeupgrades.yaml")
	if g != Experimental || err != nil {
		return all, err
	}
	for i, file := range all {
		other := filepath.Join(filepath.Dir(file), "../experimental", filepath.Base(file))
		if _, err := os.Stat(other); err == nil {
			all[i] = other
		}
	}
	return all, nil
}

// files returns those of a module that match a pattern, but for one.
func files(module, pattern, without string) ([]string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return nil, fmt.Errorf("find module %s: %w", module, err)
	}
	all, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), pattern))
	if err != nil || len(all) == 0 {
		return nil, fmt.Errorf("find kinds of %s, %s: none (%w)", module, pattern, err)
	}
	return slices.DeleteFunc(all, func(file string) bool { return filepath.Base(file) == without }), nil
}

// definitions returns the kinds of Gateway API, of bpfman and of Blixt.
func definitions(o Options) ([]*unstructured.Unstructured, error) {
	paths, err := o.GatewayAPI.Files()
	if err != nil {
		return nil, err
	}
	for module, pattern := range map[string]string{
		"github.com/bpfman/bpfman-operator": "config/crd/bases/*_*.yaml",
		"github.com/kubernetes-sigs/blixt":  "charts/blixt/files/crds/*_*.yaml",
	} {
		more, err := files(module, pattern, "")
		if err != nil {
			return nil, err
		}
		paths = append(paths, more...)
	}
	var all []*unstructured.Unstructured
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		objects, err := Decode(data)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		all = append(all, objects...)
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
