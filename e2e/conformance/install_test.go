// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"debug/buildinfo"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"sigs.k8s.io/gateway-api/conformance"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Addresses that Gateways get, one that they may ask for, and one that they may not.
const (
	pool, poolRange = "198.51.100.0/24", "198.51.100.1-198.51.100.254"
	usable          = "198.51.100.200"
	unusable        = "203.0.113.1"
)

// install installs Gateway API, Blixt and the suite's images, and returns Blixt's
// version and where the first node's maps are. Packets to Gateways are routed to that
// node.
func install(ctx context.Context, c *cluster.Cluster, here string) (version, maps string, err error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	if err := installGatewayAPI(ctx, c); err != nil {
		return "", "", err
	}
	if err := pushEcho(ctx, c, here, filepath.Join(dir, "echo")); err != nil {
		return "", "", err
	}
	bytecode, err := installBlixt(ctx, c, dir)
	if err != nil {
		return "", "", err
	}
	c.Outside.IP("route replace " + pool + " via " + c.Nodes[0].IPv4)
	if err := c.Outside.Err(); err != nil {
		return "", "", err
	}
	info, err := buildinfo.ReadFile(filepath.Join(dir, "blixt"))
	if err != nil {
		return "", "", err
	}
	maps, err = mapsOf(ctx, c, c.Nodes[0], bytecode)
	return info.Main.Version, maps, err
}

// installGatewayAPI installs the release of Gateway API that the suite is of. It takes another
// only if told so, and then that of the chart is installed.
func installGatewayAPI(ctx context.Context, c *cluster.Cluster) error {
	release := kube.Older
	if flag.Lookup("allow-crds-mismatch").Value.String() == "true" {
		release = kube.Standard
	}
	files, err := release.Files()
	if err != nil {
		return err
	}
	return c.Apply(ctx, files...)
}

var echoImage = regexp.MustCompile(`image: \S*(gateway-api/echo-basic:\S+)`)

// pushEcho builds the suite's server, and pushes it by each of the suite's names for
// it.
func pushEcho(ctx context.Context, c *cluster.Cluster, here, file string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "sigs.k8s.io/gateway-api/conformance/echo-basic")
	build.Dir, build.Env = here, append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		return err
	}
	image := cluster.Image{Files: map[string]string{"/echo-basic": file}, Entrypoint: []string{"/echo-basic"}, User: "65532"}
	pushed := map[string]bool{}
	return fs.WalkDir(conformance.Manifests, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(conformance.Manifests, path)
		if err != nil {
			return err
		}
		for _, match := range echoImage.FindAllStringSubmatch(string(text), -1) {
			if pushed[match[1]] {
				continue
			}
			pushed[match[1]] = true
			if _, err := c.Push(ctx, match[1], image); err != nil {
				return err
			}
		}
		return nil
	})
}

// installBlixt pushes the images and installs the chart. It returns the
// bytecode image's name.
func installBlixt(ctx context.Context, c *cluster.Cluster, dir string) (bytecode string, err error) {
	blixt, err := lab.Build(dir)
	if err != nil {
		return "", err
	}
	operator, err := c.Push(ctx, "blixt/operator:conformance", cluster.Image{Files: map[string]string{"/blixt": blixt}, Entrypoint: []string{"/blixt"}, User: "65532"})
	if err != nil {
		return "", err
	}
	repository, digest, _ := strings.Cut(operator, "@")
	object := filepath.Join(dir, "bytecode")
	if _, err := c.Control.Run(time.Minute, blixt, "bytecode", "build", "-d", object, "--flows", "65536"); err != nil {
		return "", err
	}
	bytecode, err = c.Control.Run(time.Minute, blixt, "bytecode", "push", object, cluster.Registry+"/blixt/bytecode:conformance", "--ca-file", c.CA())
	if err != nil {
		return "", err
	}
	bytecode = strings.TrimSpace(bytecode)
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	helm := exec.CommandContext(ctx, filepath.Join(cache, "blixt", "helm-v3.22.0"),
		"upgrade", "--install", "blixt", "charts/blixt", "--namespace=blixt-system", "--create-namespace", "--wait", "--timeout=2m",
		"--set=image.repository="+repository, "--set=image.digest="+digest, "--set=bytecode.image="+bytecode,
		"--set=config.addresses.source=Pool", "--set=config.addresses.pool={"+poolRange+"}")
	helm.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir, "KUBECONFIG="+c.Kubeconfig())
	if _, err := output(helm); err != nil {
		return "", err
	}
	_, err = c.Kubectl(ctx, "wait", "--for=condition=Accepted", "--timeout=1m", "gatewayclass/blixt") // an operator has to be elected
	return bytecode, err
}

// output runs a command and returns what it printed.
func output(cmd *exec.Cmd) (string, error) {
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}
