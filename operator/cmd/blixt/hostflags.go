// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
)

// places are the arguments of commands that look at a host or at a cluster.
var places = []string{"host", "cluster"}

// hostFlags say where load balancers of this host are.
type hostFlags struct{ overview.Reader }

func (h *hostFlags) add(f *pflag.FlagSet) {
	f.StringVar(&h.BPFFS, "bpffs", loader.DefaultBPFFS, "BPF file system that the maps of load balancers of this host are pinned to")
	f.StringVar(&h.RunDir, "run-dir", loader.DefaultRunDir, "directory of their state files")
}

// isMeant reports whether this host is to be looked at, and not a cluster: an argument or
// a flag says so, or load balancers are here and nothing names a cluster.
func (h *hostFlags) isMeant(args []string, flags *pflag.FlagSet) bool {
	given := func(names ...string) bool { return slices.ContainsFunc(names, flags.Changed) }
	switch {
	case len(args) > 0:
		return args[0] == "host"
	case given("kubeconfig", "context", "namespace"):
		return false
	case given("bpffs", "run-dir"):
		return true
	}
	return os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" && os.Getenv("KUBERNETES_SERVICE_HOST") == "" && len(h.Names()) > 0
}
