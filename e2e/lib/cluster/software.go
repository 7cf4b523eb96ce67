// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// What .ci/kubernetes builds, in folders of the cache.
const (
	kubernetes     = "kubernetes-v1.37.2"
	etcd           = "etcd-v3.7.3"
	containerd     = "containerd-v2.3.7"
	cni            = "cni-v1.9.1"
	flannel        = "flannel-v0.28.0"
	kubeRouter     = "kube-router-v2.1.0"
	coredns        = "coredns-v1.14.7"
	bpfman         = "bpfman-v0.6.0"
	bpfmanOperator = "bpfman-operator-v0.6.0"
	metallb        = "metallb-" + MetalLBVersion
)

// MetalLBVersion is the tag of MetalLB's images.
const MetalLBVersion = "v0.16.1"

// software finds programs in the cache.
type software struct{ cache string }

func findSoftware() (software, error) {
	cache, err := os.UserCacheDir()
	s := software{filepath.Join(cache, "blixt")}
	if err != nil {
		return s, err
	}
	for _, file := range []string{
		kubernetes + "/kube-apiserver", kubernetes + "/kubelet", kubernetes + "/kubectl", etcd + "/etcd", containerd + "/ctr",
		cni + "/portmap", flannel + "/flanneld", kubeRouter + "/kube-router", coredns + "/coredns", bpfman + "/bpfman-rpc", bpfmanOperator + "/bpfman-agent",
		metallb + "/speaker",
	} {
		if _, err := os.Stat(s.path(file)); err != nil {
			return s, fmt.Errorf("%w: run .ci/kubernetes --all", err)
		}
	}
	return s, nil
}

func (s software) path(name string) string { return filepath.Join(s.cache, name) }

// MetalLB returns the path of a program of MetalLB, or of the manifest that installs it.
func (c *Cluster) MetalLB(name string) string { return c.software.path(metallb + "/" + name) }

// search returns the PATH with which programs find each other.
func (s software) search() string {
	return strings.Join([]string{s.path(containerd), s.path(kubernetes), os.Getenv("PATH"), "/usr/sbin", "/sbin"}, ":")
}

// build compiles the programs of this package into a folder.
func build(dir string) error {
	const here = "github.com/kubernetes-sigs/blixt/e2e/lib/cluster/"
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/", here+"machine", here+"pause", here+"registrar")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs of machines: %w\n%s", err, out)
	}
	return nil
}
