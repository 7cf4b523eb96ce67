// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// bpfmanImage makes an image of bpfman's programs. It differs from the released one in
// the certificates that it trusts.
func (c *Cluster) bpfmanImage() (Image, error) {
	i, err := linked("/usr/local/sbin/bpfman-rpc", c.software.path(bpfman+"/bpfman-rpc"))
	if err != nil {
		return i, err
	}
	i.Entrypoint = append(i.Entrypoint, "--timeout=0")
	i.Files["/usr/local/sbin/bpfman"] = c.software.path(bpfman + "/bpfman")
	i.Files["/etc/ssl/certs/ca-certificates.crt"] = c.CA()
	raise, err := lab.MayRaiseLimits()
	if err != nil || raise {
		return i, err
	}
	// bpfman will not start unless it may raise a limit that means nothing any more.
	preload := filepath.Join(c.dir, "ld.so.preload")
	if err := os.WriteFile(preload, []byte("/memlock.so\n"), 0o644); err != nil {
		return i, err
	}
	i.Files["/etc/ld.so.preload"], i.Files["/memlock.so"] = preload, c.software.path(bpfman+"/memlock.so")
	return i, nil
}

// pushImages pushes the images that Kubernetes and the examples name.
func (c *Cluster) pushImages(ctx context.Context) error {
	manifests, err := module("github.com/bpfman/bpfman-operator")
	if err != nil {
		return err
	}
	payload := map[string]string{"/bpfman-operator": c.software.path(bpfmanOperator + "/bpfman-operator")}
	for _, file := range []string{"daemonset.yaml", "csidriverinfo.yaml", "metrics-proxy-daemonset.yaml"} {
		payload["/config/bpfman-deployment/"+file] = filepath.Join(manifests, "config/bpfman-deployment", file)
	}
	nginx, err := linked("/usr/sbin/nginx", "/usr/sbin/nginx")
	if err != nil {
		return err
	}
	single := func(path, source, user string) Image {
		return Image{Files: map[string]string{path: source}, Entrypoint: []string{path}, User: user}
	}
	daemon, err := c.bpfmanImage()
	if err != nil {
		return err
	}
	dns := single("/coredns", c.software.path(coredns+"/coredns"), "")
	for repository, image := range map[string]Image{
		"pause:1":                                  single("/pause", c.bin("pause"), "65535"),
		"coredns/coredns:v1.14.7":                  dns,
		"coredns/coredns:1.14.7":                   dns,
		"library/nginx:1.29":                       nginx,
		"bpfman/bpfman:v0.6.0":                     daemon,
		"bpfman/bpfman-agent:v0.6.0":               single("/bpfman-agent", c.software.path(bpfmanOperator+"/bpfman-agent"), ""),
		"bpfman/bpfman-operator:v0.6.0":            {Files: payload, Entrypoint: []string{"/bpfman-operator"}, User: "65532"},
		"bpfman/csi-node-driver-registrar:v2.13.0": single("/registrar", c.bin("registrar"), ""),
	} {
		if _, err := c.Push(ctx, repository, image); err != nil {
			return err
		}
	}
	return nil
}

// WriteBpfman writes into a folder what Blixt's chart installs of bpfman, a file for each
// object: those of the kinds into crds, and in the order of names what has to be there first.
func WriteBpfman(ctx context.Context, dir string) error {
	blixt, err := module("github.com/kubernetes-sigs/blixt")
	if err != nil {
		return err
	}
	objects, err := kube.ChartBpfman(ctx, filepath.Join(blixt, "charts/blixt"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "crds"), 0o755); err != nil {
		return err
	}
	for _, o := range objects {
		name := fmt.Sprintf("2-%s-%s.yaml", strings.ToLower(o.GetKind()), o.GetName())
		switch o.GetKind() {
		case "Namespace":
			name = "0-namespace.yaml"
		case "Config": // before bpfman's operator, which would make one
			name = "1-config.yaml"
		case "CustomResourceDefinition":
			name = filepath.Join("crds", strings.TrimSuffix(o.GetName(), ".bpfman.io")+".yaml")
		}
		text, err := yaml.Marshal(o)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// InstallBpfman installs what Blixt's chart would of bpfman, and returns when bpfman runs on
// every node.
func (c *Cluster) InstallBpfman(ctx context.Context) error {
	files := filepath.Join(c.dir, "bpfman")
	if err := WriteBpfman(ctx, files); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "--filename", filepath.Join(files, "crds")},
		{"wait", "--for=condition=Established", "--timeout=30s", "--filename", filepath.Join(files, "crds")},
		{"apply", "--server-side", "--filename", files},
	} {
		if _, err := c.Kubectl(ctx, args...); err != nil {
			return fmt.Errorf("install bpfman: %w", err)
		}
	}
	if err := c.AwaitPods(ctx, "bpfman"); err != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		pods, e := c.Kubectl(late, "--namespace=bpfman", "describe", "pods")
		return errors.Join(err, e, errors.New(pods))
	}
	return nil
}
