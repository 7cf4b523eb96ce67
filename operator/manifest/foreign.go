// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// foreign are other programs' files that end up beside manifests, by keys that they have.
var foreign = []struct {
	keys []string
	what string
}{
	{[]string{"services", "image"}, "a Docker Compose file"}, // image: of a service
	{[]string{"services", "build"}, "a Docker Compose file"},
	{[]string{"name", "scripts"}, "a package.json of npm"},
	{[]string{"name", "dependencies"}, "a package.json of npm"},
	{[]string{"name", "lockfileVersion"}, "a package-lock.json of npm"},
	{[]string{"compilerOptions"}, "a tsconfig.json"},
	{[]string{"jobs", "on"}, "a workflow of GitHub Actions"},
	{[]string{"scrape_configs"}, "a configuration of Prometheus"},
	{[]string{"network", "version"}, "a configuration of netplan"},
	{[]string{"resources"}, "a kustomization.yaml"},
	{[]string{"static_resources"}, "a configuration of Envoy"},
	{[]string{"hosts", "tasks"}, "a playbook of Ansible"},
}

// noObject returns why a mapping is no Kubernetes object.
func noObject(node *yaml.Node, found Object) string {
	switch {
	case found.Kind != "":
		reason := "apiVersion is needed"
		if k := kinds[found.Kind]; k != nil {
			reason += ": write apiVersion: " + strings.TrimPrefix(k.group+"/"+k.versions[0], "/")
		}
		return reason
	case found.APIVersion == "":
		return "apiVersion and kind are needed" + guess(node)
	case child(node, "version") != nil:
		return "kind is needed: this looks like a Chart.yaml of Helm, so move it out of the directory"
	}
	return "kind is needed"
}

// guess returns what somebody else's file probably is.
func guess(node *yaml.Node) string {
	if node.Kind == yaml.SequenceNode && len(node.Content) > 0 {
		node = target(node.Content[0])
	}
	for _, f := range foreign {
		if has := func(key string) bool { return child(node, key) != nil || below(node, key, 2) }; has(f.keys[0]) && has(f.keys[len(f.keys)-1]) {
			return fmt.Sprintf(": this looks like %s, so move it out of the directory", f.what)
		}
	}
	return ""
}

// below reports whether a mapping has the key in a mapping that is at most so deep in it.
func below(node *yaml.Node, key string, depth int) bool {
	node = target(node)
	for i := 1; node.Kind == yaml.MappingNode && depth > 0 && i < len(node.Content); i += 2 {
		if child(node.Content[i], key) != nil || below(node.Content[i], key, depth-1) {
			return true
		}
	}
	return false
}

// Remedy returns what to write instead of an object that is ignored; "": nothing.
func (o Object) Remedy() string {
	switch o.Kind {
	case "Endpoints":
		return "write an EndpointSlice"
	case "HTTPRoute", "GRPCRoute", "TLSRoute", "Ingress":
		return "Blixt balances TCP and UDP connections whatever they carry, so write a TCPRoute"
	case "Pod", "Deployment", "StatefulSet", "DaemonSet":
		return "write the addresses of its pods into an EndpointSlice"
	}
	return ""
}

// IsManifest reports whether a file is to be read. Hidden files are not, nor those that
// editors and Kubernetes keep beside: .#a.yaml, #a.yaml#, a.yaml~, .a.yaml.swp, ..data.
func IsManifest(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") {
		return false
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
